//! What the protocol reads of an object, whatever its kind is.
//!
//! The kinds differ in three places: [`KeyKind`], which each kind implements beside its spec, [`super::Material`], and the schema.
//! The protocol decides on an [`Object`], which borrows, so that a decision copies nothing that it does not write.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    bounds::FIRST_VERSION,
    lenient::Rest,
    request::RequestView,
    status::{IssuedVersion, KeyStatus},
    template::{DeletionPolicy, SecretTemplate},
};
use crate::names::{RESTORED_ANNOTATION, RETRY_AT_ANNOTATION, VELERO_RESTORE_LABEL};

/// A kind of object that the operator issues data keys for.
pub trait KeyKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind.
    const KIND: &'static Kind;

    /// The type of the spec.
    type Spec: DeserializeOwned;

    /// The object with these parts.
    fn new(metadata: ObjectMeta, spec: Self::Spec, status: Option<KeyStatus>) -> Self;

    /// What the protocol reads of a spec.
    fn view(spec: &Self::Spec) -> SpecView<'_>;

    /// The spec.
    fn spec(&self) -> &Self::Spec;

    /// The status.
    fn status(&self) -> Option<&KeyStatus>;

    /// The object with another status, as it is sent to the API server. Its metadata are only those that identify the object
    /// and the state that the decision used.
    #[must_use]
    fn with_status(&self, status: KeyStatus) -> Self;

    /// What the protocol reads of the object.
    fn as_object(&self) -> Object<'_> {
        Object { kind: Self::KIND, metadata: self.meta(), spec: Self::view(self.spec()), status: self.status() }
    }
}

/// A kind by its names.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Which one it is.
    pub id: KindId,
    /// The API version, with the group.
    pub api_version: &'static str,
    /// The name of the kind.
    pub name: &'static str,
    /// The name of the resource, without the group.
    pub plural: &'static str,
    /// The operation of KMS that issues it.
    pub operation: &'static str,
    /// What one version of an object is, in messages.
    pub noun: &'static str,
    /// The type of its Secrets.
    pub secret_type: &'static str,
}

/// The number of a kind in [`super::KINDS`], in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KindId {
    /// `DataKey`.
    DataKey,
    /// `DataKeyPair`.
    DataKeyPair,
}

// === impl Kind ===

impl Kind {
    /// A text that is written for data keys, with the noun and the names of this kind. No text of a user or a server may be in it.
    pub fn reword<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.id {
            KindId::DataKey => Cow::Borrowed(text),
            KindId::DataKeyPair => {
                let text = text.replace("data key", self.noun).replace("DataKey", self.name);
                // A class is of both kinds.
                let text = text.replace("DataKeyPairClass", "DataKeyClass");
                Cow::Owned(text.replace("datakey NAME", "datakeypair NAME"))
            }
        }
    }
}

/// An object of any kind, as the protocol reads it.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// The metadata.
    pub metadata: &'a ObjectMeta,
    /// The spec.
    pub spec: SpecView<'a>,
    /// The status.
    pub status: Option<&'a KeyStatus>,
}

/// What the protocol reads of a spec.
#[derive(Clone, Copy, Debug)]
pub struct SpecView<'a> {
    /// What is asked of KMS.
    pub request: RequestView<'a>,
    /// The version that is current; the first one if absent.
    pub version: Option<i32>,
    /// The name of the Secret; that of the object if absent.
    pub secret_name: Option<&'a str>,
    /// Labels and annotations of the Secret.
    pub secret_template: Option<&'a SecretTemplate>,
    /// The name of the class.
    pub class_name: Option<&'a str>,
    /// The grant tokens of the call.
    pub grant_tokens: &'a [String],
    /// What becomes of the Secret when the object is deleted.
    pub deletion_policy: DeletionPolicy,
    /// The data keys that the spec pins.
    pub pins: &'a [IssuedVersion],
    /// Fields that only a newer release knows.
    pub rest: &'a Rest,
    /// The whole spec; only its size is used.
    pub whole: &'a (dyn ToJson + Sync),
}

