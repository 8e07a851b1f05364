//! The watch over the KMS keys: dry runs, what the conditions and metrics say of a KMS key that AWS KMS does not use, and what that costs.

use std::time::Duration;

use datakey::{
    api::{DataKeyPair, KeyKind as _, READY},
    condition::find,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde_json::json;
use testbed::{api_proxy::ApiRequest, eventually, kms, proxy::Fault};

use crate::{
    harness::{Accounts, NO_RETRY, Operator, SOON, Team, TestKind, TestNamespace, to_json},
    plugin::{User, text},
};

/// Each KMS key is due every two seconds. Refused ones are asked about again a second later.
const OFTEN: &str = "--key-check-interval=2s";

/// The condition `KeyUsable` of an object, if it has that.
async fn key_usable<K: TestKind>(test: &TestNamespace<K>, name: &str) -> Option<Condition> {
    test.get(name).await.as_object().status?.conditions.key_usable()
}

/// Waits until an object has the condition with this reason, or has none.
async fn becomes<K: TestKind>(test: &TestNamespace<K>, name: &str, reason: Option<&str>) -> Option<Condition> {
    let mut found = None;
    eventually(SOON, &format!("KeyUsable of {name} is {reason:?}"), async || {
        found = key_usable(test, name).await;
        found.as_ref().map(|condition| condition.reason.as_str()) == reason
    })
    .await;
    found
}

/// Waits for so many more dry runs.
async fn dry_runs(test: &TestNamespace, more: usize) {
    let before = test.proxy.dry_runs().len();
    eventually(SOON, "dry runs", async || test.proxy.dry_runs().len() >= before + more).await;
}

async fn versions<K: TestKind>(test: &TestNamespace<K>, names: &[&str]) -> Vec<Option<String>> {
    let mut versions = Vec::new();
    for name in names {
        versions.push(test.get(name).await.resource_version());
    }
    versions
}

/// The value of a metric, by its name and labels.
async fn metric(operator: &Operator, line: &str) -> Option<u64> {
    let (_, metrics) = operator.admin("/metrics").await;
    metrics.lines().find_map(|shown| shown.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

async fn schedule_deletion(test: &TestNamespace) {
    test.kms.client().schedule_key_deletion().key_id(&test.key.id).send().await.unwrap();
}

async fn cancel_deletion(test: &TestNamespace) {
    let client = test.kms.client();
    client.cancel_key_deletion().key_id(&test.key.id).send().await.unwrap();
    client.enable_key().key_id(&test.key.id).send().await.unwrap();
}

#[tokio::test]
async fn pending_deletion_is_reported_on_each_dependent_object() {
    let test = TestNamespace::new("watch-deletion").await;
    let pairs = test.of_kind::<DataKeyPair>();
    let safe = kms::create_key(&test.kms.client()).await;
    let operator = test.operator_with(&[OFTEN, "--retry-min=1h", "--retry-max=1h"], &[]);
    test.issue("orders", &json!({})).await;
    pairs.issue("tokens", &json!({})).await;
    test.issue("safe", &json!({ "keyId": safe.arn })).await;
    // Only version 1 is of the KMS key.
    test.issue("early", &json!({})).await;
    test.patch("early", &json!({ "spec": { "keyId": safe.arn, "version": 2 } })).await;
    test.ready("early").await;
    let ready = to_json(&find(&test.get("orders").await, READY));
    let issued = test.proxy.calls();

    schedule_deletion(&test).await;
    let said = becomes(&test, "orders", Some("KeyStateInvalid")).await.unwrap();
    assert_eq!(said.status, "False");
    for words in [&*test.key.arn, "KMSInvalidStateException since 20", "of version 1.", "cancel-key-deletion", "rewrap"]
    {
        assert!(said.message.contains(words), "{words}: {}", said.message);
    }
    let early = becomes(&test, "early", Some("KeyStateInvalid")).await.unwrap();
    assert!(early.message.contains("of version 1.") && !early.message.contains(&safe.arn), "{}", early.message);
    becomes(&pairs, "tokens", Some("KeyStateInvalid")).await;
    assert_eq!(key_usable(&test, "safe").await, None);
    assert_eq!(to_json(&find(&test.get("orders").await, READY)), ready, "Ready stays as it is");
    test.event_contains("orders", "KeyUnusable", &test.key.arn).await;
    for (line, value) in [
        (r#"datakey_kms_keys{state="unusable"}"#, 1),
        (r#"datakey_kms_keys{state="usable"}"#, 1),
        (r#"datakey_datakeys_key_unusable{reason="KeyStateInvalid"}"#, 3),
        (r#"datakey_namespaces_key_unusable{reason="KeyStateInvalid"}"#, 1),
    ] {
        eventually(SOON, line, async || metric(&operator, line).await == Some(value)).await;
    }

    let user = User::of(&test);
    let listed = text(&user.ends(2, &["kms-keys"]).await);
    let row = |arn: &str| {
        let line = listed.lines().find(|line| line.starts_with(arn)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&test.key.arn)[..5], ["3", "3", "1", "unusable", "(KMSInvalidStateException)"], "{listed}");
    assert_eq!(row(&safe.arn)[..5], ["2", "2", "1", "not", "reported"], "{listed}");
    let status = user.ends(2, &["status"]).await;
    assert!(text(&status).contains("Unusable  AWS KMS does not use"), "{status:?}");

    // Nothing is written while nothing changes, and the events come once.
    let names = ["orders", "early", "safe"];
    let written = versions(&test, &names).await;
    dry_runs(&test, 4).await;
    assert_eq!(versions(&test, &names).await, written);
    assert_eq!(test.events("orders", "KeyUnusable").await.len(), 1);

    cancel_deletion(&test).await;
    for name in ["orders", "early"] {
        becomes(&test, name, None).await;
    }
    becomes(&pairs, "tokens", None).await;
    test.event_contains("orders", "KeyUsable", "uses the reported KMS keys again").await;
    eventually(SOON, "no KMS key is unusable", async || {
        metric(&operator, r#"datakey_kms_keys{state="unusable"}"#).await == Some(0)
    })
    .await;
    let (_, metrics) = operator.admin("/metrics").await;
    assert!(!metrics.contains("key_unusable{"), "{metrics}");
    assert_eq!(test.proxy.calls(), issued, "no data key was asked for");
    assert!(!text(&user.ends(0, &["kms-keys"]).await).contains("unusable"));
    assert_eq!(to_json(&find(&test.get("orders").await, READY)), ready);
}

#[tokio::test]
async fn dry_run_asks_with_a_recorded_version() {
    let test = TestNamespace::new("watch-request").await;
    let pairs = test.of_kind::<DataKeyPair>();
    let other = kms::create_key(&test.kms.client()).await;
    let _operator = test.operator_with(&[OFTEN], &[]);
    // Another alias can name the KMS key, and this one can name another KMS key: the record has its ARN.
    test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    test.issue("more", &json!({ "encryptionContext": { "purpose": "orders" } })).await;
    pairs.issue("tokens", &json!({ "keyId": other.arn })).await;
    dry_runs(&test, 6).await;
    let asked = test.proxy.dry_runs();
    let of =
        |arn: &str| asked.iter().filter(|call| call.body["KeyId"] == arn).map(|call| &call.body).collect::<Vec<_>>();
    assert_eq!(of(&test.key.arn).len() + of(&other.arn).len(), asked.len());
    let expected = json!({
        "DryRun": true, "KeyId": test.key.arn, "KeySpec": "AES_256", "EncryptionContext": { "purpose": "orders" },
    });
    assert_eq!(*of(&test.key.arn)[0], expected);
    assert!(of(&other.arn)[0]["KeyPairSpec"].is_string(), "the operation for key pairs");
    // One for each KMS key in an interval, however many objects there are.
    let (one, other) = (of(&test.key.arn).len(), of(&other.arn).len());
    assert!(one.abs_diff(other) <= 1, "{one} and {other}");
}

#[tokio::test]
async fn restart_asks_nothing_and_keeps_what_was_reported() {
    let test = TestNamespace::new("watch-restart").await;
    let operator = test.operator_with(&[OFTEN], &[]);
    test.issue("orders", &json!({})).await;
    schedule_deletion(&test).await;
    let said = becomes(&test, "orders", Some("KeyStateInvalid")).await;
    drop(operator);
    let asked = test.proxy.dry_runs().len();
    for _ in 0..5 {
        let operator = test.operator_with(&["--key-check-interval=72h"], &[]);
        operator.is_ready().await;
        let line = r#"datakey_datakeys_key_unusable{reason="KeyStateInvalid"}"#;
        assert_eq!(metric(&operator, line).await, Some(1), "the alert goes on");
        drop(operator);
    }
    assert_eq!(test.proxy.dry_runs().len(), asked);
    assert_eq!(key_usable(&test, "orders").await, said);
    // It is found out once more, and that is no news.
    let _operator = test.operator_with(&[OFTEN], &[]);
    dry_runs(&test, 4).await;
    test.issue("late", &json!({ "keyId": kms::create_key(&test.kms.client()).await.arn })).await;
    assert_eq!(key_usable(&test, "orders").await, said);
    cancel_deletion(&test).await;
    becomes(&test, "orders", None).await;
}

#[tokio::test]
async fn reports_are_removed_where_checks_are_turned_off() {
    let test = TestNamespace::new("watch-off").await;
    let operator = test.operator_with(&[OFTEN], &[]);
    test.issue("orders", &json!({})).await;
    test.kms.client().disable_key().key_id(&test.key.id).send().await.unwrap();
    let said = becomes(&test, "orders", Some("KeyDisabled")).await.unwrap();
    assert!(said.message.contains("and enable it"), "{}", said.message);
    drop(operator);
    let asked = test.proxy.dry_runs().len();
    {
        // As after a restore: AWS KMS is never called, and what the status says stays.
        let _operator = test.operator_with(&[OFTEN, "--issue=false"], &[]);
        test.issue("pinned", &json!({ "wrappedKeys": [test.pin(1)] })).await;
        assert_eq!(key_usable(&test, "orders").await, Some(said));
    }
    let _operator = test.operator_with(&["--key-check-interval=0"], &[]);
    becomes(&test, "orders", None).await;
    assert_eq!(test.proxy.dry_runs().len(), asked);
    assert!(test.events("orders", "KeyUsable").await.is_empty(), "AWS KMS still does not use it");
}

#[tokio::test]
async fn report_of_a_kms_key_that_was_moved_from_ends() {
    let test = TestNamespace::new("watch-moved").await;
    let operator = test.operator_with(&[OFTEN], &[]);
    test.issue("orders", &json!({})).await;
    test.kms.client().disable_key().key_id(&test.key.id).send().await.unwrap();
    becomes(&test, "orders", Some("KeyDisabled")).await;
    // Only what the record says counts here: the rewrap is what another cluster made before.
    let safe = kms::create_key(&test.kms.client()).await;
    let mut pin = test.pin(2);
    pin["keyId"] = json!(safe.arn);
    pin["request"]["keyId"] = json!(safe.arn);
    pin["rewrapOf"] = json!({ "version": 1 });
    // Nothing is known of the other KMS key: AWS KMS denies the question.
    test.proxy.fail_dry_runs_always(Fault::code("AccessDeniedException"));
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [pin] } })).await;
    becomes(&test, "orders", None).await;
    eventually(SOON, "no object is counted", async || {
        let (_, metrics) = operator.admin("/metrics").await;
        !metrics.contains("key_unusable{")
    })
    .await;
    assert!(test.events("orders", "KeyUsable").await.is_empty(), "it is disabled");
}

#[tokio::test]
async fn other_failures_say_nothing_about_the_key() {
    let test = TestNamespace::new("watch-denied").await;
    let operator = test.operator_with(&[OFTEN], &[]);
    test.issue("orders", &json!({})).await;
    for code in ["AccessDeniedException", "ThrottlingException", "KMSInternalException"] {
        test.proxy.fail_dry_runs_always(Fault::code(code));
        dry_runs(&test, 2).await;
    }
    assert_eq!(key_usable(&test, "orders").await, None);
    // A refusal between two of them is the only one.
    test.proxy.fail_dry_runs_always(Fault::code("AccessDeniedException"));
    dry_runs(&test, 1).await;
    test.proxy.clear_faults();
    eventually(SOON, "it is usable", async || {
        metric(&operator, r#"datakey_kms_keys{state="usable"}"#).await == Some(1)
    })
    .await;
    assert_eq!(key_usable(&test, "orders").await, None);
}

#[tokio::test]
async fn server_without_dry_runs_is_asked_once() {
    let test = TestNamespace::new("watch-emulator").await;
    let operator = test.operator_with(&[OFTEN], &[]);
    let key = test.issue("orders", &json!({})).await;
    let blob = "AQIDAHjVb3sDcpB5bPmIS2kq0XyTnQ==";
    test.proxy.fail_dry_runs_always(Fault::Answer(json!({ "KeyId": test.key.arn, "CiphertextBlob": blob })));
    operator.logs("the KMS server does not know DryRun").await;
    test.proxy.clear_faults();
    // It is the server of all Regions.
    let elsewhere = kms::create_key(&test.kms.client_in("us-east-1", kms::ACCOUNT)).await;
    test.issue("elsewhere", &json!({ "keyId": elsewhere.arn })).await;
    // Another operator, whose server knows dry runs, passes the time.
    let clock = TestNamespace::new("watch-emulator-clock").await;
    let _other = clock.operator_with(&[OFTEN], &[]);
    clock.issue("orders", &json!({})).await;
    dry_runs(&clock, 3).await;
    assert_eq!(test.proxy.dry_runs().len(), 1);
    assert_eq!(test.get("orders").await.record(), key.record(), "what it generated is nowhere");
    let log = json!(operator.log_lines()).to_string();
    assert!(!log.contains(blob), "{log}");
    assert_eq!(log.matches("does not know DryRun").count(), 1, "{log}");
    assert_eq!(metric(&operator, r#"datakey_kms_key_checks_total{result="NoDryRun"}"#).await, Some(1));
}

#[tokio::test]
async fn many_conditions_are_written_at_a_pace() {
    let test = TestNamespace::with_stub_kms("watch-pace").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &["--kms-rate=1000", OFTEN]);
    operator.is_ready().await;
    test.create_many("k", 100, &json!({})).await;
    test.all_ready(100, SOON).await;
    test.proxy.fail_dry_runs_always(Fault::code("NotFoundException"));
    becomes(&test, "k-0", Some("KeyNotFound")).await;
    // A new data key does not wait for them.
    test.issue("new", &json!({})).await;
    let line = r#"datakey_datakeys_key_unusable{reason="KeyNotFound"}"#;
    eventually(SOON, "all are reported", async || metric(&operator, line).await >= Some(100)).await;
    let status = format!("{}/status", test.get("new").await.as_object().kind.plural);
    let is_condition =
        |request: &&ApiRequest| request.verb == "update" && request.resource == status && request.name != "new";
    let requests = api.requests();
    // The first two writes of each object are its record and Ready.
    let mut writes: Vec<_> = requests.iter().filter(is_condition).map(|request| request.at).collect();
    let writes = writes.split_off(200);
    assert!(writes.len() >= 100, "{}", writes.len());
    let in_a_second = writes.windows(26).filter(|window| window[25] - window[0] < Duration::from_secs(1)).count();
    assert_eq!(in_a_second, 0, "at most 20 a second, and what the time of a request makes of that");
}

/// The access keys that signed the dry runs about the KMS key of a team.
fn signers(accounts: &Accounts, team: &Team) -> Vec<String> {
    let asked = accounts.proxy.dry_runs();
    asked.into_iter().filter(|call| call.body["KeyId"] == team.key.arn).map(|call| call.access_key_id).collect()
}

#[tokio::test]
async fn dry_runs_use_the_identity_of_the_present_class() {
    let accounts = Accounts::new().await;
    let [shop, bank] = accounts.teams(["watch-shop", "watch-bank"]).await;
    let operator = accounts.operator(&[&shop, &bank], &[&NO_RETRY[..], &[OFTEN]].concat());
    for team in [&shop, &bank] {
        team.class(&json!({})).await;
        team.test.issue("orders", &team.spec()).await;
    }
    let usable = r#"datakey_kms_keys{state="usable"}"#;
    eventually(SOON, "both are usable", async || metric(&operator, usable).await == Some(2)).await;
    for team in [&shop, &bank] {
        for signer in signers(&accounts, team) {
            let session = accounts.proxy.sessions().into_iter().find(|session| session.access_key_id == signer);
            assert_eq!(
                session.map(|session| session.role_arn),
                Some(team.role_arn.clone()),
                "never as the operator itself"
            );
        }
    }
    // The class does not allow the KMS key any more, so nothing is asked about it.
    shop.class(&json!({ "allow": [{ "keyIds": [bank.key.arn] }], "defaults": { "keyId": bank.key.arn } })).await;
    let count = |team: &Team| signers(&accounts, team).len();
    let more_of_bank = async |more: usize| {
        let before = count(&bank);
        eventually(SOON, "dry runs of the other team", async || count(&bank) >= before + more).await;
    };
    // What was under way.
    more_of_bank(2).await;
    let asked = count(&shop);
    more_of_bank(3).await;
    assert_eq!(count(&shop), asked);
}
