//! The Secret as a pure function of the record, and what its metadata tell about it.
//!
//! A Secret is watched by its metadata only. `metadata.managedFields` names the owner of every entry of `data`: as
//! long as this operator's field manager owns exactly the expected entries and nobody else owns one, nobody changed
//! them, because a changed value moves to whoever changed it and a removed one leaves its owner. Labels, annotations
//! and owner references are in the metadata themselves.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::{DataKey, DeletionPolicy, EncryptionContext, GROUP, IssuedVersion};

pub mod content;
pub mod index;
pub mod requests;

/// The type of every Secret of this operator. A Secret's type can't be changed, and a watch can select by it.
pub const TYPE: &str = "datakey.dev/wrapped-key";

/// The field manager of every write.
pub const MANAGER: &str = "datakey-operator";

/// Label: who manages the Secret.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Label: the name of the `DataKey` that the Secret belongs to.
pub const NAME: &str = "datakey.dev/name";

/// Annotation: the version that the plain entries hold.
pub const VERSION: &str = "datakey.dev/version";

/// Prefix of the annotation about one version, [`Provenance`] in JSON.
const ISSUED: &str = "datakey.dev/issued.v";

const PREFIX: &str = "datakey.dev/";

/// What the record knows of a version beside the entries of `data`: with them it rebuilds the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// SHA-256 of the `CiphertextBlob`, in hexadecimal digits.
    pub sha256: String,
    /// The requested key ID.
    pub key_id: String,
    /// The requested Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<String>,
    /// As in the record.
    pub issued_at: Time,
    /// As in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// All of a Secret that is this operator's to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Our labels.
    pub labels: BTreeMap<String, String>,
    /// Our annotations.
    pub annotations: BTreeMap<String, String>,
    /// Our owner reference, under `deletionPolicy: Delete`.
    pub owner: Option<OwnerReference>,
    /// All of `data`.
    pub data: BTreeMap<String, ByteString>,
}

/// A digest of everything that metadata tell about what is ours in a Secret. Equal to the projection's own when, and
/// only when, nobody changed anything of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// What is kept of a Secret's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The `DataKey` that the label names.
    pub belongs_to: Option<String>,
    /// Whether anything in its metadata is this operator's.
    pub bears_our_marks: bool,
    /// What is ours in it.
    pub fingerprint: Fingerprint,
    /// The field managers other than this operator that own entries of its data, and so wrote them last.
    pub changed_by: Option<String>,
}

/// Projects the record into the Secret, with the plain entries holding `current`. `None` where that is not recorded.
pub fn project(key: &DataKey, current: i32) -> Option<Projection> {
    let issued = key.issued(current)?;
    let mut data = entries(issued, "");
    data.insert("version".to_owned(), text(current.to_string()));
    let mut annotations = BTreeMap::from([(VERSION.to_owned(), current.to_string())]);
    for version in key.record() {
        data.extend(entries(version, &format!(".v{}", version.version)));
        annotations.insert(format!("{ISSUED}{}", version.version), json(&Provenance::of(version)));
    }
    let name = key.metadata.name.clone().unwrap_or_default();
    let labels = BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned()), (NAME.to_owned(), name)]);
    Some(Projection { labels, annotations, owner: owner(key), data })
}

/// A controller reference without `blockOwnerDeletion`: that would need a permission on finalizers and gain nothing.
fn owner(key: &DataKey) -> Option<OwnerReference> {
    (key.spec.deletion_policy() == DeletionPolicy::Delete).then(|| OwnerReference {
        api_version: DataKey::api_version(&()).into_owned(),
        kind: DataKey::kind(&()).into_owned(),
        name: key.metadata.name.clone().unwrap_or_default(),
        uid: key.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    })
}

fn entries(issued: &IssuedVersion, suffix: &str) -> BTreeMap<String, ByteString> {
    let request = &issued.request;
    let length = match (request.key_spec, request.number_of_bytes) {
        (Some(spec), _) => Some(("keySpec", spec.as_str().to_owned())),
        (None, bytes) => bytes.map(|bytes| ("numberOfBytes", bytes.to_string())),
    };
    [
        Some(("ciphertextBlob", issued.ciphertext_blob.clone())),
        Some(("keyId", text(issued.key_id.clone()))),
        length.map(|(name, value)| (name, text(value))),
        Some(("encryptionContext", text(json::<EncryptionContext>(request.context())))),
    ]
    .into_iter()
    .flatten()
    .map(|(name, value)| (format!("{name}{suffix}"), value))
    .collect()
}

