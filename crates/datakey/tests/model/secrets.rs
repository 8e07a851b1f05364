//! Secrets as the server keeps them, what becomes of them, and what a reader finds in them.

use datakey::{
    api::EncryptionContext,
    names::{CURRENT_VERSION_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL, SECRET_TYPE},
};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::objects::{DataKeys, KEY_NAME, Settings, uid_number};

const EDITED: &[u8] = b"edited";

/// What is asked of a Secret again and again.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)]
pub struct SecretSummary {
    /// The data keys that a reader finds.
    pub held: DataKeys,
    /// What they were asked for with.
    settings: [Option<Settings>; 2],
    /// Somebody else's: of another type, or another `DataKey`'s.
    pub foreign: bool,
    /// Whether the watch, which selects by type, sees it.
    pub watched: bool,
    /// The uid of the `DataKey` that owns it.
    pub owner: Option<u16>,
    pub bears_our_labels: bool,
    pub edited: bool,
}

/// Somebody else's Secret, without anything of ours.
pub fn foreign() -> Secret {
    Secret { type_: Some("Opaque".into()), ..Secret::default() }
}

/// Secrets that have something of ours and are not what the operator writes: one of another type under our labels,
/// another `DataKey`'s, and one of our type and labels that holds nothing.
pub fn lookalikes() -> [Secret; 3] {
    let labelled = |type_: &str, name: &str, entries: &[(&str, &str)]| {
        let labels =
            [(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned()), (NAME_LABEL.to_owned(), name.to_owned())];
        let annotations = [(CURRENT_VERSION_ANNOTATION.to_owned(), "1".to_owned())];
        let data = entries.iter().map(|(entry, value)| ((*entry).to_owned(), ByteString(value.as_bytes().to_vec())));
        let metadata =
            ObjectMeta { labels: Some(labels.into()), annotations: Some(annotations.into()), ..ObjectMeta::default() };
        Secret { metadata, type_: Some(type_.to_owned()), data: Some(data.collect()), ..Secret::default() }
    };
    [
        labelled("Opaque", KEY_NAME, &[("token", "theirs")]),
        labelled(
            SECRET_TYPE,
            "another",
            &[("ciphertextBlob.v1", "theirs"), ("ciphertextBlob", "theirs"), ("version", "1")],
        ),
        labelled(SECRET_TYPE, KEY_NAME, &[]),
    ]
}

/// A Secret as the server keeps it, without what it assigns.
pub fn stored(mut secret: Secret) -> Secret {
    let metadata = &mut secret.metadata;
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.owner_references = metadata.owner_references.take().filter(|owners| !owners.is_empty());
    secret
}

/// The first version's entry is changed by hand.
pub fn edited(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.data.as_mut().unwrap().insert("ciphertextBlob.v1".into(), ByteString(EDITED.to_vec()));
    stored(new)
}

/// Labels and annotations are removed by hand.
pub fn unmarked(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.labels = None;
    new.metadata.annotations = None;
    stored(new)
}

/// The owner references are removed.
pub fn orphaned(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.owner_references = None;
    stored(new)
}

/// A backup tool creates it again. It can't know what owns it now.
pub fn restored(secret: &Secret) -> Secret {
    let mut new = secret.clone();
    new.metadata.owner_references = None;
    stored(new)
}

pub fn summarize_secret(secret: &Secret) -> SecretSummary {
    let label = |name: &str| secret.metadata.labels.as_ref()?.get(name).map(String::as_str);
    let owner = secret.metadata.owner_references.iter().flatten().next();
    let watched = secret.type_.as_deref() == Some(SECRET_TYPE);
    SecretSummary {
        held: data_keys(secret),
        settings: [1, 2].map(|version| settings(secret, version)),
        foreign: !watched || label(NAME_LABEL).is_some_and(|name| name != KEY_NAME),
        watched,
        owner: owner.map(|owner| uid_number(&owner.uid)),
        bears_our_labels: label(NAME_LABEL) == Some(KEY_NAME) && label(MANAGED_BY_LABEL) == Some(FIELD_MANAGER),
        edited: secret.data.iter().flatten().any(|(_, value)| value.0 == EDITED),
    }
}

fn text<'a>(secret: &'a Secret, entry: &str) -> Option<&'a str> {
    secret.data.as_ref()?.get(entry).and_then(|value| std::str::from_utf8(&value.0).ok())
}

/// The data keys that a reader finds: those that are KMS's.
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

fn settings(secret: &Secret, version: i32) -> Option<Settings> {
    let entry = |name: &str| text(secret, &format!("{name}.v{version}"));
    let context: EncryptionContext = serde_json::from_str(entry("encryptionContext")?).ok()?;
    Settings::of(entry("keyId")?, Some(&context))
}

// === impl SecretSummary ===

impl SecretSummary {
    /// What the data key of a version was asked for with.
    pub fn asked_with(&self, version: i32) -> Option<Settings> {
        self.held.get(version).and_then(|_| self.settings[DataKeys::slot(version)])
    }
}
