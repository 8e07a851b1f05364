//! Writes that the API server cannot carry out: webhooks that are down or slow, a status that is refused, a defect of the
//! operator. Each reaches the condition or, where that cannot be written, an Event; and KMS is not called again each time.

use serde_json::{Value, json};
use testbed::{api_proxy::Fault, eventually};
use tokio::net::TcpListener;

use crate::harness::{SOON, TestNamespace, message};

/// Has the API server call this webhook before writes of this resource in the namespace.
async fn install_webhook(test: &TestNamespace, resource: &str, url: &str) {
    let (group, operations) = match resource {
        "secrets" => ("", vec!["CREATE", "UPDATE"]),
        _ => ("datakey.dev", vec!["UPDATE"]),
    };
    test.apply(&[json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": test.namespace },
        "webhooks": [{
            "name": format!("{}.example.com", test.namespace),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 12,
            "clientConfig": { "url": url },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": test.namespace } },
            "rules": [{ "apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": [resource] }],
        }],
    })])
    .await;
    let probe: Value = json!({ "metadata": { "name": "probe" }, "data": {} });
    let dry = kube::api::PostParams { dry_run: true, ..<_>::default() };
    if resource == "secrets" && url.contains(":9/") {
        let probe = serde_json::from_value(probe).unwrap();
        eventually(SOON, "the webhook is asked", async || test.secrets().create(&dry, &probe).await.is_err()).await;
    }
}

async fn remove_webhook(test: &TestNamespace) {
    test.plane.kubectl(&["delete", "validatingwebhookconfiguration", &test.namespace]).await.unwrap();
}

/// Port 9 of loopback: the connection is refused.
const DOWN: &str = "https://127.0.0.1:9/x";

