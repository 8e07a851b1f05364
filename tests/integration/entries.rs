//! What the API server accepts of each pin and each recorded version: the rules of the spec and more.

use serde_json::{Map, Value, json};
use testbed::repository;

use crate::harness::{TestKind, TestNamespace, assert_refused, to_json};

for_each_kind! {
    a_rewrap_names_an_earlier_version: new("entry-rewraps"),
    unknown_fields_of_a_rewrap_are_kept: new("entry-rewrap-fields"),
}

const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const KEY_ARN: &str = "keyId must be the ARN of a KMS key";

/// Asserts that an entry with these changes is refused as a pin and as a recorded version, and that the server
/// names the field. Null takes a field away.
async fn refuses_entry<K: TestKind>(test: &TestNamespace<K>, name: &str, changes: &Value, words: &str) {
    let mut entry = test.pin(2);
    merge(&mut entry, changes);
    let pinned = test.try_patch(name, &json!({ "spec": { "wrappedKeys": [entry] } })).await;
    assert_refused(pinned, words);
    assert_refused(test.try_patch_status(name, &json!({ "versions": [entry] })).await, words);
}

fn merge(value: &mut Value, changes: &Value) {
    for (field, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => drop(value.as_object_mut().unwrap().remove(field)),
            Value::Object(_) if field == "request" => merge(&mut value[field], change),
            change => value[field] = change.clone(),
        }
    }
}

#[tokio::test]
async fn entries_name_a_whole_key_arn() {
    let test = TestNamespace::new("entry-arns").await;
    test.create("orders", &json!({})).await;
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    for arn in [
        "alias/orders".to_owned(),
        ARN.replace("key/", "alias/"),
        ARN.replace(id, "*"),
        ARN.replace(id, "\u{1b}[2J"),
        ARN.replace(id, "\u{202e}gnp"),
        ARN.replace(id, "a b"),
        ARN.replace(id, &"x".repeat(500)),
        ARN.replace(id, "mrk-1234"),
        ARN.replace("eu-west-1", "europe"),
        ARN.replace(":aws:", ":\u{7}aws:"),
        ARN.replace("1111", "111"),
        format!("{ARN}\n"),
    ] {
        refuses_entry(&test, "orders", &json!({ "keyId": arn }), KEY_ARN).await;
    }
    let replica = ARN.replace(id, &format!("mrk-{}", "a1".repeat(16)));
    for arn in [replica, ARN.replace("aws:kms:eu-west-1", "aws-us-gov:kms:us-gov-west-1")] {
        let mut entry = test.pin(2);
        entry["keyId"] = arn.into();
        test.patch("orders", &json!({ "spec": { "wrappedKeys": [entry] } })).await;
    }
}

#[tokio::test]
async fn requests_of_entries_follow_the_rules_of_the_spec() {
    let test = TestNamespace::new("entry-requests").await;
    test.create("orders", &json!({})).await;
    let request = |changes: Value| json!({ "request": changes });
    for key_id in ["orders", "alias/a b", "alias/\u{202e}a", "mrk-1", "arn:aws:kms:europe:111122223333:alias/a"] {
        refuses_entry(&test, "orders", &request(json!({ "keyId": key_id })), "keyId must be a key ID").await;
    }
    refuses_entry(&test, "orders", &request(json!({ "keyId": "alias/aws/s3" })), "name a customer managed key").await;
    let words = "region must be the code of an AWS Region";
    for region in ["europe", "eu-west-1\n", "\u{1b}[2J", "eu-west-1.attacker.example"] {
        refuses_entry(&test, "orders", &request(json!({ "region": region })), words).await;
    }
    refuses_entry(&test, "orders", &request(json!({ "keyId": ARN, "region": "eu-west-1" })), "remove region").await;
    let words = "request must have exactly one of keySpec and numberOfBytes";
    refuses_entry(&test, "orders", &request(json!({ "keySpec": null })), words).await;
    refuses_entry(&test, "orders", &request(json!({ "numberOfBytes": 32 })), words).await;

    let context = |context: Value| json!({ "request": { "encryptionContext": context } });
    refuses_entry(&test, "orders", &context(json!({ "": "x" })), "an encryption context key must not be empty").await;
    for reserved in ["aws:s3:arn", "AWS:x", "aws-crypto-public-key"] {
        refuses_entry(&test, "orders", &context(json!({ reserved: "x" })), "are reserved for AWS services").await;
    }
    refuses_entry(&test, "orders", &context(json!({ "purpose": "a", "Purpose": "b" })), "differ in case only").await;
    let long = context(json!({ "a": "x".repeat(8000), "b": "y".repeat(200) }));
    refuses_entry(&test, "orders", &long, "the encryption context is too long").await;
    let many: Map<_, _> = (0..33).map(|n| (format!("k{n}"), "v".into())).collect();
    refuses_entry(&test, "orders", &context(many.into()), "must have at most 32 items").await;
}

