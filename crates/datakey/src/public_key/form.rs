//! What a SubjectPublicKeyInfo of each kind of key pair holds.

use der::{Reader, SliceReader, asn1::UintRef, oid::ObjectIdentifier};
use spki::AlgorithmIdentifierRef;

use super::{Key, PublicKeyFlaw};
use crate::api::KeyPairSpec;

/// RSA (RFC 8017, appendix A.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Points on the curve that the parameters name (RFC 5480, section 2.1.1). Keys of SM2 have it, too.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// Ed25519 (RFC 8410, section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The length of a point of Ed25519, in bytes (RFC 8032, section 5.1.5).
const ED25519_LENGTH: usize = 32;

/// Before the coordinates of a point that is not compressed (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// The public exponent is larger than 2^16 and smaller than 2^256 (FIPS 186-5, section A.1.1).
const EXPONENT_LENGTH: std::ops::RangeInclusive<usize> = 3..=32;

/// The modulus of ML-KEM (FIPS 203, section 2.4).
const Q: u16 = 3329;

/// The bytes of one polynomial of ML-KEM: 256 coefficients of 12 bits.
const POLYNOMIAL: usize = 384;

/// The bytes of the seed behind the polynomials of an encapsulation key of ML-KEM.
const SEED: usize = 32;

/// The form of the public keys of one kind.
pub(super) enum Form {
    /// An RSA key with this size of the modulus, in bits.
    Rsa { bits: usize },
    /// A point on a curve, with this length of each coordinate, in bytes.
    Point { curve: ObjectIdentifier, coordinate: usize },
    /// A point of Ed25519.
    Edwards,
    /// An encapsulation key of this many polynomials.
    MlKem { parameter_set: ObjectIdentifier, polynomials: usize },
}

// === impl Form ===

impl Form {
    /// The form of a kind. The curves are those of RFC 5480, SEC 2 and GB/T 33560, the parameter sets those of RFC 9935.
    pub(super) const fn of(spec: KeyPairSpec) -> Self {
        const fn oid(text: &str) -> ObjectIdentifier {
            ObjectIdentifier::new_unwrap(text)
        }
        match spec {
            KeyPairSpec::Rsa2048 => Self::Rsa { bits: 2048 },
            KeyPairSpec::Rsa3072 => Self::Rsa { bits: 3072 },
            KeyPairSpec::Rsa4096 => Self::Rsa { bits: 4096 },
            KeyPairSpec::EccNistP256 => Self::Point { curve: oid("1.2.840.10045.3.1.7"), coordinate: 32 },
            KeyPairSpec::EccNistP384 => Self::Point { curve: oid("1.3.132.0.34"), coordinate: 48 },
            KeyPairSpec::EccNistP521 => Self::Point { curve: oid("1.3.132.0.35"), coordinate: 66 },
            KeyPairSpec::EccSecgP256K1 => Self::Point { curve: oid("1.3.132.0.10"), coordinate: 32 },
            KeyPairSpec::Sm2 => Self::Point { curve: oid("1.2.156.10197.1.301"), coordinate: 32 },
            KeyPairSpec::EccNistEdwards25519 => Self::Edwards,
            KeyPairSpec::MlKem512 => Self::MlKem { parameter_set: oid("2.16.840.1.101.3.4.4.1"), polynomials: 2 },
            KeyPairSpec::MlKem768 => Self::MlKem { parameter_set: oid("2.16.840.1.101.3.4.4.2"), polynomials: 3 },
            KeyPairSpec::MlKem1024 => Self::MlKem { parameter_set: oid("2.16.840.1.101.3.4.4.3"), polynomials: 4 },
        }
    }

