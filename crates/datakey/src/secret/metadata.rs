//! The metadata of a Secret that the operator uses.
//!
//! They are decoded field by field: Kubernetes accepts metadata that no Rust type can hold, such as times beyond the year 9999
//! in `managedFields`, and one such object would make a whole list fail. kube's `DeserializeGuard` decodes all of `ObjectMeta`
//! and fails, too.

use std::{borrow::Cow, collections::HashMap};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::ownership::Marks;
use crate::identity::Revision;

/// The metadata of a Secret that the operator keeps in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretMetadata {
    /// The revision of the Secret.
    pub revision: Revision,
    /// The name of the object in the label `datakey.dev/name`.
    pub belongs_to: Option<String>,
    /// Whether a label or annotation says that the operator manages the Secret, as `secret::ownership` decides.
    pub is_managed: bool,
}

/// A Secret as the metadata watch delivers it.
#[derive(Clone, Debug, Default)]
pub struct WatchedSecret {
    identity: ObjectMeta,
    /// The metadata beside name and namespace.
    pub metadata: SecretMetadata,
}

#[derive(Deserialize)]
struct Wire {
    metadata: WireMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<HashMap<String, String>>,
    // serde cannot read a JSON object into a set, so this is a map without values.
    #[allow(clippy::zero_sized_map_values)]
    annotations: Option<HashMap<String, IgnoredAny>>,
}

// === impl SecretMetadata ===

impl SecretMetadata {
    /// The metadata of a Secret that was read or written.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let labels = metadata.labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
        let annotations = metadata.annotations.iter().flatten().map(|(name, _)| name.as_str());
        Self::new(metadata.uid.clone(), metadata.resource_version.clone(), labels, annotations)
    }

    fn new<'a>(
        uid: Option<String>,
        resource_version: Option<String>,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        annotations: impl Iterator<Item = &'a str>,
    ) -> Self {
        let Marks { belongs_to, is_managed } = Marks::of(labels, annotations);
        let revision =
            Revision { uid: uid.unwrap_or_default(), resource_version: resource_version.unwrap_or_default() };
        Self { revision, belongs_to, is_managed }
    }
}

// === impl WatchedSecret ===

impl<'de> Deserialize<'de> for WatchedSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let WireMetadata { name, namespace, uid, resource_version, labels, annotations } =
            Wire::deserialize(deserializer)?.metadata;
        let pairs = labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
        let names = annotations.iter().flatten().map(|(name, _)| name.as_str());
        let metadata = SecretMetadata::new(uid, resource_version.clone(), pairs, names);
        Ok(Self { identity: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, metadata })
    }
}

impl Resource for WatchedSecret {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Secret::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Secret::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <Secret as Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Secret::plural(&())
    }

    /// True: the watch requests metadata only.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.identity
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.identity
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::names::{FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL};

    fn watched(metadata: &Value) -> WatchedSecret {
        serde_json::from_value(json!({ "kind": "PartialObjectMetadata", "metadata": metadata })).unwrap()
    }

    #[test]
    fn metadata_is_decoded_despite_unusable_times_and_fields() {
        let far = "9999-12-31T23:59:59Z";
        let secret = watched(&json!({
            "name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": far, "deletionTimestamp": far, "generation": "many",
            "managedFields": [{ "manager": "x", "time": far, "fieldsV1": [] }, null],
            "annotations": { "note": null },
        }));
        assert_eq!(secret.metadata.revision, Revision { uid: "u".into(), resource_version: "7".into() });
        assert_eq!((secret.meta().name.as_deref(), secret.meta().namespace.as_deref()), (Some("orders"), Some("shop")));
        assert!(!secret.metadata.is_managed);
    }

    #[test]
    fn full_and_partial_metadata_have_the_same_owner() {
        for (metadata, belongs_to, is_managed) in [
            (json!({ "labels": { NAME_LABEL: "orders" } }), Some("orders"), true),
            (json!({ "labels": { MANAGED_BY_LABEL: FIELD_MANAGER } }), None, true),
            (json!({ "labels": { MANAGED_BY_LABEL: "Helm" } }), None, false),
            (json!({ "annotations": { "datakey.dev/version": "1" } }), None, true),
            (json!({ "annotations": { "example.com/note": "1" } }), None, false),
            (json!({}), None, false),
        ] {
            let found = watched(&metadata).metadata;
            assert_eq!((found.belongs_to.as_deref(), found.is_managed), (belongs_to, is_managed), "{metadata}");
            let whole: ObjectMeta = serde_json::from_value(metadata).unwrap();
            assert_eq!(SecretMetadata::of(&whole), found);
        }
    }
}
