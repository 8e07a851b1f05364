//! Comparison of a Secret with the record: the Secret is in sync, can be restored, or must not be changed.
//!
//! A Secret that may hold other data keys than the recorded ones is never overwritten: a workload may have encrypted data
//! under them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{
    Projection,
    conflict::{Conflict, Obstacle},
    digest::{Digest, sha256},
    ownership::foreign_reason,
    reader::{entry, version_annotation, version_numbers},
    template::Own,
};
use crate::{
    api::{Object, has_blob_length},
    text::printable,
};

/// The result of the comparison of a Secret with the record.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// The Secret holds exactly the projection of the record.
    InSync,
    /// The Secret was changed, or the record grew: the operator may restore it.
    Restorable,
    /// The Secret must not be changed.
    Conflict(Conflict),
}

/// Compares a Secret with the projection of a record that is not empty.
pub fn compare<'a>(object: impl Into<Object<'a>>, wanted: &Projection, secret: &Secret) -> Comparison {
    let object = object.into();
    let noun = object.kind.noun;
    match contradiction(object, secret) {
        Some(Contradiction::Foreign(conflict)) => Comparison::Conflict(conflict),
        Some(Contradiction::UnrecordedVersion(version)) => Comparison::Conflict(
            Obstacle::UnrecordedVersion
                .because(format!("it holds {noun} version {version}, which status.versions does not have")),
        ),
        Some(Contradiction::DifferentKey(version)) => Comparison::Conflict(
            Obstacle::OtherDataKey
                .because(format!("it holds another {noun} as version {version} than status.versions records")),
        ),
        None if Digest::of(secret) == wanted.digest() => Comparison::InSync,
        None => Comparison::Restorable,
    }
}

/// A reason not to overwrite a Secret with the projection of a record that is not empty.
pub(crate) enum Contradiction {
    /// The Secret belongs to another owner.
    Foreign(Conflict),
    /// The Secret may hold a data key of this version, and the record has none.
    UnrecordedVersion(i32),
    /// The Secret may hold another data key of this version.
    DifferentKey(i32),
}

/// The first contradiction between a Secret and the record.
pub(crate) fn contradiction(object: Object<'_>, secret: &Secret) -> Option<Contradiction> {
    if let Some(why) = foreign_reason(object, secret) {
        return Some(Contradiction::Foreign(why));
    }
    version_numbers(secret).into_iter().find_map(|version| another_data_key(object, secret, version))
}

/// The contradiction if the Secret may hold an unrecorded data key as this version. Only if the checksum in the annotation is
/// that of the recorded data key is it certain that the bytes were edited, and that no data key is lost by a restore.
fn another_data_key(object: Object<'_>, secret: &Secret, version: i32) -> Option<Contradiction> {
    let blob = entry(secret, &format!("ciphertextBlob.v{version}"))?;
    if !has_blob_length(&blob.0) {
        return None;
    }
    let Some(issued) = object.recorded_version(version) else {
        return Some(Contradiction::UnrecordedVersion(version));
    };
    let vouched =
        || version_annotation(secret, version).is_some_and(|found| found.sha256 == sha256(&issued.ciphertext_blob.0));
    let differs = *blob != issued.ciphertext_blob && !vouched();
    differs.then_some(Contradiction::DifferentKey(version))
}

/// The number of changes that a message names: another client may have added thousands of entries.
const MAX_NAMED: usize = 10;

/// The longest name of an added entry in a message, in characters.
const MAX_NAME: usize = 80;

/// The differences of a Secret from its projection, by name and without values: another client may have written anything,
/// also a plaintext.
pub fn changes(wanted: &Projection, secret: &Secret) -> Vec<String> {
    let Projection { labels, annotations, data, .. } = wanted;
    differences(labels, annotations, data, secret)
}

fn differences(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    data: &BTreeMap<String, ByteString>,
    secret: &Secret,
) -> Vec<String> {
    let nothing = BTreeMap::new();
    let mut changes = differing("entry", data, secret.data.as_ref().unwrap_or(&nothing));
    // Labels and annotations of other clients are not compared.
    let own = Own::of(secret);
    let found = |all: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>, own| {
        let pairs = all.into_iter().flatten().filter(|(name, _)| wanted.contains_key(*name));
        pairs.map(|(name, value)| (name.clone(), value.clone())).chain(own).collect::<BTreeMap<_, _>>()
    };
    let found_labels = found(secret.metadata.labels.as_ref(), labels, own.labels);
    changes.extend(differing("label", labels, &found_labels));
    let found_annotations = found(secret.metadata.annotations.as_ref(), annotations, own.annotations);
    changes.extend(differing("annotation", annotations, &found_annotations));
    let more = changes.len().saturating_sub(MAX_NAMED);
    changes.truncate(MAX_NAMED);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    changes
}

