use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{self, KeySize},
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _},
};
use serde_json::Value;

use super::*;

fn der(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (Vec<u8>, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), der(pair.public_key()))
}

fn jwk(private: &[u8], public: &[u8], spec: KeyPairSpec) -> Value {
    serde_json::from_str(&encode(private, public, spec).unwrap()).unwrap()
}

fn number(jwk: &Value, member: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap()
}

#[test]
fn curves_have_the_scalar_in_full_length() {
    for (spec, algorithm, curve, length) in [
        (KeyPairSpec::EccNistP256, &signature::ECDSA_P256_SHA256_ASN1_SIGNING, "P-256", 32),
        (KeyPairSpec::EccNistP384, &signature::ECDSA_P384_SHA384_ASN1_SIGNING, "P-384", 48),
        (KeyPairSpec::EccNistP521, &signature::ECDSA_P521_SHA512_ASN1_SIGNING, "P-521", 66),
        (KeyPairSpec::EccSecgP256K1, &signature::ECDSA_P256K1_SHA256_ASN1_SIGNING, "secp256k1", 32),
    ] {
        let (private, public) = ecdsa(algorithm);
        let jwk = jwk(&private, &public, spec);
        assert_eq!((jwk["kty"].as_str(), jwk["crv"].as_str()), (Some("EC"), Some(curve)));
        let (d, x, y) = (number(&jwk, "d"), number(&jwk, "x"), number(&jwk, "y"));
        assert_eq!((d.len(), x.len(), y.len()), (length, length, length), "{spec:?}");
        // The library accepts the three numbers only if they belong together.
        let point = [&[4][..], &x, &y].concat();
        EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, &point).unwrap();
    }
}

#[test]
fn ed25519_has_the_seed() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let jwk = jwk(private.as_ref(), &der(pair.public_key()), KeyPairSpec::EccNistEdwards25519);
    assert_eq!((jwk["kty"].as_str(), jwk["crv"].as_str()), (Some("OKP"), Some("Ed25519")));
    Ed25519KeyPair::from_seed_and_public_key(&number(&jwk, "d"), &number(&jwk, "x")).unwrap();
}

#[test]
fn rsa_has_all_numbers() {
    let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let jwk = jwk(private.as_ref(), &der(pair.public_key()), KeyPairSpec::Rsa2048);
    assert_eq!(jwk["kty"].as_str(), Some("RSA"));
    let info = PrivateKeyInfoRef::try_from(private.as_ref()).unwrap();
    let key = RsaPrivateKey::try_from(info.private_key.as_bytes()).unwrap();
    let numbers: [(_, UintRef<'_>); 8] = [
        ("n", key.modulus),
        ("e", key.public_exponent),
        ("d", key.private_exponent),
        ("p", key.prime1),
        ("q", key.prime2),
        ("dp", key.exponent1),
        ("dq", key.exponent2),
        ("qi", key.coefficient),
    ];
    for (member, expected) in numbers {
        assert_eq!(number(&jwk, member), expected.as_bytes(), "{member}");
    }
}

#[test]
fn other_forms_are_refused_without_a_part_of_the_key() {
    let (private, public) = ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
    assert_eq!(encode(&private[1..], &public, KeyPairSpec::EccNistP256).unwrap_err(), MALFORMED);
    assert!(encode(&private, &public[1..], KeyPairSpec::EccNistP256).unwrap_err().contains("public key"));
}
