//! A Secret that another client deletes or changes gets the recorded bytes back, and KMS is never asked.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::eventually;
use tokio::time::sleep;

use crate::harness::{SOON, TestNamespace};

#[tokio::test]
async fn deleted_secret_is_recreated_with_the_same_bytes() {
    let test = TestNamespace::new("deleted-secret").await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    let (secret, data) = (test.secret("orders").await, test.data("orders").await);
    for _ in 0..3 {
        test.delete_secret("orders").await;
        test.secret_becomes("orders", &data).await;
    }
    assert_ne!(test.secret("orders").await.metadata.uid, secret.metadata.uid);
    eventually(SOON, "an event reports it", async || !test.events("orders", "Restored").await.is_empty()).await;

    // And while no operator runs.
    drop(operator);
    test.delete_secret("orders").await;
    let _operator = test.operator();
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn every_entry_that_is_edited_is_restored() {
    let test = TestNamespace::new("edited").await;
    let operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    let data = test.data("orders").await;
    let edits: Vec<Value> = data
        .keys()
        .flat_map(|entry| [json!({ "data": { entry: "eA==" } }), json!({ "data": { entry: null } })])
        .chain([
            json!({ "data": { "more": "eA==" } }),
            json!({ "stringData": { "more": "x" } }),
            json!({ "data": null }),
        ])
        .collect();
    // One DataKey for each: a Secret that keeps changing is restored ever more slowly.
    test.create_many("k", edits.len(), &json!({ "encryptionContext": { "a": "b" } })).await;
    let keys = test.all_ready(edits.len() + 1, SOON).await;
    for (number, edit) in edits.iter().enumerate() {
        test.edit_secret(&format!("k-{number}"), edit).await;
    }
    test.secrets_hold_the_record(&keys).await;

    // And while no operator runs.
    drop(operator);
    test.edit_secret("orders", &json!({ "data": { "ciphertextBlob": "eA==", "ciphertextBlob.v1": "eA==" } })).await;
    let _operator = test.operator();
    test.secret_becomes("orders", &data).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1 + edits.len());
}

#[tokio::test]
async fn own_metadata_is_restored_and_foreign_metadata_is_kept() {
    let test = TestNamespace::new("relabelled").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let theirs = json!({ "metadata": {
        "labels": { "team": "shop" },
        "annotations": { "backup": "yes" },
        "finalizers": ["example.com/hold"],
        "ownerReferences": [{ "apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": test.namespace_uid().await }],
    }});
    test.edit_secret("orders", &theirs).await;
    let (secret, data) = (test.secret("orders").await, test.data("orders").await);
    for edit in [
        json!({ "labels": { "datakey.dev/name": "other" } }),
        json!({ "labels": { "datakey.dev/name": null, "app.kubernetes.io/managed-by": null } }),
        json!({ "annotations": { "datakey.dev/version": "7" } }),
        json!({ "annotations": { "datakey.dev/issued.v1": null } }),
        json!({ "annotations": { "datakey.dev/issued.v9": "{}" } }),
    ] {
        test.edit_secret("orders", &json!({ "metadata": edit })).await;
        eventually(SOON, &format!("restored: {edit}"), async || {
            let now = test.secret("orders").await.metadata;
            let then = &secret.metadata;
            (&now.labels, &now.annotations, &now.owner_references, &now.finalizers)
                == (&then.labels, &then.annotations, &then.owner_references, &then.finalizers)
        })
        .await;
    }
    assert_eq!(test.data("orders").await, data);
    assert_eq!(test.proxy.calls(), 1);
    test.edit_secret("orders", &json!({ "metadata": { "finalizers": null } })).await;
}

#[tokio::test]
async fn labels_and_annotations_of_others_cause_no_write() {
    let test = TestNamespace::new("others-labels").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let edited = test.edit_secret("orders", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    test.barrier().await;
    assert_eq!(test.secret("orders").await.metadata.resource_version, edited.metadata.resource_version);
}

#[tokio::test]
async fn a_second_manager_with_equal_values_is_tolerated() {
    let test = TestNamespace::new("co-owner").await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    let mut applied = test.secret("orders").await;
    applied.metadata.managed_fields = None;
    applied.metadata.resource_version = None;
    let params = kube::api::PatchParams::apply("backup-tool").force();
    let applied = test.secrets().patch("orders", &params, &kube::api::Patch::Apply(&applied)).await.unwrap();
    test.barrier().await;
    assert_eq!(test.secret("orders").await.metadata.resource_version, applied.metadata.resource_version);
    drop(operator);
    let _operator = test.operator();
    test.barrier().await;
    assert_eq!(test.secret("orders").await.metadata.resource_version, applied.metadata.resource_version);
    assert_eq!(test.secrets().list(&ListParams::default()).await.unwrap().items.len(), 1);
}

/// Competes with the operator for a Secret until the condition reports it; then stops, and waits until the `DataKey` is
/// ready. Returns how often the operator wrote the Secret.
async fn compete(name: &str, attack: impl AsyncFn(&TestNamespace)) -> (usize, String) {
    let test = TestNamespace::new(name).await;
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &["--retry-min=200ms", "--retry-max=10m"]);
    test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    let writes = async || api.count("create", "secrets") + api.count("update", "secrets");
    let before = writes().await;
    let is_contested = async || {
        let ready = datakey::condition::find(&test.get("orders").await, "Ready").cloned().unwrap();
        (ready.status == "False" && ready.reason == "SecretContested").then_some(ready.message)
    };
    let mut message = None;
    eventually(SOON, "the competing writer is reported", async || {
        attack(&test).await;
        message = is_contested().await;
        message.is_some()
    })
    .await;
    // The other writer goes on; the operator pauses for 15 times the shortest retry delay.
    for _ in 0..20 {
        attack(&test).await;
        sleep(Duration::from_millis(20)).await;
    }
    let restores = writes().await - before;
    test.secret_becomes("orders", &data).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
    (restores, message.unwrap())
}

#[tokio::test]
async fn competing_writer_is_rate_limited_and_reported() {
    let (restores, message) = compete("fight-edits", async |test| {
        test.edit_secret("orders", &json!({ "data": { "ciphertextBlob": "eA==" } })).await;
    })
    .await;
    assert!((10..=11).contains(&restores), "{restores} restores");
    assert!(message.contains("entry ciphertextBlob was changed"), "it names what is changed: {message}");
}

#[tokio::test]
async fn repeated_deletion_is_rate_limited_and_reported() {
    let (restores, message) = compete("fight-deletions", async |test| test.delete_secret("orders").await).await;
    assert!((10..=11).contains(&restores), "{restores} restores");
    assert!(message.contains("it was deleted"), "{message}");
}
