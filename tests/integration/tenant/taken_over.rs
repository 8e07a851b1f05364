//! A second `DataKey` that wants the Secret of the first one: it never takes it over, whatever it pins and whatever the labels say.

use serde_json::json;
use testbed::eventually;

use super::Tenant;
use crate::harness::{SOON, TestNamespace};

/// Issues `pay`, and creates `grab`, which wants its Secret.
async fn with_a_rival(name: &str, pins: bool) -> TestNamespace {
    let test = TestNamespace::new(name).await;
    let operator = test.operator();
    let key = test.issue("pay", &json!({})).await;
    let mut spec = json!({ "secretName": "pay" });
    if pins {
        spec["wrappedKeys"] = json!(key.status.unwrap().versions);
    }
    test.create("grab", &spec).await;
    test.failed("grab", "SecretConflict").await;
    drop(operator);
    test
}

/// Asserts that `grab` is refused, also with a new version, and that nothing of `pay` changes.
async fn nothing_is_taken(test: &TestNamespace) {
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
        assert!(grab.status.unwrap().versions.is_empty(), "it recorded nothing");
    }
    // Each barrier issues one.
    assert_eq!(test.proxy.calls(), calls + 4);
}

#[tokio::test]
async fn pins_of_another_key_do_not_take_over_its_secret() {
    let test = with_a_rival("taken-by-pins", true).await;
    nothing_is_taken(&test).await;
}

#[tokio::test]
async fn a_changed_label_does_not_hand_over_a_secret() {
    for pins in [false, true] {
        let test = with_a_rival(if pins { "taken-by-both" } else { "taken-by-label" }, pins).await;
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
