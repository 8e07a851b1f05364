//! The comparison of a Secret with the record of its `DataKey`.

use datakey::secret::{
    Projection, adopt,
    compare::{self, Comparison},
    known::KnownSecret,
    metadata::SecretMetadata,
};
use k8s_openapi::api::core::v1::Secret;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cluster::AnyKey;

/// The result of comparing a Secret with the record. It contains no value of the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretCheck {
    /// The name of the Secret.
    pub name: String,
    /// The result in one word.
    pub state: SecretVerdict,
    /// What it holds, for `Adoptable`; the cause, for `Conflict` and `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The labels, annotations and entries that differ, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// The state of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum SecretVerdict {
    /// The Secret holds what is recorded, and nothing else.
    Intact,
    /// The Secret does not exist.
    Missing,
    /// The Secret differs from the record; the operator restores it.
    Changed,
    /// The Secret belongs to another owner or holds something else than is recorded; the operator does not change it.
    Conflict,
    /// No version is recorded, and there is no Secret.
    NotIssued,
    /// No version is recorded, and the Secret holds data keys or key pairs that fit the object; the operator takes them over.
    Adoptable,
    /// The Secret could not be read.
    Unknown,
}

// === impl SecretVerdict ===

impl SecretVerdict {
    /// Returns whether the Secret is known to differ from the record.
    pub const fn needs_attention(self) -> bool {
        matches!(self, Self::Missing | Self::Changed | Self::Conflict | Self::NotIssued | Self::Adoptable)
    }
}

// === impl SecretCheck ===

impl SecretCheck {
    fn new(key: &AnyKey, state: SecretVerdict) -> Self {
        Self { name: key.secret_name().to_owned(), state, detail: None, differences: Vec::new() }
    }

    /// Returns the check of a Secret that could not be read.
    pub fn unknown(key: &AnyKey, why: &str) -> Self {
        Self { detail: Some(why.to_owned()), ..Self::new(key, SecretVerdict::Unknown) }
    }

    /// Checks a Secret by its metadata, or returns `None` if only its data can decide.
    ///
    /// The metadata decide if they have the revision that the operator recorded when it last compared the data.
    pub fn from_metadata(key: &AnyKey, metadata: Option<&SecretMetadata>) -> Option<Self> {
        let wanted = wanted(key);
        let Some(metadata) = metadata else { return Some(Self::absent(key, wanted.as_ref())) };
        let wanted = wanted?;
        let known = KnownSecret { metadata: metadata.clone(), verified: None };
        let saved = known.saved_in(key).filter(|saved| saved.digest == wanted.digest().to_string());
        saved.map(|_| Self::new(key, SecretVerdict::Intact))
    }

    /// Checks a Secret by its data.
    pub fn from_secret(key: &AnyKey, secret: Option<&Secret>) -> Self {
        let wanted = wanted(key);
        let Some(secret) = secret else { return Self::absent(key, wanted.as_ref()) };
        let Some(wanted) = wanted else { return Self::before_the_record(key, secret) };
        match compare::compare(key, &wanted, secret) {
            Comparison::InSync => Self::new(key, SecretVerdict::Intact),
            Comparison::Restorable => {
                Self { differences: compare::changes(&wanted, secret), ..Self::new(key, SecretVerdict::Changed) }
            }
            Comparison::Conflict(conflict) => {
                Self { detail: Some(conflict.why), ..Self::new(key, SecretVerdict::Conflict) }
            }
        }
    }

    fn absent(key: &AnyKey, wanted: Option<&Projection>) -> Self {
        Self::new(key, if wanted.is_some() { SecretVerdict::Missing } else { SecretVerdict::NotIssued })
    }

    /// Says what a Secret is that holds the name before a version is recorded: foreign, damaged, or of this `DataKey`.
    fn before_the_record(key: &AnyKey, secret: &Secret) -> Self {
        match adopt(key, secret) {
            Ok(held) => {
                let versions: Vec<_> = held.iter().map(|issued| issued.version.to_string()).collect();
                let detail = format!("versions {}", versions.join(", "));
                Self { detail: Some(detail), ..Self::new(key, SecretVerdict::Adoptable) }
            }
            Err(conflict) => Self { detail: Some(conflict.why), ..Self::new(key, SecretVerdict::Conflict) },
        }
    }

    /// Describes the check on one line.
    pub fn line(&self) -> String {
        let finding = match self.state {
            SecretVerdict::Intact => "holds what is recorded",
            SecretVerdict::Missing => "is not there; the operator creates it from the record, if it runs",
            SecretVerdict::Changed => "was changed; the operator restores it, if it runs",
            SecretVerdict::Conflict => "is not touched by the operator",
            SecretVerdict::NotIssued => "nothing is issued yet that it could hold",
            SecretVerdict::Adoptable => "holds what fits this spec; the operator takes it over, if it runs",
            SecretVerdict::Unknown => "could not be looked at",
        };
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        format!("{}: {finding}{detail}", self.name)
    }
}

/// Returns what the Secret should hold: the version of the spec or, until that is issued, the version that the operator
/// last published.
fn wanted(key: &AnyKey) -> Option<Projection> {
    let published = key.published_version();
    Projection::of(key, key.wanted_version()).or_else(|| Projection::of(key, published?))
}