#[tokio::test]
async fn a_webhook_for_secrets_that_is_down_is_named() {
    let test = TestNamespace::new("secrets-webhook-down").await;
    let _operator = test.operator();
    test.issue("ready", &json!({})).await;
    install_webhook(&test, "secrets", DOWN).await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "AdmissionUnavailable").await;
    let message = message(&key);
    assert!(message.contains("secrets-webhook-down.example.com"), "{message}");
    test.event_contains("orders", "AdmissionUnavailable", "secrets-webhook-down.example.com").await;
    // A DataKey that was Ready does not stay Ready once its Secret is gone.
    test.delete_secret("ready").await;
    test.failed("ready", "AdmissionUnavailable").await;
    assert_eq!(test.proxy.calls(), 2, "what is recorded is not issued again");
    remove_webhook(&test).await;
    test.ready("orders").await;
    test.ready("ready").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_costs_one_call_to_kms() {
    let test = TestNamespace::new("status-webhook-down").await;
    let (api, kubeconfig) = test.api_proxy().await;
    install_webhook(&test, "datakeys/status", DOWN).await;
    let is_asked = async |key: &str| test.try_patch_status(key, &json!({ "version": 1 })).await.is_err();
    test.create("probe", &json!({})).await;
    eventually(SOON, "the webhook is asked", async || is_asked("probe").await).await;
    test.keys().delete("probe", &<_>::default()).await.unwrap();

    let _operator = test.operator_by(&kubeconfig, &[]);
    test.create("orders", &json!({})).await;
    test.event_contains("orders", "AdmissionUnavailable", "status-webhook-down.example.com").await;
    let before = api.count("update", "datakeys/status");
    eventually(SOON, "it is tried ten times", async || api.count("update", "datakeys/status") >= before + 10).await;
    assert_eq!(test.proxy.calls(), 1, "before the next call a dry run has to be accepted");
    // A changed spec is tried at once, but not without the dry run.
    test.patch("orders", &json!({ "spec": { "encryptionContext": { "a": "b" } } })).await;
    let before = api.count("update", "datakeys/status");
    eventually(SOON, "it is tried again", async || api.count("update", "datakeys/status") >= before + 2).await;
    assert_eq!(test.proxy.calls(), 1);
    remove_webhook(&test).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn an_object_that_is_gone_costs_one_call_to_kms() {
    let test = TestNamespace::new("record-gone").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let words = "datakeys.datakey.dev \"orders\" not found";
    api.fail_always("update", "datakeys/status", Fault::Refuse(404, "NotFound", words));
    let _operator = test.operator_by(&kubeconfig, &[]);
    // As in the moment before the watch reports the deletion.
    test.create("orders", &json!({})).await;
    eventually(SOON, "it is tried ten times", async || api.count("update", "datakeys/status") >= 10).await;
    assert_eq!(test.proxy.calls(), 1);
    api.clear_faults();
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn a_slow_webhook_is_reported() {
    let test = TestNamespace::new("webhook-slow").await;
    // Accepts connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _operator = test.operator_with(&["--kube-timeout=500ms"], &[]);
    test.issue("ready", &json!({})).await;
    install_webhook(&test, "secrets", &format!("https://127.0.0.1:{port}/x")).await;
    eventually(SOON, "the webhook is asked", async || {
        test.delete_secret("ready").await;
        tokio::time::timeout(std::time::Duration::from_millis(300), listener.accept()).await.is_ok()
    })
    .await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "ApiServerFailed").await;
    assert!(message(&key).contains("a slow admission webhook can be the cause"), "{}", message(&key));
    test.failed("ready", "ApiServerFailed").await;
    assert_eq!(test.proxy.calls(), 2);
    remove_webhook(&test).await;
    test.ready("orders").await;
    test.ready("ready").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn a_refused_status_is_reported_by_an_event() {
    let test = TestNamespace::new("status-refused").await;
    let group = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": group,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "status-refused" },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["datakey.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["datakeys/status"],
            }]},
            "validations": [{ "expression": "false", "message": "no status today" }],
        },
    });
    let binding = json!({
        "apiVersion": group,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "status-refused" },
        "spec": {
            "policyName": "status-refused",
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "status-refused" } } },
        },
    });
    test.apply(&[policy, binding]).await;
    test.create("probe", &json!({})).await;
    eventually(SOON, "the policy works", async || {
        test.try_patch_status("probe", &json!({ "version": 1 })).await.is_err()
    })
    .await;
    test.keys().delete("probe", &<_>::default()).await.unwrap();
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &[]);
    test.create("orders", &json!({})).await;
    test.event_contains("orders", "WriteRejected", "no status today").await;
    let before = api.count("update", "datakeys/status");
    eventually(SOON, "it is tried five times", async || api.count("update", "datakeys/status") >= before + 5).await;
    assert_eq!(test.proxy.calls(), 1);
    assert_eq!(test.events("orders", "WriteRejected").await.len(), 1, "an Event for each failure, not for each try");
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        test.plane.kubectl(&["delete", kind, "status-refused"]).await.unwrap();
    }
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn a_missing_right_in_the_cluster_is_reported() {
    let test = TestNamespace::new("no-right").await;
    let account = "system:serviceaccount:no-right:blind";
    test.plane.kubectl(&["create", "serviceaccount", "blind", "-n", "no-right"]).await.unwrap();
    let rules = ["list", "watch"];
    test.apply(&[
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": { "name": "blind", "namespace": "no-right" },
            "rules": [
                { "apiGroups": [""], "resources": ["secrets"], "verbs": rules },
                { "apiGroups": ["datakey.dev"], "resources": ["datakeys"], "verbs": rules },
                { "apiGroups": ["datakey.dev"], "resources": ["datakeys/status"], "verbs": ["update"] },
                { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "blind", "namespace": "no-right" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "blind" },
            "subjects": [{ "kind": "ServiceAccount", "name": "blind", "namespace": "no-right" }],
        }),
    ])
    .await;
    let kubeconfig = test.plane.kubeconfig_of("no-right", "blind").await;
    let _operator = test.operator_by(&kubeconfig, &[]);
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "WriteRejected").await;
    let message = message(&key);
    assert!(message.contains(account) && message.contains("cannot get resource"), "{message}");
    assert_eq!(test.proxy.calls(), 0);
}
