//! The `DataKey`s in memory. A settled `DataKey` is rarely read, so the cache stores the fields that the operator needs as
//! compressed JSON, an eighth of the decoded object. To decode one takes some microseconds.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, core::ObjectMeta};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Error, json};

use datakey::{
    api::{self, DataKey, DataKeySpec, KeyStatus},
    condition::{self, ReadyState},
    decode::{self, Unreadable, Wire},
    reason::Reason,
};

/// A `DataKey` of the watch; copies share their content. For one that cannot be decoded the cache keeps the reason, so
/// that one such object does not stop the others.
#[derive(Clone, Debug)]
pub struct Cached(Arc<Content>);

#[derive(Clone, Debug)]
struct Content {
    metadata: ObjectMeta,
    /// The fields that are read often, and [`Rest`] in compressed form; or why the object cannot be decoded.
    read: Result<(Summary, Box<[u8]>), Unreadable>,
}

/// What is known of a `DataKey` without decoding it.
#[derive(Clone, Copy, Debug)]
struct Summary {
    /// What the `Ready` condition says.
    state: ReadyState,
    /// Whether its record holds a data key.
    has_record: bool,
    /// Whether its Secret has another name.
    is_renamed: bool,
}

/// What a `DataKey` is made of beside its metadata.
#[derive(Serialize, Deserialize)]
struct Rest {
    spec: DataKeySpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<KeyStatus>,
}

/// What most `DataKey`s have in common: the names of the fields, in their order, and frequent values. LZ4 refers to it.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let request = json!({ "keyId": "alias/", "keySpec": "AES_256", "encryptionContext": {} });
    let arn = "arn:aws:kms:eu-west-1:000000000000:key/";
    let now = "2026-01-01T00:00:00Z";
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({
            "lastTransitionTime": now, "message": message, "observedGeneration": 1, "reason": reason, "status": status, "type": type_,
        })
    };
    let issued = json!({
        "version": 1, "request": request, "ciphertextBlob": "AQIDAHg", "keyId": arn, "keyMaterialId": "", "issuedAt": now, "requestId": "",
    });
    let status = json!({
        "observedGeneration": 1,
        "conditions": [condition(api::READY, "True", condition::ISSUED, "Secret  holds data key version 1")],
        "version": 1, "keyId": arn, "issuedAt": now, "secretName": "", "versions": [issued],
    });
    let pending = condition(api::READY, "Unknown", api::PENDING, "waiting for the operator");
    format!("{pending}{}", json!({ "spec": request, "status": status })).into_bytes()
});

// === impl Rest ===

impl Rest {
    fn compress(&self) -> Result<Box<[u8]>, Error> {
        let json = serde_json::to_vec(self)?;
        Ok(compress_prepend_size_with_dict(&json, &DICTIONARY).into_boxed_slice())
    }

    fn decompress(bytes: &[u8]) -> Result<Self, Error> {
        let json = decompress_size_prepended_with_dict(bytes, &DICTIONARY).map_err(Error::custom)?;
        serde_json::from_slice(&json)
    }
}

// === impl Cached ===

impl Cached {
    fn new(metadata: ObjectMeta, read: Result<decode::Content<DataKey>, Unreadable>) -> Result<Self, Error> {
        let (spec, status) = match read {
            Ok(content) => content,
            Err(unreadable) => {
                return Ok(Self(Arc::new(Content { metadata, read: Err(unreadable) })));
            }
        };
        let key = DataKey { metadata, spec, status };
        let summary = Summary {
            state: ReadyState::of(key.status.as_ref()),
            has_record: !key.record().is_empty(),
            is_renamed: Some(key.secret_name()) != key.metadata.name.as_deref(),
        };
        let DataKey { metadata, spec, status } = key;
        let read = Ok((summary, Rest { spec, status }.compress()?));
        Ok(Self(Arc::new(Content { metadata, read })))
    }

    /// The `DataKey`, or why it cannot be decoded.
    pub fn decode(&self) -> Result<DataKey, Unreadable> {
        let Content { metadata, read, .. } = &*self.0;
        let (_, rest) = read.as_ref().map_err(Clone::clone)?;
        let Rest { spec, status } = Rest::decompress(rest).map_err(|_| Unreadable::in_memory())?;
        Ok(DataKey { metadata: metadata.clone(), spec, status })
    }

    /// The name of the Secret; if the `DataKey` cannot be decoded, the name of the `DataKey`.
    pub fn secret_name(&self) -> Cow<'_, str> {
        let Content { metadata, read } = &*self.0;
        let decoded = match read {
            Ok((Summary { is_renamed: true, .. }, _)) => self.decode().ok(),
            _ => None,
        };
        let own = || Cow::Borrowed(metadata.name.as_deref().unwrap_or_default());
        decoded.map_or_else(own, |key| Cow::Owned(key.secret_name().to_owned()))
    }

    /// Whether the record holds a data key. True if the `DataKey` cannot be decoded, because that is not known then.
    pub fn has_record(&self) -> bool {
        self.0.read.as_ref().map_or(true, |(summary, _)| summary.has_record)
    }

    /// The state of the `Ready` condition; the failure `SpecInvalid` if the `DataKey` cannot be decoded.
    pub fn state(&self) -> ReadyState {
        self.0.read.as_ref().map_or(ReadyState::Failed(Reason::SpecInvalid), |(summary, _)| summary.state)
    }

    /// Whether it can be decoded.
    pub fn is_readable(&self) -> bool {
        self.0.read.is_ok()
    }

    /// Whether both are the same state of the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (&self.0.metadata, &other.0.metadata);
        one.uid == other.uid && one.resource_version == other.resource_version
    }
}