#[tokio::test]
async fn ids_and_times_of_entries_are_plain() {
    let test = TestNamespace::new("entry-ids").await;
    test.create("orders", &json!({})).await;
    for odd in ["\u{1b}[2J", "a\r\nb", "\u{202e}gnp", "a b"] {
        refuses_entry(&test, "orders", &json!({ "keyMaterialId": odd }), "keyMaterialId").await;
        refuses_entry(&test, "orders", &json!({ "requestId": odd }), "requestId").await;
    }
    for odd in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z"] {
        refuses_entry(&test, "orders", &json!({ "issuedAt": odd }), "issuedAt").await;
    }
}

async fn a_rewrap_names_an_earlier_version<K: TestKind>(test: TestNamespace<K>) {
    let rewrap_of = |rewrap_of: Value| json!({ "rewrapOf": rewrap_of });
    let entry = |rewrap_of: &Value| {
        let mut entry = test.pin(2);
        entry["rewrapOf"] = rewrap_of.clone();
        entry
    };
    test.create("orders", &json!({})).await;
    let words = "rewrapOf.version must be smaller than the version that has it";
    for later in [2, 3, i32::MAX] {
        let later = json!({ "version": later });
        refuses_entry(&test, "orders", &rewrap_of(later.clone()), words).await;
        let manifest = test.manifest("created", &json!({ "wrappedKeys": [test.pin(1), entry(&later)] }));
        assert_refused(test.try_create(&manifest).await, words);
    }
    for (malformed, words) in [
        (json!({ "version": 0 }), "rewrapOf.version"),
        (json!({ "version": -1 }), "rewrapOf.version"),
        (json!({ "version": "1" }), "rewrapOf.version"),
        (json!({ "version": 1.0 }), "version must be an integer of at least 1, without a decimal point"),
        (json!({ "requestId": "r" }), "rewrapOf.version: Required value"),
        (json!({ "version": 1, "requestId": "a b" }), "rewrapOf.requestId"),
        (json!({ "version": 1, "requestId": "\u{1b}[2J" }), "rewrapOf.requestId"),
        (json!({ "version": 1, "requestId": "r".repeat(257) }), "rewrapOf.requestId"),
        (json!(1), "rewrapOf"),
    ] {
        refuses_entry(&test, "orders", &rewrap_of(malformed), words).await;
    }
    // The earlier one need not be there: a pin of it can be left out.
    for (number, accepted) in
        [json!({ "version": 1 }), json!({ "version": 1, "requestId": "0a1b-2C" })].iter().enumerate()
    {
        for pins in [json!([test.pin(1), entry(accepted)]), json!([entry(accepted)])] {
            test.patch("orders", &json!({ "spec": { "wrappedKeys": pins } })).await;
        }
        let name = format!("recorded-{number}");
        test.create(&name, &json!({ "wrappedKeys": [entry(accepted)], "version": 3 })).await;
        let status = json!({ "secretName": name, "versions": [test.pin(1), entry(accepted)] });
        test.try_patch_status(&name, &status).await.unwrap();
        assert_eq!(to_json(&test.get(&name).await.as_object().record()[1].rewrap_of), *accepted);
    }
}