/// The differences of the stored Secret from the one that was sent: an admission policy or webhook changed it.
pub fn stored_otherwise(sent: &Secret, stored: &Secret) -> Vec<String> {
    if Digest::of(sent) == Digest::of(stored) {
        return Vec::new();
    }
    if sent.type_ != stored.type_ {
        return vec!["its type was changed".to_owned()];
    }
    let Own { labels, annotations } = Own::of(sent);
    let nothing = BTreeMap::new();
    differences(&labels, &annotations, sent.data.as_ref().unwrap_or(&nothing), stored)
}

fn differing<V: PartialEq>(what: &str, wanted: &BTreeMap<String, V>, found: &BTreeMap<String, V>) -> Vec<String> {
    let missing_or_changed = wanted.iter().filter_map(|(name, value)| match found.get(name) {
        None => Some(format!("{what} {name} is missing")),
        Some(other) => (other != value).then(|| format!("{what} {name} was changed")),
    });
    let added = found.keys().filter(|name| !wanted.contains_key(*name));
    missing_or_changed.chain(added.map(|name| format!("{what} {} was added", printable(name, MAX_NAME)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::DataKey,
        fixtures::{Edit, recorded},
        names::{CURRENT_VERSION_ANNOTATION, MANAGED_BY_LABEL, NAME_LABEL, VERSION_ANNOTATION_PREFIX},
        secret::Projection,
    };

    fn secret(versions: &[i32]) -> Secret {
        let key = recorded(versions);
        Projection::of(&key, key.wanted_version()).unwrap().into_secret(&key)
    }

    fn verdict(key: &DataKey, secret: &Secret) -> Comparison {
        compare(key, &Projection::of(key, key.wanted_version()).unwrap(), secret)
    }

    fn data(secret: &mut Secret) -> &mut BTreeMap<String, ByteString> {
        secret.data.as_mut().unwrap()
    }

    fn bytes(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    fn annotations(secret: &mut Secret) -> &mut BTreeMap<String, String> {
        secret.metadata.annotations.as_mut().unwrap()
    }

    fn conflict(verdict: Comparison) -> String {
        let Comparison::Conflict(conflict) = verdict else { panic!("{verdict:?}") };
        conflict.why
    }

    #[test]
    fn changes_are_named_without_values() {
        let key = recorded(&[1]);
        let wanted = Projection::of(&key, 1).unwrap();
        let mut found = secret(&[1]);
        assert_eq!(changes(&wanted, &found), Vec::<String>::new());
        let data = found.data.as_mut().unwrap();
        data.insert("ciphertextBlob".into(), ByteString(b"hunter2".to_vec()));
        data.insert("more".into(), ByteString(b"hunter2".to_vec()));
        data.remove("keyId.v1");
        found.metadata.labels.as_mut().unwrap().insert(NAME_LABEL.into(), "hunter2".into());
        found.metadata.labels.as_mut().unwrap().insert("team".into(), "hunter2".into());
        found.metadata.annotations.as_mut().unwrap().insert("datakey.dev/more".into(), "hunter2".into());
        assert_eq!(
            changes(&wanted, &found),
            [
                "entry ciphertextBlob was changed",
                "entry keyId.v1 is missing",
                "entry more was added",
                "label datakey.dev/name was changed",
                "annotation datakey.dev/more was added",
            ]
        );
    }

    #[test]
    fn long_list_of_changes_is_cut() {
        let mut found = secret(&[1]);
        for number in 0..30_000 {
            data(&mut found).insert(format!("{}-{number}", "k".repeat(200)), bytes(""));
        }
        let changes = changes(&Projection::of(&recorded(&[1]), 1).unwrap(), &found);
        assert_eq!((changes.len(), changes[10].as_str()), (11, "and 29990 more"));
        assert!(changes.join(", ").len() < 1200);
    }

    #[test]
    fn changes_by_admission_are_named() {
        let sent = secret(&[1]);
        assert_eq!(stored_otherwise(&sent, &sent), Vec::<String>::new());
        let edits: [(Edit<Secret>, &[&str]); 4] = [
            (
                |stored| _ = data(stored).insert("ciphertextBlob".into(), bytes("x")),
                &["entry ciphertextBlob was changed"],
            ),
            (
                |stored| {
                    _ = stored.metadata.labels.as_mut().unwrap().insert(MANAGED_BY_LABEL.into(), "platform".into());
                },
                &["label app.kubernetes.io/managed-by was changed"],
            ),
            (|stored| stored.type_ = Some("Opaque".into()), &["its type was changed"]),
            (|stored| _ = stored.metadata.labels.as_mut().unwrap().insert("team".into(), "x".into()), &[]),
        ];
        for (edit, named) in edits {
            let mut stored = sent.clone();
            edit(&mut stored);
            assert_eq!(stored_otherwise(&sent, &stored), named);
        }
    }

    #[test]
    fn secret_is_in_sync_with_its_own_projection() {
        assert_eq!(verdict(&recorded(&[1]), &secret(&[1])), Comparison::InSync);
        assert_eq!(verdict(&recorded(&[1, 2]), &secret(&[1, 2])), Comparison::InSync);
    }

    #[test]
    fn edits_are_restorable() {
        let edits: [(&str, Edit<Secret>); 9] = [
            ("plain ciphertextBlob changed", |secret| _ = data(secret).insert("ciphertextBlob".into(), bytes("x"))),
            ("ciphertextBlob.v1 changed", |secret| _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("x"))),
            ("encryptionContext.v1 removed", |secret| _ = data(secret).remove("encryptionContext.v1")),
            ("entry added", |secret| _ = data(secret).insert("more".into(), bytes("x"))),
            ("data removed", |secret| secret.data = None),
            ("version annotation changed", |secret| {
                _ = annotations(secret).insert(format!("{VERSION_ANNOTATION_PREFIX}1"), "{}".into());
            }),
            ("current version annotation removed", |secret| _ = annotations(secret).remove(CURRENT_VERSION_ANNOTATION)),
            ("labels removed", |secret| secret.metadata.labels = None),
            ("name label changed", |secret| {
                _ = secret.metadata.labels.as_mut().unwrap().insert(NAME_LABEL.into(), "another".into());
            }),
        ];
        for (name, edit) in edits {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            assert_eq!(verdict(&recorded(&[1]), &secret), Comparison::Restorable, "{name}");
        }
    }

    #[test]
    fn secret_without_a_new_version_is_restorable() {
        assert_eq!(verdict(&recorded(&[1, 2]), &secret(&[1])), Comparison::Restorable);
    }

    #[test]
    fn an_intact_secret_with_another_data_key_is_never_overwritten() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("another data key");
        assert!(conflict(verdict(&key, &secret(&[1]))).contains("another data key as version 1"));
        assert!(conflict(verdict(&recorded(&[1]), &secret(&[1, 2]))).contains("version 2"));
    }

    #[test]
    fn possible_other_data_key_is_kept_without_its_checksum() {
        let mut key = recorded(&[1]);
        key.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("another data key");
        let edits: [(&str, Edit<Secret>); 3] = [
            ("annotations removed", |secret| secret.metadata.annotations = None),
            ("version annotation removed", |secret| {
                _ = annotations(secret).remove(&format!("{VERSION_ANNOTATION_PREFIX}1"));
            }),
            ("ciphertextBlob.v1 changed", |secret| {
                _ = data(secret).insert("ciphertextBlob.v1".into(), bytes("edited"));
            }),
        ];
        for (name, edit) in edits {
            let mut secret = secret(&[1]);
            edit(&mut secret);
            assert!(conflict(verdict(&key, &secret)).contains("as version 1"), "{name}");
        }
        let mut grown = secret(&[1, 2]);
        grown.metadata.annotations = None;
        assert!(conflict(verdict(&recorded(&[1]), &grown)).contains("version 2"));

        // An entry without bytes can't be a data key.
        data(&mut grown).insert("ciphertextBlob.v2".into(), bytes(""));
        assert_eq!(verdict(&recorded(&[1]), &grown), Comparison::Restorable);
    }

    #[test]
    fn foreign_secret_is_a_conflict() {
        let mut opaque = secret(&[1]);
        opaque.type_ = Some("Opaque".into());
        assert!(conflict(verdict(&recorded(&[1]), &opaque)).contains("and not datakey.dev/wrapped-key"));

        let mut other = recorded(&[1]);
        other.metadata.name = Some("invoices".into());
        other.status.as_mut().unwrap().versions[0].ciphertext_blob = bytes("invoices' data key");
        assert_eq!(conflict(verdict(&other, &secret(&[1]))), "it belongs to DataKey orders");
    }
}