fn text(value: String) -> ByteString {
    ByteString(value.into_bytes())
}

/// JSON of a value made of strings: it can't fail, and an empty text would be seen as drift.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

/// Whether an owner reference is one of ours: of the `DataKey` of that name, present or past.
fn is_ours(reference: &OwnerReference, name: &str) -> bool {
    reference.kind == DataKey::kind(&())
        && reference.api_version.split('/').next() == Some(GROUP)
        && reference.name == name
}

// === impl Provenance ===

impl Provenance {
    fn of(issued: &IssuedVersion) -> Self {
        Self {
            sha256: sha256(&issued.ciphertext_blob.0),
            key_id: issued.request.key_id.clone(),
            region: issued.request.region.clone(),
            key_material_id: issued.key_material_id.clone(),
            issued_at: issued.issued_at.clone(),
            request_id: issued.request_id.clone(),
        }
    }
}

// === impl Projection ===

impl Projection {
    /// The digest that the Secret's metadata have as long as nobody changed anything of ours.
    pub fn fingerprint(&self) -> Fingerprint {
        let data = self.data.keys().map(String::as_str).collect();
        let owners = self.owner.iter().collect::<Vec<_>>();
        Fingerprint::new(&self.labels, &self.annotations, &owners, Some(&data))
    }

    /// The Secret as it is created.
    pub fn create(self, key: &DataKey) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(key.secret_name().to_owned()),
                namespace: key.metadata.namespace.clone(),
                labels: Some(self.labels),
                annotations: Some(self.annotations),
                owner_references: self.owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(self.data),
            ..Secret::default()
        }
    }

    /// A Secret that was just read, with everything of ours put as it should be and everything else left alone.
    pub fn put_into(self, mut secret: Secret, name: &str) -> Secret {
        let metadata = &mut secret.metadata;
        // Sent back unchanged it would only cost; the server keeps its own.
        metadata.managed_fields = None;
        metadata.labels.get_or_insert_default().extend(self.labels);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.retain(|annotation, _| !annotation.starts_with(PREFIX));
        annotations.extend(self.annotations);
        let references = metadata.owner_references.get_or_insert_default();
        references.retain(|reference| !is_ours(reference, name));
        references.extend(self.owner);
        secret.data = Some(self.data);
        secret
    }
}

// === impl Facts ===

impl Facts {
    /// Reads a Secret's metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let labels = metadata.labels.as_ref();
        let annotations: BTreeMap<_, _> = metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(annotation, _)| annotation.starts_with(PREFIX))
            .map(|(annotation, value)| (annotation.clone(), value.clone()))
            .collect();
        let ours: BTreeMap<_, _> = labels
            .into_iter()
            .flatten()
            .filter(|(label, _)| [MANAGED_BY, NAME].contains(&label.as_str()))
            .map(|(label, value)| (label.clone(), value.clone()))
            .collect();
        let belongs_to = ours.get(NAME).cloned();
        let owners: Vec<_> = metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|reference| belongs_to.as_deref().is_some_and(|name| is_ours(reference, name)))
            .collect();
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            bears_our_marks: belongs_to.is_some()
                || !annotations.is_empty()
                || ours.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER),
            fingerprint: Fingerprint::new(&ours, &annotations, &owners, entries_only_we_own(metadata).as_ref()),
            changed_by: changed_by(metadata),
            belongs_to,
        }
    }
}

/// The entries of `data` that our field manager owns; `None` if another one owns any.
fn entries_only_we_own(metadata: &ObjectMeta) -> Option<BTreeSet<&str>> {
    let owned: Vec<_> = owners_of_data(metadata).collect();
    let ours = owned.iter().all(|(manager, _)| *manager == MANAGER);
    ours.then(|| owned.into_iter().flat_map(|(_, entries)| entries).collect())
}

