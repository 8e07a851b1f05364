//! Secrets that exist before the record: restored ones, and those of another owner.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use testbed::eventually;

use crate::harness::{SOON, TestNamespace, recorded_version, restored, text, to_json};

/// Issues a `DataKey`, then deletes it and its Secret, as when a cluster is lost. Returns the Secret as a backup has it.
async fn issue_and_lose(test: &TestNamespace, name: &str, spec: &serde_json::Value) -> Secret {
    test.issue(name, spec).await;
    let secret = restored(&test.secret(name).await);
    test.delete(name).await;
    test.delete_secret(name).await;
    secret
}

#[tokio::test]
async fn a_restored_secret_becomes_the_record_again() {
    let test = TestNamespace::new("restored").await;
    let operator = test.operator();
    let spec = json!({ "encryptionContext": { "a": "b" }, "numberOfBytes": 48 });
    test.issue("orders", &spec).await;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let old = test.ready("orders").await;
    let (backup, data) = (restored(&test.secret("orders").await), test.data("orders").await);
    test.delete("orders").await;
    test.delete_secret("orders").await;

    test.create_secret(&backup).await;
    let mut spec = spec;
    spec["version"] = json!(2);
    let new = test.issue("orders", &spec).await;
    assert_eq!(new.record(), old.record());
    assert_eq!(test.data("orders").await, data);
    assert_eq!(test.proxy.calls(), 2);

    // What a restored Secret lacks is noticed once, not after every start.
    drop(operator);
    let before = test.secret("orders").await.metadata.resource_version;
    let _operator = test.operator();
    test.barrier().await;
    assert_eq!(test.secret("orders").await.metadata.resource_version, before);
}

#[tokio::test]
async fn a_restored_secret_takes_a_new_version() {
    let test = TestNamespace::new("restored-version").await;
    let _operator = test.operator();
    let backup = issue_and_lose(&test, "orders", &json!({})).await;
    test.create_secret(&backup).await;
    test.issue("orders", &json!({})).await;
    // Since the restore its metadata do not show which version it holds, so the operator has to read it after each change.
    for version in [2, 1, 2] {
        test.patch("orders", &json!({ "spec": { "version": version } })).await;
        let key = test.ready("orders").await;
        let data = test.data("orders").await;
        assert_eq!(text(&data, "version"), version.to_string());
        assert_eq!(data["ciphertextBlob"], recorded_version(&key, version).ciphertext_blob.0);
    }
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn adopted_secret_has_no_owner_under_delete() {
    let test = TestNamespace::new("restored-owner").await;
    let _operator = test.operator();
    let backup = issue_and_lose(&test, "orders", &json!({ "deletionPolicy": "Delete" })).await;
    test.create_secret(&backup).await;
    test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let data = test.data("orders").await;
    assert_eq!(test.secret("orders").await.metadata.owner_references, None);
    // Nor has the Secret that is recreated from the adopted record.
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.secret("orders").await.metadata.owner_references, None);
}

