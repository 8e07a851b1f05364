//! What Kubernetes could not store is not issued and not recorded.

use serde_json::{Value, json};

use crate::test::{Test, recorded, to_json};

/// An encryption context of the largest size; each character takes six bytes in JSON.
fn control_characters() -> Value {
    json!({ "a": "\u{1}".repeat(8191) })
}

#[tokio::test]
async fn a_version_that_the_secret_has_no_room_for_is_not_issued() {
    let test = Test::new("size-versions").await;
    let spec = json!({ "encryptionContext": control_characters(), "version": 18 });
    let request = to_json(&test.create("k", &spec).await.spec.request());
    let versions: Vec<_> = (1..=18)
        .map(|version| {
            let blob = format!("AQID{version:04}");
            let time = "2026-11-26T00:00:00Z";
            json!({ "version": version, "request": request, "ciphertextBlob": blob, "keyId": test.key.arn, "issuedAt": time })
        })
        .collect();
    test.try_patch_status("k", &json!({ "secretName": "k", "versions": versions })).await.unwrap();
    let _operator = test.operator();
    for version in [19, 20] {
        test.patch("k", &json!({ "spec": { "version": version } })).await;
        test.ready("k").await;
    }
    let (data, calls) = (test.data("k").await, test.proxy.calls());
    test.patch("k", &json!({ "spec": { "version": 21 } })).await;
    let conditions = test.failed("k", "SecretTooLarge").await.status.unwrap().conditions;
    assert!(conditions[0].message.contains(" would have "), "{}", conditions[0].message);
    assert_eq!((test.proxy.calls(), test.get("k").await.record().len()), (calls, 20));

    // What is there stays usable: another version, and the Secret from the record.
    test.patch("k", &json!({ "spec": { "version": 20 } })).await;
    test.ready("k").await;
    test.delete_secret("k").await;
    test.holds("k", &data).await;
    test.patch("k", &json!({ "spec": { "version": 3 } })).await;
    let key = test.ready("k").await;
    assert_eq!(test.data("k").await["ciphertextBlob"], recorded(&key, 3).ciphertext_blob.0);
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn pins_that_the_status_has_no_room_for_are_not_recorded() {
    let test = Test::new("size-pins").await;
    let _operator = test.operator();
    let issued = to_json(&recorded(&test.issue("k", &json!({ "encryptionContext": control_characters() })).await, 1));
    let pin = |version: i32| {
        let mut pin = issued.clone();
        pin["version"] = json!(version);
        // Another data key.
        pin["ciphertextBlob"] = json!(format!("AQID{version:04}"));
        pin
    };
    let pins = |count: i32| {
        let pins: Vec<_> = (1..=count).map(pin).collect();
        json!({ "encryptionContext": control_characters(), "wrappedKeys": pins })
    };
    test.create("many", &pins(14)).await;
    let key = test.failed("many", "SecretTooLarge").await;
    assert!(key.record().is_empty());
    let message = &key.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("the DataKey would have"), "{message}");
    test.issue("fewer", &pins(8)).await;
    assert_eq!(test.proxy.calls(), 1);
}
