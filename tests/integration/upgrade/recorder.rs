//! Records what an earlier operator leaves behind, from a real binary at work. Run again only to add a state: the files are
//! the evidence.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testbed::{eventually, proxy::Fault, repository};

use super::{FOLDER, PENDING, binary_of_0_1_0, unchanged};
use crate::harness::{NO_RETRY, SOON, TestNamespace, restored};

/// An object exactly as the server answers it.
async fn raw(test: &TestNamespace, path: &str) -> Option<Value> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match test.client.request(request).await {
        Ok(object) => Some(object),
        Err(kube::Error::Api(status)) if status.is_not_found() => None,
        Err(error) => panic!("{error}"),
    }
}

async fn write(test: &TestNamespace, folder: &str, name: &str) {
    let namespace = &test.namespace;
    let key = raw(test, &format!("/apis/datakey.dev/v1alpha1/namespaces/{namespace}/datakeys/{name}")).await.unwrap();
    let secret = key["spec"]["secretName"].as_str().unwrap_or(name);
    let secret = raw(test, &format!("/api/v1/namespaces/{namespace}/secrets/{secret}")).await;
    let pretty = serde_json::to_string_pretty(&json!({ "dataKey": key, "secret": secret })).unwrap() + "\n";
    std::fs::write(repository().join(folder).join(format!("{name}.json")), pretty).unwrap();
}

/// Issues these versions of a `DataKey`.
async fn versions(test: &TestNamespace, name: &str, versions: impl IntoIterator<Item = i32>) {
    for version in versions {
        test.patch(name, &json!({ "spec": { "version": version } })).await;
        test.ready(name).await;
    }
}

/// Edits a Secret under a field manager.
async fn edit_secret_as(test: &TestNamespace, manager: &str, name: &str, patch: &Value) -> Secret {
    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
    test.secrets().patch(name, &params, &Patch::Merge(patch)).await.unwrap()
}

/// `DataKey`s that are ready from their creation on.
async fn ready(test: &TestNamespace) {
    let odd = json!({
        "it's \"quoted\"": "a\\b $(id) `id`",
        "schlüssel-鍵": "🗝 ",
        "new\nline": "tab\tand\r\n",
        "control": "\u{1}\u{7f}",
        "yes": "012",
    });
    for (name, spec) in [
        ("retain", json!({})),
        ("delete", json!({ "deletionPolicy": "Delete" })),
        ("with-context", json!({ "encryptionContext": { "purpose": "orders" }, "deletionPolicy": "Retain" })),
        ("odd-context", json!({ "encryptionContext": odd })),
        ("number-of-bytes", json!({ "numberOfBytes": 1024, "deletionPolicy": "Delete" })),
        ("aes-128", json!({ "keySpec": "AES_128", "grantTokens": ["example"] })),
        ("region", json!({ "region": "eu-west-1" })),
        ("key-arn", json!({ "keyId": test.key.arn })),
        ("secret-name", json!({ "secretName": "wrapped", "deletionPolicy": "Delete" })),
        ("explicit-version", json!({ "version": 2_147_483_647 })),
    ] {
        test.issue(name, &spec).await;
    }
    test.issue("several-versions", &json!({})).await;
    versions(test, "several-versions", [2, 5]).await;
    test.issue("several-versions-delete", &json!({ "deletionPolicy": "Delete" })).await;
    versions(test, "several-versions-delete", [2, 3]).await;
    test.issue("reverted", &json!({})).await;
    versions(test, "reverted", [2, 1]).await;

    let arn = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
    let pin = |version: i32| {
        let request = json!({ "keyId": "alias/orders", "keySpec": "AES_256" });
        let blob = k8s_openapi::ByteString(format!("wrapped data key {version}").into());
        json!({ "version": version, "request": request, "ciphertextBlob": blob, "keyId": arn, "issuedAt": "2026-01-02T03:04:05Z" })
    };
    let pinned = json!({ "keyId": "alias/orders", "version": 2, "wrappedKeys": [pin(1), pin(2)] });
    test.issue("pinned-multi-region", &pinned).await;
}

/// `DataKey`s whose Secrets were there before them, or were changed since.
async fn changed(test: &TestNamespace) {
    for (name, policy) in [("adopted", "Retain"), ("adopted-delete", "Delete")] {
        test.issue(name, &json!({})).await;
        test.delete(name).await;
        test.issue(name, &json!({ "deletionPolicy": policy })).await;
    }
    test.issue("restored", &json!({})).await;
    let backup = restored(&test.secret("restored").await);
    test.delete("restored").await;
    test.delete_secret("restored").await;
    let velero = PostParams { field_manager: Some("velero-server".into()), ..PostParams::default() };
    test.secrets().create(&velero, &backup).await.unwrap();
    test.issue("restored", &json!({})).await;

    test.issue("foreign-metadata", &json!({ "deletionPolicy": "Delete" })).await;
    let maps: Api<ConfigMap> = Api::namespaced(test.client.clone(), &test.namespace);
    let metadata = ObjectMeta { name: Some("owner".into()), ..ObjectMeta::default() };
    let owner = maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await.unwrap();
    let mut owners = serde_json::to_value(test.secret("foreign-metadata").await.owner_references()).unwrap();
    let another = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid() });
    owners.as_array_mut().unwrap().push(another);
    let labels = json!({ "team": "shop", "app.kubernetes.io/part-of": "shop" });
    let metadata =
        json!({ "labels": labels, "annotations": { "example.com/note": "a: b" }, "ownerReferences": owners });
    edit_secret_as(test, "kubectl-edit", "foreign-metadata", &json!({ "metadata": metadata })).await;

    test.issue("repaired", &json!({})).await;
    let held = test.data("repaired").await;
    test.edit_secret("repaired", &json!({ "data": { "version": "OQ==" } })).await;
    test.secret_becomes("repaired", &held).await;
}

