//! What the documentation shows as the output of a command, compared with what the command prints. Times, IDs and other values
//! that differ in each run are masked.

/// Commands whose output depends on nothing else than the steps before them.
const COMPARED: [&str; 9] = [
    "kubectl datakey status orders",
    "kubectl datakey verify orders --decrypt",
    "kubectl datakey verify signing --decrypt",
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
    if word.starts_with("20") && word.contains('T') && word.ends_with('Z') {
        return "*".to_owned();
    }
    let parts = without_base64(word);
    let parts = parts.split_inclusive(ENDS).map(|part| {
        let (value, rest) = part.split_at(part.trim_end_matches(ENDS).len());
        format!("{}{rest}", if differs(value) { "*" } else { value })
    });
    parts.collect()
}

/// What ends a value in a word.
const ENDS: [char; 8] = ['/', '\'', '"', ',', ':', ';', '.', ')'];

/// The word with `*` in place of digests and of base64 of their length.
fn without_base64(word: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "+/=".contains(character);
    let mut masked = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let run = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        masked += if run < 40 { &rest[..run] } else { "*" };
        rest = &rest[run..];
        let other = rest.find(is_part).unwrap_or(rest.len());
        masked += &rest[..other];
        rest = &rest[other..];
    }
    masked
}

/// Whether a value is a number, an age or a UUID.
fn differs(value: &str) -> bool {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit() || b"smhd".contains(&byte));
    let has_digit = value.bytes().any(|byte| byte.is_ascii_digit());
    (has_digit && is_number) || (value.len() == 36 && value.matches('-').count() == 4)
}

#[test]
fn what_differs_in_each_run_is_masked() {
    let shown =
        masked("orders   2026-11-24T06:58:42Z   4s   b49dbea0-acd9-4fe4-a6a7-96ed22dcb96d\n  spec.version is 2; done");
    assert_eq!(shown, ["orders * * *", "spec.version is *; done"]);
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/b49dbea0-acd9-4fe4-a6a7-96ed22dcb96d,";
    assert_eq!(masked(arn), ["arn:aws:kms:eu-west-1:*:key/*,"]);
    let blob = "BLOB='YjQ5ZGJlYTAtYWNkOS00ZmU0LWE2YTctOTZlZDIyZGNiOTZkpEP1m915G/gDK12Ur7VcF5CHV6l0eRzKI='";
    assert_eq!(masked(blob), ["BLOB='*'"]);
    assert_ne!(masked("is issued"), masked("is requested"));
}
