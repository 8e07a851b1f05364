//! The private half of a key pair: whether it is of the recorded kind, and whether the recorded public key belongs to it.
//!
//! No error has a part of the private key, and the library overwrites its copies.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _},
};
use datakey::{api::KeyPairSpec, public_key::PublicKey};
use pkcs8::PrivateKeyInfoRef;
use schemars::JsonSchema;
use serde::Serialize;
use spki::SubjectPublicKeyInfoRef;

/// What is known about the public half of a key pair after its private half was unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum PublicHalf {
    /// The public key that was derived from the private key equals the recorded one.
    Equal,
    /// The private key has the form of its kind. That the recorded public key belongs to it was not checked: this program does not
    /// derive public keys of ML-KEM and SM2.
    NotDerived,
}

/// Checks that this is a private key (PKCS #8 in DER) of the kind, and that the public key (SubjectPublicKeyInfo in DER) belongs to it.
///
/// # Errors
/// Says what is wrong.
pub fn check(private_key: &[u8], spec: KeyPairSpec, public_key: &[u8]) -> Result<PublicHalf, String> {
    let name = spec.as_str();
    PublicKey::parse(public_key, spec).map_err(|flaw| format!("the recorded public key is none of {name}: {flaw}"))?;
    let private = PrivateKeyInfoRef::try_from(private_key)
        .map_err(|_| "it unwraps to something else than a private key in PKCS #8".to_owned())?;
    let public = SubjectPublicKeyInfoRef::try_from(public_key)
        .map_err(|_| "the recorded public key is no SubjectPublicKeyInfo".to_owned())?;
    // Absent parameters and NULL are the same (RFC 8017, appendix A.1, demands NULL for RSA).
    let parameters = |of: spki::AlgorithmIdentifierRef<'_>| {
        of.parameters.filter(|parameters| !parameters.is_null()).map(|parameters| parameters.value().to_vec())
    };
    if private.algorithm.oid != public.algorithm.oid || parameters(private.algorithm) != parameters(public.algorithm) {
        return Err(format!("it unwraps to a private key that is none of {name}"));
    }
    match derive(private_key, spec) {
        Derived::Der(der) if der == public_key => Ok(PublicHalf::Equal),
        Derived::Der(_) => {
            Err("it unwraps to a private key that does not belong to the recorded public key".to_owned())
        }
        Derived::Refused => Err(format!("it unwraps to a private key that is no valid one of {name}")),
        Derived::NotSupported => Ok(PublicHalf::NotDerived),
    }
}

/// The public key of a private key.
enum Derived {
    /// SubjectPublicKeyInfo in DER.
    Der(Vec<u8>),
    /// The private key is not valid.
    Refused,
    /// The library does not know the kind.
    NotSupported,
}

fn derive(private_key: &[u8], spec: KeyPairSpec) -> Derived {
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private_key).ok()?;
        der_of(pair.public_key())
    };
    let der = match spec {
        KeyPairSpec::Rsa2048 | KeyPairSpec::Rsa3072 | KeyPairSpec::Rsa4096 => {
            rsa::KeyPair::from_pkcs8(private_key).ok().and_then(|pair| der_of(pair.public_key()))
        }
        KeyPairSpec::EccNistP256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyPairSpec::EccNistP384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyPairSpec::EccNistP521 => ecdsa(&signature::ECDSA_P521_SHA512_ASN1_SIGNING),
        KeyPairSpec::EccSecgP256K1 => ecdsa(&signature::ECDSA_P256K1_SHA256_ASN1_SIGNING),
        // The private key may come without the public one.
        KeyPairSpec::EccNistEdwards25519 => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(private_key).ok().and_then(|pair| der_of(pair.public_key()))
        }
        KeyPairSpec::MlKem512 | KeyPairSpec::MlKem768 | KeyPairSpec::MlKem1024 | KeyPairSpec::Sm2 => {
            return Derived::NotSupported;
        }
    };
    der.map_or(Derived::Refused, Derived::Der)
}

fn der_of(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Option<Vec<u8>> {
    key.as_der().ok().map(|der| der.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{encoding::Pkcs8V1Der, rsa::KeySize};
    use datakey::fixtures::public_key;
    use pkcs8::der::{Encode as _, asn1::OctetStringRef};

    use super::*;

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (Vec<u8>, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        (private.as_ref().to_vec(), der_of(pair.public_key()).unwrap())
    }

    fn ed25519() -> (Vec<u8>, Vec<u8>) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        (private.as_ref().to_vec(), der_of(pair.public_key()).unwrap())
    }

    fn rsa_2048() -> (Vec<u8>, Vec<u8>) {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        (private.as_ref().to_vec(), der_of(pair.public_key()).unwrap())
    }

    #[test]
    fn public_key_belongs_to_its_private_key_only() {
        type Generate = fn() -> (Vec<u8>, Vec<u8>);
        let kinds: [(KeyPairSpec, Generate); 6] = [
            (KeyPairSpec::Rsa2048, rsa_2048),
            (KeyPairSpec::EccNistP256, || ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)),
            (KeyPairSpec::EccNistP384, || ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING)),
            (KeyPairSpec::EccNistP521, || ecdsa(&signature::ECDSA_P521_SHA512_ASN1_SIGNING)),
            (KeyPairSpec::EccSecgP256K1, || ecdsa(&signature::ECDSA_P256K1_SHA256_ASN1_SIGNING)),
            (KeyPairSpec::EccNistEdwards25519, ed25519),
        ];
        for (spec, generate) in kinds {
            let (private, public) = generate();
            assert_eq!(check(&private, spec, &public), Ok(PublicHalf::Equal), "{spec:?}");
            let (another, _) = generate();
            let error = check(&another, spec, &public).unwrap_err();
            assert!(error.contains("does not belong"), "{spec:?}: {error}");
        }
    }

    #[test]
    fn kinds_that_the_library_lacks_are_checked_by_their_form() {
        for spec in [KeyPairSpec::MlKem512, KeyPairSpec::MlKem768, KeyPairSpec::MlKem1024, KeyPairSpec::Sm2] {
            let public = public_key(spec);
            let algorithm = SubjectPublicKeyInfoRef::try_from(public.as_slice()).unwrap().algorithm;
            let key = OctetStringRef::new(&[7; 64]).unwrap();
            let mut buffer = [0; 256];
            let private = PrivateKeyInfoRef::new(algorithm, key).encode_to_slice(&mut buffer).unwrap();
            assert_eq!(check(private, spec, &public), Ok(PublicHalf::NotDerived), "{spec:?}");
        }
    }

    #[test]
    fn private_key_of_another_kind_is_refused() {
        let (p384, _) = ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING);
        for spec in [KeyPairSpec::EccNistP256, KeyPairSpec::Rsa3072, KeyPairSpec::MlKem768, KeyPairSpec::Sm2] {
            let error = check(&p384, spec, &public_key(spec)).unwrap_err();
            assert!(error.contains("none of") && error.contains(spec.as_str()), "{error}");
        }
        let (p256, public) = ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
        let error = check(&p256, KeyPairSpec::EccNistP384, &public).unwrap_err();
        assert!(error.contains("the recorded public key is none of ECC_NIST_P384"), "{error}");
        for (bytes, what) in [(&[7; 32][..], "PKCS #8"), (&p256[..p256.len() - 1], "PKCS #8")] {
            let error = check(bytes, KeyPairSpec::EccNistP256, &public).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
