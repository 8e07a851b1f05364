//! Restores that the API server refuses: the condition says what to do, and owner references block nothing.

use serde_json::json;

use super::{Tenant, withstands};
use crate::harness::{TestKind, TestNamespace, message};

for_each_kind! {
    an_immutable_secret_is_restored_once_it_is_deleted: new("immutable"),
    an_intact_immutable_secret_is_ready: new("immutable-intact"),
    owner_references_of_others_block_no_restore: new("foreign-owner"),
}

async fn an_immutable_secret_is_restored_once_it_is_deleted<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let change = json!({ "immutable": true, "data": { "ciphertextBlob": "Y2hhbmdlZA==" } });
    withstands(
        &test,
        async |name| drop(tenant.change(name, &change).await),
        async |name| {
            let key = test.failed(name, "SecretImmutable").await;
            let message = message(&key);
            assert!(message.contains("kubectl delete secret"), "{message}");
            assert!(message.contains("entry ciphertextBlob was changed"), "{message}");
            tenant.secrets.delete(name, &<_>::default()).await.unwrap();
            test.ready(name).await;
            let blob = test.get(name).await.as_object().record()[0].ciphertext_blob.0.clone();
            assert_eq!(test.data(name).await["ciphertextBlob"], blob);
        },
    )
    .await;
}

async fn an_intact_immutable_secret_is_ready<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    tenant.change("orders", &json!({ "immutable": true })).await;
    test.barrier().await;
    test.ready("orders").await;
    // An immutable Secret cannot take a new version: it is recorded, and the condition says how it gets into the Secret.
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let key = test.failed("orders", "SecretImmutable").await;
    assert_eq!(key.as_object().record().len(), 2);
    tenant.secrets.delete("orders", &<_>::default()).await.unwrap();
    test.ready("orders").await;
    assert_eq!(test.data("orders").await["ciphertextBlob.v2"], key.as_object().record()[1].ciphertext_blob.0);
}

async fn owner_references_of_others_block_no_restore<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let uid = test.namespace_uid().await;
    let reference = json!({
        "apiVersion": "v1", "kind": "Namespace", "name": test.namespace, "uid": uid, "controller": true,
    });
    let change = json!({
        "metadata": { "ownerReferences": [reference] },
        "data": { "ciphertextBlob": "Y2hhbmdlZA==" },
    });
    withstands(
        &test,
        async |name| drop(tenant.change(name, &change).await),
        async |name| {
            let blob = test.get(name).await.as_object().record()[0].ciphertext_blob.0.clone();
            testbed::eventually(crate::harness::SOON, "restored", async || {
                test.data(name).await["ciphertextBlob"] == blob
            })
            .await;
            test.ready(name).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_refused_restore_says_that_deleting_the_secret_helps() {
    let test = TestNamespace::new("full-annotations").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    // Annotations are limited to 256 KiB in total: without room the operator cannot restore its own.
    let full = json!({ "metadata": { "annotations": {
        "datakey.dev/issued.v1": null, "datakey.dev/version": null, "full": "x".repeat(256 * 1024 - 10),
    }}});
    withstands(
        &test,
        async |name| drop(tenant.change(name, &full).await),
        async |name| {
            let key = test.failed(name, "WriteRejected").await;
            let message = &key.status.as_ref().unwrap().conditions[0].message;
            assert!(
                message.contains("Once the Secret is deleted, the operator creates it from the record"),
                "{message}"
            );
            tenant.secrets.delete(name, &<_>::default()).await.unwrap();
            test.ready(name).await;
        },
    )
    .await;
}
