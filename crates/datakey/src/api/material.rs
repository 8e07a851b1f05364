//! What is generated: data keys of a kind or a length, and key pairs. Nothing else decides on a length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    key_pair_spec::{KeyPairSpec, QuotaClass},
    kind::KindId,
};

/// Kind of a data key: `AES_256` (32 bytes) or `AES_128` (16 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum KeySpec {
    #[serde(rename = "AES_256")]
    #[allow(missing_docs)]
    Aes256,
    #[serde(rename = "AES_128")]
    #[allow(missing_docs)]
    Aes128,
}

// === impl KeySpec ===

impl KeySpec {
    /// The name of the key spec in the KMS API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES_256",
            Self::Aes128 => "AES_128",
        }
    }
}

/// What KMS generates for a request: a data key of a named kind, or of a number of bytes (AWS KMS API reference,
/// `GenerateDataKeyWithoutPlaintext`, `KeySpec` and `NumberOfBytes`), or a key pair (`GenerateDataKeyPairWithoutPlaintext`,
/// `KeyPairSpec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// An AES key.
    Spec(KeySpec),
    /// 1 to 1024 bytes.
    Bytes(u16),
    /// A key pair.
    Pair(KeyPairSpec),
}

// === impl Material ===

impl Material {
    /// The one of three fields that is set; `None` where none or several are, or the number is out of bounds.
    pub fn new(
        key_spec: Option<KeySpec>,
        number_of_bytes: Option<i32>,
        key_pair_spec: Option<KeyPairSpec>,
    ) -> Option<Self> {
        match (key_spec, number_of_bytes, key_pair_spec) {
            (Some(spec), None, None) => Some(Self::Spec(spec)),
            (None, Some(bytes @ 1..=1024), None) => u16::try_from(bytes).ok().map(Self::Bytes),
            (None, None, Some(pair)) => Some(Self::Pair(pair)),
            _ => None,
        }
    }

    /// The kind of the objects that it is issued for.
    pub fn kind(self) -> KindId {
        match self {
            Self::Spec(_) | Self::Bytes(_) => KindId::DataKey,
            Self::Pair(_) => KindId::DataKeyPair,
        }
    }

    /// The quota that KMS counts the call against.
    pub fn quota_class(self) -> QuotaClass {
        match self {
            Self::Spec(_) | Self::Bytes(_) => QuotaClass::Symmetric,
            Self::Pair(spec) => spec.quota_class(),
        }
    }

    /// The length of the data key, in bytes; `None` for a key pair, whose private key has no fixed length.
    pub fn length(self) -> Option<usize> {
        match self {
            Self::Spec(KeySpec::Aes256) => Some(32),
            Self::Spec(KeySpec::Aes128) => Some(16),
            Self::Bytes(bytes) => Some(bytes.into()),
            Self::Pair(_) => None,
        }
    }

    /// The entry of a Secret that names it, without the suffix of the version.
    pub fn entry(self) -> (&'static str, String) {
        match self {
            Self::Spec(spec) => ("keySpec", spec.as_str().to_owned()),
            Self::Bytes(bytes) => ("numberOfBytes", bytes.to_string()),
            Self::Pair(pair) => ("keyPairSpec", pair.as_str().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_field_names_what_is_generated() {
        for (key_spec, bytes, length) in [
            (Some(KeySpec::Aes256), None, Some(32)),
            (Some(KeySpec::Aes128), None, Some(16)),
            (None, Some(1), Some(1)),
            (None, Some(1024), Some(1024)),
            (None, None, None),
            (Some(KeySpec::Aes256), Some(32), None),
            (None, Some(0), None),
            (None, Some(1025), None),
            (None, Some(-1), None),
        ] {
            let material = Material::new(key_spec, bytes, None);
            assert_eq!(material.and_then(Material::length), length, "{key_spec:?} {bytes:?}");
            let pair = Material::new(key_spec, bytes, Some(KeyPairSpec::EccNistP256));
            assert_eq!(pair.is_some(), key_spec.is_none() && bytes.is_none(), "{key_spec:?} {bytes:?}");
        }
    }

    #[test]
    fn each_material_has_its_kind() {
        assert_eq!(Material::Bytes(1).kind(), KindId::DataKey);
        assert_eq!(Material::Pair(KeyPairSpec::EccNistP256).kind(), KindId::DataKeyPair);
    }
}