impl Resource for Cached {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        DataKey::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        DataKey::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        <DataKey as Resource>::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        DataKey::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut Arc::make_mut(&mut self.0).metadata
    }
}

impl<'de> Deserialize<'de> for Cached {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (metadata, read) = Wire::deserialize(deserializer)?.decode::<DataKey>();
        Self::new(metadata, read).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use datakey::fixtures::{at, data_key, issued, recorded};
    use datakey::names::{RESTORED_ANNOTATION, VELERO_RESTORE_LABEL};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn cached(key: &DataKey) -> Cached {
        serde_json::from_value(serde_json::to_value(key).unwrap()).unwrap()
    }

    #[test]
    fn decoding_returns_the_cached_object() {
        let mut key = recorded(&[1, 2]);
        key.status = Some(condition::ready(&key, &issued(2), None, at(3)));
        key.metadata.deletion_timestamp = Some(Time(at(4)));
        assert_eq!(cached(&key).decode().unwrap(), key);
        assert!(cached(&key).is_same(&cached(&key)));
    }

    #[test]
    fn unused_metadata_is_not_kept() {
        let mut key = data_key();
        key.metadata.annotations = Some([("last-applied".into(), "{}".into())].into());
        key.metadata.labels = Some([("team".into(), "shop".into())].into());
        key.metadata.managed_fields = Some(Vec::new());
        assert_eq!(cached(&key).decode().unwrap().metadata, data_key().metadata);
    }

    #[test]
    fn only_labels_and_annotations_of_a_restore_are_kept() {
        let marks =
            |mark: &str| Some([(mark.to_owned(), "x".to_owned()), ("team".to_owned(), "shop".to_owned())].into());
        let (mut labeled, mut annotated) = (data_key(), data_key());
        labeled.metadata.labels = marks(VELERO_RESTORE_LABEL);
        annotated.metadata.annotations = marks(RESTORED_ANNOTATION);
        for key in [labeled, annotated] {
            let decoded = cached(&key).decode().unwrap();
            assert!(decoded.is_restored() && decoded.metadata.labels.is_none());
            assert_eq!(decoded.metadata.annotations.unwrap().len(), 1);
        }
        assert!(!cached(&data_key()).decode().unwrap().is_restored());
    }

    #[test]
    fn undecodable_object_is_kept_with_the_error() {
        let mut odd = serde_json::to_value(data_key()).unwrap();
        odd["spec"]["version"] = json!("two");
        let odd: Cached = serde_json::from_value(odd).unwrap();
        assert_eq!((odd.name_any(), odd.namespace()), ("orders".to_owned(), Some("shop".to_owned())));
        let failure = odd.decode().unwrap_err().failure();
        assert!(failure.detail.unwrap().starts_with("spec.version: expected"));
        assert_eq!((odd.state(), odd.is_readable()), (ReadyState::Failed(Reason::SpecInvalid), false));
        let nothing: Cached = serde_json::from_value(json!({ "metadata": { "name": "orders" } })).unwrap();
        assert!(nothing.decode().is_err());
    }

    #[test]
    fn secret_name_and_record_are_known_without_decoding() {
        let known = |key: &DataKey| (cached(key).secret_name().into_owned(), cached(key).has_record());
        assert_eq!(known(&data_key()), ("orders".to_owned(), false));
        assert_eq!(known(&recorded(&[1])), ("orders".to_owned(), true));
        let mut key = data_key();
        key.spec.secret_name = Some("shared".to_owned());
        assert_eq!(known(&key), ("shared".to_owned(), false));
        let mut odd = serde_json::to_value(key).unwrap();
        odd["spec"]["version"] = json!("two");
        let odd: Cached = serde_json::from_value(odd).unwrap();
        assert_eq!((odd.secret_name().as_ref(), odd.has_record()), ("orders", true), "it may have one");
    }

    #[test]
    fn state_follows_the_ready_condition() {
        let mut key = data_key();
        assert_eq!(cached(&key).state(), ReadyState::Pending);
        key.status = Some(condition::ready(&key, &issued(1), None, at(1)));
        assert_eq!(cached(&key).state(), ReadyState::Issued);
        key.status = Some(condition::failed(&key, &Reason::KeyDisabled.into(), at(1)));
        assert_eq!(cached(&key).state(), ReadyState::Failed(Reason::KeyDisabled));
        key.status = None;
        assert_eq!(cached(&key).state(), ReadyState::Pending);
    }
}
