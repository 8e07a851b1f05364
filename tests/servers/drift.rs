//! A Secret that somebody deletes or changes gets the recorded bytes back, and KMS is never asked.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::eventually;
use tokio::time::sleep;

use crate::test::{SOON, Test};

#[tokio::test]
async fn a_deleted_secret_comes_back_with_the_same_bytes() {
    let test = Test::new("deleted-secret").await;
    let operator = test.operator();
    test.issue("k", &json!({})).await;
    let (secret, data) = (test.secret("k").await, test.data("k").await);
    for _ in 0..3 {
        test.delete_secret("k").await;
        test.holds("k", &data).await;
    }
    assert_ne!(test.secret("k").await.metadata.uid, secret.metadata.uid);
    eventually(SOON, "an event tells of it", async || !test.events("k", "Restored").await.is_empty()).await;

    // And when nobody was there to see it.
    drop(operator);
    test.delete_secret("k").await;
    let _operator = test.operator();
    test.holds("k", &data).await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn every_entry_that_is_edited_is_put_back() {
    let test = Test::new("edited").await;
    let operator = test.operator();
    test.issue("k", &json!({ "encryptionContext": { "a": "b" } })).await;
    let data = test.data("k").await;
    let edits: Vec<Value> = data
        .keys()
        .flat_map(|entry| [json!({ "data": { entry: "eA==" } }), json!({ "data": { entry: null } })])
        .chain([
            json!({ "data": { "more": "eA==" } }),
            json!({ "stringData": { "more": "x" } }),
            json!({ "data": null }),
        ])
        .collect();
    for edit in &edits {
        test.edit_secret("k", edit).await;
        test.holds("k", &data).await;
    }

    // And when nobody was there to see it.
    drop(operator);
    test.edit_secret("k", &json!({ "data": { "ciphertextBlob": "eA==", "ciphertextBlob.v1": "eA==" } })).await;
    let _operator = test.operator();
    test.holds("k", &data).await;
    test.ready("k").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn our_labels_annotations_and_owner_are_put_back_and_what_is_not_ours_stays() {
    let test = Test::new("relabelled").await;
    let _operator = test.operator();
    test.issue("k", &json!({ "deletionPolicy": "Delete" })).await;
    let theirs = json!({ "metadata": {
        "labels": { "team": "shop" },
        "annotations": { "backup": "yes" },
        "finalizers": ["example.com/hold"],
    }});
    test.edit_secret("k", &theirs).await;
    let (secret, data) = (test.secret("k").await, test.data("k").await);
    for edit in [
        json!({ "labels": { "datakey.dev/name": "other" } }),
        json!({ "labels": { "datakey.dev/name": null, "app.kubernetes.io/managed-by": null } }),
        json!({ "annotations": { "datakey.dev/version": "7" } }),
        json!({ "annotations": { "datakey.dev/issued.v1": null } }),
        json!({ "annotations": { "datakey.dev/issued.v9": "{}" } }),
        json!({ "ownerReferences": null }),
    ] {
        test.edit_secret("k", &json!({ "metadata": edit })).await;
        eventually(SOON, &format!("put back: {edit}"), async || {
            let now = test.secret("k").await.metadata;
            let then = &secret.metadata;
            (&now.labels, &now.annotations, &now.owner_references, &now.finalizers)
                == (&then.labels, &then.annotations, &then.owner_references, &then.finalizers)
        })
        .await;
    }
    assert_eq!(test.data("k").await, data);
    assert_eq!(test.proxy.calls(), 1);
    test.edit_secret("k", &json!({ "metadata": { "finalizers": null } })).await;
}

#[tokio::test]
async fn labels_and_annotations_of_others_cause_no_write() {
    let test = Test::new("others-labels").await;
    let _operator = test.operator();
    test.issue("k", &json!({})).await;
    let edited = test.edit_secret("k", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    test.settled().await;
    assert_eq!(test.secret("k").await.metadata.resource_version, edited.metadata.resource_version);
}

#[tokio::test]
async fn a_second_manager_with_equal_values_is_tolerated() {
    let test = Test::new("co-owner").await;
    let operator = test.operator();
    test.issue("k", &json!({})).await;
    let mut applied = test.secret("k").await;
    applied.metadata.managed_fields = None;
    applied.metadata.resource_version = None;
    let params = kube::api::PatchParams::apply("backup-tool").force();
    let applied = test.secrets().patch("k", &params, &kube::api::Patch::Apply(&applied)).await.unwrap();
    test.settled().await;
    assert_eq!(test.secret("k").await.metadata.resource_version, applied.metadata.resource_version);
    drop(operator);
    let _operator = test.operator();
    test.settled().await;
    assert_eq!(test.secret("k").await.metadata.resource_version, applied.metadata.resource_version);
    assert_eq!(test.secrets().list(&ListParams::default()).await.unwrap().items.len(), 1);
}

/// Fights with the operator for a Secret until it is told of; then the other writer stops, and it heals. How often the
/// operator wrote the Secret.
async fn fight(name: &str, attack: impl AsyncFn(&Test)) -> (usize, String) {
    let test = Test::new(name).await;
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &["--retry-min=200ms", "--retry-max=10m"]);
    test.issue("k", &json!({})).await;
    let data = test.data("k").await;
    let writes = async || api.count("create", "secrets") + api.count("update", "secrets");
    let before = writes().await;
    let is_contested = async || {
        let ready = datakey_operator::status::find(&test.get("k").await, "Ready").cloned().unwrap();
        (ready.status == "False" && ready.reason == "SecretContested").then_some(ready.message)
    };
    let mut message = None;
    eventually(SOON, "the fight is told of", async || {
        attack(&test).await;
        message = is_contested().await;
        message.is_some()
    })
    .await;
    // It goes on; the operator does not, for 15 times the shortest wait.
    for _ in 0..20 {
        attack(&test).await;
        sleep(Duration::from_millis(20)).await;
    }
    let repairs = writes().await - before;
    test.holds("k", &data).await;
    test.ready("k").await;
    assert_eq!(test.proxy.calls(), 1);
    (repairs, message.unwrap())
}

#[tokio::test]
async fn two_writers_of_a_secret_end_in_a_bounded_rate_and_a_condition() {
    let (repairs, message) = fight("fight-edits", async |test| {
        test.edit_secret("k", &json!({ "data": { "ciphertextBlob": "eA==" } })).await;
    })
    .await;
    assert!((11..=12).contains(&repairs), "{repairs} repairs");
    assert!(message.contains("kubectl-edit"), "it names the other writer: {message}");
}

#[tokio::test]
async fn a_secret_that_is_deleted_over_and_over_ends_in_a_bounded_rate_and_a_condition() {
    let (repairs, message) = fight("fight-deletions", async |test| test.delete_secret("k").await).await;
    assert!((11..=12).contains(&repairs), "{repairs} repairs");
    assert!(message.contains("changing or deleting"), "{message}");
}