#[tokio::test]
async fn a_corrupted_restored_secret_is_refused_and_left_alone() {
    let test = TestNamespace::new("corrupted").await;
    let _operator = test.operator();
    let mut backup = issue_and_lose(&test, "orders", &json!({})).await;
    let calls = test.proxy.calls();
    let whole = backup.clone();
    backup.data.as_mut().unwrap().get_mut("ciphertextBlob.v1").unwrap().0[5] ^= 1;
    let created = test.create_secret(&backup).await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "SecretConflict").await;
    let message = &key.status.unwrap().conditions[0].message;
    assert!(message.contains("ciphertextBlob of version 1 is missing or was changed"), "{message}");
    assert_eq!(test.secret("orders").await.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(test.proxy.calls(), calls);

    assert!(message.contains("restore its content in place"), "{message}");

    // An intact backup restores it in place.
    let whole = to_json(&whole.data);
    test.edit_secret("orders", &json!({ "data": whole })).await;
    let key = test.ready("orders").await;
    assert_eq!(to_json(&test.secret("orders").await.data), whole);
    assert_eq!(to_json(&recorded_version(&key, 1).ciphertext_blob), whole["ciphertextBlob"]);
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn restored_secret_that_does_not_match_the_spec_is_refused() {
    let test = TestNamespace::new("other-spec").await;
    let _operator = test.operator();
    let backup = issue_and_lose(&test, "orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    let calls = test.proxy.calls();
    test.create_secret(&backup).await;
    test.create("orders", &json!({ "encryptionContext": { "a": "c" } })).await;
    let message = test.failed("orders", "SecretConflict").await.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("asked for with other settings: encryptionContext"), "{message}");
    // Nothing is issued, so the spec can be corrected.
    test.patch("orders", &json!({ "spec": { "encryptionContext": { "a": "b" } } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn foreign_secret_is_never_changed_and_kms_is_not_called() {
    let test = TestNamespace::new("foreign").await;
    let operator = test.operator();
    let foreign = |name: &str| -> Secret {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": "shop" } },
            "stringData": { "password": "marker-of-a-foreign-password" },
        }))
        .unwrap()
    };
    let created = test.create_secret(&foreign("orders")).await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "SecretConflict").await;
    let conditions = key.status.unwrap().conditions;
    assert!(conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True"));
    assert_eq!(test.secret("orders").await.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(test.proxy.calls(), 0);
    eventually(SOON, "an event", async || !test.events("orders", "SecretConflict").await.is_empty()).await;

    // Once the foreign Secret is gone, the data key is issued.
    test.delete_secret("orders").await;
    test.ready("orders").await;

    // A foreign Secret in the place of the operator's own.
    let data = test.data("orders").await;
    drop(operator);
    test.delete_secret("orders").await;
    let created = test.create_secret(&foreign("orders")).await;
    let operator = test.operator();
    test.failed("orders", "SecretConflict").await;
    assert_eq!(test.secret("orders").await.metadata.resource_version, created.metadata.resource_version);
    test.delete_secret("orders").await;
    test.ready("orders").await;
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.proxy.calls(), 1);
    assert!(!operator.process.log().contains("marker-of-a-foreign-password"));
}

#[tokio::test]
async fn an_intact_secret_with_another_data_key_is_never_overwritten() {
    let test = TestNamespace::new("other-key").await;
    let operator = test.operator();
    let backup = issue_and_lose(&test, "orders", &json!({})).await;
    let new = test.issue("orders", &json!({})).await;
    drop(operator);
    // Another data key was issued, and now a backup restores the first one.
    test.delete_secret("orders").await;
    let created = test.create_secret(&backup).await;
    let _operator = test.operator();
    let key = test.failed("orders", "SecretConflict").await;
    let message = key.status.clone().unwrap().conditions[0].message.clone();
    assert!(message.contains("it holds another data key as version 1"), "{message}");
    assert_eq!(test.secret("orders").await.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(to_json(&recorded_version(&key, 1)), to_json(&recorded_version(&new, 1)));
}

/// As a backup tool without labels of its own restores: no status, no owner references, other uids, no managed fields.
#[tokio::test]
async fn restore_in_either_order_keeps_the_bytes_without_a_call() {
    let test = TestNamespace::new("restore-order").await;
    let spec = json!({ "encryptionContext": { "a": "b" }, "deletionPolicy": "Delete" });
    for (name, data_keys_first, operator_runs) in [
        ("secrets-first", false, true),
        ("secrets-first-stopped", false, false),
        // No operator runs in between: it would issue a new data key for a DataKey without a Secret.
        ("data-keys-first-stopped", true, false),
    ] {
        let operator = test.operator();
        test.issue(name, &spec).await;
        test.patch(name, &json!({ "spec": { "version": 2 } })).await;
        let (old, data) = (test.ready(name).await, test.data(name).await);
        let backup = restored(&test.secret(name).await);
        test.delete(name).await;
        test.delete_secret(name).await;
        let calls = test.proxy.calls();

        let mut operator = operator_runs.then_some(operator);
        let mut spec = spec.clone();
        spec["version"] = json!(2);
        if data_keys_first {
            test.create(name, &spec).await;
            test.create_secret(&backup).await;
        } else {
            test.create_secret(&backup).await;
            test.create(name, &spec).await;
        }
        let _operator = operator.take().unwrap_or_else(|| test.operator());
        let new = test.ready(name).await;
        assert_eq!(new.record(), old.record(), "{name}");
        assert_eq!(test.data(name).await, data, "{name}");
        assert_eq!(test.proxy.calls(), calls, "{name}");
        assert_eq!(test.secret(name).await.metadata.owner_references, None, "{name}: it was adopted");
    }
}

#[tokio::test]
async fn secret_restored_after_a_new_issuance_is_a_conflict() {
    let test = TestNamespace::new("restore-late").await;
    let _operator = test.operator();
    let backup = issue_and_lose(&test, "orders", &json!({})).await;
    // The backup tool is late: the operator has already issued a new data key.
    let new = test.issue("orders", &json!({})).await;
    let late = json!({ "metadata": { "annotations": backup.metadata.annotations }, "data": to_json(&backup.data) });
    test.edit_secret("orders", &late).await;
    let message = test.failed("orders", "SecretConflict").await.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("it holds another data key as version 1"), "{message}");
    // Both data keys are still there: one in the record, one in the Secret.
    assert_eq!(test.get("orders").await.record(), new.record());
    assert_eq!(test.secret("orders").await.data, backup.data);
}