async fn unknown_fields_of_a_rewrap_are_kept<K: TestKind>(test: TestNamespace<K>) {
    let rewrap_of = json!({ "version": 1, "requestId": "r", "invented": { "by": ["a newer release", 1] } });
    let mut entry = test.pin(2);
    entry["rewrapOf"] = rewrap_of.clone();
    test.create("orders", &json!({ "wrappedKeys": [entry], "version": 3 })).await;
    let status = json!({ "secretName": "orders", "versions": [test.pin(1), entry] });
    test.try_patch_status("orders", &status).await.unwrap();
    let stored: Value = test.send("GET", "/orders", &Value::Null).await.unwrap();
    assert_eq!(stored["spec"]["wrappedKeys"][0]["rewrapOf"], rewrap_of);
    assert_eq!(stored["status"]["versions"][1]["rewrapOf"], rewrap_of);
}

#[tokio::test]
async fn columns_show_plain_text_of_a_status() {
    let test = TestNamespace::new("entry-columns").await;
    test.create("orders", &json!({})).await;
    let condition = |field: &str, value: &str| {
        let mut condition = json!({
            "type": "Ready", "status": "False", "reason": "Pending", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        condition[field] = value.into();
        json!({ "conditions": [condition] })
    };
    for odd in ["\u{1b}[2J", "a\r\nb", "\u{202e}gnp", "a b"] {
        for (status, field) in [
            (json!({ "keyId": odd }), "status.keyId"),
            (json!({ "secretName": odd }), "secretName"),
            (condition("type", odd), "type"),
            (condition("status", odd), "status"),
            (condition("reason", odd), "reason"),
        ] {
            assert_refused(test.try_patch_status("orders", &status).await, field);
        }
    }
}

#[tokio::test]
async fn one_wrapped_key_is_one_version() {
    let test = TestNamespace::new("entry-twins").await;
    let twin = |version: i32| {
        let mut twin = test.pin(version);
        twin["ciphertextBlob"] = test.pin(1)["ciphertextBlob"].clone();
        twin
    };
    let words = "two entries have the same ciphertextBlob";
    let manifest = test.manifest("pins", &json!({ "wrappedKeys": [test.pin(1), twin(2)] }));
    assert_refused(test.try_create(&manifest).await, words);

    test.create("orders", &json!({})).await;
    let twins = json!({ "secretName": "orders", "versions": [test.pin(1), twin(2)] });
    assert_refused(test.try_patch_status("orders", &twins).await, "versions records one ciphertextBlob twice");
    test.try_patch_status("orders", &json!({ "secretName": "orders", "versions": [test.pin(1)] })).await.unwrap();
    assert_refused(test.try_patch_status("orders", &twins).await, "versions records one ciphertextBlob twice");

    let words = "pins a data key that status.versions records as another version";
    let pins = json!({ "spec": { "wrappedKeys": [test.pin(1), twin(2)] } });
    assert_refused(test.try_patch("orders", &pins).await, "two entries have the same");
    assert_refused(test.try_patch("orders", &json!({ "spec": { "wrappedKeys": [twin(2)] } })).await, words);
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [test.pin(1), test.pin(2)] } })).await;
    // A pinned blob cannot be recorded as another version either.
    let mut third = test.pin(3);
    third["ciphertextBlob"] = test.pin(2)["ciphertextBlob"].clone();
    assert_refused(test.try_patch_status("orders", &json!({ "versions": [test.pin(1), third] })).await, words);
}

#[tokio::test]
async fn a_recorded_secret_name_is_not_dropped() {
    let test = TestNamespace::new("entry-secret-name").await;
    test.create("orders", &json!({})).await;
    test.try_patch_status("orders", &json!({ "secretName": "orders", "versions": [test.pin(1)] })).await.unwrap();
    let words = "secretName is fixed once a version is issued";
    for other in [Value::Null, json!("other")] {
        assert_refused(test.try_patch_status("orders", &json!({ "secretName": other })).await, words);
    }
    let mut whole = to_json(&test.get("orders").await);
    whole["status"].as_object_mut().unwrap().remove("secretName");
    assert_refused(test.send::<Value>("PUT", "/orders/status", &whole).await, words);
}

