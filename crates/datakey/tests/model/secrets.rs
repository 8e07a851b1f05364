//! Secrets in the API server: changes of them, and what a reader finds in them.

use datakey::{
    api::{EncryptionContext, KeyKind as _},
    names::{CURRENT_VERSION_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL, VERSION_ANNOTATION_PREFIX},
    secret::VersionAnnotation,
};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::{
    kind::Key,
    objects::{DataKeys, KEY_NAME, uid_number},
    requests::{AskAt, DataKeyAt, KmsKey, RequestVariant},
};

const EDITED: &[u8] = b"edited";

/// The properties of a Secret that the model needs often.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)]
pub struct SecretSummary {
    /// The data keys that a reader finds.
    pub held: DataKeys,
    /// The same with what the Secret says of them.
    pub claims: [Option<DataKeyAt>; 2],
    /// Whether it belongs to another owner: it is of another type, or names another `DataKey`.
    pub foreign: bool,
    /// Whether the watch, which selects by type, sees it.
    pub watched: bool,
    /// The uid of the `DataKey` that owns it.
    pub owner: Option<u16>,
    pub has_own_labels: bool,
    pub edited: bool,
}

/// A Secret of another owner, without the operator's type, labels and annotations.
pub fn foreign() -> Secret {
    Secret { type_: Some("Opaque".into()), ..Secret::default() }
}

/// Secrets that resemble the operator's: one of another type with its labels, one of another `DataKey`, and one with its type
/// and labels and without data.
pub fn lookalikes() -> [Secret; 3] {
    let labeled = |type_: &str, name: &str, entries: &[(&str, &str)]| {
        let labels =
            [(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned()), (NAME_LABEL.to_owned(), name.to_owned())];
        let annotations = [(CURRENT_VERSION_ANNOTATION.to_owned(), "1".to_owned())];
        let data = entries.iter().map(|(entry, value)| ((*entry).to_owned(), ByteString(value.as_bytes().to_vec())));
        let metadata =
            ObjectMeta { labels: Some(labels.into()), annotations: Some(annotations.into()), ..ObjectMeta::default() };
        Secret { metadata, type_: Some(type_.to_owned()), data: Some(data.collect()), ..Secret::default() }
    };
    [
        labeled("Opaque", KEY_NAME, &[("token", "theirs")]),
        labeled(
            Key::KIND.secret_type,
            "another",
            &[("ciphertextBlob.v1", "theirs"), ("ciphertextBlob", "theirs"), ("version", "1")],
        ),
        labeled(Key::KIND.secret_type, KEY_NAME, &[]),
    ]
}

/// A Secret as the server stores it, without uid and resource version, which are a part of the state.
pub fn stored(mut secret: Secret) -> Secret {
    let metadata = &mut secret.metadata;
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.owner_references = metadata.owner_references.take().filter(|owners| !owners.is_empty());
    secret
}

/// The Secret with an edited entry of the first version.
pub fn edited(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.data.as_mut().unwrap().insert("ciphertextBlob.v1".into(), ByteString(EDITED.to_vec()));
    stored(new)
}

/// The Secret without labels and annotations.
pub fn unmarked(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.labels = None;
    new.metadata.annotations = None;
    stored(new)
}

/// The Secret without owner references.
pub fn orphaned(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.owner_references = None;
    stored(new)
}

/// The Secret as a backup tool restores it: without owner references, because it doesn't know the present owner.
pub fn restored(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.owner_references = None;
    stored(new)
}

pub fn summarize_secret(secret: &Secret) -> SecretSummary {
    let label = |name: &str| secret.metadata.labels.as_ref()?.get(name).map(String::as_str);
    let owner = secret.metadata.owner_references.iter().flatten().next();
    let watched = secret.type_.as_deref() == Some(Key::KIND.secret_type);
    let held = data_keys(secret);
    SecretSummary {
        held,
        claims: [1, 2].map(|version| claim(secret, version, held.get(version)?)),
        foreign: !watched || label(NAME_LABEL).is_some_and(|name| name != KEY_NAME),
        watched,
        owner: owner.map(|owner| uid_number(&owner.uid)),
        has_own_labels: label(NAME_LABEL) == Some(KEY_NAME) && label(MANAGED_BY_LABEL) == Some(FIELD_MANAGER),
        edited: secret.data.iter().flatten().any(|(_, value)| value.0 == EDITED),
    }
}

fn text<'a>(secret: &'a Secret, entry: &str) -> Option<&'a str> {
    secret.data.as_ref()?.get(entry).and_then(|value| std::str::from_utf8(&value.0).ok())
}

/// The data keys of KMS that a reader finds.
fn data_keys(secret: &Secret) -> DataKeys {
    let number = |entry: &str| text(secret, entry)?.strip_prefix("blob ")?.parse().ok();
    let mut found = DataKeys::of(|version| number(&format!("ciphertextBlob.v{version}")));
    let plain = text(secret, "version").and_then(|version| version.parse().ok());
    if let (Some(version), Some(number)) = (plain, number("ciphertextBlob"))
        && found.get(version).is_none()
    {
        found.set(version, number);
    }
    found
}

/// What the Secret says of a data key.
fn claim(secret: &Secret, version: i32, number: u8) -> Option<DataKeyAt> {
    let entry = |name: &str| text(secret, &format!("{name}.v{version}"));
    let context: EncryptionContext = serde_json::from_str(entry("encryptionContext")?).ok()?;
    let key = KmsKey::of(entry("keyId")?)?;
    let request = RequestVariant::of_answer(key, &context)?;
    let annotation = secret.metadata.annotations.as_ref().and_then(|all| {
        let annotation = all.get(&format!("{VERSION_ANNOTATION_PREFIX}{version}"))?;
        serde_json::from_str::<VersionAnnotation>(annotation).ok()
    });
    let as_written = annotation.and_then(|annotation| annotation.as_written);
    let as_written = as_written.map(|written| RequestVariant::of_request(written.view()));
    Some(DataKeyAt { number, version, ask: AskAt { as_written, ..AskAt::without_class(request) }, key })
}

// === impl SecretSummary ===

impl SecretSummary {
    /// The variant of the spec that the data key of a version was requested for.
    pub fn asked_with(&self, version: i32) -> Option<RequestVariant> {
        self.claims[DataKeys::slot(version)].map(|claim| claim.ask.written())
    }
}
