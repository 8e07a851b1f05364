//! Objects for the unit tests: the library's fixtures as the API server returns them.

use datakey::{
    api::{DataKey, DataKeyPair, IssuedVersion, KeyKind as _, KeyStatus},
    condition,
    fixtures::{self, Sample as _},
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

pub use datakey::fixtures::{ARN, at, issued};

use crate::cluster::{AnyKey, FetchedClass, FetchedKey};

/// A `DataKey` with these recorded versions and without a published one. The spec asks for the last of them.
pub fn recorded(versions: &[i32]) -> FetchedKey {
    let mut key = fixtures::recorded(versions);
    key.metadata.creation_timestamp = Some(datakey::api::truncate_to_seconds(at(0)));
    FetchedKey::decode(DataKey::KIND, &json!(key).to_string()).unwrap()
}

/// A `DataKeyPair` that is the counterpart of [`ready`].
pub fn pair(versions: &[i32]) -> FetchedKey {
    pair_of(&ready(versions))
}

/// The `DataKeyPair` that is the counterpart of this `DataKey`.
pub fn pair_of(fetched: &FetchedKey) -> FetchedKey {
    let key: DataKey = serde_json::from_value(fetched.value.clone()).unwrap();
    FetchedKey::decode(DataKeyPair::KIND, &json!(DataKeyPair::like(&key)).to_string()).unwrap()
}

/// A `DataKey` with these recorded versions, `Ready` with the last of them.
pub fn ready(versions: &[i32]) -> FetchedKey {
    let fetched = recorded(versions);
    let current = fetched.key.recorded_version(fetched.key.wanted_version()).unwrap().clone();
    with_status(fetched, |key| condition::ready(key, &current, None, at(60)))
}

/// The `DataKey` with another status.
pub fn with_status(fetched: FetchedKey, status: impl FnOnce(&AnyKey) -> KeyStatus) -> FetchedKey {
    let status = json!(status(&fetched.key));
    edited(fetched, |value| value["status"] = status)
}

/// The `DataKey` with a change of its JSON.
pub fn edited(fetched: FetchedKey, edit: impl FnOnce(&mut Value)) -> FetchedKey {
    let (kind, mut value) = (fetched.kind(), fetched.value);
    edit(&mut value);
    FetchedKey::decode(kind, &value.to_string()).unwrap()
}

/// The Secret that the operator creates for this version of the `DataKey`.
pub fn secret(key: &AnyKey, version: i32) -> Secret {
    datakey::secret::Projection::of(key, version).unwrap().into_secret(key)
}

/// A recorded version of a `DataKey`.
pub fn version(fetched: &FetchedKey, version: i32) -> &IssuedVersion {
    fetched.key.recorded_version(version).unwrap()
}

/// A class for the namespace `shop` with this name, after a change of its JSON.
pub fn class(name: &str, edit: impl FnOnce(&mut Value)) -> FetchedClass {
    let mut class = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKeyClass",
        "metadata": { "name": name, "uid": format!("uid-of-{name}"), "generation": 1 },
        "spec": {
            "namespaces": ["shop", "shop-*"],
            "defaults": { "keyId": "alias/shop", "region": "eu-west-1" },
            "allow": [{
                "keyIds": ["alias/shop", "alias/shop/*"],
                "keyArns": [ARN],
                "regions": ["eu-west-1"],
                "keySpecs": ["AES_256"],
                "numberOfBytes": { "min": 32, "max": 64 },
                "keyPairSpecs": ["ECC_NIST_P256"],
            }],
        },
    });
    edit(&mut class);
    FetchedClass::decode(&class.to_string()).unwrap()
}