/// A value that can be written as JSON.
pub trait ToJson: Debug {
    /// The value as JSON.
    fn to_json(&self) -> String;
}

/// The status with further versions in the record. The conditions stay, because the Secret is not written yet.
pub fn with_recorded<'a>(object: impl Into<Object<'a>>, versions: Vec<IssuedVersion>) -> KeyStatus {
    let object = object.into();
    let mut status = object.status.cloned().unwrap_or_default();
    status.secret_name = Some(object.secret_name().to_owned());
    status.versions.extend(versions);
    status
}

/// The status with further versions in the record that another object issued: pinned, or found in the Secret.
pub fn with_adopted<'a>(object: impl Into<Object<'a>>, versions: Vec<IssuedVersion>) -> KeyStatus {
    KeyStatus { adopted: Some(true), ..with_recorded(object, versions) }
}

/// The metadata that identify the object and its state.
pub(super) fn identity(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

impl<T: Serialize + Debug> ToJson for T {
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a, K: KeyKind> From<&'a K> for Object<'a> {
    fn from(key: &'a K) -> Self {
        key.as_object()
    }
}

// The operator shares the objects of its caches.
impl<'a, K: KeyKind> From<&'a Arc<K>> for Object<'a> {
    fn from(key: &'a Arc<K>) -> Self {
        key.as_object()
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// The name.
    pub fn name(&self) -> Option<&'a str> {
        self.metadata.name.as_deref()
    }

    /// The version that the spec makes current.
    pub fn wanted_version(&self) -> i32 {
        self.spec.version.unwrap_or(FIRST_VERSION)
    }

    /// The name of the Secret: from the status, else from the spec, else the name of the object.
    pub fn secret_name(&self) -> &'a str {
        let recorded = self.status.and_then(|status| status.secret_name.as_deref());
        recorded.or(self.spec.secret_name).or(self.name()).unwrap_or_default()
    }

    /// The record: every issued version, in the order in which they were recorded.
    pub fn record(&self) -> &'a [IssuedVersion] {
        self.status.map_or(&[], |status| &status.versions)
    }

    /// The recorded data key of a version.
    pub fn recorded_version(&self, version: i32) -> Option<&'a IssuedVersion> {
        self.record().iter().find(|issued| issued.version == version)
    }

    /// What the annotation `datakey.dev/retry-at` holds. Only its change means anything.
    pub fn retry_at(&self) -> Option<&'a str> {
        self.metadata.annotations.as_ref()?.get(RETRY_AT_ANNOTATION).map(String::as_str)
    }

    /// Whether a backup tool restored the object and its spec is unchanged since: its data key may exist, although it is not
    /// recorded.
    pub fn is_restored(&self) -> bool {
        let has =
            |marks: &Option<BTreeMap<String, String>>, mark| marks.as_ref().is_some_and(|of| of.contains_key(mark));
        self.metadata.generation == Some(1)
            && (has(&self.metadata.labels, VELERO_RESTORE_LABEL)
                || has(&self.metadata.annotations, RESTORED_ANNOTATION))
    }
}

// === impl Spec ===

impl<'a> SpecView<'a> {
    /// The paths, within the spec, of fields that this release does not know, except those of pins.
    pub fn unknown_fields(&self) -> impl Iterator<Item = String> + use<'a> {
        let template = self.secret_template.into_iter();
        let of_the_template = template.clone().flat_map(|template| template.rest.keys());
        let of_its_metadata =
            template.flat_map(|template| &template.metadata).flat_map(|metadata| metadata.rest.keys());
        let of_the_template = of_the_template.map(|field| format!("secretTemplate.{field}"));
        let of_its_metadata = of_its_metadata.map(|field| format!("secretTemplate.metadata.{field}"));
        self.rest.keys().cloned().chain(of_the_template).chain(of_its_metadata)
    }
}
