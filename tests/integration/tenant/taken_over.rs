//! A second `DataKey` that wants the Secret of the first one: it never takes it over, whatever it pins and whatever the labels say.

use serde_json::json;
use testbed::eventually;

use super::Tenant;
use crate::harness::{SOON, TestKind, TestNamespace};

for_each_kind! {
    pins_of_another_key_do_not_take_over_its_secret: new("taken-by-pins"),
}

/// Issues `pay`, and creates `grab`, which wants its Secret.
async fn with_a_rival<K: TestKind>(test: &TestNamespace<K>, pins: bool) {
    let operator = test.operator();
    let key = test.issue("pay", &json!({})).await;
    let mut spec = json!({ "secretName": "pay" });
    if pins {
        spec["wrappedKeys"] = json!(key.as_object().record());
    }
    test.create("grab", &spec).await;
    test.failed("grab", "SecretConflict").await;
    drop(operator);
}

/// Asserts that `grab` is refused, also with a new version, and that nothing of `pay` changes.
async fn nothing_is_taken<K: TestKind>(test: &TestNamespace<K>) {
    let data = test.data("pay").await;
    let calls = test.proxy.calls();
    for _ in ["running", "restarted"] {
        let _operator = test.operator();
        test.failed("grab", "SecretConflict").await;
        for version in [2, 1] {
            test.patch("grab", &json!({ "spec": { "version": version } })).await;
            test.barrier().await;
            test.failed("grab", "SecretConflict").await;
        }
        test.ready("pay").await;
        test.secret_becomes("pay", &data).await;
        eventually(SOON, "the label is restored", async || {
            test.secret("pay").await.metadata.labels.unwrap()["datakey.dev/name"] == "pay"
        })
        .await;
        let grab = test.keys().get("grab").await.unwrap();
        assert!(grab.as_object().record().is_empty(), "it recorded nothing");
    }
    // Each barrier issues one.
    assert_eq!(test.proxy.calls(), calls + 4);
}

async fn pins_of_another_key_do_not_take_over_its_secret<K: TestKind>(test: TestNamespace<K>) {
    with_a_rival(&test, true).await;
    nothing_is_taken(&test).await;
}

#[tokio::test]
async fn a_changed_label_does_not_hand_over_a_secret() {
    for pins in [false, true] {
        let test = TestNamespace::new(if pins { "taken-by-both" } else { "taken-by-label" }).await;
        with_a_rival(&test, pins).await;
        let Some(tenant) = Tenant::of(&test).await else { return };
        let label = json!({ "metadata": { "labels": { "datakey.dev/name": "grab" } } });
        // While no operator runs, and while one does.
        tenant.change("pay", &label).await;
        nothing_is_taken(&test).await;
        let _operator = test.operator();
        test.barrier().await;
        tenant.change("pay", &label).await;
        test.barrier().await;
        test.failed("grab", "SecretConflict").await;
        test.ready("pay").await;
    }
}
