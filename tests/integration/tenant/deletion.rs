//! Deletion: the policy in the spec is the one that applies. All of it with the admission plugin
//! `OwnerReferencesPermissionEnforcement`, as on OpenShift.

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::{Value, json};
use testbed::eventually;

use super::{Tenant, withstands};
use crate::harness::{Data, SOON, TestKind, TestNamespace, assert_refused, to_json};

for_each_kind! {
    every_cascade_does_as_the_policy_says: new("cascades"),
    what_was_adopted_or_pinned_is_kept_under_delete: new("delete-keeps"),
    a_forged_owner_reference_loses_no_data_key: new("forged-owner"),
    an_owned_secret_is_deleted_only_with_its_owner: new("owner-kept"),
}

/// Longest wait for the garbage collector, which discovers a new kind of objects within 30 seconds.
const COLLECTED: Duration = Duration::from_secs(90);

async fn delete_with_cascade<K: TestKind>(test: &TestNamespace<K>, name: &str, cascade: &str) {
    let cascade = format!("--cascade={cascade}");
    let delete = ["delete", K::KIND.plural, name, "-n", &test.namespace, &cascade, "--timeout=60s"];
    test.plane.kubectl(&delete).await.unwrap();
}

async fn is_garbage_collected<K: TestKind>(test: &TestNamespace<K>, name: &str) {
    let is_gone = async || test.secrets().get_opt(name).await.unwrap().is_none();
    eventually(COLLECTED, &format!("{name} is collected"), is_gone).await;
}

/// Asserts that the Secret of a deleted `DataKey` stays. Once the garbage collector has deleted the Secret of another
/// `DataKey` that was deleted later, it has decided on this one as well.
async fn survives_deletion<K: TestKind>(test: &TestNamespace<K>, name: &str, data: &Data) {
    let marker = format!("marker-{}", fastrand::u32(..));
    test.issue(&marker, &json!({ "deletionPolicy": "Delete" })).await;
    test.delete(&marker).await;
    is_garbage_collected(test, &marker).await;
    assert_eq!(&test.data(name).await, data, "{name}");
}

async fn every_cascade_does_as_the_policy_says<K: TestKind>(test: TestNamespace<K>) {
    if !test.plane.has_controllers() {
        return;
    }
    let _operator = test.operator();
    for (policy, cascade, kept) in [
        ("Retain", "orphan", true),
        ("Retain", "background", true),
        ("Retain", "foreground", true),
        ("Delete", "orphan", true),
        ("Delete", "background", false),
        ("Delete", "foreground", false),
    ] {
        let name = format!("{}-{cascade}", policy.to_lowercase());
        test.issue(&name, &json!({ "deletionPolicy": policy })).await;
        let data = test.data(&name).await;
        delete_with_cascade(&test, &name, cascade).await;
        if kept {
            survives_deletion(&test, &name, &data).await;
            assert_eq!(test.secret(&name).await.metadata.owner_references, None, "{name}");
        } else {
            is_garbage_collected(&test, &name).await;
        }
    }
}

#[tokio::test]
async fn change_from_delete_to_retain_is_refused_with_a_way_out() {
    let test = TestNamespace::new("policy-race").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let operator = test.operator();
    test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let data = test.data("orders").await;
    for operator in [Some(operator), None] {
        let retain = json!({ "spec": { "deletionPolicy": "Retain" } });
        assert_refused(test.try_patch("orders", &retain).await, "kubectl datakey keep NAME");
        drop(operator);
    }
    // The way out that the message names works without an operator.
    let delete = ["delete", "datakey", "orders", "-n", "policy-race", "--cascade=orphan"];
    eventually(SOON, "the tenant may delete it", async || tenant.kubectl(&delete).await.is_ok()).await;
    let mut manifest = test.manifest("orders", &json!({ "deletionPolicy": "Retain" }));
    manifest["metadata"]["labels"] = json!({ "kept": "yes" });
    test.try_create(&manifest).await.unwrap();
    let _operator = test.operator();
    test.ready("orders").await;
    delete_with_cascade(&test, "orders", "background").await;
    survives_deletion(&test, "orders", &data).await;
}

async fn what_was_adopted_or_pinned_is_kept_under_delete<K: TestKind>(test: TestNamespace<K>) {
    if !test.plane.has_controllers() {
        return;
    }
    let operator = test.operator();
    let delete = json!({ "deletionPolicy": "Delete" });
    test.issue("adopted", &json!({})).await;
    test.delete("adopted").await;
    test.issue("adopted", &delete).await;

    test.issue("origin", &json!({})).await;
    let pin = to_json(&test.get("origin").await.as_object().record());
    test.issue("pinned", &json!({ "deletionPolicy": "Delete", "wrappedKeys": pin })).await;

    let (adopted, pinned) = (test.data("adopted").await, test.data("pinned").await);
    for operator in [Some(operator), None] {
        for (name, data) in [("adopted", &adopted), ("pinned", &pinned)] {
            test.delete(name).await;
            let running = if operator.is_some() { None } else { Some(test.operator()) };
            survives_deletion(&test, name, data).await;
            // Again for the next round.
            test.issue(name, &delete).await;
            drop(running);
        }
        drop(operator);
    }
}

