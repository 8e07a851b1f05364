//! How the API server protects the record and the recorded spec: from users, from cluster admins and from defects of the
//! operator.

use serde_json::{Value, json};

use crate::harness::{TestKind, TestNamespace, assert_refused, to_json};

for_each_kind! {
    a_recorded_rewrap_is_fixed: new("write-once-rewrap"),
}

const FIXED: &str = "this version's data key is issued";
const WRITE_ONCE: &str = "status.versions is write-once";

/// A recorded version as the operator writes it.
fn version(version: i32, request: &Value) -> Value {
    json!({
        "version": version,
        "request": request,
        "ciphertextBlob": format!("AQID{version:04}"),
        "keyId": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "issuedAt": "2026-11-23T00:00:00Z",
    })
}

/// Creates a `DataKey` and records its version as a cluster admin, in the operator's place. Returns the recorded request.
async fn create_recorded(test: &TestNamespace, name: &str, spec: &Value) -> Value {
    let key = test.create(name, spec).await;
    let request = to_json(&key.spec.request());
    let status = json!({ "secretName": key.secret_name(), "versions": [version(key.wanted_version(), &request)] });
    test.try_patch_status(name, &status).await.unwrap();
    request
}

#[tokio::test]
async fn the_settings_of_an_issued_version_are_fixed() {
    let test = TestNamespace::new("fixed").await;
    create_recorded(&test, "orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    for change in [
        json!({ "keyId": "alias/other" }),
        json!({ "keySpec": "AES_128" }),
        json!({ "keySpec": null, "numberOfBytes": 32 }),
        json!({ "encryptionContext": { "a": "c" } }),
        json!({ "encryptionContext": { "more": "x" } }),
        json!({ "encryptionContext": null }),
        json!({ "encryptionContext": { "a": null } }),
        json!({ "region": "eu-west-1" }),
    ] {
        assert_refused(test.try_patch("orders", &json!({ "spec": change })).await, FIXED);
    }
    for change in [json!({ "grantTokens": ["t"] }), json!({ "deletionPolicy": "Retain" }), json!({ "version": 1 })] {
        test.patch("orders", &json!({ "spec": change })).await;
    }
}

