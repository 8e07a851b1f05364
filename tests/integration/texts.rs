//! Text of users and servers reaches logs, Events, conditions, metrics and terminals without control characters.

use datakey::text::is_printable;
use serde_json::json;
use testbed::{commands, eventually, kms, proxy::Fault};

use crate::harness::{Operator, SOON, TestNamespace};

/// Text that clears a screen, rings, forges a line of the log, and reverses the reading direction.
const ODD: &str = "marker\u{1b}[2J\u{7}\r\nWARN feigned\u{202e}\u{2028}\u{9b}z";

/// The same on one line, because the message of an admission policy has no line breaks.
const ODD_LINE: &str = "marker\u{1b}[2J\u{7}\u{202e}z";

/// How either is shown.
const SHOWN: &str = r"marker\u{1b}[2J\u{7}";

fn assert_plain(what: &str, text: &str) {
    let odd = text.chars().find(|&character| character != '\n' && !is_printable(character));
    assert!(odd.is_none(), "{what} holds {odd:?}:\n{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("WARN feigned")), "{what}:\n{text}");
}

/// A `DataKey` that is ready, one that KMS fails, and one whose Secret is refused.
async fn odd_states(test: &TestNamespace) {
    let odd = json!({ "encryptionContext": { "purpose": ODD, ODD: "x" } });
    test.issue("issued", &odd).await;
    test.proxy.fail_always(Fault::Error(400, "DisabledException".to_owned(), ODD.to_owned()));
    test.create("failed", &odd).await;
    test.failed("failed", "KeyDisabled").await;
    test.proxy.clear_faults();
    test.refuse_secrets_with(ODD_LINE).await;
    test.create("refused", &odd).await;
    let key = test.failed("refused", "WriteRejected").await;
    let message = &key.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains(SHOWN), "{message}");
    assert_plain("the condition", message);
}

async fn assert_reported(test: &TestNamespace, operator: &Operator) {
    let notes = async || {
        let notes: Vec<_> =
            test.events("refused", "WriteRejected").await.into_iter().filter_map(|event| event.note).collect();
        notes.join("\n")
    };
    eventually(SOON, "an event reports the refusal", async || notes().await.contains(SHOWN)).await;
    assert_plain("the event", &notes().await);
    let log = operator.process.log();
    assert!(log.contains("marker"), "{log}");
    assert_plain("the log", &log);
}

#[tokio::test]
async fn no_text_forges_lines_of_logs_events_or_terminals() {
    let test = TestNamespace::new("texts").await;
    let operator = test.operator();
    odd_states(&test).await;
    assert_reported(&test, &operator).await;
    assert_plain("metrics", &operator.admin("/metrics").await.1);

    let mut environment: Vec<_> = kms::environment(&test.proxy.url()).into();
    environment.push(("KUBECONFIG", test.plane.admin_kubeconfig().display().to_string()));
    for words in [
        &["list"][..],
        &["list", "-o", "yaml"],
        &["status"],
        &["status", "issued"],
        &["status", "refused"],
        &["status", "issued", "-o", "json"],
        &["status", "issued", "-o", "yaml"],
        &["verify", "issued", "--decrypt"],
        &["verify", "refused"],
        &["export", "issued", "-o", "json"],
        &["export", "issued", "-o", "env"],
        &["export", "issued", "-o", "manifest"],
        &["export", "issued", "--pin"],
        &["policy", "issued"],
        &["rotate", "refused"],
        &["status", ODD_LINE],
    ] {
        let all = [&["datakey"], words, &["-n", &test.namespace]].concat();
        let ended = commands::plugin(&testbed::plugin(), &environment, &all).await;
        let out = String::from_utf8(ended.out).unwrap();
        assert_plain(&format!("{words:?}"), &format!("{out}{}", ended.err));
    }
}

#[tokio::test]
async fn no_text_breaks_a_line_of_the_text_log() {
    let test = TestNamespace::new("texts-log").await;
    let operator = test.operator_with(&["--log-format=text"], &[]);
    odd_states(&test).await;
    assert_reported(&test, &operator).await;
}
