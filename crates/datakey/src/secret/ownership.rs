//! Ownership: the decision that a Secret of another owner is left alone.
//!
//! | known | question | if not |
//! | --- | --- | --- |
//! | the metadata | does the operator manage the Secret? [`Marks`], [`unmanaged_reason`] | its data are not even read |
//! | the Secret and a record | does it belong to this object? [`foreign_reason`] | it is not written |
//! | the Secret, and no record | does it also have both labels? [`unlabeled_reason`] | it is not adopted |
//!
//! A Secret that belongs to this object can still hold other data keys than the recorded ones: [`super::compare`] decides on that.

use k8s_openapi::api::core::v1::Secret;

use super::{
    conflict::{Conflict, Obstacle},
    reader::{entry, version_numbers},
};
use crate::{
    api::{KINDS, Object},
    names::{FIELD_MANAGER, MANAGED_BY_LABEL, NAME_LABEL, OWN_PREFIX},
    text::printable,
};

/// The longest type of a Secret in a message, in characters.
const MAX_TYPE: usize = 80;

/// What the labels and annotations of a Secret say of its owner.
pub(super) struct Marks {
    /// The name in the label `datakey.dev/name`.
    pub belongs_to: Option<String>,
    /// Whether one label or annotation says that the operator manages the Secret. Any client can set it, so it decides only
    /// whether the Secret may be read, never whether it is intact.
    pub is_managed: bool,
}

/// Why the data of a Secret with such metadata must not be read; `None` if they may be read.
pub(crate) fn unmanaged_reason(is_managed: bool) -> Option<Conflict> {
    (!is_managed).then(|| Obstacle::Foreign.because("it is not a Secret of this operator"))
}

/// Why a Secret does not belong to this object; `None` if it does.
pub(crate) fn foreign_reason(object: Object<'_>, secret: &Secret) -> Option<Conflict> {
    let kind = object.kind;
    if secret.type_.as_deref() != Some(kind.secret_type) {
        let found = secret.type_.as_deref().unwrap_or_default();
        if let Some(other) = KINDS.into_iter().find(|kind| kind.secret_type == found) {
            let why = match label(secret, NAME_LABEL) {
                Some(name) => format!("it belongs to {} {name}", other.name),
                None => format!("it belongs to a {}", other.name),
            };
            return Some(Obstacle::OtherKind.because(why));
        }
        let found = printable(found, MAX_TYPE);
        return Some(Obstacle::Foreign.because(format!("it is of type {found:?} and not {}", kind.secret_type)));
    }
    let belongs_to = label(secret, NAME_LABEL)?;
    if Some(belongs_to) == object.name() {
        return None;
    }
    // Another client may have edited the label; a recorded data key in the Secret proves that it belongs to this object.
    let holds_ours = version_numbers(secret).into_iter().any(|version| {
        let blob = entry(secret, &format!("ciphertextBlob.v{version}"));
        object.recorded_version(version).is_some_and(|issued| Some(&issued.ciphertext_blob) == blob)
    });
    (!holds_ours).then(|| Obstacle::OtherObject.because(format!("it belongs to {} {belongs_to}", kind.name)))
}

/// Why a Secret that holds no recorded data key cannot be adopted: without a record, both labels must be there; `None` if they
/// are.
pub(super) fn unlabeled_reason(object: Object<'_>, secret: &Secret) -> Option<Conflict> {
    let is_labeled =
        label(secret, MANAGED_BY_LABEL) == Some(FIELD_MANAGER) && label(secret, NAME_LABEL) == object.name();
    let name = object.name().unwrap_or_default();
    (!is_labeled).then(|| {
        let labels = format!("{MANAGED_BY_LABEL}={FIELD_MANAGER} and {NAME_LABEL}={name}");
        Obstacle::Unlabeled.because(format!("it does not have both labels {labels}"))
    })
}

fn label<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

// === impl Marks ===

