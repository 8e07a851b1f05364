//! Labels and annotations of the template on the Secret.

use serde_json::{Value, json};
use testbed::eventually;

use crate::harness::{SOON, TestNamespace};

fn template(labels: &Value, annotations: &Value) -> Value {
    json!({ "secretTemplate": { "metadata": { "labels": labels, "annotations": annotations } } })
}

/// Waits until a label or an annotation of a Secret has this value, or, for `None`, is gone.
async fn secret_has(test: &TestNamespace, secret: &str, field: &str, key: &str, value: Option<&str>) {
    let what = format!("{field} {key} of Secret {secret} is {value:?}");
    let is_so = async || {
        let metadata = test.secret(secret).await.metadata;
        let all = if field == "label" { metadata.labels } else { metadata.annotations };
        all.unwrap_or_default().get(key).map(String::as_str) == value
    };
    eventually(SOON, &what, is_so).await;
}

#[tokio::test]
async fn the_template_is_applied_changed_restored_and_taken_away() {
    let test = TestNamespace::new("template-life").await;
    let mut operator = test.operator();
    test.issue(
        "orders",
        &template(&json!({ "team": "shop", "app.kubernetes.io/part-of": "orders" }), &json!({ "a.b/c": "1" })),
    )
    .await;
    let (data, uid) = (test.data("orders").await, test.secret("orders").await.metadata.uid);
    secret_has(&test, "orders", "label", "team", Some("shop")).await;
    secret_has(&test, "orders", "label", "app.kubernetes.io/part-of", Some("orders")).await;
    secret_has(&test, "orders", "annotation", "a.b/c", Some("1")).await;

    // Keys of another client stay; its changes of the template's keys are undone.
    let foreign =
        json!({ "metadata": { "labels": { "other": "kept", "team": "bank" }, "annotations": { "a.b/c": null } } });
    test.edit_secret("orders", &foreign).await;
    secret_has(&test, "orders", "label", "team", Some("shop")).await;
    secret_has(&test, "orders", "annotation", "a.b/c", Some("1")).await;
    secret_has(&test, "orders", "label", "other", Some("kept")).await;

    // More often than another writer's changes would be restored.
    for round in 0..15 {
        let metadata = json!({ "labels": { "team": format!("shop-{round}") } });
        test.patch("orders", &json!({ "spec": { "secretTemplate": { "metadata": metadata } } })).await;
        secret_has(&test, "orders", "label", "team", Some(&format!("shop-{round}"))).await;
    }
    test.ready("orders").await;
    assert!(test.events("orders", "SecretContested").await.is_empty());

    // While no operator runs.
    drop(operator);
    let metadata = json!({ "labels": { "team": null, "app.kubernetes.io/part-of": null, "stage": "test" } });
    test.patch("orders", &json!({ "spec": { "secretTemplate": { "metadata": metadata } } })).await;
    operator = test.operator();
    secret_has(&test, "orders", "label", "team", None).await;
    secret_has(&test, "orders", "label", "app.kubernetes.io/part-of", None).await;
    secret_has(&test, "orders", "label", "stage", Some("test")).await;
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    secret_has(&test, "orders", "label", "stage", Some("test")).await;
    assert_ne!(test.secret("orders").await.metadata.uid, uid);

    test.patch("orders", &json!({ "spec": { "secretTemplate": null } })).await;
    secret_has(&test, "orders", "label", "stage", None).await;
    secret_has(&test, "orders", "annotation", "a.b/c", None).await;
    secret_has(&test, "orders", "annotation", "datakey.dev/applied", None).await;
    test.ready("orders").await;
    assert_eq!((test.data("orders").await, test.proxy.calls()), (data, 1));
    drop(operator);
}

#[tokio::test]
async fn change_of_the_template_is_not_reported_as_a_restore() {
    let test = TestNamespace::new("template-quiet").await;
    let _operator = test.operator();
    test.issue("orders", &template(&json!({ "team": "shop" }), &json!({}))).await;
    test.patch("orders", &json!({ "spec": template(&json!({ "team": "bank" }), &json!({ "a": "1" })) })).await;
    secret_has(&test, "orders", "label", "team", Some("bank")).await;
    test.ready("orders").await;
    test.edit_secret("orders", &json!({ "metadata": { "labels": { "team": "x" } } })).await;
    secret_has(&test, "orders", "label", "team", Some("bank")).await;
    let restored = async || test.events("orders", "Restored").await;
    eventually(SOON, "an event about the edit", async || !restored().await.is_empty()).await;
    let notes: Vec<_> = restored().await.into_iter().filter_map(|event| event.note).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("label team was changed"), "{notes:?}");
}

#[tokio::test]
async fn an_adopted_secret_gets_the_template_and_loses_the_former_one() {
    let test = TestNamespace::new("template-adopted").await;
    let _operator = test.operator();
    test.issue("orders", &template(&json!({ "team": "shop", "stage": "test" }), &json!({}))).await;
    let data = test.data("orders").await;
    test.delete("orders").await;
    test.issue("orders", &template(&json!({ "team": "bank" }), &json!({}))).await;
    secret_has(&test, "orders", "label", "team", Some("bank")).await;
    secret_has(&test, "orders", "label", "stage", None).await;
    assert_eq!((test.data("orders").await, test.proxy.calls()), (data, 1));
}

#[tokio::test]
async fn reserved_template_keys_are_refused_and_the_record_is_kept() {
    let test = TestNamespace::new("template-flag").await;
    let operator = test.operator();
    test.issue("orders", &template(&json!({ "owner.example.com/x": "1", "team": "shop" }), &json!({}))).await;
    let data = test.data("orders").await;
    drop(operator);
    let _operator = test.operator_with(&["--reserved-template-keys=example.com/"], &[]);
    let message = test.failed("orders", "SpecInvalid").await.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("labels: owner.example.com/x"), "{message}");
    secret_has(&test, "orders", "label", "owner.example.com/x", None).await;
    secret_has(&test, "orders", "label", "team", Some("shop")).await;
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    test.create("new", &template(&json!({}), &json!({ "example.com/x": "1" }))).await;
    test.failed("new", "SpecInvalid").await;
    assert_eq!(test.proxy.calls(), 1);
    test.patch("orders", &json!({ "spec": template(&json!({ "owner.example.com/x": null }), &json!({})) })).await;
    test.ready("orders").await;
}

#[tokio::test]
async fn a_policy_that_demands_a_label_is_satisfied() {
    let test = TestNamespace::new("template-policy").await;
    let (namespace, demands) = (&test.namespace, "has(object.metadata.labels) && 'team' in object.metadata.labels");
    let name = format!("{namespace}-label");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"],
            }] },
            "validations": [{ "expression": demands, "message": "a Secret needs the label team" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name },
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } },
        },
    });
    test.apply(&[policy, binding]).await;
    let _operator = test.operator();
    let probe = json!({ "metadata": { "generateName": "probe-" }, "stringData": {} });
    let probe = serde_json::from_value(probe).unwrap();
    eventually(SOON, "the policy is in force", async || test.secrets().create(&<_>::default(), &probe).await.is_err())
        .await;
    test.create("orders", &json!({})).await;
    let message = test.failed("orders", "WriteRejected").await.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("a Secret needs the label team"), "{message}");
    test.patch("orders", &json!({ "spec": template(&json!({ "team": "shop" }), &json!({})) })).await;
    test.ready("orders").await;
    test.plane.kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", &name]).await.unwrap();
    assert_eq!(test.proxy.calls(), 1);
}
