//! Data keys that the spec pins: the key in Git.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use serde_json::{Value, json};
use testbed::{
    eventually, kms,
    proxy::{Fault, ISSUE},
};

use crate::harness::{Data, SOON, TestNamespace, assert_refused, message, recorded_version, restored, text, to_json};

const DATA: &[u8] = b"Three apples and a pear, for Ada.";
const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const CONTRADICTS: &str = "spec.wrappedKeys pins another data key than status.versions records";

/// A spec as a user commits it to Git: with the record as pins.
async fn spec_with_pins(test: &TestNamespace, name: &str) -> Value {
    let key = test.get(name).await;
    let mut spec = to_json(&key.spec);
    spec["wrappedKeys"] = to_json(&key.record());
    spec
}

/// Deletes a `DataKey` and its Secret. Returns the Secret as a backup has it.
async fn back_up_and_delete(test: &TestNamespace, name: &str) -> k8s_openapi::api::core::v1::Secret {
    let backup = restored(&test.secret(name).await);
    test.delete(name).await;
    test.delete_secret(name).await;
    backup
}

/// Some data, encrypted as a workload does.
struct Encrypted {
    bytes: Vec<u8>,
    nonce: [u8; 12],
}

impl Encrypted {
    fn under(data_key: &[u8]) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, data_key).unwrap();
        let mut bytes = DATA.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut bytes).unwrap();
        Self { bytes, nonce: *nonce.as_ref() }
    }

    fn is_readable_with(&self, data_key: &[u8]) -> bool {
        let key = RandomizedNonceKey::new(&AES_256_GCM, data_key).unwrap();
        let mut bytes = self.bytes.clone();
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        key.open_in_place(nonce, Aad::empty(), &mut bytes).is_ok_and(|data| data == DATA)
    }
}

fn blobs(data: &Data) -> Vec<&Vec<u8>> {
    data.iter().filter(|(name, _)| name.starts_with("ciphertextBlob")).map(|(_, blob)| blob).collect()
}

// === the key in Git ===

