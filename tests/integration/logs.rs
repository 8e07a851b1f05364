//! The log as users read it: one line for each outcome, each field once in a line, no Debug text of a library, and one line
//! while the API server is away.

use std::{
    fmt::Formatter,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};
use testbed::{api_proxy::Fault as ApiFault, eventually, proxy::Fault};

use crate::harness::{Operator, SOON, TestNamespace};

/// As users run it: no debugging lines.
const INFO: &str = "--log-level=info";

/// The fields of a JSON line in their order. `serde_json`'s own map keeps the last of two fields with one name.
struct Line(Vec<(String, Value)>);

// === impl Line ===

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Line;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a line of the log")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Line(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl Line {
    fn get(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == field).and_then(|(_, value)| value.as_str())
    }
}

/// The lines of a JSON log. Asserts that each is one, that no field is in it twice, and that no value shows a type of a library.
fn lines(operator: &Operator) -> Vec<Line> {
    let log = operator.process.log();
    let lines = log.lines().map(|text| {
        let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut names: Vec<_> = line.0.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a field is in it twice: {text}");
        for marker in [" { ", "Some(", "Unhandled", "ServiceError(", "ConnectorError", "metadata:"] {
            let of_values = line.0.iter().filter(|(name, _)| name != "namespaces");
            let mut texts = of_values.filter_map(|(_, value)| value.as_str());
            assert!(texts.all(|value| !value.contains(marker)), "{marker:?}: {text}");
        }
        line
    });
    lines.collect()
}

/// The messages about one `DataKey`, in their order.
fn messages(operator: &Operator, name: &str) -> Vec<String> {
    let lines = lines(operator);
    let about = lines.iter().filter(|line| line.get("name") == Some(name));
    about.map(|line| line.get("message").unwrap_or_default().to_owned()).collect()
}

/// The only line about one `DataKey`. It follows the answer to the write of the status.
async fn only_line(operator: &Operator, name: &str) -> Line {
    let about = || lines(operator).into_iter().filter(|line| line.get("name") == Some(name)).collect::<Vec<_>>();
    eventually(SOON, "the outcome is logged", async || !about().is_empty()).await;
    let mut about = about();
    assert_eq!(about.len(), 1, "{}", operator.process.log());
    about.remove(0)
}

const ISSUED: [&str; 3] = ["KMS issued a data key", "wrote the Secret from the record", "the DataKey is ready"];
const NOT_READY: &str = "the DataKey is not ready";

#[tokio::test]
async fn each_outcome_is_one_line_with_each_field_once() {
    let test = TestNamespace::new("log-lines").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[INFO, "--retry-min=1h", "--retry-max=1h", "--kms-timeout=1s"]);
    test.issue("issued", &json!({})).await;
    test.delete_secret("issued").await;
    eventually(SOON, "the Secret is restored", async || messages(&operator, "issued").len() == 4).await;
    assert_eq!(messages(&operator, "issued"), [&ISSUED[..], &ISSUED[1..2]].concat());

    for (name, fault, reason, code, message) in [
        ("denied", Fault::code("AccessDeniedException"), "AccessDenied", "AccessDeniedException", ""),
        ("throttled", Fault::code("ThrottlingException"), "Throttled", "ThrottlingException", ""),
        ("reset", Fault::Reset, "KmsUnreachable", "Unreachable", "dispatch failure"),
        ("hangs", Fault::Hang, "KmsTimeout", "Timeout", "timed out"),
        ("no-json", Fault::Truncate, "KmsAnswerInvalid", "AnswerInvalid", ""),
    ] {
        test.proxy.fail_always(fault);
        test.create(name, &json!({})).await;
        test.failed(name, reason).await;
        let line = only_line(&operator, name).await;
        assert_eq!((line.get("message"), line.get("namespace")), (Some(NOT_READY), Some("log-lines")));
        assert_eq!((line.get("reason"), line.get("code")), (Some(reason), Some(code)), "{name}");
        assert_eq!(line.get("request_id").is_some(), !["reset", "hangs"].contains(&name), "{name}");
        assert!(line.get("kms_message").is_some_and(|kms_message| kms_message.contains(message)), "{name}");
        assert_eq!(line.get("detail"), None, "{name}");
    }
    test.proxy.clear_faults();

    test.create("nowhere", &json!({ "keyId": "alias/orders", "region": "xy-west-1" })).await;
    test.failed("nowhere", "RegionUnknown").await;
    assert_eq!(only_line(&operator, "nowhere").await.get("detail"), Some("xy-west-1"));

    api.fail_next(1, "create", "secrets", ApiFault::Refuse(500, "InternalError", "the proxy says so"));
    test.create("failed", &json!({})).await;
    // The watch can deliver the record after the error, and what follows then is logged, too.
    let error = || lines(&operator).into_iter().find(|line| line.get("error").is_some());
    eventually(SOON, "the error is logged", async || error().is_some()).await;
    let line = error().unwrap();
    assert_eq!(line.get("message"), Some("reconcile failed; repeating"));
    assert_eq!(line.get("error"), Some("the API server answers 500: the proxy says so"));

    test.refuse_secrets().await;
    test.create("refused", &json!({})).await;
    test.failed("refused", "WriteRejected").await;
    eventually(SOON, "the outcome is logged", async || messages(&operator, "refused").len() == 2).await;
    assert_eq!(messages(&operator, "refused"), [ISSUED[0], NOT_READY]);
}