impl Marks {
    /// The marks in these labels, and in annotations of these names.
    pub fn of<'a>(
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        mut annotations: impl Iterator<Item = &'a str>,
    ) -> Self {
        let (mut belongs_to, mut is_managed) = (None, false);
        for (name, value) in labels {
            match name {
                NAME_LABEL => belongs_to = Some(value.to_owned()),
                MANAGED_BY_LABEL => is_managed = value == FIELD_MANAGER,
                _ => {}
            }
        }
        let is_managed = is_managed || belongs_to.is_some() || annotations.any(|name| name.starts_with(OWN_PREFIX));
        Self { belongs_to, is_managed }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::{
        fixtures::{data_key, recorded},
        names::SECRET_TYPE,
        secret::Projection,
    };

    fn secret(versions: &[i32]) -> Secret {
        let key = recorded(versions);
        Projection::of(&key, key.wanted_version()).unwrap().into_secret(&key)
    }

    fn relabeled(mut secret: Secret, name: &str, value: Option<&str>) -> Secret {
        let labels = secret.metadata.labels.as_mut().unwrap();
        match value {
            Some(value) => _ = labels.insert(name.into(), value.into()),
            None => _ = labels.remove(name),
        }
        secret
    }

    #[test]
    fn one_label_or_annotation_makes_a_secret_managed() {
        for (labels, annotation, belongs_to, is_managed) in [
            (Some((NAME_LABEL, "orders")), None, Some("orders"), true),
            (Some((MANAGED_BY_LABEL, FIELD_MANAGER)), None, None, true),
            (Some((MANAGED_BY_LABEL, "Helm")), None, None, false),
            (None, Some("datakey.dev/version"), None, true),
            (None, Some("example.com/note"), None, false),
            (None, None, None, false),
        ] {
            let marks = Marks::of(labels.into_iter(), annotation.into_iter());
            assert_eq!(
                (marks.belongs_to.as_deref(), marks.is_managed),
                (belongs_to, is_managed),
                "{labels:?} {annotation:?}"
            );
            assert_eq!(unmanaged_reason(marks.is_managed).is_none(), is_managed);
        }
    }

    #[test]
    fn secret_of_another_type_is_foreign() {
        let opaque = Secret { type_: Some("Opaque".into()), ..secret(&[1]) };
        assert_eq!(
            foreign_reason((&recorded(&[1])).into(), &opaque).unwrap().why,
            format!("it is of type \"Opaque\" and not {SECRET_TYPE}")
        );
    }

    #[test]
    fn recorded_data_key_proves_ownership_despite_the_label() {
        let key = recorded(&[1]);
        let named = relabeled(secret(&[1]), NAME_LABEL, Some("bank"));
        assert_eq!(foreign_reason((&key).into(), &named), None);
        let mut other = named.clone();
        other.data.as_mut().unwrap().insert("ciphertextBlob.v1".into(), ByteString(b"other".to_vec()));
        assert_eq!(foreign_reason((&key).into(), &other).unwrap().why, "it belongs to DataKey bank");
        assert_eq!(
            foreign_reason((&data_key()).into(), &named).unwrap().why,
            "it belongs to DataKey bank",
            "without a record"
        );
        assert_eq!(foreign_reason((&key).into(), &relabeled(other, NAME_LABEL, None)), None, "the data keys decide");
    }

    #[test]
    fn adoption_needs_both_labels() {
        let key = data_key();
        assert_eq!(unlabeled_reason((&key).into(), &secret(&[1])), None);
        for (name, value) in [(NAME_LABEL, None), (MANAGED_BY_LABEL, None), (MANAGED_BY_LABEL, Some("Helm"))] {
            let why = unlabeled_reason((&key).into(), &relabeled(secret(&[1]), name, value)).unwrap().why;
            assert!(
                why.ends_with("app.kubernetes.io/managed-by=datakey-operator and datakey.dev/name=orders"),
                "{why}"
            );
        }
    }
}
