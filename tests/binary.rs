//! What the binary can do at all: the debug one in every run, the one that is shipped in `make release`.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, process::Command};

/// How KMS names an operation in a request.
const TARGET: &[u8] = b"TrentService.";

fn path() -> String {
    std::env::var("DATAKEY_BINARY").unwrap_or_else(|_| testbed::operator().display().to_string())
}

/// The features of every crate in the operator, as a target of the Makefile builds it.
fn features(target: &str) -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let make = Command::new("make").args(["--dry-run", "--always-make", "--directory", root, target]).output().unwrap();
    let make = String::from_utf8(make.stdout).unwrap();
    let line = make.lines().find(|line| line.contains(" build ") && line.contains("--bin datakey-operator")).unwrap();
    let mut words = line.split_once(" build ").unwrap().1.split_whitespace();
    let mut selection = Vec::new();
    while let Some(word) = words.next() {
        match word {
            // Neither changes a feature; the targets of the builds differ.
            "--release" | "--locked" => {}
            "--bin" | "--target" => _ = words.next(),
            other => selection.push(other),
        }
    }
    let tree = ["tree", "--locked", "--edges=normal,build,features", "--prefix=none"];
    let tree = Command::new(env!("CARGO")).args(tree).args(&selection).current_dir(root).output().unwrap();
    assert!(tree.status.success(), "{selection:?}: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    // What was shown before is marked.
    tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn what_is_tested_has_the_features_of_what_is_shipped() {
    let shipped = features("dist");
    assert!(shipped.len() > 200 && shipped.contains("aws-config feature \"rt-tokio\""), "{shipped:?}");
    for target in ["release", "operator"] {
        assert_eq!(features(target), shipped, "{target}");
    }
    for feature in ["sso", "credentials-process", "credentials-login"] {
        assert!(!shipped.contains(&format!("aws-config feature \"{feature}\"")), "{feature}");
    }
    // The binary under test is that one: a crate of a feature leaves its name in the places of its panics.
    let binary = std::fs::read(path()).unwrap();
    let holds = |words: &str| binary.windows(words.len()).any(|bytes| bytes == words.as_bytes());
    assert!(holds("aws-sdk-kms-") && !holds("aws-sdk-sso"));
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
    let version = Command::new(path()).arg("--version").env_clear().output().unwrap();
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
