//! What the binary can do at all: the debug one in every run, the one that is shipped in `make release`.

#![allow(clippy::unwrap_used)]

/// How KMS names an operation in a request.
const TARGET: &[u8] = b"TrentService.";

fn path() -> String {
    std::env::var("DATAKEY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_datakey-operator").to_owned())
}

#[test]
#[ignore = "the binary of the image: make dist"]
fn the_binary_of_the_image_is_static_names_no_folder_of_the_builder_and_lists_its_crates() {
    let binary = std::fs::read(path()).unwrap();
    let holds = |words: &str| binary.windows(words.len()).any(|bytes| bytes == words.as_bytes());
    // Without an interpreter nothing of the system is linked: the program header PT_INTERP names one.
    assert!(!holds("/lib64/ld-linux") && !holds("/lib/ld-musl"), "it is not static");
    for folder in [env!("CARGO_MANIFEST_DIR"), &std::env::var("HOME").unwrap()] {
        assert!(!holds(&format!("{folder}/")), "it names {folder}");
    }
    assert!(holds(".dep-v0"), "it has no list of its crates (cargo auditable)");
    let version = std::process::Command::new(path()).arg("--version").env_clear().output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&version.stdout).trim(),
        concat!("datakey-operator ", env!("CARGO_PKG_VERSION"))
    );
}

/// Fails unless the KMS operations that a binary holds are this one.
fn assert_only(path: &str, operation: &str) {
    let binary = std::fs::read(path).unwrap();
    let rest = |at: usize| String::from_utf8_lossy(&binary[at + TARGET.len()..][..40]).into_owned();
    let firsts = binary.iter().enumerate().filter(|(_, byte)| **byte == TARGET[0]);
    let found: Vec<_> = firsts.map(|(at, _)| at).filter(|&at| binary[at..].starts_with(TARGET)).collect();
    assert!(!found.is_empty(), "{path} calls no KMS at all");
    for at in found {
        assert!(rest(at).starts_with(operation), "{path} holds {}", rest(at));
    }
}

#[test]
fn the_binary_holds_no_operation_of_kms_but_the_one() {
    // Without a plaintext: the operation of that name without the suffix answers with one.
    assert_only(&path(), "GenerateDataKeyWithoutPlaintext");
}

#[test]
fn the_kubectl_plugin_can_unwrap_and_can_not_issue() {
    let built = || env!("CARGO_BIN_EXE_kubectl-datakey").to_owned();
    assert_only(&std::env::var("DATAKEY_PLUGIN").unwrap_or_else(|_| built()), "Decrypt");
}