#[tokio::test]
async fn the_deletion_policy_of_an_issued_version_is_fixed() {
    let test = TestNamespace::new("fixed-policy").await;
    let message = "deletionPolicy is fixed once a version is issued: set it back. To keep the Secret";
    for (name, policy, others) in [
        ("absent", Value::Null, vec![json!("Delete")]),
        ("retain", json!("Retain"), vec![json!("Delete")]),
        ("delete", json!("Delete"), vec![json!("Retain"), Value::Null]),
    ] {
        test.create(name, &json!({})).await;
        for policy in others.iter().chain([&policy]) {
            test.patch(name, &json!({ "spec": { "deletionPolicy": policy } })).await;
        }
        let request = to_json(&test.get(name).await.spec.request());
        test.try_patch_status(name, &json!({ "versions": [version(1, &request)] })).await.unwrap();
        for other in others {
            assert_refused(test.try_patch(name, &json!({ "spec": { "deletionPolicy": other } })).await, message);
        }
        test.patch(name, &json!({ "spec": { "deletionPolicy": policy, "version": 2 } })).await;
    }
    // An absent policy is Retain.
    test.patch("absent", &json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    test.patch("retain", &json!({ "spec": { "deletionPolicy": null } })).await;
}

#[tokio::test]
async fn another_version_may_have_other_settings() {
    let test = TestNamespace::new("other-settings").await;
    create_recorded(&test, "orders", &json!({ "encryptionContext": { "a": "b" } })).await;
    let spec = json!({
        "version": 2,
        "keyId": "alias/other",
        "keySpec": null,
        "numberOfBytes": 64,
        "encryptionContext": { "a": "c" },
        "region": "eu-north-1",
    });
    test.patch("orders", &json!({ "spec": spec })).await;
}

#[tokio::test]
async fn issued_version_can_return_with_its_own_settings_only() {
    let test = TestNamespace::new("comes-back").await;
    let first = create_recorded(&test, "orders", &json!({ "numberOfBytes": 7 })).await;
    test.patch("orders", &json!({ "spec": { "version": 2, "keyId": "alias/other" } })).await;
    assert_refused(test.try_patch("orders", &json!({ "spec": { "version": null } })).await, FIXED);
    assert_refused(test.try_patch("orders", &json!({ "spec": { "version": 1 } })).await, FIXED);
    test.patch("orders", &json!({ "spec": { "version": 1, "keyId": first["keyId"] } })).await;
}

#[tokio::test]
async fn an_empty_encryption_context_is_an_absent_one() {
    let test = TestNamespace::new("empty-context").await;
    create_recorded(&test, "orders", &json!({ "encryptionContext": {} })).await;
    test.patch("orders", &json!({ "spec": { "encryptionContext": null } })).await;
    test.patch("orders", &json!({ "spec": { "encryptionContext": {} } })).await;
    assert_refused(test.try_patch("orders", &json!({ "spec": { "encryptionContext": { "a": "b" } } })).await, FIXED);
}

#[tokio::test]
async fn the_secret_name_is_fixed_with_the_first_issue() {
    let test = TestNamespace::new("fixed-name").await;
    let words = "secretName is fixed once a version is issued";
    create_recorded(&test, "by-default", &json!({})).await;
    assert_refused(test.try_patch("by-default", &json!({ "spec": { "secretName": "x" } })).await, words);
    test.patch("by-default", &json!({ "spec": { "secretName": "by-default" } })).await;

    test.create("named", &json!({ "secretName": "a" })).await;
    test.patch("named", &json!({ "spec": { "secretName": "b" } })).await;
    test.try_patch_status("named", &json!({ "secretName": "b" })).await.unwrap();
    assert_refused(test.try_patch("named", &json!({ "spec": { "secretName": null } })).await, words);
    assert_refused(test.try_patch_status("named", &json!({ "secretName": "c" })).await, words);
}

#[tokio::test]
async fn a_cluster_admin_cannot_change_drop_or_null_an_issued_version() {
    let test = TestNamespace::new("write-once").await;
    let request = create_recorded(&test, "orders", &json!({})).await;
    let other = |field: &str, value: Value| {
        let mut entry = version(1, &request);
        entry[field] = value;
        json!({ "versions": [entry] })
    };
    for status in [
        other("ciphertextBlob", "AQIDAHk=".into()),
        other("keyId", "arn:aws:kms:eu-west-1:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab".into()),
        other("issuedAt", "2026-11-24T00:00:00Z".into()),
        other("requestId", "x".into()),
        json!({ "versions": [] }),
        json!({ "versions": null }),
        json!({ "versions": [version(2, &request)] }),
        Value::Null,
    ] {
        assert_refused(test.try_patch_status("orders", &status).await, WRITE_ONCE);
    }
    // A replacement of the status without the record is refused as well.
    let mut whole = to_json(&test.get("orders").await);
    whole.as_object_mut().unwrap().remove("status");
    assert_refused(test.send::<Value>("PUT", "/orders/status", &whole).await, WRITE_ONCE);

    // Further versions can be added, and the rest of the status can change.
    let more = json!({ "versions": [version(1, &request), version(2, &request)], "version": 1 });
    test.try_patch_status("orders", &more).await.unwrap();
}

#[tokio::test]
async fn an_unknown_field_cannot_replace_a_recorded_one() {
    let test = TestNamespace::new("write-once-unknown").await;
    let request = to_json(&test.create("orders", &json!({ "encryptionContext": { "a": "b" } })).await.spec.request());
    let mut entry = version(1, &request);
    entry["requestId"] = "r".into();
    test.try_patch_status("orders", &json!({ "versions": [entry] })).await.unwrap();
    // The spec asks for another version, so only the record itself protects this one.
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    for (object, field) in [("", "requestId"), ("/request", "encryptionContext")] {
        let mut other = entry.clone();
        let fields = other.pointer_mut(object).unwrap().as_object_mut().unwrap();
        fields.remove(field).unwrap();
        fields.insert("invented".to_owned(), 1.into());
        assert_refused(test.try_patch_status("orders", &json!({ "versions": [other] })).await, WRITE_ONCE);
    }
}

#[tokio::test]
async fn a_recorded_field_cannot_take_the_place_of_another() {
    let test = TestNamespace::new("write-once-exchanged").await;
    let request = to_json(&test.create("orders", &json!({ "encryptionContext": {} })).await.spec.request());
    let mut entry = version(1, &request);
    entry["requestId"] = "".into();
    test.try_patch_status("orders", &json!({ "versions": [entry] })).await.unwrap();
    // The spec asks for another version, so only the record itself protects this one.
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    for (object, removed, added, value) in [
        ("", "requestId", "keyMaterialId", json!("")),
        ("/request", "encryptionContext", "region", json!("eu-west-1")),
        ("/request", "keySpec", "numberOfBytes", json!(32)),
    ] {
        let mut other = entry.clone();
        let fields = other.pointer_mut(object).unwrap().as_object_mut().unwrap();
        fields.remove(removed).unwrap();
        fields.insert(added.to_owned(), value);
        assert_refused(test.try_patch_status("orders", &json!({ "versions": [other] })).await, WRITE_ONCE);
    }
}

async fn a_recorded_rewrap_is_fixed<K: TestKind>(test: TestNamespace<K>) {
    test.create("orders", &json!({ "version": 5 })).await;
    let rewrap_of = json!({ "version": 2, "requestId": "r", "invented": 1 });
    let mut entry = test.pin(4);
    entry["rewrapOf"] = rewrap_of.clone();
    let versions = |third: &Value, fourth: &Value| json!({ "secretName": "orders", "versions": [test.pin(1), test.pin(2), third, fourth] });
    test.try_patch_status("orders", &versions(&test.pin(3), &entry)).await.unwrap();
    let mut others = vec![];
    for (field, value) in [
        ("version", json!(1)),
        ("version", json!(3)),
        ("requestId", json!("other")),
        ("requestId", Value::Null),
        ("invented", json!(2)),
        ("invented", Value::Null),
        ("more", json!("x")),
    ] {
        let mut other = entry.clone();
        let fields = other["rewrapOf"].as_object_mut().unwrap();
        match value {
            Value::Null => drop(fields.remove(field).unwrap()),
            value => drop(fields.insert(field.to_owned(), value)),
        }
        others.push((test.pin(3), other));
    }
    let mut without = entry.clone();
    without.as_object_mut().unwrap().remove("rewrapOf");
    for field in ["requestId", "keyMaterialId", "invented"] {
        let mut other = without.clone();
        other[field] = "x".into();
        others.push((test.pin(3), other));
    }
    others.push((test.pin(3), without));
    let mut third = test.pin(3);
    third["rewrapOf"] = json!({ "version": 1 });
    others.push((third, entry.clone()));
    for (third, fourth) in others {
        assert_refused(test.try_patch_status("orders", &versions(&third, &fourth)).await, WRITE_ONCE);
    }
    // As it is, it stays, and so does what is written beside it.
    let mut more = versions(&test.pin(3), &entry);
    more["version"] = json!(4);
    test.try_patch_status("orders", &more).await.unwrap();
    let stored: Value = test.send("GET", "/orders", &Value::Null).await.unwrap();
    assert_eq!(stored["status"]["versions"][3]["rewrapOf"], rewrap_of);
}

#[tokio::test]
async fn version_that_does_not_match_the_spec_cannot_be_recorded() {
    let test = TestNamespace::new("answers").await;
    let request = to_json(&test.create("orders", &json!({ "encryptionContext": { "a": "b" } })).await.spec.request());
    for (field, value) in [
        ("keyId", json!("alias/other")),
        ("keySpec", json!("AES_128")),
        ("encryptionContext", json!({ "a": "c" })),
        ("region", json!("eu-west-1")),
    ] {
        let mut other = request.clone();
        other[field] = value;
        assert_refused(test.try_patch_status("orders", &json!({ "versions": [version(1, &other)] })).await, FIXED);
    }
    let mut bytes = request.clone();
    bytes["numberOfBytes"] = json!(32);
    bytes.as_object_mut().unwrap().remove("keySpec");
    assert_refused(test.try_patch_status("orders", &json!({ "versions": [version(1, &bytes)] })).await, FIXED);
    test.try_patch_status("orders", &json!({ "versions": [version(1, &request)] })).await.unwrap();
}

#[tokio::test]
async fn the_record_holds_64_versions_of_well_formed_entries() {
    let test = TestNamespace::new("bounds").await;
    let request = to_json(&test.create("orders", &json!({})).await.spec.request());
    let versions = |count: i32| json!({ "versions": (1..=count).map(|n| version(n, &request)).collect::<Vec<_>>() });
    let too_many = test.try_patch_status("orders", &versions(65)).await;
    assert_refused(too_many, "must have at most 64 items");
    for malformed in ["not base64!", "AQIDAHh=", "AQI", "AQIDAHg"] {
        let mut entry = version(1, &request);
        entry["ciphertextBlob"] = json!(malformed);
        assert_refused(test.try_patch_status("orders", &json!({ "versions": [entry] })).await, "ciphertextBlob");
    }
    // The operator writes whole seconds: a fraction would not survive its next write, and a record must not change.
    for malformed in ["2026-11-24T01:02:03.5Z", "2026-11-24T01:02:03+01:00", "yesterday"] {
        let mut entry = version(1, &request);
        entry["issuedAt"] = json!(malformed);
        assert_refused(test.try_patch_status("orders", &json!({ "versions": [entry] })).await, "issuedAt");
    }
    test.try_patch_status("orders", &versions(64)).await.unwrap();
}
