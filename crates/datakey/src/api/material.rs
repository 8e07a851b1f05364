//! What is generated: the kinds of data keys and their lengths. Nothing else decides on a length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
/// `GenerateDataKeyWithoutPlaintext`, `KeySpec` and `NumberOfBytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// An AES key.
    Spec(KeySpec),
    /// 1 to 1024 bytes.
    Bytes(u16),
}

// === impl Material ===

impl Material {
    /// The one of two fields that is set; `None` where none or both are, or the number is out of bounds.
    pub fn new(key_spec: Option<KeySpec>, number_of_bytes: Option<i32>) -> Option<Self> {
        match (key_spec, number_of_bytes) {
            (Some(spec), None) => Some(Self::Spec(spec)),
            (None, Some(bytes @ 1..=1024)) => u16::try_from(bytes).ok().map(Self::Bytes),
            _ => None,
        }
    }

    /// The length of the data key, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Spec(KeySpec::Aes256) => 32,
            Self::Spec(KeySpec::Aes128) => 16,
            Self::Bytes(bytes) => bytes.into(),
        }
    }

    /// The entry of a Secret that names it, without the suffix of the version.
    pub fn entry(self) -> (&'static str, String) {
        match self {
            Self::Spec(spec) => ("keySpec", spec.as_str().to_owned()),
            Self::Bytes(bytes) => ("numberOfBytes", bytes.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_two_fields_names_the_length() {
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
            assert_eq!(Material::new(key_spec, bytes).map(Material::length), length, "{key_spec:?} {bytes:?}");
        }
    }
}
