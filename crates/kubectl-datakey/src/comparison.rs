//! How the Secret of a `DataKey` stands to the record. Pure.

use datakey::{
    api::DataKey,
    secret::{
        Projection,
        content::{self, Verdict},
        known::Known,
        metadata::SecretMetadata,
        project,
    },
};
use k8s_openapi::api::core::v1::Secret;
use serde::Serialize;

/// How a Secret stands to the record. No value of it is in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Its name.
    pub name: String,
    /// In a word.
    pub state: State,
    /// In a sentence, where the word is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What differs, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// How a Secret stands to the record, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// It holds what is recorded, and nothing else.
    Intact,
    /// It is not there.
    Missing,
    /// Something of it was changed; the operator puts it right.
    Changed,
    /// It is somebody else's, or holds another data key; the operator does not touch it.
    Conflict,
    /// Nothing is recorded that it could hold.
    NotIssued,
    /// The user may not read it, or it could not be read.
    Unknown,
}

// === impl State ===

impl State {
    /// Whether it is certain that the Secret is not as it should be.
    pub const fn is_wanting(self) -> bool {
        matches!(self, Self::Missing | Self::Changed | Self::Conflict | Self::NotIssued)
    }
}

// === impl Comparison ===

impl Comparison {
    fn new(key: &DataKey, state: State) -> Self {
        Self { name: key.secret_name().to_owned(), state, detail: None, differences: Vec::new() }
    }

    /// The Secret could not be read.
    pub fn unknown(key: &DataKey, why: &str) -> Self {
        Self { detail: Some(why.to_owned()), ..Self::new(key, State::Unknown) }
    }

    /// From its metadata alone; `None` where they can't tell.
    pub fn by_metadata(key: &DataKey, metadata: Option<&SecretMetadata>) -> Option<Self> {
        let Some(wanted) = wanted(key) else { return Some(Self::new(key, State::NotIssued)) };
        let Some(metadata) = metadata else { return Some(Self::new(key, State::Missing)) };
        let known = Known { metadata: metadata.clone(), verified: None };
        let saved = known.saved_in(key).filter(|saved| saved.digest == wanted.digest().to_string());
        saved.map(|_| Self::new(key, State::Intact))
    }

    /// From all of it.
    pub fn whole(key: &DataKey, secret: Option<&Secret>) -> Self {
        let Some(wanted) = wanted(key) else { return Self::new(key, State::NotIssued) };
        let Some(secret) = secret else { return Self::new(key, State::Missing) };
        match content::compare(key, &wanted, secret) {
            Verdict::Same => Self::new(key, State::Intact),
            Verdict::PutRight => {
                Self { differences: content::changes(&wanted, secret), ..Self::new(key, State::Changed) }
            }
            Verdict::Conflict(why) => Self { detail: Some(why), ..Self::new(key, State::Conflict) },
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let said = match self.state {
            State::Intact => "holds what is recorded",
            State::Missing => "is not there; the operator creates it from the record, if it runs",
            State::Changed => "was changed; the operator puts it right, if it runs",
            State::Conflict => "is not touched by the operator",
            State::NotIssued => "nothing is issued yet that it could hold",
            State::Unknown => "could not be looked at",
        };
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        format!("{}: {said}{detail}", self.name)
    }
}

/// What the Secret should hold: the version of the spec, and until that is issued the one that it was last written with.
fn wanted(key: &DataKey) -> Option<Projection> {
    let published = key.status.as_ref().and_then(|status| status.version);
    project(key, key.version()).or_else(|| project(key, published?))
}

#[cfg(test)]
mod tests {
    use datakey::{api::VerifiedSecret, identity::Revision};
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, ready, recorded, secret};

    #[test]
    fn what_the_operator_wrote_is_intact() {
        let object = ready(&[1, 2]);
        assert_eq!(Comparison::whole(&object.key, Some(&secret(&object.key, 2))).state, State::Intact);
    }

    #[test]
    fn while_a_new_version_waits_the_secret_holds_the_one_before() {
        let object = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
        assert_eq!(Comparison::whole(&object.key, Some(&secret(&object.key, 1))).state, State::Intact);
    }

    #[test]
    fn a_changed_entry_is_named_and_its_value_is_not() {
        let object = ready(&[1]);
        let mut changed = secret(&object.key, 1);
        changed.data.as_mut().unwrap().insert("keyId".into(), ByteString(b"hunter2".to_vec()));
        let found = Comparison::whole(&object.key, Some(&changed));
        assert_eq!(
            (found.state, found.differences.as_slice()),
            (State::Changed, &["entry keyId was changed".into()][..])
        );
        assert!(!json!(found).to_string().contains("hunter2"));
    }

    #[test]
    fn a_secret_of_another_type_is_a_conflict_and_nothing_of_it_is_named() {
        let object = ready(&[1]);
        let foreign = Secret { type_: Some("Opaque".into()), ..secret(&object.key, 1) };
        let found = Comparison::whole(&object.key, Some(&foreign));
        assert_eq!((found.state, found.differences.len()), (State::Conflict, 0));
    }

    #[test]
    fn metadata_alone_detect_missing_unissued_and_intact() {
        assert_eq!(Comparison::by_metadata(&ready(&[1]).key, None).unwrap().state, State::Missing);
        assert_eq!(Comparison::by_metadata(&recorded(&[]).key, None).unwrap().state, State::NotIssued);
        let mut key = ready(&[1]).key;
        let mut metadata = SecretMetadata::of(&secret(&key, 1).metadata);
        metadata.revision = Revision { uid: "s".into(), resource_version: "7".into() };
        assert_eq!(Comparison::by_metadata(&key, Some(&metadata)), None, "only a reader can know");
        key.status.as_mut().unwrap().secret = Some(VerifiedSecret {
            uid: "s".into(),
            resource_version: "7".into(),
            digest: project(&key, 1).unwrap().digest().to_string(),
        });
        assert_eq!(Comparison::by_metadata(&key, Some(&metadata)).unwrap().state, State::Intact);
        metadata.revision.resource_version = "8".into();
        assert_eq!(Comparison::by_metadata(&key, Some(&metadata)), None, "it was changed since");
    }
}
