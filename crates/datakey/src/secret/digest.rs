//! The digest of a Secret. Pure.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use sha2::{Digest as _, Sha256};

use super::template::Own;

/// SHA-256 of everything in a Secret that the operator decides on: type, data, its own labels and annotations and those of the
/// template. Two Secrets have the same digest only if all of these are equal. Owner references, finalizers, `immutable`, and the
/// labels and annotations of other clients are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

// === impl Digest ===

impl Digest {
    /// The digest of a Secret that was read or written.
    pub fn of(secret: &Secret) -> Self {
        let Own { labels, annotations } = Own::of(secret);
        let nothing = BTreeMap::new();
        Self::new(
            secret.type_.as_deref().unwrap_or_default(),
            &labels,
            &annotations,
            secret.data.as_ref().unwrap_or(&nothing),
        )
    }

    pub(super) fn new(
        type_: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        data: &BTreeMap<String, ByteString>,
    ) -> Self {
        let mut hash = Sha256::new();
        // The length precedes each part, so that different lists of parts never have the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(type_.as_bytes());
        for pairs in [labels, annotations] {
            part(&(pairs.len() as u64).to_le_bytes());
            for (name, value) in pairs {
                part(name.as_bytes());
                part(value.as_bytes());
            }
        }
        for (name, value) in data {
            part(name.as_bytes());
            part(&value.0);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Digest {
    /// Writes the digest in hexadecimal digits, as `sha256sum` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;
    use crate::{
        fixtures::{Edit, recorded},
        names::{CURRENT_VERSION_ANNOTATION, MANAGED_BY_LABEL, NAME_LABEL},
        secret::Projection,
    };

    fn created() -> Secret {
        let key = recorded(&[1]);
        Projection::of(&key, 1).unwrap().into_secret(&key)
    }

    #[test]
    fn created_secret_has_the_digest_of_its_projection() {
        let key = recorded(&[1, 2]);
        for version in [1, 2] {
            let wanted = Projection::of(&key, version).unwrap();
            assert_eq!(Digest::of(&wanted.clone().into_secret(&key)), wanted.digest());
        }
        assert_ne!(Projection::of(&key, 1).unwrap().digest(), Projection::of(&key, 2).unwrap().digest());
        assert_eq!(Projection::of(&key, 1).unwrap().digest().to_string().len(), 64);
    }

    #[test]
    fn every_change_of_managed_content_changes_the_digest() {
        let edits: [(&str, Edit<Secret>); 9] = [
            ("ciphertextBlob changed", |secret| {
                _ = secret.data.as_mut().unwrap().insert("ciphertextBlob".into(), ByteString(b"x".to_vec()));
            }),
            ("entry added", |secret| _ = secret.data.as_mut().unwrap().insert("more".into(), ByteString(vec![]))),
            ("keyId.v1 removed", |secret| _ = secret.data.as_mut().unwrap().remove("keyId.v1")),
            ("data removed", |secret| secret.data = None),
            ("type changed", |secret| secret.type_ = Some("Opaque".into())),
            ("managed-by label changed", |secret| {
                _ = secret.metadata.labels.as_mut().unwrap().insert(MANAGED_BY_LABEL.into(), "x".into());
            }),
            ("name label removed", |secret| _ = secret.metadata.labels.as_mut().unwrap().remove(NAME_LABEL)),
            ("current version annotation changed", |secret| {
                _ = secret.metadata.annotations.as_mut().unwrap().insert(CURRENT_VERSION_ANNOTATION.into(), "7".into());
            }),
            ("own annotation added", |secret| {
                _ = secret.metadata.annotations.as_mut().unwrap().insert("datakey.dev/more".into(), String::new());
            }),
        ];
        for (name, edit) in edits {
            let mut secret = created();
            edit(&mut secret);
            assert_ne!(Digest::of(&secret), Digest::of(&created()), "{name}");
        }
    }

    #[test]
    fn metadata_of_other_clients_does_not_change_the_digest() {
        let mut secret = created();
        secret.metadata.labels.as_mut().unwrap().insert("team".into(), "shop".into());
        secret.metadata.annotations.as_mut().unwrap().insert("backup".into(), "yes".into());
        secret.metadata.finalizers = Some(vec!["example.com/hold".into()]);
        secret.metadata.owner_references = Some(vec![OwnerReference::default()]);
        secret.immutable = Some(true);
        assert_eq!(Digest::of(&secret), Digest::of(&created()));
    }
}