#[tokio::test]
async fn lost_cluster_is_rebuilt_from_git_and_reads_everything() {
    let test = TestNamespace::with_disposable_cluster("drill").await;
    let spec = json!({ "encryptionContext": { "purpose": "orders" } });
    let (orders, lost, git) = {
        let _operator = test.operator();
        test.issue("orders", &spec).await;
        let first = test.decrypt(&test.data("orders").await, "").await;
        test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
        test.ready("orders").await;
        let data = test.data("orders").await;
        let second = test.decrypt(&data, "").await;
        assert_ne!(first, second);
        ([Encrypted::under(&first), Encrypted::under(&second)], data, spec_with_pins(&test, "orders").await)
    };
    assert_eq!(test.proxy.calls_of(ISSUE), 2);

    let test = test.replace_cluster().await;
    let operator = test.operator();
    // The manifest as it is in Git, applied by kubectl, which warns of fields that the definition lacks.
    test.apply(&[test.manifest("orders", &git)]).await;
    let key = test.ready("orders").await;

    assert_eq!(test.data("orders").await, lost);
    assert_eq!(to_json(&key.record()), git["wrappedKeys"]);
    assert_eq!(test.proxy.operations(), Vec::<String>::new(), "KMS was asked");
    let data = test.data("orders").await;
    let data_keys = [test.decrypt(&data, ".v1").await, test.decrypt(&data, ".v2").await];
    assert!(orders[0].is_readable_with(&data_keys[0]) && orders[1].is_readable_with(&data_keys[1]));
    assert!(!orders[0].is_readable_with(&data_keys[1]), "each under its own");

    eventually(SOON, "an event", async || !test.events("orders", "Pinned").await.is_empty()).await;
    let log = operator.process.log();
    for pin in git["wrappedKeys"].as_array().unwrap() {
        assert!(!log.contains(pin["ciphertextBlob"].as_str().unwrap()), "a pin is in the log");
    }

    // Work goes on: a version beyond the pins is issued, and no other.
    test.patch("orders", &json!({ "spec": { "version": 3 } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls_of(ISSUE), 1);
    assert_eq!(test.data("orders").await["ciphertextBlob.v1"], lost["ciphertextBlob.v1"]);
}

#[tokio::test]
async fn one_manifest_serves_in_every_region_of_a_multi_region_key() {
    const OTHER: &str = "us-east-1";
    let test = TestNamespace::new("pins-regions").await;
    let client = test.kms.client();
    let primary = client.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    client.replicate_key().key_id(&primary.key_id).replica_region(OTHER).send().await.unwrap();
    let arn = primary.arn.unwrap();

    let spec = json!({ "keyId": primary.key_id, "encryptionContext": { "a": "b" } });
    let (git, here) = {
        let _operator = test.operator();
        test.issue("orders", &spec).await;
        (spec_with_pins(&test, "orders").await, test.data("orders").await)
    };
    assert_eq!(text(&here, "keyId"), arn);
    let data_key = test.decrypt(&here, "").await;
    back_up_and_delete(&test, "orders").await;

    // The cluster of the other Region.
    let _operator = test.operator_with(&[], &[("AWS_REGION", OTHER)]);
    let key = test.issue("orders", &git).await;
    let there = test.data("orders").await;
    let replica = arn.replace(kms::REGION, OTHER);
    assert_eq!(text(&there, "keyId"), replica);
    assert_eq!(recorded_version(&key, 1).key_id, replica);
    assert_eq!(blobs(&there), blobs(&here));
    assert_eq!(test.decrypt(&there, "").await, data_key, "its replica unwraps it");
    assert_eq!(test.proxy.calls_of(ISSUE), 1);

    // The ARN of either Region agrees with the record; the ARN of another key does not.
    let mut exported = spec_with_pins(&test, "orders").await;
    test.patch("orders", &json!({ "spec": { "wrappedKeys": exported["wrappedKeys"] } })).await;
    test.patch("orders", &json!({ "spec": { "wrappedKeys": git["wrappedKeys"] } })).await;
    exported["wrappedKeys"][0]["keyId"] = ARN.into();
    let other = test.try_patch("orders", &json!({ "spec": { "wrappedKeys": exported["wrappedKeys"] } })).await;
    assert_refused(other, CONTRADICTS);

    // The operator reports what the server's rule lets through; and the Secret still follows the record.
    let unknown = format!("arn:aws:kms:{OTHER}:111122223333:key/mrk-{}", "0".repeat(32));
    exported["wrappedKeys"][0]["keyId"] = unknown.into();
    test.patch("orders", &json!({ "spec": { "wrappedKeys": exported["wrappedKeys"] } })).await;
    let conflict = test.failed("orders", "PinConflict").await;
    assert!(
        message(&conflict).contains(&format!("version 1 differs: keyId arn:aws:kms:{OTHER}:")),
        "{}",
        message(&conflict)
    );
    test.delete_secret("orders").await;
    test.secret_becomes("orders", &there).await;
    test.patch("orders", &json!({ "spec": { "wrappedKeys": null } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls_of(ISSUE), 1);
}

// === what the API server refuses ===

#[tokio::test]
async fn pin_of_the_wanted_version_must_match_the_spec() {
    let test = TestNamespace::new("pins-answer").await;
    let words = "wrappedKeys pins this version's data key";
    let spec = |field: &str, value: Value| {
        let mut spec = json!({ "wrappedKeys": [test.pin(1)], "encryptionContext": {} });
        spec[field] = value;
        spec
    };
    for (field, value) in [
        ("keyId", json!("alias/other")),
        ("keySpec", json!("AES_128")),
        ("numberOfBytes", json!(32)),
        ("encryptionContext", json!({ "a": "b" })),
        ("region", json!("eu-north-1")),
    ] {
        assert_refused(test.try_create(&test.manifest(field, &spec(field, value.clone()))).await, words);
        // The pin of another version may differ from the spec.
        let mut other = spec(field, value);
        other["version"] = json!(2);
        test.create(&format!("other-{}", field.to_lowercase()), &other).await;
    }
    // An empty encryption context is an absent one.
    test.create("orders", &json!({ "wrappedKeys": [test.pin(1)], "encryptionContext": {} })).await;
    // Nor can that version become the wanted one.
    test.create("later", &json!({ "wrappedKeys": [test.pin(1)], "version": 2, "keySpec": "AES_128" })).await;
    assert_refused(test.try_patch("later", &json!({ "spec": { "version": 1 } })).await, words);
}

#[tokio::test]
async fn a_malformed_pin_is_refused() {
    let test = TestNamespace::new("pins-malformed").await;
    let refuses = async |pins: Vec<Value>, words: &str| {
        assert_refused(test.try_create(&test.manifest("orders", &json!({ "wrappedKeys": pins }))).await, words);
    };
    let with = |field: &str, value: Value| {
        let mut pin = test.pin(1);
        pin[field] = value;
        vec![pin]
    };
    for key_id in ["alias/orders", "arn:aws:kms:eu-west-1:111122223333:alias/orders", "arn:aws:s3:::orders"] {
        refuses(with("keyId", json!(key_id)), "keyId must be the ARN of a KMS key").await;
    }
    for length in [json!({}), json!({ "keySpec": "AES_256", "numberOfBytes": 32 })] {
        let mut request = length;
        request["keyId"] = test.alias().into();
        refuses(with("request", request), "must have exactly one of keySpec and numberOfBytes").await;
    }
    refuses(with("ciphertextBlob", json!("not base64!")), "ciphertextBlob").await;
    refuses(with("issuedAt", json!("2026-11-24T01:02:03.5Z")), "issuedAt").await;
    refuses(with("version", json!(0)), "should be greater than or equal to 1").await;
    for plaintext in ["plaintext", "Plaintext"] {
        refuses(with(plaintext, json!("AQID")), &format!("spec.wrappedKeys[0].{plaintext}: Too long")).await;
    }
    refuses(vec![test.pin(1), test.pin(1)], "Duplicate value").await;
    refuses((1..=65).map(|version| test.pin(version)).collect(), "must have at most 64 items").await;
}

#[tokio::test]
async fn a_pin_that_contradicts_the_record_is_refused() {
    let test = TestNamespace::new("pins-contradict").await;
    test.create("orders", &json!({})).await;
    let versions = [test.pin(1), test.pin(2)];
    test.try_patch_status("orders", &json!({ "secretName": "orders", "versions": versions })).await.unwrap();
    let pinned = |pins: &[Value]| json!({ "spec": { "wrappedKeys": pins } });
    for (field, value) in [
        ("ciphertextBlob", json!("AQIDAHk=")),
        ("keyId", json!(ARN.replace("1234abcd", "99999999"))),
        ("keyId", json!(ARN.replace("eu-west-1", "eu-north-1"))),
        ("request", json!({ "keyId": test.alias(), "keySpec": "AES_128" })),
        ("request", json!({ "keyId": test.alias(), "keySpec": "AES_256", "encryptionContext": { "a": "b" } })),
    ] {
        let mut other = test.pin(2);
        other[field] = value;
        assert_refused(test.try_patch("orders", &pinned(&[test.pin(1), other])).await, CONTRADICTS);
    }
    // Another time of issuance and another request ID are not another data key.
    let mut other = test.pin(2);
    other["requestId"] = json!("another");
    test.patch("orders", &pinned(&[test.pin(1), other])).await;

    // A version that contradicts a pin cannot be recorded either.
    test.patch("orders", &pinned(&[test.pin(1), test.pin(3)])).await;
    let mut other = test.pin(3);
    other["ciphertextBlob"] = json!("AQIDAHk=");
    let status = json!({ "versions": [test.pin(1), test.pin(2), other] });
    assert_refused(test.try_patch_status("orders", &status).await, CONTRADICTS);
}

#[tokio::test]
async fn sixty_four_pins_stand_beside_sixty_four_versions() {
    let test = TestNamespace::new("pins-many").await;
    let _operator = test.operator();
    // Blobs as long as those of a data key of 1024 bytes.
    let pins = |count: i32| -> Vec<_> {
        let long = |version| {
            let mut pin = test.pin(version);
            pin["ciphertextBlob"] = format!("{}{version:04}", "A".repeat(1596)).into();
            pin
        };
        (1..=count).map(long).collect()
    };
    test.create("orders", &json!({ "wrappedKeys": pins(64), "version": 64 })).await;
    let key = test.ready("orders").await;
    assert_eq!(key.record().len(), 64);
    assert_eq!(test.data("orders").await["ciphertextBlob"], recorded_version(&key, 64).ciphertext_blob.0);
    // With all pins and versions in place, every write still passes the rules.
    test.patch("orders", &json!({ "spec": { "version": 1 } })).await;
    test.ready("orders").await;

    test.patch("orders", &json!({ "spec": { "wrappedKeys": [pins(64)[0]] } })).await;
    let mut more = test.pin(65);
    more["version"] = json!(65);
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [more] } })).await;
    let invalid = test.failed("orders", "PinInvalid").await;
    let message = message(&invalid);
    assert!(message.contains("version 65: with it there would be more than 64 versions"), "{message}");
    assert_eq!(test.proxy.calls(), 0);
}

