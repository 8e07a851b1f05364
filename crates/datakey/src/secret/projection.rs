//! The projection of the record into the Secret: the same record always results in the same bytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use serde::{Deserialize, Serialize};

use super::{
    digest::{Digest, sha256},
    template::{self, Applied, Reserved, Wanted},
};
use crate::{
    api::{
        ClassRef, DeletionPolicy, EncryptionContext, IssuedVersion, Material, Object, Rest, RewrapOf, WrittenRequest,
    },
    names::{
        CURRENT_VERSION_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL, OWN_PREFIX, VERSION_ANNOTATION_PREFIX,
    },
    public_key::PublicKey,
};

/// The annotation about one version: the fields of the record that `data` does not hold, so that the record can be rebuilt from
/// the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionAnnotation {
    /// SHA-256 of the wrapped key, in hexadecimal digits.
    pub sha256: String,
    /// SHA-256 of the public key in DER, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_sha256: Option<String>,
    /// The requested key ID.
    pub key_id: String,
    /// The requested Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// ID of the key material within the KMS key, from the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<String>,
    /// Time of issue, from the record.
    pub issued_at: Time,
    /// Request ID of the KMS call, from the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The request as its spec has it, from the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_written: Option<WrittenRequest>,
    /// The class that allowed the version, from the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassRef>,
    /// The version whose data key this is, from the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrap_of: Option<RewrapOf>,
    /// Fields of the request that only a newer release knows.
    #[serde(default, skip_serializing_if = "Rest::is_empty")]
    pub request: Rest,
    /// Other fields of the version that only a newer release knows.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The part of a Secret that the operator manages.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The type.
    pub secret_type: &'static str,
    /// The operator's own labels and those of the template.
    pub labels: BTreeMap<String, String>,
    /// The operator's own annotations and those of the template.
    pub annotations: BTreeMap<String, String>,
    /// All of `data`.
    pub data: BTreeMap<String, ByteString>,
}

/// The owner reference of a new Secret under `deletionPolicy: Delete`, so that the garbage collector deletes it with its
/// object. It is set only if this object issued every recorded version: an adopted or pinned version may be the last copy
/// of an earlier data key, and is kept. The reference is set at creation and never afterwards: with the admission plugin
/// `OwnerReferencesPermissionEnforcement` (on in OpenShift) a later change needs the right to delete Secrets. It is no
/// controller reference: a Secret can have only one, and another client could take that place.
fn owner(object: Object<'_>) -> Option<OwnerReference> {
    let created = &object.metadata.creation_timestamp.as_ref()?.0;
    // Times have whole seconds, so a version of an object that was deleted in the same second is not older than this one:
    // the status marks adopted versions.
    let adopted = object.status.is_some_and(|status| status.adopted == Some(true));
    let issued_here = |issued: &IssuedVersion| {
        issued.issued_at.0 >= *created && object.spec.pins.iter().all(|pin| pin.version != issued.version)
    };
    let is_owned =
        !adopted && object.spec.deletion_policy == DeletionPolicy::Delete && object.record().iter().all(issued_here);
    is_owned.then(|| OwnerReference {
        api_version: object.kind.api_version.to_owned(),
        kind: object.kind.name.to_owned(),
        name: object.metadata.name.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    })
}

pub(super) fn entries(issued: &IssuedVersion, suffix: &str) -> BTreeMap<String, ByteString> {
    let mut entries: BTreeMap<_, _> =
        text_entries(issued).into_iter().map(|(name, value)| ([name, suffix].concat(), text(value))).collect();
    entries.insert(["ciphertextBlob", suffix].concat(), issued.ciphertext_blob.clone());
    entries
}

/// The entries of a Secret that say how to unwrap a version, whose data key it is, and its public key, by their plain names: all
/// except `ciphertextBlob`, whose value is binary, and `version`.
pub fn text_entries(issued: &IssuedVersion) -> BTreeMap<&'static str, String> {
    let request = &issued.request;
    let material = request.material();
    let public_key = match (material, &issued.public_key) {
        // Nothing else is recorded.
        (Some(Material::Pair(spec)), Some(der)) => PublicKey::parse(&der.0, spec).ok().map(|key| key.to_pem()),
        _ => None,
    };
    let public_key = public_key.map(|pem| ("publicKey", pem));
    let context = ("encryptionContext", json::<EncryptionContext>(request.context()));
    let always = [("keyId", issued.key_id.clone()), context];
    let rewrap_of = issued.rewrap_of.as_ref().map(|rewrap_of| ("rewrapOf", rewrap_of.version.to_string()));
    always.into_iter().chain(material.map(Material::entry)).chain(public_key).chain(rewrap_of).collect()
}