#[tokio::test]
async fn missing_credentials_are_one_line_for_each_data_key() {
    let test = TestNamespace::new("log-credentials").await;
    let token = test.plane.workdir().file("log-credentials.token");
    std::fs::write(&token, "a web identity").unwrap();
    let no_sts = format!("http://127.0.0.1:{}", testbed::free_port());
    let environment = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/datakey-operator"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string()),
        ("AWS_ENDPOINT_URL_STS", &no_sts),
    ];
    let operator = test.operator_with(&[INFO, "--retry-min=1h", "--retry-max=1h"], &environment);
    test.create("orders", &json!({})).await;
    test.failed("orders", "CredentialsMissing").await;
    let line = only_line(&operator, "orders").await;
    assert_eq!((line.get("message"), line.get("code")), (Some(NOT_READY), Some("NoCredentials")));
    assert!(line.get("kms_message").unwrap().contains("onnection refused"), "{:?}", line.get("kms_message"));
    let warnings: Vec<_> = lines(&operator).into_iter().filter(|line| line.get("level") == Some("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{}", operator.process.log());
}

/// Whether a name stands before `=` twice in a line of the text log.
fn repeats_a_field(line: &str) -> bool {
    let mut names: Vec<_> = line.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

#[tokio::test]
async fn a_line_of_the_text_log_has_each_field_once() {
    assert!(repeats_a_field(r#"INFO reconcile{name="a"}: ready name="a""#.replace('{', " ").as_str()));
    let test = TestNamespace::new("log-text").await;
    let operator = test.operator_with(&["--log-format=text", INFO], &[]);
    test.issue("issued", &json!({})).await;
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    test.create("denied", &json!({})).await;
    test.failed("denied", "AccessDenied").await;
    let log = operator.process.log();
    assert!(log.lines().all(|line| !repeats_a_field(&line.replace('{', " "))), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(log.contains(r#"the DataKey is ready namespace="log-text" name="issued""#), "{log}");
}

/// Warnings and errors, without those from before.
fn complaints(operator: &Operator) -> Vec<String> {
    let lines = lines(operator);
    let loud = lines.iter().filter(|line| line.get("level").is_some_and(|level| ["WARN", "ERROR"].contains(&level)));
    loud.map(|line| line.get("message").unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn an_api_server_that_is_away_is_one_line_until_it_is_back() {
    let test = TestNamespace::new("log-outage").await;
    test.grant_lease_access().await;
    let (api, kubeconfig) = test.api_proxy().await;
    let leads = ["--leader-elect", "--lease-namespace=log-outage", "--lease-duration=15s", INFO];
    // One works, without a Lease to lose, and one stands by.
    let leader = test.operator_with(&leads, &[]);
    leader.logs("this replica leads").await;
    // With the retry delay of production: errors that follow each other within the time of a check would be reported.
    let works = test.operator_by(&kubeconfig, &[INFO, "--kube-timeout=1s", "--retry-min=1s", "--retry-max=1m"]);
    let stands_by = test.operator_by(&kubeconfig, &leads);
    stands_by.logs("standing by").await;
    works.is_ready().await;
    drop(leader);
    test.create_many("k", 20, &json!({})).await;
    test.all_ready(20, SOON).await;

    test.proxy.fail_always(Fault::Delay(Duration::from_millis(500)));
    test.create_many("more", 20, &json!({})).await;
    eventually(SOON, "KMS is asked", async || test.proxy.calls() > 20).await;
    api.close();
    for operator in [&works, &stands_by] {
        operator.logs("the API server can't be reached").await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for operator in [&works, &stands_by] {
        assert_eq!(complaints(operator), ["the API server can't be reached"], "{}", operator.process.log());
    }
    api.clear_faults();
    test.proxy.clear_faults();
    for operator in [&works, &stands_by] {
        operator.logs("the API server answers again").await;
        let lines = lines(operator);
        let back: Vec<_> = lines.iter().filter(|line| line.get("lasted").is_some()).collect();
        assert_eq!(back.len(), 1, "{}", operator.process.log());
        assert!(back[0].get("lasted").unwrap().ends_with('s'), "{}", operator.process.log());
    }
    test.all_ready(40, SOON).await;
    for operator in [&works, &stands_by] {
        assert_eq!(complaints(operator), ["the API server can't be reached"], "{}", operator.process.log());
    }
}

#[test]
fn a_log_that_goes_through_a_pipe_has_no_colors() {
    // Nothing answers there; the operator logs that it waits.
    let folder = testbed::process::Workdir::new("pipe");
    let kubeconfig = folder.file("kubeconfig");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "none", "cluster": { "server": format!("http://127.0.0.1:{}", testbed::free_port()) } }],
        "contexts": [{ "name": "none", "context": { "cluster": "none", "user": "none" } }],
        "current-context": "none",
        "users": [{ "name": "none", "user": {} }],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut operator = Command::new(testbed::operator())
        .args(["run", "--admin-address=127.0.0.1:0", "--log-format=text"])
        .env_clear()
        .env("KUBECONFIG", &kubeconfig)
        .env("TERM", "xterm-256color")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(operator.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut lines = Vec::new();
    for line in said {
        let waits = line.contains("waiting: ");
        lines.push(line);
        if waits {
            break;
        }
    }
    operator.kill().unwrap();
    operator.wait().unwrap();
    assert!(lines.last().is_some_and(|line| line.contains("waiting: ")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:?}");
}