    /// Refuses another algorithm, and other parameters than this one has.
    pub(super) fn check_algorithm(&self, algorithm: &AlgorithmIdentifierRef<'_>) -> Result<(), PublicKeyFlaw> {
        let (found, wanted) = (algorithm.oid, self.algorithm());
        if found != wanted {
            return Err(PublicKeyFlaw::Algorithm { found, wanted });
        }
        match (self, algorithm.parameters) {
            (Self::Rsa { .. }, Some(parameters)) if parameters.is_null() => Ok(()),
            (Self::Point { curve: wanted, .. }, Some(parameters)) => {
                let found = ObjectIdentifier::try_from(parameters).map_err(|_| PublicKeyFlaw::Parameters)?;
                if found == *wanted { Ok(()) } else { Err(PublicKeyFlaw::Curve { found, wanted: *wanted }) }
            }
            (Self::Edwards | Self::MlKem { .. }, None) => Ok(()),
            _ => Err(PublicKeyFlaw::Parameters),
        }
    }

    /// Takes the key apart.
    pub(super) fn parse_key(&self, key: &[u8]) -> Result<Key, PublicKeyFlaw> {
        match *self {
            Self::Rsa { bits } => parse_rsa(key, bits),
            Self::Point { coordinate, .. } => {
                let flaw = PublicKeyFlaw::Point(1 + 2 * coordinate);
                let coordinates = key.strip_prefix(&[UNCOMPRESSED]).filter(|rest| rest.len() == 2 * coordinate);
                let (x, y) = coordinates.ok_or(flaw)?.split_at(coordinate);
                Ok(Key::Point { x: x.to_owned(), y: y.to_owned() })
            }
            Self::Edwards => {
                check_length(key, ED25519_LENGTH)?;
                Ok(Key::Edwards(key.to_owned()))
            }
            Self::MlKem { polynomials, .. } => {
                check_length(key, polynomials * POLYNOMIAL + SEED)?;
                let are_reduced = coefficients(&key[..polynomials * POLYNOMIAL]).all(|coefficient| coefficient < Q);
                are_reduced.then_some(Key::MlKem).ok_or(PublicKeyFlaw::Coefficient)
            }
        }
    }

    fn algorithm(&self) -> ObjectIdentifier {
        match *self {
            Self::Rsa { .. } => RSA,
            Self::Point { .. } => EC,
            Self::Edwards => ED25519,
            Self::MlKem { parameter_set, .. } => parameter_set,
        }
    }
}

/// Takes an RSAPublicKey apart: a sequence of two integers (RFC 8017, appendix A.1.1).
fn parse_rsa(key: &[u8], wanted: usize) -> Result<Key, PublicKeyFlaw> {
    let mut reader = SliceReader::new(key)?;
    let (modulus, exponent) = reader.sequence(|fields| Ok::<_, der::Error>((integer(fields)?, integer(fields)?)))?;
    reader.finish()?;
    let found = modulus.first().map_or(0, |first| 8 * modulus.len() - first.leading_zeros() as usize);
    if found != wanted {
        return Err(PublicKeyFlaw::ModulusSize { found, wanted });
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    if !is_odd(modulus) {
        return Err(PublicKeyFlaw::EvenModulus);
    }
    if !EXPONENT_LENGTH.contains(&exponent.len()) || !is_odd(exponent) {
        return Err(PublicKeyFlaw::Exponent);
    }
    Ok(Key::Rsa { modulus: modulus.to_owned(), exponent: exponent.to_owned() })
}

/// A number without leading zeros. A negative one is an error.
fn integer<'a>(fields: &mut impl Reader<'a>) -> der::Result<&'a [u8]> {
    fields.decode::<UintRef<'a>>().map(|number| number.as_bytes())
}

fn check_length(key: &[u8], wanted: usize) -> Result<(), PublicKeyFlaw> {
    let found = key.len();
    if found == wanted { Ok(()) } else { Err(PublicKeyFlaw::KeyLength { found, wanted }) }
}

/// The coefficients of polynomials: two of 12 bits in three bytes, the lower bits first (FIPS 203, `ByteDecode`).
fn coefficients(polynomials: &[u8]) -> impl Iterator<Item = u16> {
    polynomials.as_chunks().0.iter().flat_map(|[low, middle, high]: &[u8; 3]| {
        let (low, middle, high) = (u16::from(*low), u16::from(*middle), u16::from(*high));
        [low | (middle & 0xf) << 8, middle >> 4 | high << 4]
    })
}
