//! The public half of a key pair: checked once, then written in the forms that other programs read.
//!
//! KMS answers it as the DER encoding of a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7). [`PublicKey::parse`] accepts it only
//! if it is a key of the kind that was asked for. The check is about the form. These properties are not checked, because that
//! takes arithmetic that neither the operator nor the plugin needs, and every program that uses the key checks them:
//!
//! * that a point is on its curve;
//! * that an RSA modulus is the product of two primes;
//! * that the private half belongs to it, which only a workload that may decrypt that half can see.

use base64ct::{Base64, Encoding};
use der::{Decode, oid::ObjectIdentifier};
use pem_rfc7468::LineEnding;
use spki::SubjectPublicKeyInfoRef;
use thiserror::Error;

use crate::{api::KeyPairSpec, secret::sha256};

use form::Form;

mod form;
mod jwk;
mod ssh;

pub use jwk::Jwk;

/// The longest public key of AWS KMS, in bytes (AWS KMS API reference, `PublicKeyType`).
pub const MAX_PUBLIC_KEY: usize = 8192;

/// The label of a SubjectPublicKeyInfo in PEM (RFC 7468, section 13).
const PEM_LABEL: &str = "PUBLIC KEY";

/// The public half of a key pair, of a known kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spec: KeyPairSpec,
    der: Vec<u8>,
    key: Key,
}

/// What a public key consists of. Integers are big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// Both without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// Both coordinates in the length of the field.
    Point { x: Vec<u8>, y: Vec<u8> },
    /// An encoded point of Ed25519.
    Edwards(Vec<u8>),
    /// An encapsulation key.
    MlKem,
}

/// Why bytes are not the public key that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyFlaw {
    /// No public key has this length.
    #[error("it has {0} bytes instead of 1 to {MAX_PUBLIC_KEY}")]
    Length(usize),
    /// Not a SubjectPublicKeyInfo, or not in DER.
    #[error("it is no SubjectPublicKeyInfo in DER: {0}")]
    Encoding(#[from] der::Error),
    /// The key is no whole number of bytes.
    #[error("its key does not consist of whole bytes")]
    UnusedBits,
    /// A key of another algorithm.
    #[error("its algorithm is {found} instead of {wanted}")]
    Algorithm {
        /// The algorithm of the key.
        found: ObjectIdentifier,
        /// The algorithm of the kind that was asked for.
        wanted: ObjectIdentifier,
    },
    /// A key on another curve.
    #[error("its curve is {found} instead of {wanted}")]
    Curve {
        /// The curve of the key.
        found: ObjectIdentifier,
        /// The curve that was asked for.
        wanted: ObjectIdentifier,
    },
    /// The algorithm has parameters, or none, or others than its standard demands.
    #[error("its algorithm has other parameters than the standard demands")]
    Parameters,
    /// An RSA key of another size.
    #[error("its modulus has {found} bits instead of {wanted}")]
    ModulusSize {
        /// The size of the key.
        found: usize,
        /// The size that was asked for.
        wanted: usize,
    },
    /// No product of two odd primes is even.
    #[error("its modulus is even")]
    EvenModulus,
    /// An exponent that FIPS 186-5 does not permit.
    #[error("its public exponent is not an odd number between 2^16 and 2^256")]
    Exponent,
    /// A point that is compressed, at infinity or of another length.
    #[error("it is not an uncompressed point of {0} bytes")]
    Point(usize),
    /// A key of another length.
    #[error("its key has {found} bytes instead of {wanted}")]
    KeyLength {
        /// The length of the key.
        found: usize,
        /// The length of a key of the kind that was asked for.
        wanted: usize,
    },
    /// FIPS 203, section 7.2, refuses such an encapsulation key.
    #[error("it has a coefficient that is not below 3329")]
    Coefficient,
}

/// A kind of key pair that a format cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a public key of kind {} has no {format} form", .spec.as_str())]
pub struct NoSuchForm {
    /// The kind of the key pair.
    pub spec: KeyPairSpec,
    /// The format.
    pub format: &'static str,
}

/// The SubjectPublicKeyInfo in DER of a PEM text that holds one; `None` if the text is anything else.
pub fn der_of_pem(pem: &str) -> Option<Vec<u8>> {
    pem_rfc7468::decode_vec(pem.as_bytes()).ok().filter(|(label, _)| *label == PEM_LABEL).map(|(_, der)| der)
}

// === impl PublicKey ===

impl PublicKey {
    /// Accepts the DER encoding of a SubjectPublicKeyInfo of this kind, of 1 to [`MAX_PUBLIC_KEY`] bytes.
    ///
    /// # Errors
    /// What is wrong with the bytes. The error holds nothing of the key.
    pub fn parse(der: &[u8], spec: KeyPairSpec) -> Result<Self, PublicKeyFlaw> {
        if !(1..=MAX_PUBLIC_KEY).contains(&der.len()) {
            return Err(PublicKeyFlaw::Length(der.len()));
        }
        let info = SubjectPublicKeyInfoRef::from_der(der)?;
        let form = Form::of(spec);
        form.check_algorithm(&info.algorithm)?;
        let key = form.parse_key(info.subject_public_key.as_bytes().ok_or(PublicKeyFlaw::UnusedBits)?)?;
        Ok(Self { spec, der: der.to_owned(), key })
    }

    /// The kind of the key pair.
    pub fn spec(&self) -> KeyPairSpec {
        self.spec
    }

    /// The SubjectPublicKeyInfo in DER, as it was parsed.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The SubjectPublicKeyInfo in PEM, with a line break at the end.
    pub fn to_pem(&self) -> String {
        pem_rfc7468::encode_string(PEM_LABEL, LineEnding::LF, &self.der)
            .unwrap_or_else(|error| unreachable!("{MAX_PUBLIC_KEY} bytes fit into PEM: {error}"))
    }

    /// The SHA-256 of the SubjectPublicKeyInfo in hexadecimal digits, as `openssl pkey -pubin -outform DER | sha256sum` prints
    /// it.
    pub fn sha256(&self) -> String {
        sha256(&self.der)
    }

    /// The key as JSON Web Key (RFC 7517).
    ///
    /// # Errors
    /// ML-KEM and SM2 have no registered form.
    pub fn to_jwk(&self) -> Result<Jwk, NoSuchForm> {
        Jwk::new(&self.key, self.spec).ok_or(NoSuchForm { spec: self.spec, format: "JSON Web Key" })
    }

    /// The key as one line of `authorized_keys` (sshd(8)), without a comment and a line break.
    ///
    /// # Errors
    /// OpenSSH knows RSA, the NIST curves and Ed25519.
    pub fn to_openssh(&self) -> Result<String, NoSuchForm> {
        let (name, blob) =
            ssh::encode(&self.key, self.spec).ok_or(NoSuchForm { spec: self.spec, format: "OpenSSH" })?;
        Ok(format!("{name} {}", Base64::encode_string(&blob)))
    }
}

#[cfg(test)]
mod tests;
