//! Another data key in the Secret: the operator always notices it, whatever field manager wrote it.

use datakey::{api, condition};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::eventually;
use tokio::time::Duration;

use super::{Tenant, mutate_secrets};
use crate::harness::{SOON, TestKind, TestNamespace};

for_each_kind! {
    a_forged_field_manager_hides_no_change: new("forged-manager"),
    a_server_side_apply_as_the_operator_hides_no_change: new("forged-apply"),
    an_earlier_state_of_the_secret_is_noticed: new("earlier-state"),
    a_secret_that_was_created_again_is_noticed: new("created-again"),
    a_data_key_that_a_finalizer_holds_is_not_ready: new("held"),
}

const OTHER: &str = "Y2hhbmdlZA==";

async fn a_forged_field_manager_hides_no_change<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    for (prefix, manager) in [("one", "datakey-operator"), ("two", "kubectl")] {
        let name = |name: &str| format!("{prefix}-{name}");
        let mut operator = Some(test.operator());
        for stopped in [false, true] {
            let name = name(if stopped { "stopped" } else { "running" });
            test.issue(&name, &json!({})).await;
            let (data, calls) = (test.data(&name).await, test.proxy.calls());
            if stopped {
                operator = None;
            }
            let other = json!({ "data": { "ciphertextBlob": OTHER, "ciphertextBlob.v1": OTHER } });
            tenant.try_change(&name, manager, &other).await.unwrap();
            if stopped {
                operator = Some(test.operator());
            }
            test.secret_becomes(&name, &data).await;
            test.ready(&name).await;
            assert_eq!(test.proxy.calls(), calls);
        }
        drop(operator);
    }
}

async fn a_server_side_apply_as_the_operator_hides_no_change<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    let mut other = test.secret("orders").await;
    other.metadata.managed_fields = None;
    other.metadata.resource_version = None;
    other.data.as_mut().unwrap().get_mut("ciphertextBlob").unwrap().0 = b"changed".to_vec();
    let params = PatchParams::apply("datakey-operator").force();
    tenant.secrets.patch("orders", &params, &Patch::Apply(&other)).await.unwrap();
    test.secret_becomes("orders", &data).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
}

async fn an_earlier_state_of_the_secret_is_noticed<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    let mut earlier = test.secret("orders").await;
    earlier.metadata.resource_version = None;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    let data = test.data("orders").await;
    // Byte for byte, with its managed fields.
    tenant.secrets.replace("orders", &<_>::default(), &earlier).await.unwrap();
    test.secret_becomes("orders", &data).await;

    drop(operator);
    tenant.secrets.replace("orders", &<_>::default(), &earlier).await.unwrap();
    let _operator = test.operator();
    test.secret_becomes("orders", &data).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

async fn a_secret_that_was_created_again_is_noticed<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let mut operator = Some(test.operator());
    test.issue("orders", &json!({})).await;
    let (data, whole) = (test.data("orders").await, crate::harness::restored(&test.secret("orders").await));
    let mut other = whole.clone();
    other.data.as_mut().unwrap().get_mut("ciphertextBlob").unwrap().0 = b"changed".to_vec();
    for stopped in [false, true] {
        operator = operator.filter(|_| !stopped);
        tenant.secrets.delete("orders", &<_>::default()).await.unwrap();
        // A running operator may be faster; then there is nothing to attack.
        let created = tenant.secrets.create(&<_>::default(), &other).await;
        assert!(created.is_ok() || !stopped, "{created:?}");
        operator = operator.or_else(|| Some(test.operator()));
        test.secret_becomes("orders", &data).await;
    }
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn admission_that_changes_the_operators_write_is_reported() {
    for (name, expression, named) in [
        (
            "mutate-data",
            r#"[JSONPatch{op: "replace", path: "/data/ciphertextBlob", value: "Y2hhbmdlZA=="}]"#,
            "entry ciphertextBlob was changed",
        ),
        (
            "mutate-label",
            r#"(has(object.metadata.labels) ? [] : [JSONPatch{op: "add", path: "/metadata/labels", value: {}}]) +
               [JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("app.kubernetes.io/managed-by"),
                value: "platform"}]"#,
            "label app.kubernetes.io/managed-by was changed",
        ),
    ] {
        let test = TestNamespace::new(name).await;
        mutate_secrets(&test, expression).await;
        let (api, kubeconfig) = test.api_proxy().await;
        // With the retry delays of production, so that the rate of writes shows.
        let _operator = test.operator_by(&kubeconfig, &["--retry-min=1s", "--retry-max=10m"]);
        test.create("orders", &json!({})).await;
        let key = test.failed("orders", "SecretContested").await;
        let message = &key.status.as_ref().unwrap().conditions[0].message;
        assert!(message.contains(named) && message.contains("admission policy"), "{message}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let writes = api.count("create", "secrets") + api.count("update", "secrets");
        assert!(writes <= 2, "{writes} writes of the Secret within three seconds");
        assert_eq!(test.proxy.calls(), 1);
        eventually(SOON, "an event", async || !test.events("orders", "SecretContested").await.is_empty()).await;

        // Once the policy is gone, any change of the Secret is enough for another try.
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            test.plane.kubectl(&["delete", kind, name]).await.unwrap();
        }
        // The API server applies a deleted policy for a moment longer.
        eventually(2 * SOON, "the DataKey is ready", async || {
            test.edit_secret("orders", &json!({ "metadata": { "labels": { "try": fastrand::u16(..).to_string() } } }))
                .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            condition::find(&test.get("orders").await, api::READY).is_some_and(|ready| ready.status == "True")
        })
        .await;
        let secret = test.secret("orders").await;
        let record = test.get("orders").await.record().to_vec();
        assert_eq!(secret.data.unwrap()["ciphertextBlob"].0, record[0].ciphertext_blob.0);
        assert_eq!(secret.metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "datakey-operator");
        test.ready("orders").await;
    }
}

async fn a_data_key_that_a_finalizer_holds_is_not_ready<K: TestKind>(test: TestNamespace<K>) {
    let Some(tenant) = Tenant::of(&test).await else { return };
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    test.patch("orders", &json!({ "metadata": { "finalizers": ["example.com/hold"] } })).await;
    test.keys().delete("orders", &<_>::default()).await.unwrap();
    test.failed("orders", "Deleting").await;
    tenant.change("orders", &json!({ "data": { "ciphertextBlob": OTHER } })).await;
    drop(operator);
    let _operator = test.operator();
    test.barrier().await;
    test.failed("orders", "Deleting").await;
    assert_eq!(test.get("orders").await.as_object().record().len(), 1);
    test.patch("orders", &json!({ "metadata": { "finalizers": null } })).await;
}

#[tokio::test]
async fn thousands_of_added_entries_are_named_briefly() {
    let test = TestNamespace::new("many-entries").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let operator = test.operator();
    let key = test.issue("orders", &json!({})).await;
    let entries: serde_json::Map<_, _> = (0..20_000).map(|number| (format!("k{number}"), json!(""))).collect();
    tenant.change("orders", &json!({ "immutable": true, "data": entries })).await;
    let failed = test.failed("orders", "SecretImmutable").await;
    let message = &failed.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("more") && message.len() < 1024, "{message}");
    let longest = operator.process.log().lines().map(str::len).max().unwrap();
    assert!(longest < 20_000, "a line of {longest} bytes");
    tenant.secrets.delete("orders", &<_>::default()).await.unwrap();
    test.ready("orders").await;
    assert_eq!(test.get("orders").await.record(), key.record());
}
