//! DataKeys that the operator cannot decode: whatever a user with the role `edit` writes, it stops only that DataKey, and the
//! condition names the field. Each also while no operator runs, so that it comes with the first list.

use std::fmt::Write as _;

use datakey::{
    api::{self, DataKey},
    condition,
};
use serde_json::{Value, json};
use testbed::eventually;

use crate::harness::{Operator, SOON, TestNamespace, assert_refused, to_json};

const FAR: &str = "9999-12-31T23:59:59Z";

/// A user with the aggregated role `edit` in one namespace.
struct Editor<'a>(&'a TestNamespace);

// === impl Editor ===

impl<'a> Editor<'a> {
    async fn of(test: &'a TestNamespace) -> Self {
        let namespace = test.namespace.as_str();
        let bind = ["create", "rolebinding", "editor", "-n", namespace, "--clusterrole=edit", "--user=editor"];
        test.plane.kubectl(&bind).await.unwrap();
        let may = ["auth", "can-i", "create", "datakeys", "-n", namespace, "--as=editor"];
        eventually(SOON, "the roles are aggregated", async || test.plane.kubectl(&may).await.is_ok()).await;
        Self(test)
    }

    /// Creates a `DataKey` from a spec that need not match the Rust type.
    async fn create(&self, name: &str, spec: &Value) -> Result<String, String> {
        let file = self.0.plane.workdir().file(&format!("{}-{name}.json", self.0.namespace));
        std::fs::write(&file, self.0.manifest(name, spec).to_string()).unwrap();
        let file = file.display().to_string();
        self.0.plane.kubectl(&["create", "--validate=false", "--as=editor", "-f", &file]).await
    }

    async fn patch(&self, name: &str, kind: &str, patch: &Value) {
        let (kind, patch) = (format!("--type={kind}"), patch.to_string());
        let command = ["patch", "datakey", name, "-n", &self.0.namespace, "--as=editor", &kind, "-p", &patch];
        self.0.plane.kubectl(&command).await.unwrap();
    }
}

/// The JSON of a `DataKey`, whether or not the Rust type can hold it.
async fn raw(test: &TestNamespace, name: &str) -> Value {
    let get = ["get", "datakey", name, "-n", &test.namespace, "-o", "json", "--show-managed-fields"];
    serde_json::from_str(&test.plane.kubectl(&get).await.unwrap()).unwrap()
}

/// Waits until the conditions of the current generation are these. Returns the message of the first.
async fn conditions_become(test: &TestNamespace, name: &str, expected: &str) -> String {
    let mut last = Value::Null;
    eventually(SOON, &format!("{name} is {expected}"), async || {
        last = raw(test, name).await;
        let mut said = String::new();
        for condition in last["status"]["conditions"].as_array().into_iter().flatten() {
            if condition["observedGeneration"] == last["metadata"]["generation"] {
                let field = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                write!(said, "{}={} {} ", field("type"), field("status"), field("reason")).unwrap();
            }
        }
        said.trim() == expected && last["status"]["observedGeneration"] == last["metadata"]["generation"]
    })
    .await;
    last["status"]["conditions"][0]["message"].as_str().unwrap().to_owned()
}

/// Waits until a `DataKey` is reported as invalid with a message that names this field.
async fn reports_field(test: &TestNamespace, name: &str, field: &str) {
    let message = conditions_become(test, name, "Ready=False SpecInvalid Stalled=True SpecInvalid").await;
    assert!(message.contains(field), "{name}: {message}");
}

/// Starts an operator that has not seen the namespace, and waits until it and another `DataKey` are ready.
async fn others_still_work(test: &TestNamespace, another: &str) -> Operator {
    let operator = test.operator();
    operator.is_ready().await;
    test.issue(another, &json!({})).await;
    operator
}

/// Installs a definition without the rules that refuse such values, as an older or a newer release might.
async fn install_loose_definition(test: &TestNamespace) {
    let mut definition = to_json(&api::crd::<DataKey>());
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let spec = &mut schema["spec"]["properties"];
    for field in ["keySpec", "deletionPolicy"] {
        spec[field].as_object_mut().unwrap().remove("enum");
    }
    spec["version"] = json!({ "type": "integer", "format": "int64" });
    let pin = &mut spec["wrappedKeys"]["items"]["properties"];
    pin["issuedAt"] = json!({ "type": "string", "maxLength": 20 });
    let status = &mut schema["status"]["properties"];
    status["versions"]["items"]["properties"]["issuedAt"] = json!({ "type": "string", "maxLength": 20 });
    status["secretName"] = json!({ "x-kubernetes-preserve-unknown-fields": true });
    for root in ["spec", "status"] {
        schema[root].as_object_mut().unwrap().remove("x-kubernetes-validations");
    }
    // These rules read fields that have another type now.
    let root = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    root.as_object_mut().unwrap().remove("x-kubernetes-validations");
    test.apply(&[definition]).await;
    let probe = json!({ "keySpec": "AES_512" });
    eventually(SOON, "the definition is installed", async || {
        let manifest = test.manifest("probe", &probe);
        test.send::<Value>("POST", "", &manifest).await.is_ok()
    })
    .await;
    test.plane.kubectl(&["delete", "datakey", "probe", "-n", &test.namespace]).await.unwrap();
}