fn changed_by(metadata: &ObjectMeta) -> Option<String> {
    let others: BTreeSet<_> =
        owners_of_data(metadata).map(|(manager, _)| manager).filter(|manager| *manager != MANAGER).collect();
    (!others.is_empty()).then(|| others.into_iter().collect::<Vec<_>>().join(", "))
}

/// Field managers that own entries of `data`, with these entries.
fn owners_of_data(metadata: &ObjectMeta) -> impl Iterator<Item = (&str, Vec<&str>)> {
    metadata.managed_fields.iter().flatten().filter_map(|managed| {
        let data = managed.fields_v1.as_ref()?.0.get("f:data")?.as_object()?;
        let entries: Vec<_> = data.keys().filter_map(|field| field.strip_prefix("f:")).collect();
        (!entries.is_empty()).then(|| (managed.manager.as_deref().unwrap_or_default(), entries))
    })
}

// === impl Fingerprint ===

impl Fingerprint {
    fn new(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        owners: &[&OwnerReference],
        data: Option<&BTreeSet<&str>>,
    ) -> Self {
        let owners: BTreeSet<_> =
            owners.iter().map(|owner| (&owner.api_version, &owner.uid, owner.controller.unwrap_or_default())).collect();
        Self(Sha256::digest(json(&(labels, annotations, owners, data))).into())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use serde_json::json;

    use super::*;
    use crate::fixtures::{ARN, data_key, recorded};

    fn managed(manager: &str, entries: &[&str]) -> ManagedFieldsEntry {
        let fields: serde_json::Map<_, _> = entries.iter().map(|entry| (format!("f:{entry}"), json!({}))).collect();
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(json!({ "f:data": fields, "f:type": {} }))),
            ..ManagedFieldsEntry::default()
        }
    }

    /// The metadata of a Secret as the server answers when the operator wrote it.
    fn written(key: &DataKey) -> ObjectMeta {
        let projection = project(key, key.version()).unwrap();
        let entries: Vec<_> = projection.data.keys().map(String::as_str).collect();
        let managed_fields = Some(vec![managed(MANAGER, &entries)]);
        let mut metadata = projection.clone().create(key).metadata;
        metadata.managed_fields = managed_fields;
        metadata
    }

    fn is_intact(key: &DataKey, metadata: &ObjectMeta) -> bool {
        Facts::of(metadata).fingerprint == project(key, key.version()).unwrap().fingerprint()
    }

    #[test]
    fn the_secret_holds_the_current_version_in_plain_entries_and_every_version_by_number() {
        let key = recorded(&[1, 2]);
        let data = project(&key, 2).unwrap().data;
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
    fn a_version_that_is_not_recorded_projects_to_nothing() {
        assert_eq!(project(&recorded(&[1]), 2), None);
        assert_eq!(project(&data_key(), 1), None);
    }

    #[test]
    fn an_absent_encryption_context_is_written_as_the_empty_one() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].request.encryption_context = None;
        assert_eq!(project(&key, 1).unwrap().data["encryptionContext"].0, b"{}");
    }

    #[test]
    fn what_the_operator_wrote_is_intact() {
        for versions in [&[1][..], &[1, 2], &[3]] {
            let key = recorded(versions);
            assert!(is_intact(&key, &written(&key)));
        }
    }

    #[test]
    fn a_changed_or_removed_or_added_entry_is_seen_by_its_owner() {
        let key = recorded(&[1]);
        let entries: Vec<_> = project(&key, 1).unwrap().data.into_keys().collect();
        let all: Vec<_> = entries.iter().map(String::as_str).collect();

        let mut changed = written(&key);
        changed.managed_fields = Some(vec![managed(MANAGER, &all[1..]), managed("kubectl-edit", &all[..1])]);
        assert!(!is_intact(&key, &changed));

        let mut removed = written(&key);
        removed.managed_fields = Some(vec![managed(MANAGER, &all[1..])]);
        assert!(!is_intact(&key, &removed));

        let mut added = written(&key);
        added.managed_fields.as_mut().unwrap().push(managed("kubectl-edit", &["more"]));
        assert!(!is_intact(&key, &added));

        assert_eq!(Facts::of(&written(&key)).changed_by, None);
        assert_eq!(Facts::of(&removed).changed_by, None, "who removed an entry owns nothing");
        assert_eq!(Facts::of(&added).changed_by.as_deref(), Some("kubectl-edit"));
    }

    #[test]
    fn our_labels_annotations_and_owner_reference_are_seen_when_they_change() {
        let mut key = recorded(&[1]);
        key.spec.deletion_policy = Some(DeletionPolicy::Delete);
        let changes: [fn(&mut ObjectMeta); 7] = [
            |metadata| _ = metadata.labels.as_mut().unwrap().remove(NAME),
            |metadata| _ = metadata.labels.as_mut().unwrap().insert(MANAGED_BY.into(), "somebody".into()),
            |metadata| _ = metadata.annotations.as_mut().unwrap().remove(VERSION),
            |metadata| _ = metadata.annotations.as_mut().unwrap().insert(format!("{ISSUED}1"), "{}".into()),
            |metadata| _ = metadata.annotations.as_mut().unwrap().insert(format!("{ISSUED}7"), "{}".into()),
            |metadata| metadata.owner_references = None,
            |metadata| metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned(),
        ];
        assert!(is_intact(&key, &written(&key)));
        for (number, change) in changes.iter().enumerate() {
            let mut metadata = written(&key);
            change(&mut metadata);
            assert!(!is_intact(&key, &metadata), "change {number}");
        }
    }

    #[test]
    fn what_others_add_to_the_metadata_is_no_drift() {
        let key = recorded(&[1]);
        let mut metadata = written(&key);
        metadata.labels.as_mut().unwrap().insert("team".into(), "shop".into());
        metadata.annotations.as_mut().unwrap().insert("backup".into(), "yes".into());
        metadata.finalizers = Some(vec!["example.com/hold".into()]);
        metadata.owner_references = Some(vec![OwnerReference { kind: "App".into(), ..OwnerReference::default() }]);
        metadata.managed_fields.as_mut().unwrap().push(ManagedFieldsEntry {
            manager: Some("kubectl".into()),
            fields_v1: Some(FieldsV1(json!({ "f:metadata": { "f:labels": { "f:team": {} } } }))),
            ..ManagedFieldsEntry::default()
        });
        assert!(is_intact(&key, &metadata));
    }

    #[test]
    fn the_owner_reference_follows_the_deletion_policy() {
        let mut key = recorded(&[1]);
        assert_eq!(project(&key, 1).unwrap().owner, None);
        key.spec.deletion_policy = Some(DeletionPolicy::Delete);
        let owner = project(&key, 1).unwrap().owner.unwrap();
        assert_eq!((owner.uid, owner.controller), (key.metadata.uid.clone().unwrap(), Some(true)));
        assert!(!is_intact(&key, &written(&recorded(&[1]))), "the policy changed after the Secret was written");
    }

    #[test]
    fn restoring_leaves_what_is_not_ours() {
        let key = recorded(&[1]);
        let wanted = project(&key, 1).unwrap();
        let mut secret = wanted.clone().create(&key);
        secret.metadata.uid = Some("secret-uid".into());
        secret.metadata.resource_version = Some("7".into());
        secret.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
        let foreign = OwnerReference { kind: "App".into(), ..OwnerReference::default() };
        let past = OwnerReference { uid: "past".into(), ..owner_under_delete(&key) };
        secret.metadata.owner_references = Some(vec![foreign.clone(), past]);
        secret.data.as_mut().unwrap().insert("more".into(), text("x".into()));
        secret.data.as_mut().unwrap().remove("ciphertextBlob");

        let restored = wanted.clone().put_into(secret, "orders");
        assert_eq!(restored.data, Some(wanted.data));
        assert_eq!(restored.metadata.labels.as_ref().unwrap()["team"], "shop");
        assert_eq!(restored.metadata.labels.as_ref().unwrap()[NAME], "orders");
        assert_eq!(restored.metadata.owner_references, Some(vec![foreign]));
        let precondition = (restored.metadata.uid.as_deref(), restored.metadata.resource_version.as_deref());
        assert_eq!(precondition, (Some("secret-uid"), Some("7")));
    }

    fn owner_under_delete(key: &DataKey) -> OwnerReference {
        let mut key = key.clone();
        key.spec.deletion_policy = Some(DeletionPolicy::Delete);
        owner(&key).unwrap()
    }
}
