//! This release with objects that a newer release wrote: after `helm rollback`, or in a cluster that an older release
//! restores. The record outlives releases; the operator neither issues nor writes where it does not know every field.

use datakey::api::{self, DataKey};
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::eventually;

use crate::harness::{SOON, TestNamespace, assert_refused, message, restored, to_json};

/// A value of a field that a newer release might add to a version.
fn invented() -> Value {
    json!({ "keyId": "alias/short", "class": { "generation": 3, "ratio": [1, null, "x"] } })
}

/// The definition of this release, or the one of a newer release that has more fields.
fn definition(newer: bool) -> Value {
    let mut definition = to_json(&api::crd::<DataKey>());
    if newer {
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        schema["spec"]["properties"]["tier"] = json!({ "type": "string", "maxLength": 63 });
        schema["status"]["properties"]["inUse"] = any.clone();
        for entry in ["/spec/properties/wrappedKeys/items", "/status/properties/versions/items"] {
            let entry = schema.pointer_mut(entry).unwrap();
            entry["properties"]["madeBy"] = any.clone();
            entry["properties"]["request"]["properties"]["origin"] = json!({ "type": "string", "maxLength": 63 });
        }
    }
    definition
}

/// Installs a definition and waits until the API server uses it.
async fn install_definition(test: &TestNamespace, newer: bool) {
    test.apply(&[definition(newer)]).await;
    let probe = test.manifest("probe", &json!({ "tier": "shop" }));
    // The others are refused by strict validation.
    eventually(SOON, "the definition works", async || {
        let dry_run = test.plane.workdir().file(&format!("{}-probe.json", test.namespace));
        std::fs::write(&dry_run, probe.to_string()).unwrap();
        let file = dry_run.display().to_string();
        let created = ["create", "--dry-run=server", "--validate=strict", "-f", &file];
        test.plane.kubectl(&created).await.is_ok() == newer
    })
    .await;
}

/// The version that a newer release records for the current spec of a `DataKey`.
fn newer_version(test: &TestNamespace, key: &DataKey) -> Value {
    let mut version = test.pin(key.wanted_version());
    version["request"] = to_json(&key.spec.request());
    version["request"]["origin"] = json!("EXTERNAL");
    version["madeBy"] = invented();
    version["rewrapOf"] = json!({ "version": 1, "proof": { "by": "KMS" } });
    version
}

/// Records the version of the current spec as a newer release does.
async fn record_newer(test: &TestNamespace, name: &str) -> Value {
    let key = test.get(name).await;
    let newer = newer_version(test, &key);
    let mut versions: Vec<_> = key.record().iter().map(to_json).collect();
    versions.push(newer.clone());
    let status = json!({ "versions": versions, "secretName": key.secret_name(), "inUse": { "by": ["shop"] } });
    test.try_patch_status(name, &status).await.unwrap();
    newer
}

async fn recorded_versions(test: &TestNamespace, name: &str) -> Value {
    to_json(&test.get(name).await.record())
}