#[cfg(test)]
mod tests {
    use datakey::{api::VerifiedSecret, identity::Revision};
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, pair, ready, recorded, secret};

    #[test]
    fn secret_from_the_operator_is_intact() {
        let fetched = ready(&[1, 2]);
        assert_eq!(SecretCheck::from_secret(&fetched.key, Some(&secret(&fetched.key, 2))).state, SecretVerdict::Intact);
    }

    #[test]
    fn previous_version_is_intact_until_the_next_is_issued() {
        let fetched = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
        assert_eq!(SecretCheck::from_secret(&fetched.key, Some(&secret(&fetched.key, 1))).state, SecretVerdict::Intact);
    }

    #[test]
    fn changed_entry_is_named_without_its_value() {
        let fetched = ready(&[1]);
        let mut changed = secret(&fetched.key, 1);
        changed.data.as_mut().unwrap().insert("keyId".into(), ByteString(b"hunter2".to_vec()));
        let check = SecretCheck::from_secret(&fetched.key, Some(&changed));
        assert_eq!(
            (check.state, check.differences.as_slice()),
            (SecretVerdict::Changed, &["entry keyId was changed".into()][..])
        );
        assert!(!json!(check).to_string().contains("hunter2"));
    }

    #[test]
    fn secret_of_another_type_is_a_conflict() {
        let fetched = ready(&[1]);
        let foreign = Secret { type_: Some("Opaque".into()), ..secret(&fetched.key, 1) };
        let check = SecretCheck::from_secret(&fetched.key, Some(&foreign));
        assert_eq!((check.state, check.differences.len()), (SecretVerdict::Conflict, 0));
    }

    #[test]
    fn secret_before_the_record_is_named_for_what_it_is() {
        let key = recorded(&[]).key;
        let checked = |edit: fn(&mut Secret)| {
            let mut found = secret(&ready(&[1, 2]).key, 2);
            edit(&mut found);
            let check = SecretCheck::from_secret(&key, Some(&found));
            (check.state, check.detail.unwrap())
        };
        assert_eq!(checked(|_| {}), (SecretVerdict::Adoptable, "versions 1, 2".to_owned()));
        let (state, why) = checked(|secret| secret.type_ = Some("Opaque".into()));
        assert!(state == SecretVerdict::Conflict && why.contains("Opaque"), "{why}");
        let (state, why) = checked(|secret| {
            let labels = secret.metadata.labels.as_mut().unwrap();
            labels.insert(datakey::names::NAME_LABEL.into(), "payments".into());
        });
        assert!(state == SecretVerdict::Conflict && why.contains("DataKey payments"), "{why}");
        let (state, why) = checked(|secret| _ = secret.data.as_mut().unwrap().remove("keyId.v1"));
        assert!(state == SecretVerdict::Conflict && why.contains("keyId"), "{why}");
    }

    #[test]
    fn secret_of_a_pair_is_compared_with_its_record() {
        let key = pair(&[1, 2]).key;
        let mut of_the_pair = secret(&key, 2);
        assert_eq!(SecretCheck::from_secret(&key, Some(&of_the_pair)).state, SecretVerdict::Intact);
        let data = of_the_pair.data.as_mut().unwrap();
        data.insert("publicKey".into(), ByteString(b"another".to_vec()));
        let changed = SecretCheck::from_secret(&key, Some(&of_the_pair));
        assert_eq!(changed.state, SecretVerdict::Changed);
        assert!(changed.differences.iter().any(|name| name.contains("publicKey")), "{changed:?}");
        let of_the_key = secret(&ready(&[1, 2]).key, 2);
        assert_eq!(SecretCheck::from_secret(&key, Some(&of_the_key)).state, SecretVerdict::Conflict);
    }

    #[test]
    fn metadata_alone_detects_missing_unissued_and_intact() {
        assert_eq!(SecretCheck::from_metadata(&ready(&[1]).key, None).unwrap().state, SecretVerdict::Missing);
        assert_eq!(SecretCheck::from_metadata(&recorded(&[]).key, None).unwrap().state, SecretVerdict::NotIssued);
        let key = ready(&[1]).key;
        let mut metadata = SecretMetadata::of(&secret(&key, 1).metadata);
        metadata.revision = Revision { uid: "s".into(), resource_version: "7".into() };
        assert_eq!(SecretCheck::from_metadata(&key, Some(&metadata)), None, "no revision is recorded");
        let verified = VerifiedSecret {
            uid: "s".into(),
            resource_version: "7".into(),
            digest: Projection::of(&key, 1).unwrap().digest().to_string(),
        };
        let key = edited(ready(&[1]), |value| value["status"]["secret"] = json!(verified)).key;
        assert_eq!(SecretCheck::from_metadata(&key, Some(&metadata)).unwrap().state, SecretVerdict::Intact);
        metadata.revision.resource_version = "8".into();
        assert_eq!(SecretCheck::from_metadata(&key, Some(&metadata)), None, "another client changed the Secret");
    }
}
