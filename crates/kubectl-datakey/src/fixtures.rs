//! What the unit tests of several modules begin with.

use datakey::{
    api::{DataKey, IssuedVersion},
    status,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use serde_json::{Value, json};

use crate::cluster::Object;

pub const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn request() -> Value {
    json!({ "keyId": "alias/orders", "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" } })
}

/// A recorded version; each has bytes of its own.
pub fn issued(version: i32) -> Value {
    let blob = k8s_openapi::ByteString(format!("wrapped data key {version}").into_bytes());
    json!({
        "version": version,
        "request": request(),
        "ciphertextBlob": blob,
        "keyId": ARN,
        "issuedAt": status::whole_seconds(at(i64::from(version))),
        "requestId": format!("request-{version}"),
    })
}

/// A `DataKey` with these recorded versions, the last one current, as the API server answers it.
pub fn recorded(versions: &[i32]) -> Object {
    let mut spec = request();
    if let Some(version) = versions.last().filter(|version| **version != 1) {
        spec["version"] = json!(version);
    }
    let object = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": {
            "name": "orders",
            "namespace": "shop",
            "uid": "7c3c8f7e-0001",
            "resourceVersion": "100",
            "generation": 1,
            "creationTimestamp": status::whole_seconds(at(0)),
        },
        "spec": spec,
        "status": {
            "observedGeneration": -1,
            "conditions": status::at_birth().conditions,
            "secretName": "orders",
            "versions": versions.iter().copied().map(issued).collect::<Vec<_>>(),
        },
    });
    Object::parse(object).unwrap()
}

/// The same, `Ready` with its last version.
pub fn ready(versions: &[i32]) -> Object {
    let object = recorded(versions);
    let current = object.key.issued(object.key.version()).unwrap().clone();
    with_status(object, |key| status::ready(key, &current, None, at(60)))
}

/// The same with another status.
pub fn with_status(mut object: Object, status: impl FnOnce(&DataKey) -> datakey::api::DataKeyStatus) -> Object {
    object.value["status"] = json!(status(&object.key));
    Object::parse(object.value).unwrap()
}

/// A change of the object as the API server answers it.
pub fn edited(object: Object, edit: impl FnOnce(&mut Value)) -> Object {
    let mut value = object.value;
    edit(&mut value);
    Object::parse(value).unwrap()
}

/// The Secret that the operator makes of it.
pub fn secret(key: &DataKey, version: i32) -> Secret {
    datakey::secret::project(key, version).unwrap().create(key)
}

/// A recorded version, typed.
pub fn version(object: &Object, version: i32) -> &IssuedVersion {
    object.key.issued(version).unwrap()
}
