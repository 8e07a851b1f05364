//! Failures of KMS and of the API server: a condition, an event and a metric report them, KMS is not called too often, and
//! the DataKey recovers by itself once the cause is gone.

use std::time::Duration;

use datakey::api::{DataKey, STALLED};
use serde_json::json;
use testbed::{
    eventually, kms,
    proxy::{Call, FAILING, Fault},
};

use crate::harness::{Operator, SOON, TestNamespace};

/// The retry delays of production, so that retries can be counted.
const PATIENT: [&str; 2] = ["--retry-min=1s", "--retry-max=10m"];

fn is_stalled(key: &DataKey) -> bool {
    let conditions = &key.status.as_ref().unwrap().conditions;
    conditions.iter().any(|condition| condition.type_ == STALLED && condition.status == "True")
}

/// Creates a `DataKey` that meets a fault, and checks that it is reported; then ends the fault, and waits until it is ready.
async fn reports_and_recovers(
    test: &TestNamespace,
    operator: &Operator,
    name: &str,
    fault: Fault,
    expected: (&str, &str, bool),
) {
    let (reason, code, stalled) = expected;
    test.proxy.fail_always(fault);
    test.create(name, &json!({})).await;
    let key = test.failed(name, reason).await;
    assert_eq!(is_stalled(&key), stalled, "{name}");
    assert_eq!(key.record(), []);
    assert!(test.secrets().get_opt(name).await.unwrap().is_none());
    eventually(SOON, "an event", async || !test.events(name, reason).await.is_empty()).await;
    let (_, metrics) = operator.admin("/metrics").await;
    let line = format!(r#"code="{code}"}}"#);
    assert!(metrics.lines().any(|l| l.starts_with("datakey_kms_requests_total") && l.contains(&line)), "{metrics}");
    test.proxy.clear_faults();
    test.ready(name).await;
    assert!(!is_stalled(&test.get(name).await));
}

#[tokio::test]
async fn every_error_code_of_kms_is_reported_and_recovered_from() {
    let test = TestNamespace::new("codes").await;
    let operator = test.operator();
    for (code, reason, stalled) in [
        ("NotFoundException", "KeyNotFound", true),
        ("DisabledException", "KeyDisabled", true),
        ("KeyUnavailableException", "KmsUnavailable", false),
        ("DependencyTimeoutException", "KmsUnavailable", false),
        ("KMSInternalException", "KmsUnavailable", false),
        ("InvalidKeyUsageException", "KeyUsageInvalid", true),
        ("InvalidGrantTokenException", "GrantTokenInvalid", true),
        ("KMSInvalidStateException", "KeyStateInvalid", true),
        ("DryRunOperationException", "KmsAnswerInvalid", false),
        ("AccessDeniedException", "AccessDenied", true),
        ("ValidationException", "RequestInvalid", true),
        ("ThrottlingException", "Throttled", false),
        ("ExpiredTokenException", "CredentialsRejected", false),
        ("UnrecognizedClientException", "CredentialsRejected", false),
        ("InvalidSignatureException", "CredentialsRejected", false),
    ] {
        reports_and_recovers(&test, &operator, &code.to_lowercase(), Fault::code(code), (reason, code, stalled)).await;
    }
    let unknown = Fault::code("MadeUpException");
    reports_and_recovers(&test, &operator, "unknown", unknown, ("KmsError", "Unknown", false)).await;
    let broken = Fault::Error(503, String::new(), String::new());
    reports_and_recovers(&test, &operator, "broken", broken, ("KmsUnavailable", "Unknown", false)).await;
}

#[tokio::test]
async fn every_transport_failure_is_reported_and_recovered_from() {
    let test = TestNamespace::new("transport").await;
    let operator = test.operator_with(&["--kms-timeout=1s"], &[]);
    for (name, fault, expected) in [
        ("reset", Fault::Reset, ("KmsUnreachable", "Unreachable", false)),
        ("hang", Fault::Hang, ("KmsTimeout", "Timeout", false)),
        ("html", Fault::Error(502, "x".into(), "<html>".into()), ("KmsUnavailable", "Unknown", false)),
    ] {
        reports_and_recovers(&test, &operator, name, fault, expected).await;
    }
}

#[tokio::test]
async fn an_answer_without_a_usable_data_key_is_never_published() {
    let test = TestNamespace::new("bad-answers").await;
    let operator = test.operator();
    let arn = &test.key.arn;
    let blob = |bytes: usize| "AAAA".repeat(bytes / 3);
    for (name, answer) in [
        ("nothing", json!({})),
        ("no-blob", json!({ "KeyId": arn })),
        ("empty-blob", json!({ "KeyId": arn, "CiphertextBlob": "" })),
        ("large-blob", json!({ "KeyId": arn, "CiphertextBlob": blob(6147) })),
        ("no-key", json!({ "CiphertextBlob": blob(180) })),
        ("no-arn", json!({ "KeyId": test.key.id, "CiphertextBlob": blob(180) })),
        ("other-region", json!({ "KeyId": arn.replace("eu-west-1", "us-east-1"), "CiphertextBlob": blob(180) })),
    ] {
        let expected = ("KmsAnswerInvalid", "AnswerInvalid", false);
        reports_and_recovers(&test, &operator, name, Fault::Answer(answer), expected).await;
    }
    reports_and_recovers(&test, &operator, "half", Fault::Truncate, ("KmsAnswerInvalid", "AnswerInvalid", false)).await;
}

#[tokio::test]
async fn unfinished_tls_handshake_costs_no_more_than_the_time_limit() {
    let test = TestNamespace::new("slow-tls").await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    {
        let operator = test.operator_with(&["--kms-timeout=1s"], &[("AWS_ENDPOINT_URL_KMS", &endpoint)]);
        test.create("orders", &json!({})).await;
        let begun = std::time::Instant::now();
        test.failed("orders", "KmsTimeout").await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        operator.is_ready().await;
    }
    silent.abort();
    let _operator = test.operator();
    test.ready("orders").await;
}

#[tokio::test]
async fn kms_is_retried_after_the_delays_of_the_retry_policy() {
    let test = TestNamespace::with_stub_kms("waits").await;
    let first = 0.2;
    let _operator = test.operator_with(&["--retry-min=200ms", "--retry-max=10m"], &[]);
    let classes =
        [("KMSInternalException", 1.0, 6), ("ExpiredTokenException", 15.0, 2), ("DisabledException", 30.0, 2)];
    for (number, (code, ..)) in classes.iter().enumerate() {
        test.create(&format!("k{number}"), &json!({ "keyId": format!("{FAILING}{code}") })).await;
    }
    for (code, multiple, count) in classes {
        let calls = async || -> Vec<_> {
            let of = |call: &Call| call.body["KeyId"] == format!("{FAILING}{code}");
            test.proxy.requests().into_iter().filter(of).collect()
        };
        eventually(SOON, "it was asked again", async || calls().await.len() >= count).await;
        for (number, pair) in calls().await[..count].windows(2).enumerate() {
            let (wait, gap) = (first * multiple * f64::from(1 << number), (pair[1].at - pair[0].at).as_secs_f64());
            // A quarter of jitter either way, and the delay of a busy machine.
            assert!((0.75 * wait..1.25 * wait + 1.5).contains(&gap), "{code}: {gap:.2} s instead of {wait:.2} s");
        }
    }
}

#[tokio::test]
async fn keys_that_a_real_kms_refuses_are_reported() {
    let test = TestNamespace::new("real-refusals").await;
    let _operator = test.operator();
    let admin = test.kms.client();

    test.create("missing", &json!({ "keyId": "alias/is-not-there" })).await;
    test.failed("missing", "KeyNotFound").await;
    test.kms.key_with_alias("is-not-there").await;
    test.ready("missing").await;

    let signing = test.kms.signing_key().await;
    test.create("signing", &json!({ "keyId": signing.arn })).await;
    test.failed("signing", "KeyUsageInvalid").await;

    let key = test.kms.key().await;
    admin.disable_key().key_id(&key.id).send().await.unwrap();
    test.create("disabled", &json!({ "keyId": key.arn })).await;
    test.failed("disabled", "KeyDisabled").await;
    admin.enable_key().key_id(&key.id).send().await.unwrap();
    test.ready("disabled").await;

    let doomed = test.kms.key().await;
    admin.schedule_key_deletion().key_id(&doomed.id).pending_window_in_days(7).send().await.unwrap();
    test.create("doomed", &json!({ "keyId": doomed.arn })).await;
    test.failed("doomed", "KeyStateInvalid").await;
}

#[tokio::test]
async fn issued_key_stays_ready_and_is_restored_without_kms() {
    let test = TestNamespace::new("kms-gone").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    test.proxy.fail_always(Fault::Reset);
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    test.ready("orders").await;
}

#[tokio::test]
async fn a_failing_new_version_leaves_the_issued_one_in_the_secret() {
    let test = TestNamespace::new("failing-version").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let key = test.failed("orders", "AccessDenied").await;
    assert_eq!(key.status.unwrap().version, Some(1));
    assert_eq!(test.data("orders").await, data);
    test.patch("orders", &json!({ "spec": { "version": 1 } })).await;
    test.ready("orders").await;
}

#[tokio::test]
async fn stalled_key_is_retried_rarely_and_a_changed_spec_at_once() {
    let test = TestNamespace::new("rarely").await;
    let operator = test.operator_with(&PATIENT, &[]);
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    test.create("orders", &json!({})).await;
    test.failed("orders", "AccessDenied").await;
    assert_eq!(test.proxy.calls(), 1);
    // Changes of labels and Secrets are no reason to call KMS again.
    for number in 0..5 {
        test.patch("orders", &json!({ "metadata": { "labels": { "n": number.to_string() } } })).await;
    }
    test.create("other", &json!({ "keyId": "alias/other" })).await;
    test.failed("other", "AccessDenied").await;
    assert_eq!(test.proxy.calls(), 2);

    test.patch("orders", &json!({ "spec": { "keyId": "alias/another" } })).await;
    test.failed("orders", "AccessDenied").await;
    assert_eq!(test.proxy.calls(), 3);

    // Nor is a restart: the first tries are spread over four minutes.
    drop(operator);
    let operator = test.operator_with(&["--retry-min=1h", "--retry-max=10h"], &[]);
    test.proxy.clear_faults();
    test.issue("new", &json!({})).await;
    operator.is_ready().await;
    assert_eq!(test.proxy.calls(), 4, "only the new one asks KMS");
}

#[tokio::test]
async fn no_sensitive_value_is_logged_or_reported_anywhere() {
    let test = TestNamespace::new("leaks").await;
    let credentials = [
        ("AWS_ACCESS_KEY_ID", "AKIAMARKERZQ4"),
        ("AWS_SECRET_ACCESS_KEY", "marker-secret-access-key-zQ5"),
        ("AWS_SESSION_TOKEN", "marker-session-token-zQ6"),
    ];
    let operator = test.operator_with(&[], &credentials);
    let token = "marker-grant-token-zQ7";
    let answer = format!("1 validation error detected: Value '[{token}]' at 'grantTokens' failed");
    test.proxy.fail_always(Fault::Error(400, "ValidationException".into(), answer));
    let spec = json!({ "grantTokens": [token, "marker-second-zQ8"] });
    test.create("orders", &spec).await;
    test.failed("orders", "RequestInvalid").await;
    operator.logs("at 'grantTokens' failed").await;
    // The server knows the account by its access key ID.
    test.proxy.fail_always(Fault::AsAccount(kms::ACCOUNT.to_owned()));
    let key = test.ready("orders").await;
    assert_eq!(test.proxy.requests().last().unwrap().access_key_id, "AKIAMARKERZQ4");
    assert_eq!(test.proxy.requests().last().unwrap().body["GrantTokens"], spec["grantTokens"]);
    test.delete_secret("orders").await;
    test.barrier().await;

    let blob = serde_json::to_value(&key.record()[0].ciphertext_blob).unwrap().as_str().unwrap().to_owned();
    let status = serde_json::to_string(&key.status.as_ref().map(|status| &status.conditions)).unwrap();
    let secret = serde_json::to_string(&test.secret("orders").await).unwrap();
    let events = test.plane.kubectl(&["get", "events", "-n", "leaks", "-o", "json"]).await.unwrap();
    let (_, metrics) = operator.admin("/metrics").await;
    let log = operator.process.log();
    for place in [&status, &events, &metrics, &log, &secret] {
        assert!(!place.contains("marker-"), "{place}");
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(test.plane.workdir().file("datakey-operator.kubeconfig")).unwrap())
            .unwrap();
    let bearer = config["users"][0]["user"]["token"].as_str().unwrap();
    for place in [&status, &events, &metrics, &log] {
        for secret in [blob.as_str(), bearer, "AKIAMARKERZQ4", "AWS4-HMAC-SHA256"] {
            assert!(!place.contains(secret), "{secret}: {place}");
        }
    }
    assert!(log.contains(r#""level":"INFO""#));
}

#[tokio::test]
async fn refusal_by_an_admission_policy_is_reported_verbatim() {
    let test = TestNamespace::new("policy-refuses").await;
    let _operator = test.operator();
    test.refuse_secrets().await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "WriteRejected").await;
    let message = &key.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("secrets need a ticket"), "{message}");
    assert!(!is_stalled(&key));
    let issued = key.record().to_vec();
    assert_eq!(issued.len(), 1, "the data key is recorded, and waits");

    test.accept_secrets().await;
    let key = test.ready("orders").await;
    assert_eq!(key.record(), issued);
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn refusal_by_a_quota_is_reported_and_recovered_from() {
    let test = TestNamespace::new("quota").await;
    if !test.plane.has_controllers() {
        return;
    }
    let quota = |hard: u32| {
        json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": { "name": "secrets", "namespace": "quota" },
            "spec": { "hard": { "count/secrets": hard.to_string() } },
        })
    };
    test.apply(&[quota(0)]).await;
    let used = ["get", "resourcequota", "secrets", "-n", "quota", "-o", "jsonpath={.status.hard}"];
    eventually(SOON, "the quota works", async || test.plane.kubectl(&used).await.is_ok_and(|hard| !hard.is_empty()))
        .await;
    let _operator = test.operator();
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "WriteRejected").await;
    let message = key.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("exceeded quota"), "{message}");
    test.apply(&[quota(1)]).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn missing_region_or_credentials_are_reported() {
    let test = TestNamespace::new("no-settings").await;
    let nowhere = test.plane.workdir().file("no-such-file").display().to_string();
    let files = [("AWS_CONFIG_FILE", nowhere.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", nowhere.as_str())];
    {
        let environment = [&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "")], &files[..]].concat();
        let _operator = test.operator_with(&[], &environment);
        test.create("orders", &json!({})).await;
        test.failed("orders", "RegionMissing").await;
        test.issue("by-arn", &json!({ "keyId": test.key.arn })).await;
        assert_eq!(test.proxy.calls(), 1);
    }
    {
        let environment = [&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], &files[..]].concat();
        let _operator = test.operator_with(&[], &environment);
        test.failed("orders", "CredentialsMissing").await;
        assert_eq!(test.proxy.calls(), 1);
    }
    let _operator = test.operator();
    test.ready("orders").await;
}

#[tokio::test]
async fn kms_is_not_called_faster_than_the_rate() {
    let test = TestNamespace::new("rate").await;
    let _operator = test.operator_with(&["--kms-rate=5"], &[]);
    let begun = std::time::Instant::now();
    for number in 0..15 {
        test.create(&format!("k{number}"), &json!({})).await;
    }
    for number in 0..15 {
        test.ready(&format!("k{number}")).await;
    }
    // The first at once, the others at five a second.
    assert!(begun.elapsed() > Duration::from_millis(2700), "{:?}", begun.elapsed());
    assert_eq!(test.proxy.calls(), 15);
}
