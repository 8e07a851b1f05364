//! The JSON Web Key of a public key.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Key;
use crate::api::KeyPairSpec;

/// A public key as JSON Web Key (RFC 7517), which serializes to its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    #[serde(flatten)]
    members: Members,
    kid: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
}

/// The members that say which key it is. The order of the fields is that of the thumbprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Members {
    Rsa { e: String, kty: &'static str, n: String },
    Point { crv: &'static str, kty: &'static str, x: String, y: String },
    Edwards { crv: &'static str, kty: &'static str, x: String },
}

/// What a key may be used for. Only a kind that serves one purpose has it: keys of RSA sign or encrypt, keys on the NIST curves
/// sign or agree on a key, and KMS does not say for which of both a key pair was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Purpose {
    alg: &'static str,
    r#use: &'static str,
}

// === impl Jwk ===

impl Jwk {
    /// The JSON Web Key; `None` if there is no registered form.
    pub(super) fn new(key: &Key, spec: KeyPairSpec) -> Option<Self> {
        let members = Members::new(key, spec)?;
        // RFC 8037, section 3.1, and RFC 8812, section 3.
        let alg = match spec {
            KeyPairSpec::EccNistEdwards25519 => Some("EdDSA"),
            KeyPairSpec::EccSecgP256K1 => Some("ES256K"),
            _ => None,
        };
        Some(Self { kid: members.thumbprint(), members, purpose: alg.map(|alg| Purpose { alg, r#use: "sig" }) })
    }

    /// The ID of the key: its thumbprint with SHA-256 (RFC 7638), in base64url.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

// === impl Members ===

impl Members {
    /// RFC 7518, section 6, RFC 8037, section 2, and RFC 8812, section 3.1.
    fn new(key: &Key, spec: KeyPairSpec) -> Option<Self> {
        let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
        match key {
            Key::Rsa { modulus, exponent } => Some(Self::Rsa { e: encode(exponent), kty: "RSA", n: encode(modulus) }),
            Key::Point { x, y } => {
                let crv = match spec {
                    KeyPairSpec::EccNistP256 => "P-256",
                    KeyPairSpec::EccNistP384 => "P-384",
                    KeyPairSpec::EccNistP521 => "P-521",
                    KeyPairSpec::EccSecgP256K1 => "secp256k1",
                    _ => return None,
                };
                Some(Self::Point { crv, kty: "EC", x: encode(x), y: encode(y) })
            }
            Key::Edwards(point) => Some(Self::Edwards { crv: "Ed25519", kty: "OKP", x: encode(point) }),
            Key::MlKem => None,
        }
    }

    /// The hash of the members in lexicographic order, without white space (RFC 7638, section 3).
    fn thumbprint(&self) -> String {
        let canonical = serde_json::to_vec(self).unwrap_or_else(|error| unreachable!("text serializes: {error}"));
        Base64UrlUnpadded::encode_string(&Sha256::digest(canonical))
    }
}
