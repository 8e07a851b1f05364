//! The kind that is explored. Cargo builds the model twice, as the targets `model` and `model_pairs`, of which `pairs.rs` is a
//! link: only the type of the objects differs.

use datakey::api::{
    DataKey, DataKeyPair, DataKeyPairSpec, DataKeySpec, DeletionPolicy, EncryptionContext, IssuedVersion, KeyKind,
    KeyPairSpec, KeySpec, Rest,
};
use k8s_openapi::ByteString;

/// Whether this is the target for key pairs.
const PAIRS: bool = env!("CARGO_CRATE_NAME").len() == "model_pairs".len();

/// The kind of the objects.
pub type Key = <Target<PAIRS> as Explores>::Key;

pub struct Target<const PAIRS: bool>;

pub trait Explores {
    type Key: Modeled;
}

impl Explores for Target<false> {
    type Key = DataKey;
}

impl Explores for Target<true> {
    type Key = DataKeyPair;
}

/// The parts of a spec that the model changes.
pub struct Parts {
    pub key_id: String,
    pub class_name: Option<String>,
    pub encryption_context: Option<EncryptionContext>,
    pub version: i32,
    pub deletion_policy: DeletionPolicy,
    pub pins: Vec<IssuedVersion>,
}

pub trait Modeled: KeyKind {
    /// A spec with these parts.
    fn whole(parts: Parts) -> Self::Spec;

    /// The public key of each version, if the kind has one.
    fn public_key() -> Option<ByteString>;
}

impl Modeled for DataKey {
    fn whole(parts: Parts) -> DataKeySpec {
        let Parts { key_id, class_name, encryption_context, version, deletion_policy, pins } = parts;
        DataKeySpec {
            key_id: Some(key_id),
            class_name,
            key_spec: Some(KeySpec::Aes256),
            number_of_bytes: None,
            encryption_context,
            grant_tokens: None,
            region: None,
            version: Some(version),
            secret_name: None,
            secret_template: None,
            deletion_policy: Some(deletion_policy),
            wrapped_keys: Some(pins).filter(|pins| !pins.is_empty()),
            rest: Rest::new(),
        }
    }

    fn public_key() -> Option<ByteString> {
        None
    }
}

impl Modeled for DataKeyPair {
    fn whole(parts: Parts) -> DataKeyPairSpec {
        let Parts { key_id, class_name, encryption_context, version, deletion_policy, pins } = parts;
        DataKeyPairSpec {
            key_id: Some(key_id),
            class_name,
            key_pair_spec: KeyPairSpec::EccNistP256,
            encryption_context,
            grant_tokens: None,
            region: None,
            version: Some(version),
            secret_name: None,
            secret_template: None,
            deletion_policy: Some(deletion_policy),
            wrapped_keys: Some(pins).filter(|pins| !pins.is_empty()),
            rest: Rest::new(),
        }
    }

    fn public_key() -> Option<ByteString> {
        Some(ByteString(include_bytes!("../../fuzz/corpus/public_key/ECC_NIST_P256.der").to_vec()))
    }
}
