//! What the binary can do at all: the debug one in every run, the one that is shipped in `make release`.

#![allow(clippy::unwrap_used)]

/// How KMS names an operation in a request.
const TARGET: &[u8] = b"TrentService.";

#[test]
fn the_binary_holds_no_operation_of_kms_but_the_one() {
    let path = std::env::var("DATAKEY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_datakey-operator").to_owned());
    let binary = std::fs::read(&path).unwrap();
    let rest = |at: usize| String::from_utf8_lossy(&binary[at + TARGET.len()..][..40]).into_owned();
    let found: Vec<_> = binary.windows(TARGET.len()).enumerate().filter(|(_, bytes)| *bytes == TARGET).collect();
    assert!(!found.is_empty(), "{path} calls no KMS at all");
    for (at, _) in found {
        // Without a plaintext: the operation of that name without the suffix answers with one.
        assert!(rest(at).starts_with("GenerateDataKeyWithoutPlaintext"), "{path} holds {}", rest(at));
    }
}
