//! A `DataKey` that changes during a call to KMS: the answer is recorded if the `DataKey` still asks for it, so that a client
//! that changes labels costs no calls and stops nothing.

use std::time::Duration;

use datakey::api::DataKey;
use futures::future::join_all;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::{api_proxy, eventually, proxy::Fault};
use tokio::time::{sleep, timeout};

use super::Tenant;
use crate::harness::{SOON, TestKind, TestNamespace, message, recorded_version, to_json};

for_each_kind! {
    a_changed_label_costs_no_second_call: new("changed-label"),
    nothing_is_recorded_for_a_secret_that_was_not_checked: new("changed-secret-name"),
    record_that_always_conflicts_is_given_up_and_reported: new("changed-always"),
}

/// Longer than a change of a `DataKey` takes.
const MEANWHILE: Duration = Duration::from_secs(2);

/// Creates a `DataKey` named `orders`, and changes it while the first call to KMS is under way.
async fn change_during_kms_call<K: TestKind>(test: &TestNamespace<K>, change: impl Future<Output = ()>) {
    test.proxy.fail_next(1, Fault::Delay(MEANWHILE));
    let calls = test.proxy.calls();
    test.create("orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    eventually(SOON, "KMS is asked", async || test.proxy.calls() > calls).await;
    timeout(MEANWHILE, change).await.expect("a change while KMS is asked");
}

fn label(number: usize) -> Value {
    json!({ "metadata": { "labels": { "number": number.to_string() } } })
}

async fn a_changed_label_costs_no_second_call<K: TestKind>(test: TestNamespace<K>) {
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    change_during_kms_call(&test, async { drop(test.patch("orders", &label(1)).await) }).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
    let counts = [("get", K::KIND.plural), ("update", K::STATUS), ("create", "secrets")];
    // Three updates: the record, which conflicted with the change, the record again, and Ready.
    assert_eq!(counts.map(|(verb, resource)| api.count(verb, resource)), [1, 3, 1]);
    assert!(!operator.process.log().contains(&format!("the issued {} is dropped", K::KIND.noun)));
}

#[tokio::test]
async fn kms_answer_to_other_settings_is_dropped() {
    let test = TestNamespace::new("changed-settings").await;
    let operator = test.operator();
    let correct = json!({ "spec": { "encryptionContext": { "a": "c" } } });
    change_during_kms_call(&test, async { drop(test.patch("orders", &correct).await) }).await;
    let key = test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
    assert_eq!(to_json(&recorded_version(&key, 1).request.encryption_context), json!({ "a": "c" }));
    test.decrypt(&test.data("orders").await, "").await;
    assert_eq!(operator.process.log().matches("the issued data key is dropped").count(), 1);
}

async fn nothing_is_recorded_for_a_secret_that_was_not_checked<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let kept = test.issue("orders", &json!({ "encryptionContext": { "a": "b" }, "secretName": "kept" })).await;
    test.delete("orders").await;
    let foreign = json!({ "metadata": { "name": "foreign", "namespace": test.namespace } });
    test.create_secret(&serde_json::from_value(foreign).unwrap()).await;
    let renamed = |name: &str| json!({ "spec": { "secretName": name } });

    change_during_kms_call(&test, async { drop(test.patch("orders", &renamed("foreign")).await) }).await;
    assert!(test.failed("orders", "SecretConflict").await.as_object().record().is_empty());
    test.delete("orders").await;

    change_during_kms_call(&test, async { drop(test.patch("orders", &renamed("kept")).await) }).await;
    assert_eq!(test.ready("orders").await.as_object().record(), kept.as_object().record(), "it is adopted");
    assert_eq!(test.proxy.calls(), 3);
    test.delete("orders").await;

    // The other DataKey is recorded before the operator decides on this one again.
    change_during_kms_call(&test, async {
        test.patch("orders", &renamed("others")).await;
        test.issue("others", &json!({})).await;
    })
    .await;
    assert!(test.failed("orders", "SecretConflict").await.as_object().record().is_empty());
}

#[tokio::test]
async fn kms_answer_to_an_earlier_data_key_of_the_name_is_dropped() {
    let test = TestNamespace::new("changed-uid").await;
    let _operator = test.operator();
    change_during_kms_call(&test, async {
        test.delete("orders").await;
        test.create("orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    })
    .await;
    let key = test.ready("orders").await;
    assert_eq!((test.proxy.calls(), key.record().len()), (2, 1));
    let is_its_own = recorded_version(&key, 1).issued_at >= key.metadata.creation_timestamp.unwrap();
    assert!(is_its_own);
}

async fn record_that_always_conflicts_is_given_up_and_reported<K: TestKind>(test: TestNamespace<K>) {
    let (api, kubeconfig) = test.api_proxy().await;
    let conflict = api_proxy::Fault::Refuse(409, "Conflict", "the object has been modified");
    let tries = 6;
    api.fail_next(tries, "update", K::STATUS, conflict);
    let _operator = test.operator_by(&kubeconfig, &["--retry-min=5s", "--retry-max=10m"]);
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "ApiServerFailed").await;
    let message = message(&key);
    assert!(message.contains(&format!("another client changes the {} faster", K::KIND.name)), "{message}");
    assert_eq!((test.proxy.calls(), api.count("update", K::STATUS)), (1, tries + 1));
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

/// Changes a label of a `DataKey` this many times, with a pause after each try.
async fn churn(keys: Api<DataKey>, name: &str, changes: usize, pause: Duration) {
    let mut number = 0;
    while number < changes {
        let label = Patch::Merge(label(number));
        // Fails until the DataKey is created.
        number += usize::from(keys.patch_metadata(name, &PatchParams::default(), &label).await.is_ok());
        sleep(pause).await;
    }
}

#[tokio::test]
async fn labels_that_change_all_the_time_delay_nothing() {
    let test = TestNamespace::new("changed-often").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let _operator = test.operator();
    // Slow enough that each DataKey changes during the call, so that its record conflicts.
    test.proxy.fail_always(Fault::Delay(MEANWHILE));
    let names = ["a", "b", "c"];
    let attack = names.map(|name| churn(tenant.keys.clone(), name, usize::MAX, MEANWHILE / 4));
    let ready = join_all(names.map(async |name| test.issue(name, &json!({})).await));
    tokio::select! {
        _ = join_all(attack) => unreachable!("it goes on"),
        keys = ready => assert!(keys.iter().all(|key| key.record().len() == 1)),
    }
    assert_eq!(test.proxy.calls(), names.len());
}

#[tokio::test]
async fn labels_that_change_without_pause_cost_few_calls() {
    let test = TestNamespace::new("changed-flood").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let _operator = test.operator_with(&["--retry-min=1s", "--retry-max=10m"], &[]);
    let (names, changes) = (["a", "b", "c"], 200);
    let attack = names.map(|name| churn(tenant.keys.clone(), name, changes, Duration::ZERO));
    let create = join_all(names.map(async |name| test.create(name, &json!({})).await));
    tokio::join!(join_all(attack), create);
    join_all(names.map(|name| test.ready(name))).await;
    assert!(test.proxy.calls() <= 3 * names.len(), "{} for {} changes", test.proxy.calls(), names.len() * changes);
}