// === beside a Secret that is there ===

#[tokio::test]
async fn pins_and_a_retained_secret_together_become_the_record() {
    let test = TestNamespace::new("pins-retained").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let old = test.ready("orders").await;
    let (git, data) = (spec_with_pins(&test, "orders").await, test.data("orders").await);

    // The Secret stays. The spec pins the first version only, then all of them.
    for pins in [&git["wrappedKeys"].as_array().unwrap()[..1], &git["wrappedKeys"].as_array().unwrap()[..]] {
        test.delete("orders").await;
        let mut spec = git.clone();
        spec["wrappedKeys"] = json!(pins);
        let new = test.issue("orders", &spec).await;
        assert_eq!(new.record(), old.record());
        assert_eq!(test.data("orders").await, data);
    }

    // A backup has less than Git.
    let mut backup = back_up_and_delete(&test, "orders").await;
    backup.data.as_mut().unwrap().retain(|name, _| !name.contains(".v2"));
    backup.metadata.annotations.as_mut().unwrap().retain(|name, _| !name.contains(".v2"));
    test.create_secret(&backup).await;
    let new = test.issue("orders", &git).await;
    assert_eq!(new.record(), old.record());
    test.secret_becomes("orders", &data).await;

    // A damaged Secret is restored from the pins.
    let mut backup = back_up_and_delete(&test, "orders").await;
    backup.data.as_mut().unwrap().remove("keyId.v1");
    test.create_secret(&backup).await;
    test.issue("orders", &git).await;
    test.secret_becomes("orders", &data).await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn secret_with_another_data_key_than_the_pin_is_a_conflict() {
    let test = TestNamespace::new("pins-conflict").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let secret = test.create_secret(&back_up_and_delete(&test, "orders").await).await;
    let mut pin = test.pin(1);
    pin["keyId"] = test.key.arn.clone().into();
    test.create("orders", &json!({ "wrappedKeys": [pin] })).await;
    let key = test.failed("orders", "SecretConflict").await;
    assert!(message(&key).contains("is another one than spec.wrappedKeys pins: ciphertextBlob"), "{key:?}");
    assert!(key.record().is_empty());
    assert_eq!(test.secret("orders").await.metadata.resource_version, secret.metadata.resource_version);

    // A foreign Secret is not changed either.
    let foreign = json!({ "metadata": { "name": "foreign" }, "stringData": { "password": "x" } });
    let foreign = test.create_secret(&serde_json::from_value(foreign).unwrap()).await;
    test.create("foreign", &json!({ "wrappedKeys": [test.pin(1)] })).await;
    let key = test.failed("foreign", "SecretConflict").await;
    assert!(key.record().is_empty(), "its secretName may still be changed");
    assert_eq!(test.secret("foreign").await.metadata.resource_version, foreign.metadata.resource_version);
    test.patch("foreign", &json!({ "spec": { "secretName": "ours" } })).await;
    test.ready("foreign").await;
    assert_eq!(test.proxy.calls(), 1);
}

// === later ===

#[tokio::test]
async fn pins_can_be_added_and_removed_between_issued_versions() {
    let test = TestNamespace::new("pins-later").await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    // Another cluster issued version 2.
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [test.pin(2)] } })).await;
    let key = test.ready("orders").await;
    assert_eq!(to_json(&recorded_version(&key, 2)), test.pin(2));
    let data = test.data("orders").await;
    assert_eq!(data["ciphertextBlob.v2"], recorded_version(&key, 2).ciphertext_blob.0);
    assert_eq!(text(&data, "version"), "1");

    test.patch("orders", &json!({ "spec": { "wrappedKeys": null } })).await;
    let same = test.ready("orders").await;
    assert_eq!(same.record(), key.record());
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);

    test.patch("orders", &json!({ "spec": { "version": 3 } })).await;
    let key = test.ready("orders").await;
    assert_eq!(key.record().len(), 3);
    assert_eq!(test.proxy.calls(), 2);

    // Once settled, and after a restart, nothing is written for pins that are recorded.
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [test.pin(2)] } })).await;
    let before = test.ready("orders").await;
    drop(operator);
    let _operator = test.operator();
    test.barrier().await;
    assert_eq!(test.get("orders").await.metadata.resource_version, before.metadata.resource_version);
}

