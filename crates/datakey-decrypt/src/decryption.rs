//! What is reported of a plaintext.

use datakey::{
    api::{IssuedVersion, KeyPairSpec, Material},
    secret::sha256,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    key_pair::{self, PublicHalf},
    refusal::Refusal,
};

/// The length of the shortest plaintext whose SHA-256 is reported. From the SHA-256 of fewer bytes, an attacker could
/// find the plaintext by trying all values.
const SHORTEST_FINGERPRINTED: usize = 16;

/// The result of asking KMS to unwrap a recorded data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "result", rename_all_fields = "camelCase")]
pub enum Decryption {
    /// KMS unwrapped it, to a data key of the requested length.
    Unwrapped {
        /// The length of the data key, in bytes.
        length: usize,
        /// SHA-256 of the data key, in hexadecimal digits; `None` for a data key of less than 16 bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        plaintext_sha256: Option<String>,
    },
    /// KMS unwrapped the private key of a key pair, and it is of the requested kind.
    UnwrappedPair {
        /// The kind of the key pair.
        key_pair_spec: KeyPairSpec,
        /// Whether the recorded public key belongs to the private key.
        public_half: PublicHalf,
    },
    /// KMS cannot unwrap it, or the plaintext is not what was asked for: the data key or key pair cannot be used now.
    Failed {
        /// The cause.
        why: String,
    },
    /// It is not known whether it unwraps: the call did not reach KMS, or KMS refused the caller.
    // The name in JSON is part of the output of `kubectl datakey verify`.
    #[serde(rename = "NotAsked")]
    Unknown {
        /// The cause.
        why: String,
    },
}

// === impl Decryption ===

impl Decryption {
    /// Whether KMS unwrapped it to what was asked for.
    pub const fn is_unwrapped(&self) -> bool {
        matches!(self, Self::Unwrapped { .. } | Self::UnwrappedPair { .. })
    }
}

impl From<Refusal> for Decryption {
    fn from(refusal: Refusal) -> Self {
        let is_final = refusal.is_final();
        let why = refusal.why;
        if is_final { Self::Failed { why } } else { Self::Unknown { why } }
    }
}

/// Checks that a plaintext is what was asked for: a data key of the requested length, or a private key (PKCS #8 in DER) of the
/// requested kind, to which the public key (SubjectPublicKeyInfo in DER) belongs.
///
/// # Errors
/// Says what is wrong, without a part of the plaintext.
pub fn check_plaintext(plaintext: &[u8], material: Material, public_key: &[u8]) -> Result<(), String> {
    match material {
        Material::Pair(spec) => key_pair::check(plaintext, spec, public_key).map(|_| ()),
        _ => check_length(plaintext, material.length()),
    }
}

/// Reports on a plaintext what reveals nothing of it.
pub(crate) fn inspect(plaintext: &[u8], issued: &IssuedVersion) -> Decryption {
    match issued.request.material() {
        Some(Material::Pair(key_pair_spec)) => {
            let public_key = issued.public_key.as_ref().map(|key| key.0.as_slice()).unwrap_or_default();
            match key_pair::check(plaintext, key_pair_spec, public_key) {
                Ok(public_half) => Decryption::UnwrappedPair { key_pair_spec, public_half },
                Err(why) => Decryption::Failed { why },
            }
        }
        material => measure(plaintext, material.and_then(Material::length)),
    }
}

/// Reports the length of a plaintext, and its SHA-256 if that reveals nothing.
fn measure(plaintext: &[u8], expected: Option<usize>) -> Decryption {
    if let Err(why) = check_length(plaintext, expected) {
        return Decryption::Failed { why };
    }
    let length = plaintext.len();
    let plaintext_sha256 = (length >= SHORTEST_FINGERPRINTED).then(|| sha256(plaintext));
    Decryption::Unwrapped { length, plaintext_sha256 }
}

fn check_length(plaintext: &[u8], expected: Option<usize>) -> Result<(), String> {
    let length = plaintext.len();
    if Some(length) == expected {
        return Ok(());
    }
    let expected = expected.map_or_else(|| "none".to_owned(), |expected| expected.to_string());
    Err(format!("it unwraps to {length} bytes, and {expected} were asked for"))
}

#[cfg(test)]
mod tests {
    use datakey::{
        api::{DataKeyPair, KeySpec},
        fixtures::Sample as _,
    };

    use super::*;

    #[test]
    fn short_plaintext_has_no_fingerprint() {
        for length in [1, 8, 15] {
            let decryption = measure(&vec![7; length], Some(length));
            assert_eq!(decryption, Decryption::Unwrapped { length, plaintext_sha256: None });
        }
        for length in [16, 32, 1024] {
            let plaintext_sha256 = Some(sha256(&vec![7; length]));
            assert_eq!(measure(&vec![7; length], Some(length)), Decryption::Unwrapped { length, plaintext_sha256 });
        }
    }

    #[test]
    fn plaintext_of_another_length_has_no_fingerprint() {
        for expected in [Some(16), None] {
            let Decryption::Failed { why } = measure(&[7; 32], expected) else { panic!("{expected:?}") };
            assert!(why.contains("32 bytes"), "{why}");
        }
        assert!(check_plaintext(&[7; 16], Material::Spec(KeySpec::Aes256), &[]).is_err());
        assert_eq!(check_plaintext(&[7; 32], Material::Spec(KeySpec::Aes256), &[]), Ok(()));
    }

    #[test]
    fn plaintext_of_a_key_pair_is_no_data_key() {
        let mut issued = datakey::fixtures::issued(1);
        assert!(matches!(inspect(&[7; 32], &issued), Decryption::Unwrapped { length: 32, .. }));
        issued = DataKeyPair::version_like(&issued);
        let Decryption::Failed { why } = inspect(&[7; 32], &issued) else { panic!("{issued:?}") };
        assert!(why.contains("PKCS #8"), "{why}");
    }
}
