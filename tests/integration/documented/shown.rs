//! What the documentation shows as the output of a command, compared with what the command prints. Times, IDs and other values
//! that differ in each run are masked.

/// Commands whose output depends on nothing else than the steps before them.
const COMPARED: [&str; 8] = [
    "kubectl datakey status orders",
    "kubectl datakey verify orders --decrypt",
    "kubectl datakey export orders --version 1",
    "kubectl datakey export orders -o env",
    "kubectl datakey create payments -n shop --key-id alias/orders --key-spec AES_256 --encryption-context purpose=payments,stage=prod",
    "kubectl datakey rotate orders --wait",
    "kubectl datakey rotate orders --patch",
    "kubectl datakey policy orders --only workload",
];

/// Whether the output of this command is compared.
pub fn is_compared(file: &str, command: &str) -> bool {
    file == "docs/kubectl-datakey.md" && COMPARED.contains(&command)
}

/// The text with `*` in place of what differs in each run, and with one blank for several.
pub fn masked(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")).collect()
}

fn word(word: &str) -> String {
    let parts = word.split_inclusive(['/', '\'', '"', ',', ':']).map(|part| {
        let end = part.trim_end_matches(['/', '\'', '"', ',', ':', ';', '.']).len();
        let (value, rest) = part.split_at(end);
        format!("{}{rest}", if differs(value) { "*" } else { value })
    });
    // A value with a slash or a colon, such as base64, has several parts.
    let mut joined = parts.collect::<String>();
    while joined.contains("*/*") || joined.contains("*:*") {
        joined = joined.replace("*/*", "*").replace("*:*", "*");
    }
    joined
}

/// Whether a value is a number, an age, a time, a UUID, a digest or base64.
fn differs(value: &str) -> bool {
    let has_digit = value.bytes().any(|byte| byte.is_ascii_digit());
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || b"smhd".contains(&byte));
    let is_time = value.starts_with("20") && value.contains('T') && has_digit;
    let is_id = value.len() == 36 && value.matches('-').count() == 4;
    let is_digest =
        value.len() >= 40 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    (has_digit && is_number) || is_time || is_id || is_digest
}

#[test]
fn what_differs_in_each_run_is_masked() {
    let shown = masked("orders   True   4s   b49dbea0-acd9-4fe4-a6a7-96ed22dcb96d\n  spec.version is 2; done");
    assert_eq!(shown, ["orders True * *", "spec.version is *; done"]);
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/b49dbea0-acd9-4fe4-a6a7-96ed22dcb96d,";
    assert_eq!(masked(arn), ["arn:aws:kms:eu-west-1:*:key/*,"]);
    assert_ne!(masked("is issued"), masked("is requested"));
}
