//! Properties that hold for any input from the API server, KMS and users. Each takes an input as bytes, panics if the property
//! does not hold, and returns how far the input got: a corpus that never passes the checks tests nothing.

mod adoption;
mod classes;
mod decisions;
mod key_id;
mod public_key;

use std::collections::BTreeSet;

use datakey::{
    api::{DataKey, IssuedVersion, MAX_BLOB},
    arn::{self, KmsArn},
    protocol::{Observed, SecretState, Step, plan},
    secret::{VersionAnnotation, sha256},
};
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use adoption::adoption;
pub use classes::class;
pub use decisions::data_key;
pub use key_id::key_id;
pub use public_key::public_key;

/// Prefix of the annotation about one version.
pub const ISSUED: &str = "datakey.dev/issued.v";

/// How far an input got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It could not be decoded.
    Nothing,
    /// It was refused, or there was nothing to decide.
    Checks,
    /// It was adopted, published or taken as the answer.
    All,
}

/// A `DataKey`, the Secret of its name and its class as the API server sends them.
#[derive(Serialize, Deserialize)]
pub struct Objects {
    /// The `DataKey`.
    pub key: DataKey,
    /// The Secret, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The `DataKeyClass`, whatever is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Value>,
}

fn decode(data: &[u8]) -> Option<Objects> {
    let Objects { key, secret, class } = serde_json::from_slice(data).ok()?;
    let mut key = written(&key)?;
    // Every object at the API server has a name.
    key.metadata.name.as_ref()?;
    // The API server keeps the record and the pins as maps by version.
    let once = |versions: &mut Vec<IssuedVersion>| {
        let mut seen = BTreeSet::new();
        versions.retain(|issued| seen.insert(issued.version));
    };
    key.status.iter_mut().for_each(|status| once(&mut status.versions));
    key.spec.wrapped_keys.iter_mut().for_each(once);
    Some(Objects { key, secret, class })
}

/// The object after a write and a read. Times have whole seconds then; an object with a time before the year 0 is lost.
fn written<T: Serialize + DeserializeOwned>(object: &T) -> Option<T> {
    serde_json::from_slice(&serde_json::to_vec(object).ok()?).ok()
}

fn now(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn is_deleted(key: &DataKey) -> bool {
    key.metadata.deletion_timestamp.is_some()
}

fn without_record(mut key: DataKey) -> DataKey {
    if let Some(status) = &mut key.status {
        status.versions.clear();
    }
    key
}

fn next(key: &DataKey, secret: &SecretState) -> Step {
    plan(&Observed { has_permit: true, ..Observed::new(key, secret) }, now(0))
}

fn is_whole(issued: &IssuedVersion, secret: &Secret) {
    assert!(issued.version >= 1);
    assert!((1..=MAX_BLOB).contains(&issued.ciphertext_blob.0.len()), "{} bytes", issued.ciphertext_blob.0.len());
    let annotation = &secret.metadata.annotations.as_ref().unwrap()[&format!("{ISSUED}{}", issued.version)];
    let provenance: VersionAnnotation = serde_json::from_str(annotation).unwrap();
    assert_eq!(provenance.sha256, sha256(&issued.ciphertext_blob.0));
    assert_eq!(provenance.key_id, issued.request.key_id);
    if let Some(rewrap_of) = &issued.rewrap_of {
        assert!((1..issued.version).contains(&rewrap_of.version), "a rewrap of a later version");
    }
    let entry = secret.data.as_ref().unwrap().get(&format!("rewrapOf.v{}", issued.version));
    assert_eq!(entry, rewrap_entry(issued).as_ref(), "workloads read the entry");
    let arn = KmsArn::parse(&issued.key_id).expect("an ARN");
    let region = arn::resolve_region(&issued.request.key_id, issued.request.region.as_deref(), Some(arn.region));
    assert!(arn::may_answer(&issued.request.key_id, region.unwrap(), &issued.key_id));
}

/// The entry of the Secret that says whose data key the version is.
fn rewrap_entry(issued: &IssuedVersion) -> Option<ByteString> {
    issued.rewrap_of.as_ref().map(|rewrap_of| ByteString(rewrap_of.version.to_string().into_bytes()))
}

fn holds_the_record(key: &DataKey, secret: &Secret) {
    let data = secret.data.as_ref().unwrap();
    for issued in key.record() {
        assert_eq!(data[&format!("ciphertextBlob.v{}", issued.version)], issued.ciphertext_blob);
        assert_eq!(data[&format!("keyId.v{}", issued.version)].0, issued.key_id.as_bytes());
        assert_eq!(data.get(&format!("rewrapOf.v{}", issued.version)), rewrap_entry(issued).as_ref());
    }
    let current = key.recorded_version(key.wanted_version()).unwrap();
    assert_eq!(data["version"].0, current.version.to_string().as_bytes());
    assert_eq!(data["ciphertextBlob"], current.ciphertext_blob);
    assert_eq!(data["keyId"].0, current.key_id.as_bytes());
}
