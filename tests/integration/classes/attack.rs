//! What a platform team or the cluster does to classes at a bad moment.

use serde_json::json;
use testbed::{
    api_proxy::{Fault, STREAMED_LIST},
    eventually,
};

use crate::harness::{NO_RETRY, SOON, TestNamespace, message};

const FORBIDDEN: Fault = Fault::Refuse(403, "Forbidden", "datakeyclasses is forbidden");

#[tokio::test]
async fn role_with_list_and_without_watch_is_reported() {
    let test = TestNamespace::new("class-unwatched").await;
    let (api, kubeconfig) = test.api_proxy().await;
    for verb in ["watch", STREAMED_LIST] {
        api.fail_always(verb, "datakeyclasses", FORBIDDEN);
    }
    let _operator = test.operator_by(&kubeconfig, &NO_RETRY);
    test.class(&json!({})).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    let waits = test.failed("orders", "ClassesUnavailable").await;
    assert!(message(&waits).contains("datakeyclasses is forbidden"), "{}", message(&waits));
    test.issue("plain", &json!({})).await;
    api.clear_faults();
    test.ready("orders").await;
}

#[tokio::test]
async fn class_that_may_have_changed_unseen_allows_nothing() {
    let test = TestNamespace::new("class-unseen").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &NO_RETRY);
    test.class(&json!({})).await;
    test.issue("orders", &json!({ "className": test.namespace })).await;
    test.create("probe", &json!({ "className": "class-unseen-none" })).await;
    test.failed("probe", "ClassNotFound").await;

    // The role is taken away, and the platform team narrows the class.
    for verb in ["list", "watch", STREAMED_LIST] {
        api.fail_always(verb, "datakeyclasses", FORBIDDEN);
    }
    api.cut();
    test.class(&json!({ "namespaces": [] })).await;
    test.failed("probe", "ClassesUnavailable").await;
    test.create("second", &json!({ "className": test.namespace })).await;
    test.failed("second", "ClassesUnavailable").await;
    test.ready("orders").await;
    api.clear_faults();
    test.failed("second", "ClassRefused").await;
    test.failed("probe", "ClassNotFound").await;
    assert_eq!(test.proxy.calls(), 1);
    test.class(&json!({})).await;
    test.ready("second").await;
}

#[tokio::test]
async fn secret_is_restored_while_the_class_refuses_a_pin() {
    let test = TestNamespace::new("class-pin-restore").await;
    let _operator = test.operator_without_retries();
    test.class(&json!({})).await;
    test.issue("orders", &json!({ "className": test.namespace })).await;
    let data = test.data("orders").await;
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [test.pin(2)] } })).await;
    test.failed("orders", "ClassRefused").await;
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    test.delete_class().await;
    test.failed("orders", "ClassNotFound").await;
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn class_that_fills_in_another_key_wakes_what_kms_refused() {
    let test = TestNamespace::new("class-typo").await;
    let _operator = test.operator_without_retries();
    let limits = json!([{ "keyIds": [test.alias(), "alias/class-tipo"] }]);
    test.class(&json!({ "allow": limits, "defaults": { "keyId": "alias/class-tipo" } })).await;
    test.create("orders", &json!({ "className": test.namespace, "keyId": null })).await;
    test.failed("orders", "KeyNotFound").await;
    test.class(&json!({ "allow": limits, "defaults": { "keyId": test.alias() } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn definition_of_classes_that_goes_and_comes_back_is_noticed() {
    let test = TestNamespace::with_own_control_plane("class-definition").await;
    let _operator = test.operator_of_all(&NO_RETRY);
    let limits = json!({ "allow": [{ "keyIds": [test.alias()] }] });
    test.class(&limits).await;
    test.issue("orders", &json!({ "className": test.namespace })).await;
    let name = "datakeyclasses.datakey.dev";
    let definition = test.plane.kubectl(&["get", "crd", name, "-o", "json"]).await.unwrap();
    test.plane.kubectl(&["delete", "crd", name]).await.unwrap();
    test.create("second", &json!({ "className": test.namespace })).await;
    let unavailable = test.failed("second", "ClassesUnavailable").await;
    assert!(message(&unavailable).contains("is not installed"), "{}", message(&unavailable));
    test.issue("plain", &json!({})).await;
    test.ready("orders").await;

    let mut definition: serde_json::Value = serde_json::from_str(&definition).unwrap();
    let metadata = json!({ "name": name, "labels": definition["metadata"]["labels"] });
    definition["metadata"] = metadata;
    definition.as_object_mut().unwrap().remove("status");
    let file = test.plane.workdir().file("classes.json");
    std::fs::write(&file, definition.to_string()).unwrap();
    test.plane.kubectl(&["create", "-f", &file.display().to_string()]).await.unwrap();
    test.failed("second", "ClassNotFound").await;
    eventually(SOON, "the definition is served", async || test.classes().list(&<_>::default()).await.is_ok()).await;
    test.class(&limits).await;
    test.ready("second").await;
    assert_eq!(test.proxy.calls(), 3);
}