fn text(value: String) -> ByteString {
    ByteString(value.into_bytes())
}

/// JSON of a value made of strings. It can't fail; an empty text would be detected as drift.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

// === impl VersionAnnotation ===

impl VersionAnnotation {
    fn of(issued: &IssuedVersion) -> Self {
        Self {
            sha256: sha256(&issued.ciphertext_blob.0),
            public_key_sha256: issued.public_key.as_ref().map(|der| sha256(&der.0)),
            key_id: issued.request.key_id.clone(),
            region: issued.request.region.clone(),
            key_material_id: issued.key_material_id.clone(),
            issued_at: issued.issued_at.clone(),
            request_id: issued.request_id.clone(),
            as_written: issued.as_written.clone(),
            class: issued.class.clone(),
            rewrap_of: issued.rewrap_of.clone(),
            request: issued.request.rest.clone(),
            rest: issued.rest.clone(),
        }
    }
}

// === impl Projection ===

impl Projection {
    /// Projects the record into the Secret, with the version `current` in the plain entries. `None` if it is not recorded.
    pub fn of<'a>(object: impl Into<Object<'a>>, current: i32) -> Option<Self> {
        Self::with_reserved(object.into(), current, Reserved::ALWAYS)
    }

    /// Projects the record like [`Projection::of`], without keys of the template that `reserved` has.
    pub fn with_reserved(object: Object<'_>, current: i32, reserved: &Reserved) -> Option<Self> {
        let issued = object.recorded_version(current)?;
        let mut data = entries(issued, "");
        data.insert("version".to_owned(), text(current.to_string()));
        let Wanted { mut labels, mut annotations } = template::wanted(object, reserved);
        annotations.insert(CURRENT_VERSION_ANNOTATION.to_owned(), current.to_string());
        for version in object.record() {
            data.extend(entries(version, &format!(".v{}", version.version)));
            let annotation = format!("{VERSION_ANNOTATION_PREFIX}{}", version.version);
            annotations.insert(annotation, json(&VersionAnnotation::of(version)));
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        labels.extend([(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned()), (NAME_LABEL.to_owned(), name)]);
        Some(Self { secret_type: object.kind.secret_type, labels, annotations, data })
    }

    /// The digest of a Secret that holds exactly this projection.
    pub fn digest(&self) -> Digest {
        Digest::new(self.secret_type, &self.labels, &self.annotations, &self.data)
    }

    /// The new Secret with this projection.
    pub fn into_secret<'a>(self, object: impl Into<Object<'a>>) -> Secret {
        let object = object.into();
        Secret {
            metadata: ObjectMeta {
                name: Some(object.secret_name().to_owned()),
                namespace: object.metadata.namespace.clone(),
                labels: Some(self.labels),
                annotations: Some(self.annotations),
                owner_references: owner(object).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(self.secret_type.to_owned()),
            data: Some(self.data),
            ..Secret::default()
        }
    }

    /// A Secret that was read, with this projection restored. Everything else stays unchanged: owner references, finalizers, and
    /// the labels and annotations of other clients.
    pub fn restore_into(self, mut secret: Secret) -> Secret {
        let metadata = &mut secret.metadata;
        Applied::remove(metadata);
        metadata.labels.get_or_insert_default().extend(self.labels);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.retain(|annotation, _| !annotation.starts_with(OWN_PREFIX));
        annotations.extend(self.annotations);
        secret.data = Some(self.data);
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::DataKey,
        fixtures::{ARN, at, data_key, issued, recorded},
    };

    /// A `DataKey` under `Delete`, created at the start of the fixtures' clock, so before its versions were issued.
    fn deleted_with_its_owner(versions: &[i32]) -> DataKey {
        let mut key = recorded(versions);
        key.spec.deletion_policy = Some(DeletionPolicy::Delete);
        key.metadata.creation_timestamp = Some(Time(at(0)));
        key
    }

    fn owners(key: &DataKey) -> Option<Vec<OwnerReference>> {
        Projection::of(key, key.wanted_version()).unwrap().into_secret(key).metadata.owner_references
    }

    #[test]
    fn plain_entries_hold_the_current_version_numbered_ones_all() {
        let key = recorded(&[1, 2]);
        let data = Projection::of(&key, 2).unwrap().data;
        let text = |entry: &str| String::from_utf8(data[entry].0.clone()).unwrap();
        assert_eq!(text("ciphertextBlob"), "wrapped data key 2");
        assert_eq!(text("ciphertextBlob.v1"), "wrapped data key 1");
        assert_eq!(text("ciphertextBlob.v2"), "wrapped data key 2");
        assert_eq!(text("version"), "2");
        assert_eq!(text("keyId"), ARN);
        assert_eq!(text("keySpec.v1"), "AES_256");
        assert_eq!(text("encryptionContext"), r#"{"purpose":"orders"}"#);
        assert_eq!(data.len(), 5 + 2 * 4);
    }

    #[test]
    fn unrecorded_version_has_no_projection() {
        assert_eq!(Projection::of(&recorded(&[1]), 2), None);
        assert_eq!(Projection::of(&data_key(), 1), None);
    }

    #[test]
    fn absent_encryption_context_is_written_as_empty() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].request.encryption_context = None;
        assert_eq!(Projection::of(&key, 1).unwrap().data["encryptionContext"].0, b"{}");
    }

    #[test]
    fn deletion_policy_delete_sets_an_owner_reference() {
        let key = deleted_with_its_owner(&[1, 2]);
        let owner = &owners(&key).unwrap()[0];
        assert_eq!((Some(&owner.uid), owner.controller), (key.metadata.uid.as_ref(), None));
        assert_eq!(owners(&recorded(&[1, 2])), None, "under Retain");
    }

    #[test]
    fn adopted_or_pinned_versions_are_never_owned() {
        let mut adopted = deleted_with_its_owner(&[1, 2]);
        adopted.metadata.creation_timestamp = Some(Time(at(2)));
        assert_eq!(owners(&adopted), None, "version 1 is older than the DataKey");
        let mut marked = deleted_with_its_owner(&[1, 2]);
        marked.status.as_mut().unwrap().adopted = Some(true);
        assert_eq!(owners(&marked), None, "created within the second in which version 1 was issued");
        let mut pinned = deleted_with_its_owner(&[1, 2]);
        pinned.spec.wrapped_keys = Some(vec![issued(2)]);
        assert_eq!(owners(&pinned), None);
        let mut of_an_unknown_age = deleted_with_its_owner(&[1]);
        of_an_unknown_age.metadata.creation_timestamp = None;
        assert_eq!(owners(&of_an_unknown_age), None);
    }

    #[test]
    fn restoring_keeps_foreign_metadata() {
        let key = deleted_with_its_owner(&[1]);
        let wanted = Projection::of(&key, 1).unwrap();
        let mut secret = wanted.clone().into_secret(&key);
        secret.metadata.uid = Some("secret-uid".into());
        secret.metadata.resource_version = Some("7".into());
        secret.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
        let references =
            vec![OwnerReference { kind: "App".into(), controller: Some(true), ..OwnerReference::default() }];
        secret.metadata.owner_references = Some(references.clone());
        secret.data.as_mut().unwrap().insert("more".into(), text("x".into()));
        secret.data.as_mut().unwrap().remove("ciphertextBlob");

        let restored = wanted.clone().restore_into(secret);
        assert_eq!(restored.data, Some(wanted.data));
        assert_eq!(restored.metadata.labels.as_ref().unwrap()["team"], "shop");
        assert_eq!(restored.metadata.labels.as_ref().unwrap()[NAME_LABEL], "orders");
        assert_eq!(restored.metadata.owner_references, Some(references), "neither added nor removed");
        let precondition = (restored.metadata.uid.as_deref(), restored.metadata.resource_version.as_deref());
        assert_eq!(precondition, (Some("secret-uid"), Some("7")));
    }
}
