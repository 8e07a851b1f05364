//! A Secret that somebody deletes or changes gets the recorded bytes back, and KMS is never asked.

use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::eventually;

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