/// `DataKey`s whose deletion policy changed after they were issued, which a later definition refuses.
async fn policies(test: &TestNamespace) {
    for (name, before, after, owners) in [("kept", "Delete", "Retain", 0), ("given-up", "Retain", "Delete", 1)] {
        test.issue(name, &json!({ "deletionPolicy": before })).await;
        test.patch(name, &json!({ "spec": { "deletionPolicy": after } })).await;
        eventually(SOON, "the owner reference follows", async || {
            test.secret(name).await.owner_references().len() == owners
        })
        .await;
        test.ready(name).await;
    }
}

/// `DataKey`s that are not ready.
async fn failing(test: &TestNamespace) {
    test.create("key-not-found", &json!({ "keyId": "alias/failing/NotFoundException" })).await;
    test.failed("key-not-found", "KeyNotFound").await;
    let metadata = ObjectMeta { name: Some("secret-conflict".into()), ..ObjectMeta::default() };
    test.create_secret(&Secret { metadata, ..Secret::default() }).await;
    test.create("secret-conflict", &json!({})).await;
    test.failed("secret-conflict", "SecretConflict").await;

    test.issue("failing-version-2", &json!({})).await;
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    let denied = json!({ "version": 2, "keyId": "alias/failing/AccessDeniedException" });
    test.patch("failing-version-2", &json!({ "spec": denied })).await;
    test.failed("failing-version-2", "AccessDenied").await;
    test.create("access-denied", &json!({ "keyId": "alias/failing/AccessDeniedException" })).await;
    test.failed("access-denied", "AccessDenied").await;
    test.proxy.fail_always(Fault::code("ThrottlingException"));
    test.create("throttled", &json!({ "keyId": "alias/failing/ThrottlingException" })).await;
    test.failed("throttled", "Throttled").await;
}

#[tokio::test]
#[ignore = "writes files; see tests/integration/upgrade/0.1.0/README.md"]
async fn record_what_0_1_0_leaves() {
    let test = TestNamespace::new("upgrade-recorded").await;
    let operator = test.operator_of(&binary_of_0_1_0(), &["--retry-min=200ms"], &[]);
    ready(&test).await;
    changed(&test).await;
    policies(&test).await;
    for name in ["spec-changed", "secret-lost"] {
        test.issue(name, &json!({})).await;
    }
    failing(&test).await;
    drop(operator);

    // Work that the current operator finds unfinished.
    test.patch("spec-changed", &json!({ "spec": { "version": 2, "keyId": PENDING } })).await;
    test.delete_secret("secret-lost").await;
    test.create("born", &json!({ "keyId": PENDING })).await;
    write_all(&test, FOLDER).await;
}

/// `DataKey`s with fields and reasons that 0.1.0 does not know.
async fn since_0_1_0(test: &TestNamespace) {
    let labels = json!({ "team": "shop", "app.kubernetes.io/part-of": "orders" });
    let template =
        json!({ "metadata": { "labels": labels, "annotations": { "reloader.stakater.com/match": "true" } } });
    for name in ["secret-template", "secret-template-changed"] {
        test.issue(name, &json!({ "secretTemplate": template })).await;
    }
    let removed = json!({ "labels": { "team": null, "tier": "db" } });
    test.patch("secret-template-changed", &json!({ "spec": { "secretTemplate": { "metadata": removed } } })).await;
    eventually(SOON, "the label is removed", async || {
        let labels = test.secret("secret-template-changed").await.metadata.labels.unwrap_or_default();
        labels.contains_key("tier") && !labels.contains_key("team")
    })
    .await;
    test.ready("secret-template-changed").await;

    test.issue("restored-by-velero", &json!({})).await;
    let backup = restored(&test.secret("restored-by-velero").await);
    test.delete("restored-by-velero").await;
    test.delete_secret("restored-by-velero").await;
    test.create_secret(&backup).await;
    let mut labeled = test.manifest("restored-by-velero", &json!({}));
    labeled["metadata"]["labels"] = json!({ "velero.io/restore-name": "drill" });
    test.try_create(&labeled).await.unwrap();
    test.ready("restored-by-velero").await;

    let mut annotated = test.manifest("restored-without-key", &json!({}));
    annotated["metadata"]["annotations"] = json!({ "datakey.dev/restored": "" });
    test.try_create(&annotated).await.unwrap();
    test.failed("restored-without-key", "RestoredWithoutKey").await;

    test.refuse_secrets().await;
    test.create(unchanged::REFUSED, &json!({})).await;
    test.failed(unchanged::REFUSED, "Refused").await;
    test.accept_secrets().await;
}

#[tokio::test]
#[ignore = "writes files; see tests/integration/upgrade/9b52e60/README.md"]
async fn record_what_9b52e60_leaves() {
    let binary = std::env::var_os("DATAKEY_EARLIER_BINARY").expect("DATAKEY_EARLIER_BINARY, the operator of 9b52e60");
    let test = TestNamespace::new("upgrade-recorded-9b52e60").await;
    let operator = test.operator_of(binary.as_ref(), &NO_RETRY, &[]);
    ready(&test).await;
    changed(&test).await;
    since_0_1_0(&test).await;
    drop(operator);
    write_all(&test, unchanged::FOLDER).await;
}

/// Writes every `DataKey` of the namespace and its Secret.
async fn write_all(test: &TestNamespace, folder: &str) {
    for key in test.keys().list(&kube::api::ListParams::default()).await.unwrap() {
        write(test, folder, &key.name_any()).await;
    }
}
