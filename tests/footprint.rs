//! How much memory one settled `DataKey` takes, with its Secret: the bytes that are allocated for it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use allocation_counter::measure;
use datakey::{
    api::{DataKey, IssuedVersion, KindId, Rest, VerifiedSecret, with_recorded},
    condition,
    identity::Revision,
    secret::Projection,
};
use datakey_operator::controller::{
    Watched,
    store::{Delivery, Facts, Store, Verdict, WorkingSet},
};
use k8s_openapi::{ByteString, jiff::Timestamp};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Just above where the table of the store grows, which is when one object has most of it; and just below.
const COUNTS: [usize; 2] = [7200, 14_300];

/// What a `DataKey` of the usual size takes with its Secret, in bytes, at most. A smaller figure than a tenth below it is good
/// news, to be written down here and in docs/performance.md.
const BOTH: usize = 250;

/// The bound by design; the rest up to it is for the IDs of class, identities and wrapping keys.
const BOUND: usize = 300;

#[test]
fn settled_data_key_and_secret_take_the_documented_memory() {
    for count in COUNTS {
        let working_set = Arc::new(WorkingSet::new(1 << 20));
        let store = Store::new(Arc::clone(&working_set), &[KindId::DataKey]);
        let measured = measure(|| {
            store.secret_changed(KindId::DataKey, Event::Init);
            for number in 0..count {
                store.secret_changed(KindId::DataKey, Event::InitApply(read(&secret_of(number))));
            }
            store.secret_changed(KindId::DataKey, Event::InitDone);
            store.key_list_begins(KindId::DataKey);
            for number in 0..count {
                let key = ready(number);
                let Watched::<DataKey>(object, _) = read(&wire(&key));
                let revision = Revision { uid: uid(number), resource_version: object_version(number) };
                assert!(store.is_news(KindId::DataKey, &object.metadata, Delivery::List));
                let verdict = Verdict::SettledWith(Some(revision));
                assert!(
                    !store
                        .put_watched(KindId::DataKey, object, Delivery::List, Facts::of(&key), verdict)
                        .unwrap()
                        .is_open
                );
            }
            store.key_list_ends(KindId::DataKey);
        });
        assert_eq!((store.states().0.len(), working_set.bytes()), (count, 0));
        let found = usize::try_from(measured.bytes_current).unwrap() / count;
        println!("{found} bytes of a DataKey and its Secret, of {count}");
        assert!(found <= BOTH, "{found} bytes, {BOTH} are written down");
        assert!(count != COUNTS[0] || found >= BOTH * 9 / 10, "{found} bytes, {BOTH} are written down");
    }
}

const _: () = assert!(BOTH <= BOUND);

/// What a KMS key takes on which one `DataKey` alone depends, in bytes, at most: as if a tenant pins versions of many.
const PRIVATE_KMS_KEY: usize = 170;

#[test]
fn kms_key_of_one_data_key_takes_the_documented_memory() {
    const COUNT: usize = 2000;
    const VERSIONS: usize = 64;
    let store = Store::new(Arc::new(WorkingSet::new(1 << 20)), &[KindId::DataKey]);
    let measured = measure(|| {
        for number in 0..COUNT {
            let mut key = ready(number);
            let status = key.status.as_mut().unwrap();
            let version = |version: usize| {
                let mut issued = status.versions[0].clone();
                issued.version = i32::try_from(version).unwrap() + 1;
                let id = number * VERSIONS + version;
                issued.key_id = format!("arn:aws:kms:eu-west-1:111122223333:key/{id:08}-12ab-34cd-56ef-1234567890ab");
                issued
            };
            status.versions = (0..VERSIONS).map(version).collect();
            let Watched::<DataKey>(object, _) = read(&wire(&key));
            store.put_watched(KindId::DataKey, object, Delivery::List, Facts::of(&key), Verdict::Settled);
        }
    });
    assert_eq!(store.key_arns().len(), COUNT * VERSIONS);
    let found = usize::try_from(measured.bytes_current).unwrap() / COUNT / VERSIONS;
    println!("{found} bytes of a KMS key of one DataKey");
    assert!(
        (PRIVATE_KMS_KEY * 9 / 10..=PRIVATE_KMS_KEY).contains(&found),
        "{found}, {PRIVATE_KMS_KEY} are written down"
    );
}

fn object_version(number: usize) -> String {
    (2_000_000 + number).to_string()
}

/// The metadata of its Secret as they come over the wire.
fn secret_of(number: usize) -> Value {
    let key = ready(number);
    let secret = Projection::of(&key, 1).unwrap().into_secret(&key);
    let data: serde_json::Map<_, _> =
        secret.data.iter().flatten().map(|(entry, _)| (format!("f:{entry}"), json!({}))).collect();
    let mut metadata = serde_json::to_value(&secret.metadata).unwrap();
    metadata["uid"] = uid(number).into();
    metadata["resourceVersion"] = object_version(number).into();
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
        request: key.spec.request().unwrap(),
        ciphertext_blob: ByteString(vec![number.to_le_bytes()[0]; 184]),
        public_key: None,
        key_id: key.spec.key_id.clone().unwrap(),
        key_material_id: Some("ab".repeat(32)),
        issued_at: datakey::api::truncate_to_seconds(Timestamp::UNIX_EPOCH),
        request_id: Some(uid(number)),
        as_written: None,
        rewrap_of: None,
        class: None,
        rest: Rest::new(),
    };
    key.status = Some(with_recorded(&key, vec![issued.clone()]));
    let saved = VerifiedSecret {
        uid: uid(number),
        resource_version: object_version(number),
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
