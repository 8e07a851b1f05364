//! Objects that a backup tool restored without their record, and an operator that must not issue any.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::harness::{Data, NO_RETRY, TestKind, TestNamespace, restored, to_json};

for_each_kind! {
    a_data_key_that_velero_restored_waits_for_its_secret: new("restored-first"),
    a_restored_status_is_the_record: new("restored-status"),
    a_restored_data_key_is_pinned_without_a_call: new("restored-pinned"),
    without_issuing_only_what_exists_is_published: new("no-issuing"),
}

/// Creates a `DataKey` as Velero restores it.
async fn create_as_velero<K: TestKind>(test: &TestNamespace<K>, name: &str, spec: &Value) {
    let mut manifest = test.manifest(name, spec);
    manifest["metadata"]["labels"] = json!({ "velero.io/restore-name": "drill", "velero.io/backup-name": "nightly" });
    test.try_create(&manifest).await.unwrap();
}

/// Issues a `DataKey`, then deletes it and its Secret. Returns both as a backup has them, and the data.
async fn back_up_and_delete<K: TestKind>(test: &TestNamespace<K>, name: &str) -> (Value, Secret, Data) {
    let key = test.issue(name, &json!({ "encryptionContext": { "a": "b" } })).await;
    let (secret, data) = (restored(&test.secret(name).await), test.data(name).await);
    test.delete(name).await;
    test.delete_secret(name).await;
    (to_json(&key), secret, data)
}

async fn a_data_key_that_velero_restored_waits_for_its_secret<K: TestKind>(test: TestNamespace<K>) {
    let operator = test.operator_without_retries();
    let (backup, secret, data) = back_up_and_delete(&test, "orders").await;
    assert_eq!(test.proxy.calls(), 1);

    create_as_velero(&test, "orders", &backup["spec"]).await;
    let key = test.failed("orders", "RestoredWithoutKey").await;
    let message = &datakey::condition::find(&key, datakey::api::READY).unwrap().message;
    for way in ["Restore the Secret", "--status-include-resources", "spec.wrappedKeys", "velero.io/restore-name-"] {
        assert!(message.contains(way), "{message}");
    }
    assert!(datakey::condition::find(&key, datakey::api::STALLED).is_some());

    // It is not issued after a restart either; and the restored Secret is adopted at once.
    drop(operator);
    let _operator = test.operator_without_retries();
    test.barrier().await;
    test.failed("orders", "RestoredWithoutKey").await;
    test.create_secret(&secret).await;
    let key = test.ready("orders").await;
    assert_eq!(to_json(&key.as_object().record()), backup["status"]["versions"]);
    assert_eq!(test.data("orders").await, data);
    assert_eq!(test.proxy.calls(), 2, "one to begin with, and one of the DataKey that shows that all is settled");
}

async fn a_restored_status_is_the_record<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator_without_retries();
    let (backup, _, data) = back_up_and_delete(&test, "orders").await;
    create_as_velero(&test, "orders", &backup["spec"]).await;
    test.failed("orders", "RestoredWithoutKey").await;
    let status = json!({ "secretName": "orders", "versions": backup["status"]["versions"] });
    test.try_patch_status("orders", &status).await.unwrap();
    let key = test.ready("orders").await;
    assert_eq!(to_json(&key.as_object().record()), backup["status"]["versions"]);
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.proxy.calls(), 1);
}

async fn a_restored_data_key_is_pinned_without_a_call<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator_without_retries();
    create_as_velero(&test, "orders", &json!({ "wrappedKeys": [test.pin(1)] })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn a_restored_data_key_is_issued_once_its_mark_is_gone() {
    let test = TestNamespace::new("restored-label").await;
    let _operator = test.operator_without_retries();
    create_as_velero(&test, "labeled", &json!({})).await;
    test.failed("labeled", "RestoredWithoutKey").await;
    let mut annotated = test.manifest("annotated", &json!({}));
    annotated["metadata"]["annotations"] = json!({ "datakey.dev/restored": "" });
    test.try_create(&annotated).await.unwrap();
    test.failed("annotated", "RestoredWithoutKey").await;
    assert_eq!(test.proxy.calls(), 0);

    // The way out that the message names.
    let (namespace, label) = (&test.namespace, "velero.io/restore-name-");
    test.plane.kubectl(&["label", "datakey", "labeled", label, "-n", namespace]).await.unwrap();
    test.ready("labeled").await;
    test.patch("annotated", &json!({ "metadata": { "annotations": { "datakey.dev/restored": null } } })).await;
    test.ready("annotated").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn a_restored_data_key_is_issued_once_its_spec_is_changed() {
    let test = TestNamespace::new("restored-changed").await;
    let _operator = test.operator_without_retries();
    create_as_velero(&test, "orders", &json!({})).await;
    test.failed("orders", "RestoredWithoutKey").await;
    // Other labels change nothing.
    test.patch("orders", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    test.barrier().await;
    test.failed("orders", "RestoredWithoutKey").await;
    let before = test.proxy.calls();
    test.patch("orders", &json!({ "spec": { "encryptionContext": { "a": "b" } } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), before + 1);
}

async fn without_issuing_only_what_exists_is_published<K: TestKind>(test: TestNamespace<K>) {
    let (backup, secret, data) = {
        let _operator = test.operator();
        back_up_and_delete(&test, "adopted").await
    };
    let before = test.proxy.calls();
    {
        let _operator = test.operator_with(&["--issue=false", NO_RETRY[0], NO_RETRY[1]], &[]);
        test.create("new", &json!({})).await;
        let key = test.failed("new", "IssuingDisabled").await;
        assert!(datakey::condition::find(&key, datakey::api::STALLED).is_none());
        test.create_secret(&secret).await;
        test.create("adopted", &backup["spec"]).await;
        test.ready("adopted").await;
        test.secret_becomes("adopted", &data).await;
        test.issue("pinned", &json!({ "wrappedKeys": [test.pin(1)] })).await;
        test.patch("pinned", &json!({ "spec": { "version": 2 } })).await;
        test.failed("pinned", "IssuingDisabled").await;
        // A deleted Secret is recreated.
        test.delete_secret("adopted").await;
        test.secret_becomes("adopted", &data).await;
        assert_eq!(test.proxy.calls(), before);
    }
    let _operator = test.operator();
    test.ready("new").await;
    test.ready("pinned").await;
    assert_eq!(test.proxy.calls(), before + 2);
}
