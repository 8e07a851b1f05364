//! How much memory one `DataKey` takes in the caches: the bytes that are allocated for it.

#![allow(clippy::unwrap_used, missing_docs)]

use allocation_counter::measure;
use datakey::{
    api::{DataKey, IssuedVersion, Rest, VerifiedSecret, with_recorded},
    condition,
    secret::Projection,
};
use datakey_operator::controller::{cache::Cached, secret_index::SecretIndex};
use k8s_openapi::{ByteString, jiff::Timestamp};
use kube::runtime::{
    reflector::{Store, store::Writer},
    watcher::Event,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Just below where hash tables grow, so that their share is the same in every run.
const COUNT: usize = 7000;

/// What a `DataKey` of the usual size takes, in bytes, at most: the object, and what is known of its Secret. A smaller
/// figure than a tenth below it is good news, to be written down here and in docs/performance.md.
const KEY: usize = 1100;
const SECRET: usize = 320;

#[test]
fn data_key_and_secret_stay_within_the_documented_memory() {
    let mut writer = Writer::<Cached>::default();
    let keys: Store<Cached> = writer.as_reader();
    let index = SecretIndex::default();
    // The dictionary is no DataKey's.
    drop(read::<Cached>(&wire(&ready(0))));
    let of_the_keys = measure(|| {
        writer.apply_watcher_event(&Event::Init);
        for number in 0..COUNT {
            writer.apply_watcher_event(&Event::InitApply(read(&wire(&ready(number)))));
        }
        writer.apply_watcher_event(&Event::InitDone);
    });
    let of_the_secrets = measure(|| {
        index.apply(Event::Init);
        for number in 0..COUNT {
            index.apply(Event::InitApply(read(&secret_of(number))));
        }
        index.apply(Event::InitDone);
    });
    assert_eq!(keys.len(), COUNT);
    assert!(index.get("shop-production", "orders-000001").is_some());
    for (what, measured, at_most) in [("DataKey", of_the_keys, KEY), ("Secret", of_the_secrets, SECRET)] {
        let found = usize::try_from(measured.bytes_current).unwrap() / COUNT;
        println!("{found} bytes of a {what}");
        assert!((at_most * 9 / 10..=at_most).contains(&found), "{found} bytes of a {what}, {at_most} are written down");
    }
}

/// The metadata of its Secret as they come over the wire.
fn secret_of(number: usize) -> Value {
    let key = ready(number);
    let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
    let data: serde_json::Map<_, _> =
        secret.data.iter().flatten().map(|(entry, _)| (format!("f:{entry}"), json!({}))).collect();
    let mut metadata = serde_json::to_value(&secret.metadata).unwrap();
    metadata["uid"] = uid(number).into();
    metadata["resourceVersion"] = (2_000_000 + number).to_string().into();
    metadata["managedFields"] = json!([
        { "manager": "datakey-operator", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": { "f:data": data } },
    ]);
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata })
}

fn uid(number: usize) -> String {
    format!("7c3c8f7e-5b0a-4c62-9d5e-{number:012}")
}

/// A `DataKey` with one issued version, as the server has it.
fn ready(number: usize) -> DataKey {
    let mut key: DataKey = read(&json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": {
            "name": format!("orders-{number:06}"),
            "namespace": "shop-production",
            "uid": uid(number),
            "resourceVersion": (1_000_000 + number).to_string(),
            "generation": 1,
            "creationTimestamp": "2026-11-24T01:02:03Z",
        },
        "spec": {
            "keyId": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "keySpec": "AES_256",
            "encryptionContext": { "purpose": "orders", "stage": "production" },
        },
    }));
    let issued = IssuedVersion {
        version: 1,
        request: key.spec.request(),
        ciphertext_blob: ByteString(vec![number.to_le_bytes()[0]; 184]),
        key_id: key.spec.key_id.clone(),
        key_material_id: Some("ab".repeat(32)),
        issued_at: datakey::api::truncate_to_seconds(Timestamp::UNIX_EPOCH),
        request_id: Some(uid(number)),
        rest: Rest::new(),
    };
    key.status = Some(with_recorded(&key, vec![issued.clone()]));
    let saved = VerifiedSecret {
        uid: uid(number),
        resource_version: (2_000_000 + number).to_string(),
        digest: Projection::of(&key, 1).unwrap().digest().to_string(),
    };
    key.status = Some(condition::ready(&key, &issued, Some(saved), Timestamp::UNIX_EPOCH));
    key
}

/// As it comes over the wire, with what the server adds.
fn wire(key: &DataKey) -> Value {
    let mut object = serde_json::to_value(key).unwrap();
    object["metadata"]["managedFields"] = json!([
        { "manager": "kubectl-client-side-apply", "fieldsV1": { "f:spec": { "f:keyId": {}, "f:keySpec": {} } } },
        { "manager": "datakey-operator", "subresource": "status", "fieldsV1": { "f:status": { "f:versions": {} } } },
    ]);
    object
}

fn read<T: DeserializeOwned>(object: &Value) -> T {
    // From text, as the watch does: strings get just the room that they need.
    serde_json::from_str(&object.to_string()).unwrap()
}
