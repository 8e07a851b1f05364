//! Why the operator leaves a Secret alone, and the safest way out of that.

use crate::api::Object;

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
            Self::Foreign => {
                "Set spec.secretName to a free name. Or delete the Secret, if no workload needs it".to_owned()
            }
            Self::OtherObject if is_recorded => format!(
                "Don't delete the Secret. Create a {kind} with another spec.secretName that pins the entries of \
                 status.versions in spec.wrappedKeys, and then delete this one"
            ),
            Self::OtherObject => format!(
                "Don't delete the Secret: workloads of the other {kind} need it. Set spec.secretName to a name that no \
                 other {kind} uses"
            ),
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
            Self::UnrecordedVersion => format!(
                "To take over what the Secret holds, delete this {kind} under deletionPolicy Retain and create it again. \
                 Don't delete the Secret: data may be encrypted under that version"
            ),
            Self::OtherDataKey => format!(
                "Keep a copy of the Secret (kubectl get secret NAME -o yaml): data may be encrypted under what it holds. \
                 Then delete it, and the operator creates it again with the recorded {noun}s"
            ),
            Self::OtherPin => "Remove that pin from spec.wrappedKeys, or make it a copy of what the Secret holds \
                               (kubectl datakey export NAME prints it). Don't delete the Secret: data may be encrypted \
                               under what it holds"
                .to_owned(),
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
    fn secret_of_another_object_is_not_to_be_deleted() {
        for key in [data_key(), recorded(&[1])] {
            assert!(Obstacle::OtherObject.advice((&key).into()).starts_with("Don't delete the Secret"));
        }
    }
}
