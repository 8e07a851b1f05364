//! The operator neither issues nor records what Kubernetes could not store.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::harness::{TestNamespace, recorded_version, to_json};

/// The size of a request that etcd accepts by default.
const LIMIT: usize = 3 << 19;

/// An encryption context of the largest size; each character takes six bytes in JSON.
fn control_characters() -> Value {
    json!({ "a": "\u{1}".repeat(8191) })
}

#[tokio::test]
async fn a_version_that_the_secret_has_no_room_for_is_not_issued() {
    let test = TestNamespace::new("size-versions").await;
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

    // The issued versions stay usable: an earlier version, and the Secret from the record.
    test.patch("k", &json!({ "spec": { "version": 20 } })).await;
    test.ready("k").await;
    test.delete_secret("k").await;
    test.secret_becomes("k", &data).await;
    test.patch("k", &json!({ "spec": { "version": 3 } })).await;
    let key = test.ready("k").await;
    assert_eq!(test.data("k").await["ciphertextBlob"], recorded_version(&key, 3).ciphertext_blob.0);
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn pins_that_the_status_has_no_room_for_are_not_recorded() {
    let test = TestNamespace::new("size-pins").await;
    let _operator = test.operator();
    let issued =
        to_json(&recorded_version(&test.issue("k", &json!({ "encryptionContext": control_characters() })).await, 1));
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

/// Fills the metadata of a `DataKey` with labels and an annotation until etcd does not accept one more byte.
async fn fill_metadata(test: &TestNamespace, name: &str) {
    let size = async || test.send::<Value>("GET", &format!("/{name}"), &Value::Null).await.unwrap().to_string().len();
    // Each label is in the managed fields, too: long ones are fewer.
    let domain = ["d".repeat(60).as_str(); 4].join(".");
    let label = |number: usize| (format!("{domain}/{number:063}"), json!("v".repeat(63)));
    let add = async |range: Range<usize>| {
        let labels: Map<_, _> = range.map(label).collect();
        test.patch(name, &json!({ "metadata": { "labels": labels } })).await;
    };
    let (empty, first) = (size().await, 500);
    add(0..first).await;
    let each = (size().await - empty) / first;
    let (mut count, mut step) = ((LIMIT - empty) / each - 4, 512);
    add(first..count).await;
    while step >= 8 {
        let labels: Map<_, _> = (count..count + step).map(label).collect();
        match test.try_patch(name, &json!({ "metadata": { "labels": labels } })).await {
            Ok(_) => count += step,
            Err(_) => step /= 2,
        }
    }
    let (mut pad, mut step) = (0, 4096);
    while step > 0 {
        let more = json!({ "metadata": { "annotations": { "pad": "x".repeat(pad + step) } } });
        match test.try_patch(name, &more).await {
            Ok(_) => pad += step,
            Err(_) => step /= 2,
        }
    }
    // Each request to etcd has the revision of the object, which takes a byte more from 16,384 on.
    let less = json!({ "metadata": { "annotations": { "pad": "x".repeat(pad - 4) } } });
    test.patch(name, &less).await;
}

#[tokio::test]
async fn where_etcd_has_no_room_ready_ends_and_kms_is_asked_once() {
    let test = TestNamespace::new("size-full").await;
    let operator = test.operator();
    test.issue("k", &json!({ "version": 1 })).await;
    // It would decode each of the forty steps.
    drop(operator);
    fill_metadata(&test, "k").await;
    let operator = test.operator();
    test.ready("k").await;
    let tried = async |reason: &str| {
        let key = test.failed("k", reason).await;
        let conditions = &key.status.as_ref().unwrap().conditions;
        assert_eq!((conditions.len(), conditions[0].message.as_str(), key.record().len()), (1, "", 1));
        assert_eq!(test.proxy.calls(), 2);
    };
    // There is no room for the record of the second version. For the third, the dry run shows that.
    for version in [2, 3] {
        test.patch("k", &json!({ "spec": { "version": version } })).await;
        tried("SecretTooLarge").await;
    }
    test.patch("k", &json!({ "spec": { "version": 1 } })).await;
    test.ready("k").await;

    drop(operator);
    test.delete_secret("k").await;
    let foreign = json!({ "metadata": { "name": "k", "namespace": test.namespace } });
    test.create_secret(&serde_json::from_value(foreign).unwrap()).await;
    let _operator = test.operator();
    tried("SecretConflict").await;
}
