//! Why the operator leaves a Secret alone, and the safest way out of that.

use crate::{api::Object, names::NAME_LABEL};

/// Why the operator must neither write a Secret nor take over what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What is in the way: a clause about the Secret, such as "it is not of type datakey.dev/wrapped-key".
    pub why: String,
    /// What kind of obstacle that is.
    pub obstacle: Obstacle,
}

/// The kinds of obstacles. Each has another safe way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another tool or user owns the Secret.
    Foreign,
    /// The Secret belongs to another object, or its name is reserved for it.
    OtherObject,
    /// The Secret is of the type of another kind.
    OtherKind,
    /// The Secret does not say whose it is.
    Unlabeled,
    /// The Secret is of this object, but its version was asked for with other settings than those of the spec.
    OtherSettings,
    /// A part of what the Secret holds is missing or was changed, so it can't become the record.
    Damaged,
    /// The Secret holds a version that is not recorded.
    UnrecordedVersion,
    /// The Secret may hold another data key than the recorded one.
    OtherDataKey,
    /// The Secret and the pins in the spec contradict each other.
    OtherPin,
}

// === impl Obstacle ===

impl Obstacle {
    /// A conflict of this kind.
    pub(crate) fn because(self, why: impl Into<String>) -> Conflict {
        Conflict { why: why.into(), obstacle: self }
    }

    /// What a user can do, the safest way first. Sentences without the last period.
    pub(crate) fn advice(self, object: Object<'_>) -> String {
        let (kind, noun) = (object.kind.name, object.kind.noun);
        // With a record the name of the Secret is fixed, and the Secret can be written again from the record.
        let is_recorded = !object.record().is_empty();
        match self {
            Self::Foreign if is_recorded => format!(
                "If a workload needs that Secret, create it again under another name. Then delete it: the operator creates \
                 its own from the record, with the same {noun}s"
            ),
            // A backup tool or a user may have created a copy without the type.
            Self::Foreign => format!(
                "If it is a copy of this {kind}'s Secret, create it again with the type {}, and all entries, labels and \
                 annotations of the original: the operator takes it over. Otherwise set spec.secretName to a free name",
                object.kind.secret_type
            ),
            Self::OtherObject if is_recorded => format!(
                "Don't delete the Secret. If its label {NAME_LABEL} was changed, set it back to {}. Otherwise create a \
                 {kind} with another spec.secretName that pins the entries of status.versions in spec.wrappedKeys, and \
                 delete this one once that one is Ready",
                object.name().unwrap_or_default()
            ),
            // Its label has the name of an object of the other kind, so nothing in it is to be set back.
            Self::OtherKind if is_recorded => format!(
                "If that object has a record (status.versions), don't delete the Secret: create a {kind} with another \
                 spec.secretName that pins the entries of status.versions in spec.wrappedKeys, and delete this one once that \
                 one is Ready. If it has no record, the Secret is not its own: create it again under another name, if a workload \
                 needs it. Then delete it: the operator creates its own from the record, with the same {noun}s"
            ),
            Self::OtherObject | Self::OtherKind => {
                "Don't delete the Secret: workloads of the other object need it. Set spec.secretName to a name \
                                  that no other DataKey or DataKeyPair uses"
                    .to_owned()
            }
            Self::Unlabeled => format!(
                "If the Secret holds the {noun}s of this {kind}, set these labels, and the operator takes them over. \
                 Otherwise set spec.secretName to a free name"
            ),
            Self::OtherSettings => format!(
                "Set these fields of the spec as the Secret has them, and the operator takes over its {noun}s. For a new \
                 {noun} set spec.secretName to a free name, or set spec.version to a number that the Secret does not hold"
            ),
            Self::Damaged => format!(
                "If data is encrypted under what it holds, restore its content in place from a backup, and the operator \
                 takes it over. For a new {noun} set spec.secretName to a free name. Once the Secret is deleted, a new \
                 {noun} is issued"
            ),
            // Not to delete the object: the record may be the only copy of the other versions, if the Secret was changed.
            Self::UnrecordedVersion => format!(
                "Don't delete the Secret or this {kind}, and keep a copy of both (kubectl get -o yaml). If data is encrypted \
                 under that version, add it to spec.wrappedKeys with the settings that it was issued with. Otherwise \
                 remove its entries from the Secret"
            ),
            Self::OtherDataKey => format!(
                "Keep a copy of the Secret (kubectl get secret NAME -o yaml): data may be encrypted under what it holds. \
                 Then delete it, and the operator creates it again with the recorded {noun}s"
            ),
            Self::OtherPin => format!(
                "Keep a copy of the Secret and of the pin, and find out under which of the two {noun}s data is encrypted. \
                 If it is that of the Secret, make the pin a copy of its entries. If it is the pinned one, delete the Secret"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{data_key, recorded};

    #[test]
    fn advice_never_names_a_field_that_is_fixed() {
        let key = recorded(&[1]);
        for obstacle in [Obstacle::Foreign, Obstacle::OtherDataKey, Obstacle::UnrecordedVersion] {
            let advice = obstacle.advice((&key).into());
            assert!(!advice.contains("spec.secretName"), "{advice}");
        }
        assert!(Obstacle::Foreign.advice((&data_key()).into()).contains("spec.secretName"));
    }

    #[test]
    fn no_advice_deletes_an_object_that_may_have_the_only_copy() {
        let advice = Obstacle::UnrecordedVersion.advice((&recorded(&[1])).into());
        assert!(advice.starts_with("Don't delete the Secret or this DataKey"), "{advice}");
        for obstacle in [Obstacle::OtherPin, Obstacle::OtherDataKey] {
            let advice = obstacle.advice((&recorded(&[1])).into());
            assert!(advice.starts_with("Keep a copy of the Secret"), "{advice}");
        }
        let copy = Obstacle::Foreign.advice((&data_key()).into());
        assert!(copy.contains("takes it over") && !copy.contains("delete"), "{copy}");
    }

    #[test]
    fn advice_across_kinds_does_not_lead_back() {
        let advice = Obstacle::OtherKind.advice((&recorded(&[1])).into());
        assert!(!advice.contains(NAME_LABEL), "{advice}");
        assert!(
            advice.starts_with("If that object has a record (status.versions), don't delete the Secret"),
            "{advice}"
        );
        assert!(advice.ends_with("the operator creates its own from the record, with the same data keys"), "{advice}");
    }

    #[test]
    fn secret_of_another_object_is_not_to_be_deleted() {
        for key in [data_key(), recorded(&[1])] {
            assert!(Obstacle::OtherObject.advice((&key).into()).starts_with("Don't delete the Secret"));
        }
        assert!(Obstacle::OtherKind.advice((&data_key()).into()).starts_with("Don't delete the Secret"));
    }
}