#[tokio::test]
async fn times_beyond_a_rust_time_are_refused_at_admission() {
    let test = TestNamespace::new("far-refused").await;
    let editor = Editor::of(&test).await;
    let pin = |at: &str| {
        let mut pin = test.pin(1);
        pin["issuedAt"] = json!(at);
        json!({ "wrappedKeys": [pin] })
    };
    for far in [FAR, "9999-12-30T22:00:01Z", "9999-01-01T00:00:00Z"] {
        let refused = editor.create("far", &pin(far)).await.unwrap_err();
        assert!(refused.contains("spec.wrappedKeys[0].issuedAt"), "{refused}");
    }
    let request = to_json(&test.create("recorded", &json!({})).await.spec.request());
    let mut version = test.pin(1);
    (version["request"], version["issuedAt"]) = (request, json!(FAR));
    assert_refused(test.try_patch_status("recorded", &json!({ "versions": [version] })).await, "issuedAt");

    let _operator = test.operator();
    for (name, at) in [("late", "2999-12-31T23:59:59Z"), ("early", "1900-01-01T00:00:00Z")] {
        editor.create(name, &pin(at)).await.unwrap();
        test.ready(name).await;
    }
    assert!(editor.create("large", &json!({ "version": 2_147_483_648_u64 })).await.is_err());
    test.issue("largest", &json!({ "version": i32::MAX })).await;
}

#[tokio::test]
async fn far_times_in_metadata_stop_nothing() {
    let test = TestNamespace::new("far-metadata").await;
    let editor = Editor::of(&test).await;
    // Together with another change, or the server ignores it.
    let far = json!([
        { "op": "replace", "path": "/metadata/managedFields/0/time", "value": FAR },
        { "op": "add", "path": "/metadata/labels", "value": { "seen": "x" } },
    ]);
    {
        let _operator = test.operator();
        test.issue("orders", &json!({})).await;
        editor.patch("orders", "json", &far).await;
        assert!(raw(&test, "orders").await["metadata"]["managedFields"].to_string().contains(FAR));
        editor.patch("orders", "merge", &json!({ "spec": { "version": 2 } })).await;
        conditions_become(&test, "orders", "Ready=True Issued").await;
    }
    editor.create("new-far", &json!({})).await.unwrap();
    editor.patch("new-far", "json", &far).await;
    let _operator = others_still_work(&test, "another").await;
    conditions_become(&test, "new-far", "Ready=True Issued").await;
    test.delete_secret("orders").await;
    test.data("orders").await;
    let metadata = &raw(&test, "new-far").await["metadata"];
    assert!(metadata["managedFields"].to_string().contains(FAR), "it still is far");
}