#[tokio::test]
async fn the_largest_entries_are_within_the_servers_budget() {
    let test = TestNamespace::new("entry-budget").await;
    let context: Map<_, _> = (0..32).map(|n| (format!("{n:02}{}", "k".repeat(98)), "v".into())).collect();
    for (name, blob, context) in [("contexts", 1000, context), ("blobs", 8188, Map::new())] {
        let entries: Vec<_> = (1..=64)
            .map(|version| {
                let mut entry = test.pin(version);
                entry["request"]["encryptionContext"] = context.clone().into();
                entry["ciphertextBlob"] = format!("{version:04}{}", "A".repeat(blob)).into();
                entry
            })
            .collect();
        test.create(name, &json!({ "wrappedKeys": entries, "encryptionContext": context })).await;
        test.try_patch_status(name, &json!({ "secretName": name, "versions": entries })).await.unwrap();
        test.patch(name, &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
        test.patch(name, &json!({ "spec": { "version": 64 } })).await;
        test.patch(name, &json!({ "spec": { "wrappedKeys": entries[..63] } })).await;
    }
}

#[tokio::test]
async fn one_version_cannot_be_given_twice_with_a_decimal_point() {
    let test = TestNamespace::new("entry-decimal").await;
    let words = "version must be an integer of at least 1, without a decimal point";
    let (one, mut again) = (test.pin(1), test.pin(2));
    again["version"] = json!(1.0);
    let pins = test.manifest("orders", &json!({ "wrappedKeys": [one, again] }));
    assert_refused(test.try_create(&pins).await, words);
    test.create("orders", &json!({})).await;
    assert_refused(test.try_patch_status("orders", &json!({ "versions": [one, again] })).await, words);
}

/// The definition without the rules of entries, as older releases had it.
fn without_rules_of_entries(definition: &Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("x-kubernetes-validations");
                if fields.get("type") == Some(&json!("string")) {
                    fields.remove("pattern");
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut definition = definition.clone();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let root = schema["x-kubernetes-validations"].as_array_mut().unwrap();
    root.retain(|rule| !rule["rule"].as_str().unwrap().contains("oldSelf.spec.wrappedKeys"));
    strip(&mut schema["properties"]["status"]);
    strip(&mut schema["properties"]["spec"]["properties"]["wrappedKeys"]);
    definition
}

#[tokio::test]
async fn what_an_older_definition_let_in_stays_writable() {
    let test = TestNamespace::with_own_control_plane("entry-upgrade").await;
    let file = repository().join("deploy/crd.yaml");
    let definitions = std::fs::read_to_string(&file).unwrap();
    let (of_data_keys, _) = definitions.split_once("\n---\n").unwrap();
    let new: Value = serde_saphyr::from_str(of_data_keys).unwrap();
    let old = test.plane.workdir().file("old-crd.json");
    std::fs::write(&old, without_rules_of_entries(&new).to_string()).unwrap();
    test.plane.kubectl(&["replace", "-f", &old.display().to_string()]).await.unwrap();

    let mut junk = test.pin(1);
    junk["keyId"] = ARN.replace("1234abcd", "\u{1b}[2J").into();
    let twin = |version: i32| {
        let mut twin = test.pin(version);
        twin["ciphertextBlob"] = test.pin(1)["ciphertextBlob"].clone();
        twin["request"]["encryptionContext"] = json!({ "aws:x": "y" });
        twin
    };
    let manifest = test.manifest("junk", &json!({ "wrappedKeys": [junk] }));
    testbed::eventually(crate::harness::SOON, "the older definition works", async || {
        test.try_create(&manifest).await.is_ok()
    })
    .await;
    test.create("twins", &json!({ "wrappedKeys": [twin(1), twin(2)], "version": 3 })).await;
    let versions = json!({ "secretName": "twins", "versions": [twin(1), twin(2)] });
    test.try_patch_status("twins", &versions).await.unwrap();

    test.plane.kubectl(&["replace", "-f", &file.display().to_string()]).await.unwrap();
    let manifest = test.manifest("refused", &json!({ "wrappedKeys": [junk] }));
    testbed::eventually(crate::harness::SOON, "the definition works", async || {
        test.try_create(&manifest).await.is_err()
    })
    .await;
    // The operator reports the pin, and publishes what was recorded.
    let _operator = test.operator();
    test.failed("junk", "PinInvalid").await;
    let key = test.ready("twins").await;
    assert_eq!((key.record().len(), key.wanted_version()), (3, 3));
    test.patch("twins", &json!({ "spec": { "wrappedKeys": null, "version": 4 } })).await;
    test.ready("twins").await;
}