#[tokio::test]
async fn pin_added_during_a_kms_call_replaces_its_answer() {
    let test = TestNamespace::new("pins-race").await;
    let _operator = test.operator();
    test.proxy.fail_next(1, Fault::Delay(Duration::from_secs(5)));
    test.create("orders", &json!({})).await;
    eventually(SOON, "KMS is asked", async || test.proxy.calls() == 1).await;
    test.patch("orders", &json!({ "spec": { "wrappedKeys": [test.pin(1)] } })).await;
    let key = test.ready("orders").await;
    assert_eq!(to_json(&key.record()), json!([test.pin(1)]));
    assert_eq!(test.data("orders").await["ciphertextBlob"], recorded_version(&key, 1).ciphertext_blob.0);
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn unusable_pin_is_reported_and_its_version_is_not_issued() {
    let test = TestNamespace::new("pins-invalid").await;
    let _operator = test.operator();
    // The ARN of another key than the one that was asked for.
    let mut pin = test.pin(1);
    pin["request"]["keyId"] = "ffffffff-12ab-34cd-56ef-1234567890ab".into();
    let spec = json!({ "keyId": pin["request"]["keyId"], "wrappedKeys": [pin] });
    test.create("orders", &spec).await;
    let key = test.failed("orders", "PinInvalid").await;
    assert!(message(&key).contains("version 1: keyId is not the ARN of the key that its request asks for"), "{key:?}");
    let conditions = &key.status.as_ref().unwrap().conditions;
    assert!(conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True"));
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.failed("orders", "PinInvalid").await;
    assert_eq!(test.proxy.calls(), 0);

    pin["keyId"] = ARN.replace("1234abcd", "ffffffff").into();
    test.patch("orders", &json!({ "spec": { "version": 1, "wrappedKeys": [pin] } })).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 0);
}