#[tokio::test]
async fn a_deletion_while_no_operator_runs_does_as_the_policy_says() {
    let test = TestNamespace::new("deletion-alone").await;
    if !test.plane.has_controllers() {
        return;
    }
    let operator = test.operator();
    test.issue("kept", &json!({})).await;
    test.issue("gone", &json!({ "deletionPolicy": "Delete" })).await;
    let data = test.data("kept").await;
    drop(operator);
    test.delete("kept").await;
    test.delete("gone").await;
    is_garbage_collected(&test, "gone").await;
    assert_eq!(test.data("kept").await, data);
}

#[tokio::test]
async fn a_deleted_definition_leaves_secrets_under_retain() {
    let test = TestNamespace::with_own_control_plane("definition-goes").await;
    if !test.plane.has_controllers() {
        return;
    }
    let _operator = test.operator();
    test.issue("kept", &json!({})).await;
    test.issue("gone", &json!({ "deletionPolicy": "Delete" })).await;
    let data = test.data("kept").await;
    test.plane.kubectl(&["delete", "crd", "datakeys.datakey.dev", "--timeout=60s"]).await.unwrap();
    is_garbage_collected(&test, "gone").await;
    assert_eq!(test.data("kept").await, data);
    assert_eq!(test.secret("kept").await.metadata.owner_references, None);
}

#[tokio::test]
async fn a_forced_replacement_keeps_the_data_key_under_retain() {
    let test = TestNamespace::new("forced").await;
    if !test.plane.has_controllers() {
        return;
    }
    let _operator = test.operator();
    let force = async |name: &str, policy: &str| {
        let manifest: Value = test.manifest(name, &json!({ "deletionPolicy": policy }));
        let file = test.plane.workdir().file(&format!("forced-{name}.json"));
        std::fs::write(&file, manifest.to_string()).unwrap();
        test.plane.kubectl(&["replace", "--force", "-f", &file.display().to_string()]).await.unwrap();
    };
    let old = test.issue("kept", &json!({ "deletionPolicy": "Retain" })).await;
    let data = test.data("kept").await;
    let calls = test.proxy.calls();
    force("kept", "Retain").await;
    let new = test.ready("kept").await;
    assert_ne!(new.metadata.uid, old.metadata.uid);
    assert_eq!(test.data("kept").await, data);
    assert_eq!(test.proxy.calls(), calls);

    // Under Delete the Secret goes with the old DataKey. The new one adopts it, if it comes before the garbage collector, or
    // is issued another data key; in both cases record and Secret agree in the end.
    let old = test.issue("forced", &json!({ "deletionPolicy": "Delete" })).await;
    let old_uid = test.secret("forced").await.metadata.uid;
    force("forced", "Delete").await;
    eventually(COLLECTED, "the Secret of the old DataKey is collected", async || {
        test.secrets().get_opt("forced").await.unwrap().is_some_and(|secret| secret.metadata.uid != old_uid)
    })
    .await;
    let new = test.ready("forced").await;
    assert_ne!(new.metadata.uid, old.metadata.uid);
    test.secrets_hold_the_record(std::slice::from_ref(&new)).await;
    let adopted = new.record() == old.record();
    assert_eq!(test.proxy.calls(), calls + if adopted { 1 } else { 2 });
}

async fn a_forged_owner_reference_loses_no_data_key<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    // An owner that does not exist: the garbage collector deletes the Secret.
    let reference = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "0000" });
    let change = json!({ "metadata": { "ownerReferences": [reference] } });
    withstands(
        &test,
        async |name| {
            let before = test.secret(name).await.metadata.uid;
            tenant.change(name, &change).await;
            eventually(COLLECTED, "it is collected", async || {
                test.secrets().get_opt(name).await.unwrap().is_none_or(|secret| secret.metadata.uid != before)
            })
            .await;
        },
        async |name| {
            let key = test.get(name).await;
            test.secrets_hold_the_record(&[key]).await;
            test.ready(name).await;
        },
    )
    .await;
}

async fn an_owned_secret_is_deleted_only_with_its_owner<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let key = test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let reference = |key: &K| key.meta().uid.clone();
    let owner = async || test.secret("orders").await.metadata.owner_references.unwrap()[0].uid.clone();
    assert_eq!(Some(owner().await), reference(&key));
    // A new version and a restore leave the reference as it is.
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    assert_eq!(Some(owner().await), reference(&key));
    test.edit_secret("orders", &json!({ "data": { "version": "OQ==" } })).await;
    eventually(SOON, "restored", async || test.data("orders").await["version"] == b"2").await;
    assert_eq!(Some(owner().await), reference(&key));
    // Removed by another client it is not added again; then the Secret stays.
    test.edit_secret("orders", &json!({ "metadata": { "ownerReferences": null } })).await;
    test.barrier().await;
    assert_eq!(test.secret("orders").await.metadata.owner_references, None);
    test.keys().delete("orders", &DeleteParams::default()).await.unwrap();
}