#[tokio::test]
async fn a_record_survives_one_release_down_and_up_again() {
    let test = TestNamespace::with_own_control_plane("newer-record").await;
    install_definition(&test, true).await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    drop(operator);
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let newer = record_newer(&test, "orders").await;
    let foreign = json!({
        "type": "BackedUp", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let mut conditions = to_json(&test.get("orders").await.status.unwrap().conditions);
    conditions.as_array_mut().unwrap().push(foreign.clone());
    test.try_patch_status("orders", &json!({ "conditions": conditions })).await.unwrap();
    let record = recorded_versions(&test, "orders").await;
    assert_eq!(record[1], newer);
    let secret = test.secret("orders").await;
    let calls = test.proxy.calls();

    // First the operator is downgraded, then the definition as well, then the definition is upgraded again.
    for newer_definition in [true, false, true] {
        install_definition(&test, newer_definition).await;
        let _operator = test.operator();
        for version in [3, 1, 2] {
            test.patch("orders", &json!({ "spec": { "version": version } })).await;
            let key = test.failed("orders", "RecordNewer").await;
            assert!(
                message(&key).contains("version 2 has madeBy, request.origin, rewrapOf.proof"),
                "{}",
                message(&key)
            );
            assert_eq!(to_json(&key.record()), record);
            let status = to_json(&key.status);
            assert!(status["conditions"].as_array().unwrap().contains(&foreign), "{status}");
            if newer_definition && status["inUse"] != Value::Null {
                assert_eq!(status["inUse"], json!({ "by": ["shop"] }));
            }
        }
        test.barrier().await;
        assert_eq!(test.secret("orders").await, secret, "the Secret is left as it is");
    }
    assert_eq!(test.proxy.calls(), calls + 3, "only the three that show that it has settled");

    let mut other = record.clone();
    other[1]["madeBy"]["keyId"] = json!("alias/other");
    assert_refused(
        test.try_patch_status("orders", &json!({ "versions": other })).await,
        "status.versions is write-once",
    );
    other[1].as_object_mut().unwrap().remove("madeBy");
    assert_refused(
        test.try_patch_status("orders", &json!({ "versions": other })).await,
        "status.versions is write-once",
    );
}

#[tokio::test]
async fn fields_of_a_newer_status_survive_every_write() {
    let test = TestNamespace::with_own_control_plane("newer-status").await;
    install_definition(&test, true).await;
    test.create("orders", &json!({})).await;
    let in_use = json!({ "inUse": invented() });
    test.try_patch_status("orders", &in_use).await.unwrap();
    let _operator = test.operator();
    test.ready("orders").await;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    test.proxy.fail_always(testbed::proxy::Fault::code("AccessDeniedException"));
    test.patch("orders", &json!({ "spec": { "version": 3 } })).await;
    let key = test.failed("orders", "AccessDenied").await;
    assert_eq!(to_json(&key.status)["inUse"], in_use["inUse"]);
}

#[tokio::test]
async fn a_field_of_a_newer_spec_stops_issuing_not_restoring() {
    let test = TestNamespace::with_own_control_plane("newer-spec").await;
    install_definition(&test, true).await;
    let _operator = test.operator();
    for name in ["orders", "adopted"] {
        test.issue(name, &json!({})).await;
    }
    let data = test.data("orders").await;
    let class = json!({ "spec": { "tier": "shop" } });
    test.patch("orders", &class).await;
    test.ready("orders").await;
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &data).await;

    let calls = test.proxy.calls();
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.create("created", &class["spec"]).await;
    let mut pinned = class["spec"].clone();
    pinned["wrappedKeys"] = json!([test.pin(1)]);
    test.create("pinned", &pinned).await;
    test.delete("adopted").await;
    test.create("adopted", &class["spec"]).await;
    for name in ["orders", "created", "pinned", "adopted"] {
        let key = test.failed(name, "SpecNewer").await;
        assert!(message(&key).contains(" recorded: spec.tier. "), "{}", message(&key));
        assert_eq!(key.record().len(), usize::from(name == "orders"), "{name}");
    }
    assert_eq!(test.proxy.calls(), calls);
    for name in ["orders", "created", "pinned", "adopted"] {
        test.patch(name, &json!({ "spec": { "tier": null } })).await;
        test.ready(name).await;
    }
    assert_eq!(test.proxy.calls(), calls + 2, "version 2 of one, version 1 of another");
}

#[tokio::test]
async fn a_pin_with_unknown_fields_is_not_recorded() {
    let test = TestNamespace::new("newer-pin").await;
    let mut pin = test.pin(1);
    pin["madeBy"] = invented();
    pin["request"]["origin"] = json!("EXTERNAL");
    let mut deep = test.pin(1);
    deep["madeBy"] = json!("DEEP");
    let deep = test.manifest("deep", &json!({ "wrappedKeys": [deep] })).to_string();
    let nested = format!("{}1{}", r#"{"a":"#.repeat(300), "}".repeat(300));
    let file = test.plane.workdir().file("newer-deep.json");
    std::fs::write(&file, deep.replace(r#""DEEP""#, &nested)).unwrap();
    test.plane.kubectl(&["create", "--validate=false", "-f", &file.display().to_string()]).await.unwrap();
    test.create("orders", &json!({ "wrappedKeys": [pin] })).await;

    // The one that is nested too deeply to be decoded comes with the first list.
    let operator = test.operator();
    operator.is_ready().await;
    let key = test.failed("orders", "SpecNewer").await;
    let fields = "spec.wrappedKeys[0].madeBy, spec.wrappedKeys[0].request.origin";
    assert!(message(&key).contains(fields), "{}", message(&key));
    assert!(key.record().is_empty());
    assert_eq!(to_json(&key.pinned_versions()), json!([pin]), "it is as it was");
    let reason = "jsonpath={.status.conditions[0].reason}";
    let get = ["get", "datakey", "deep", "-n", &test.namespace, "-o", reason];
    eventually(SOON, "it is reported", async || test.plane.kubectl(&get).await.unwrap() == "SpecInvalid").await;

    for name in ["orders", "deep"] {
        let pins = json!({ "spec": { "wrappedKeys": [test.pin(1)] } });
        test.plane
            .kubectl(&["patch", "datakey", name, "-n", &test.namespace, "--type=merge", "-p", &pins.to_string()])
            .await
            .unwrap();
        test.ready(name).await;
    }
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn the_secret_of_a_newer_release_is_adopted_whole() {
    let test = TestNamespace::new("newer-secret").await;
    let _operator = test.operator();
    let before = test.issue("orders", &json!({})).await;
    let mut secret = restored(&test.secret("orders").await);
    test.delete("orders").await;
    test.delete_secret("orders").await;
    let annotation = secret.annotations_mut().get_mut("datakey.dev/issued.v1").unwrap();
    let mut provenance: Value = serde_json::from_str(annotation).unwrap();
    provenance["madeBy"] = invented();
    provenance["request"] = json!({ "origin": "EXTERNAL" });
    *annotation = provenance.to_string();
    let secret = test.create_secret(&secret).await;

    let calls = test.proxy.calls();
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "RecordNewer").await;
    let mut expected = to_json(&before.record());
    expected[0]["madeBy"] = invented();
    expected[0]["request"]["origin"] = json!("EXTERNAL");
    assert_eq!(to_json(&key.record()), expected);
    assert_eq!(test.secret("orders").await, secret, "the Secret is left as it is");
    assert_eq!(test.proxy.calls(), calls);
}