#[tokio::test]
async fn undecodable_data_key_stops_only_itself_and_names_the_field() {
    let test = TestNamespace::with_own_control_plane("odd").await;
    install_loose_definition(&test).await;
    let editor = Editor::of(&test).await;
    let mut far = test.pin(1);
    far["issuedAt"] = json!(FAR);
    let odd = [
        ("far-pin", json!({ "wrappedKeys": [far] }), "spec.wrappedKeys[0].issuedAt: expected a time"),
        ("large", json!({ "version": 2_147_483_648_u64 }), "spec.version: expected a whole number"),
        ("new-spec", json!({ "keySpec": "AES_512" }), "spec.keySpec: expected `AES_256` or `AES_128`"),
        ("new-policy", json!({ "deletionPolicy": "Snapshot" }), "spec.deletionPolicy: expected `Retain` or `Delete`"),
    ];
    let right = json!({ "spec": { "wrappedKeys": null, "version": 1, "keySpec": "AES_256", "deletionPolicy": null } });
    // Seen by a running operator, and by one that finds them there.
    for seen in ["first", "found"] {
        let running = (seen == "first").then(|| test.operator());
        for (name, spec, _) in &odd {
            editor.create(&format!("{name}-{seen}"), spec).await.unwrap();
        }
        drop(running);
        let operator = others_still_work(&test, &format!("another-{seen}")).await;
        for (name, _, field) in &odd {
            reports_field(&test, &format!("{name}-{seen}"), field).await;
        }
        let reported = async || test.events(&format!("far-pin-{seen}"), "SpecInvalid").await.len() == 1;
        eventually(SOON, "an event", reported).await;
        let (_, metrics) = operator.admin("/metrics").await;
        for line in [r#"datakey_datakeys{reason="SpecInvalid",kind="DataKey"} 4"#, "datakey_datakeys_unreadable 4"] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }

        // Nothing is reported twice, whatever else happens.
        test.barrier().await;
        let said = operator.process.log().lines().filter(|line| line.contains("cannot be decoded")).count();
        assert!(said <= odd.len(), "{said} lines");
        drop(operator);
        let operator = others_still_work(&test, &format!("one-more-{seen}")).await;
        assert!(!operator.process.log().contains("cannot be decoded"), "it is reported");

        let calls = test.proxy.calls();
        for (name, ..) in &odd {
            let name = format!("{name}-{seen}");
            editor.patch(&name, "merge", &right).await;
            test.ready(&name).await;
        }
        assert_eq!(test.proxy.calls(), calls + odd.len(), "each is issued now, and once");
    }
}

#[tokio::test]
async fn an_odd_status_is_replaced_and_an_odd_record_reported() {
    let test = TestNamespace::with_own_control_plane("odd-status").await;
    install_loose_definition(&test).await;
    let operator = test.operator();
    let foreign = |type_: &str| json!({ "type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": FAR });
    for name in ["conditions", "record"] {
        test.issue(name, &json!({})).await;
    }
    drop(operator);
    // The operator writes its own conditions and derived fields again, and keeps the conditions of others.
    let patch = async |name: &str, status: Value| {
        let patch = json!({ "status": status }).to_string();
        let namespace = test.namespace.as_str();
        let patch =
            ["patch", "datakey", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch.as_str()];
        test.plane.kubectl(&patch).await.unwrap();
    };
    patch("conditions", json!({ "issuedAt": FAR, "conditions": [foreign("Ready"), foreign("BackedUp")] })).await;
    patch("record", json!({ "secretName": { "a": 1 } })).await;
    let before = raw(&test, "record").await;
    let _operator = others_still_work(&test, "another").await;
    eventually(SOON, "the status is written again", async || {
        raw(&test, "conditions").await["status"]["issuedAt"] != json!(FAR)
    })
    .await;
    let conditions = raw(&test, "conditions").await["status"]["conditions"].clone();
    assert_eq!(conditions[0]["reason"], json!(condition::ISSUED));
    assert_eq!(conditions[1], foreign("BackedUp"));

    reports_field(&test, "record", "status.secretName: expected a string").await;
    assert_eq!(raw(&test, "record").await["status"]["versions"], before["status"]["versions"]);
    patch("record", json!({ "secretName": "record" })).await;
    test.ready("record").await;
}

/// More unknown fields than the operator keeps, in a pin, where the API server accepts any.
fn too_much_unknown(test: &TestNamespace) -> Value {
    let mut pin = test.pin(2);
    pin["note"] = json!("x".repeat(70_000));
    json!({ "wrappedKeys": [pin] })
}

#[tokio::test]
async fn undecodable_data_key_keeps_the_name_of_its_secret() {
    let test = TestNamespace::new("odd-name").await;
    let editor = Editor::of(&test).await;
    let mut operator = test.operator_without_retries();
    let key = test.issue("orders", &json!({ "secretName": "keys" })).await;
    editor.patch("orders", "merge", &json!({ "spec": too_much_unknown(&test) })).await;
    reports_field(&test, "orders", "spec: fields that this operator does not know take more than").await;
    // It has no record, and so no claim to the Secret of its name.
    editor.create("empty", &too_much_unknown(&test)).await.unwrap();
    reports_field(&test, "empty", "spec: fields that this operator does not know take more than").await;
    test.delete_secret("keys").await;
    for name in ["keys", "keys-again"] {
        test.create(name, &json!({ "secretName": "keys" })).await;
        let failed = test.failed(name, "SecretConflict").await;
        let message = &condition::find(&failed, api::READY).unwrap().message;
        assert!(message.contains("DataKey orders"), "{message}");
        drop(operator);
        operator = test.operator_without_retries();
        operator.is_ready().await;
    }
    assert_eq!(test.proxy.calls(), 1);
    test.issue("free", &json!({ "secretName": "empty" })).await;

    // Once it can be decoded again, its Secret holds the same data key again.
    editor.patch("orders", "merge", &json!({ "spec": { "wrappedKeys": null } })).await;
    test.ready("orders").await;
    assert_eq!(test.data("keys").await["ciphertextBlob.v1"], key.record()[0].ciphertext_blob.0);
    assert_eq!(test.proxy.calls(), 2);
}
