use base64ct::Base64UrlUnpadded;

use super::*;
use crate::fixtures::public_key;

/// One element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ ..0x80 => vec![u8::try_from(short).unwrap()],
        long => [&[0x82][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[tag], &length[..], content].concat()
}

fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(0x30, &elements.concat())
}

fn oid(text: &str) -> Vec<u8> {
    element(0x06, ObjectIdentifier::new_unwrap(text).as_bytes())
}

/// A SubjectPublicKeyInfo of these elements of the algorithm and this key.
fn info(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    sequence(&[&sequence(algorithm), &element(0x03, &[&[0], key].concat())])
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[&element(0x02, modulus), &element(0x02, exponent)]);
    info(&[&oid("1.2.840.113549.1.1.1"), &NULL], &key)
}

fn modulus(length: usize) -> Vec<u8> {
    [&[0], &vec![0xff; length][..]].concat()
}

const NULL: [u8; 2] = [5, 0];
const F4: &[u8] = &[1, 0, 1];
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";

#[test]
fn key_is_accepted_as_its_own_kind_only() {
    for made in KeyPairSpec::ALL {
        let der = public_key(*made);
        for asked in KeyPairSpec::ALL {
            let key = PublicKey::parse(&der, *asked);
            assert_eq!(key.is_ok(), made == asked, "{made:?} as {asked:?}: {key:?}");
        }
        let key = PublicKey::parse(&der, *made).unwrap();
        assert_eq!((key.der(), key.spec()), (&der[..], *made));
    }
}

#[test]
fn truncated_or_extended_key_is_refused() {
    for spec in KeyPairSpec::ALL {
        let der = public_key(*spec);
        for length in 0..der.len() {
            assert!(PublicKey::parse(&der[..length], *spec).is_err(), "{spec:?}: {length} bytes");
        }
        for byte in [0, 5, 0x30] {
            assert!(PublicKey::parse(&[&der[..], &[byte]].concat(), *spec).is_err(), "{spec:?}");
        }
    }
}

#[test]
fn length_is_bounded() {
    for length in [0, MAX_PUBLIC_KEY + 1] {
        let flaw = PublicKey::parse(&vec![0x30; length], KeyPairSpec::Rsa2048).unwrap_err();
        assert_eq!(flaw, PublicKeyFlaw::Length(length));
    }
}

#[test]
fn another_form_is_refused_with_its_flaw() {
    use KeyPairSpec::{EccNistEdwards25519, EccNistP256, EccSecgP256K1, MlKem512, Rsa2048, Rsa4096};
    let ec = |point: &[u8]| info(&[&oid(EC), &oid(P256)], point);
    let ed25519 = oid("1.3.101.112");
    let ml_kem = oid("2.16.840.1.101.3.4.4.1");
    let point = [&[4][..], &[1; 64]].concat();
    let curve = |text| ObjectIdentifier::new_unwrap(text);
    for (der, spec, flaw) in [
        (rsa(&modulus(256), F4), Rsa2048, None),
        (rsa(&modulus(255), F4), Rsa2048, Some(PublicKeyFlaw::ModulusSize { found: 2040, wanted: 2048 })),
        (
            rsa(&[&[0x7f], &[0xff; 255][..]].concat(), F4),
            Rsa2048,
            Some(PublicKeyFlaw::ModulusSize { found: 2047, wanted: 2048 }),
        ),
        (rsa(&modulus(256), F4), Rsa4096, Some(PublicKeyFlaw::ModulusSize { found: 2048, wanted: 4096 })),
        (rsa(&[&modulus(255), &[0xfe][..]].concat(), F4), Rsa2048, Some(PublicKeyFlaw::EvenModulus)),
        (rsa(&modulus(256), &[3]), Rsa2048, Some(PublicKeyFlaw::Exponent)),
        (rsa(&modulus(256), &[1, 0, 0]), Rsa2048, Some(PublicKeyFlaw::Exponent)),
        (rsa(&modulus(256), &[1; 33]), Rsa2048, Some(PublicKeyFlaw::Exponent)),
        (ec(&point), EccNistP256, None),
        (ec(&point), EccSecgP256K1, Some(PublicKeyFlaw::Curve { found: curve(P256), wanted: curve("1.3.132.0.10") })),
        (
            ec(&point),
            Rsa2048,
            Some(PublicKeyFlaw::Algorithm { found: curve(EC), wanted: curve("1.2.840.113549.1.1.1") }),
        ),
        (ec(&[2; 33]), EccNistP256, Some(PublicKeyFlaw::Point(65))),
        (ec(&[0]), EccNistP256, Some(PublicKeyFlaw::Point(65))),
        (ec(&point[..64]), EccNistP256, Some(PublicKeyFlaw::Point(65))),
        (ec(&[6; 65]), EccNistP256, Some(PublicKeyFlaw::Point(65))),
        (info(&[&oid(EC)], &point), EccNistP256, Some(PublicKeyFlaw::Parameters)),
        (info(&[&oid(EC), &NULL], &point), EccNistP256, Some(PublicKeyFlaw::Parameters)),
        // The parameters of a curve by value.
        (info(&[&oid(EC), &sequence(&[])], &point), EccNistP256, Some(PublicKeyFlaw::Parameters)),
        (info(&[&ed25519], &[1; 32]), EccNistEdwards25519, None),
        (info(&[&ed25519], &[1; 31]), EccNistEdwards25519, Some(PublicKeyFlaw::KeyLength { found: 31, wanted: 32 })),
        (info(&[&ed25519, &NULL], &[1; 32]), EccNistEdwards25519, Some(PublicKeyFlaw::Parameters)),
        (info(&[&ml_kem], &[1; 800]), MlKem512, None),
        (info(&[&ml_kem], &[1; 801]), MlKem512, Some(PublicKeyFlaw::KeyLength { found: 801, wanted: 800 })),
        (info(&[&ml_kem], &[0xff; 800]), MlKem512, Some(PublicKeyFlaw::Coefficient)),
        (info(&[&ml_kem, &NULL], &[1; 800]), MlKem512, Some(PublicKeyFlaw::Parameters)),
        (info(&[&oid("1.2.840.113549.1.1.1")], &[]), Rsa2048, Some(PublicKeyFlaw::Parameters)),
    ] {
        assert_eq!(PublicKey::parse(&der, spec).err(), flaw, "{spec:?}");
    }
}

#[test]
fn only_der_is_accepted() {
    let key = public_key(KeyPairSpec::EccNistEdwards25519);
    let algorithm = sequence(&[&oid("1.3.101.112")]);
    let bits = &key[2 + algorithm.len()..];
    let refuse = |der: &[u8]| {
        let flaw = PublicKey::parse(der, KeyPairSpec::EccNistEdwards25519).unwrap_err();
        assert!(matches!(flaw, PublicKeyFlaw::Encoding(_) | PublicKeyFlaw::UnusedBits), "{flaw:?}");
    };
    assert_eq!(sequence(&[&algorithm, bits]), key);
    // A length in more bytes than it needs, and one that the end decides.
    refuse(&[&[0x30, 0x81, key[1]], &key[2..]].concat());
    refuse(&[&[0x30, 0x80], &key[2..], &[0, 0]].concat());
    // A third element, in the outer and in the inner sequence, and a key that ends within a byte.
    refuse(&sequence(&[&algorithm, bits, &NULL]));
    refuse(&sequence(&[&sequence(&[&oid("1.3.101.112"), &NULL, &NULL]), bits]));
    refuse(&sequence(&[&algorithm, &element(0x03, &[&[7][..], &[0x80; 33]].concat())]));
    refuse(&sequence(&[&algorithm, &element(0x04, &bits[2..])]));
    // Numbers with a leading zero too many, and below zero, and a third number.
    let numbers = |elements: &[&[u8]]| info(&[&oid("1.2.840.113549.1.1.1"), &NULL], &sequence(elements));
    let (n, e) = (element(0x02, &modulus(256)), element(0x02, F4));
    for der in [
        numbers(&[&element(0x02, &[&[0], &modulus(256)[..]].concat()), &e]),
        numbers(&[&element(0x02, &modulus(256)[1..]), &e]),
        numbers(&[&n, &e, &e]),
        numbers(&[&n]),
        info(&[&oid("1.2.840.113549.1.1.1"), &NULL], &[sequence(&[&n, &e]), NULL.to_vec()].concat()),
    ] {
        let flaw = PublicKey::parse(&der, KeyPairSpec::Rsa2048).unwrap_err();
        assert!(matches!(flaw, PublicKeyFlaw::Encoding(_)), "{flaw:?}");
    }
}

/// The forms that other programs wrote of the keys in the corpus; `vectors/make.sh` has the commands.
const VECTORS: &str = include_str!("vectors/forms.txt");

#[test]
fn forms_are_those_of_other_programs() {
    let mut seen = [0; 4];
    for line in VECTORS.lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (form, value) = rest.split_once(' ').unwrap();
        let spec = *KeyPairSpec::ALL.iter().find(|spec| spec.as_str() == name).unwrap();
        let key = PublicKey::parse(&public_key(spec), spec).unwrap();
        let at = ["pem", "sha256", "openssh", "jwk"].iter().position(|of| *of == form).unwrap();
        seen[at] += 1;
        match form {
            "pem" => assert_eq!(key.to_pem().replace('\n', "|"), value, "{name}"),
            "sha256" => assert_eq!(key.sha256(), value, "{name}"),
            "openssh" => assert_eq!(key.to_openssh().unwrap(), value, "{name}"),
            _ => {
                let mut jwk = serde_json::to_value(key.to_jwk().unwrap()).unwrap();
                for member in ["alg", "use"] {
                    jwk.as_object_mut().unwrap().remove(member);
                }
                assert_eq!(jwk, serde_json::from_str::<serde_json::Value>(value).unwrap(), "{name}");
            }
        }
    }
    assert_eq!(seen, [KeyPairSpec::ALL.len(), KeyPairSpec::ALL.len(), 7, 8]);
}

#[test]
fn thumbprints_are_those_of_the_standards() {
    // RFC 7638, section 3.1.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
             tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91\
             CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let modulus = [&[0], &Base64UrlUnpadded::decode_vec(n).unwrap()[..]].concat();
    let key = PublicKey::parse(&rsa(&modulus, F4), KeyPairSpec::Rsa2048).unwrap();
    assert_eq!(key.to_jwk().unwrap().kid(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    // RFC 8037, appendix A.3.
    let point = Base64UrlUnpadded::decode_vec("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    let key = PublicKey::parse(&info(&[&oid("1.3.101.112")], &point), KeyPairSpec::EccNistEdwards25519).unwrap();
    assert_eq!(key.to_jwk().unwrap().kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn purpose_is_named_where_a_kind_has_only_one() {
    for spec in KeyPairSpec::ALL {
        let Ok(jwk) = PublicKey::parse(&public_key(*spec), *spec).unwrap().to_jwk() else { continue };
        let jwk = serde_json::to_value(jwk).unwrap();
        let purpose = (jwk["alg"].as_str(), jwk["use"].as_str());
        let expected = match spec {
            KeyPairSpec::EccNistEdwards25519 => (Some("EdDSA"), Some("sig")),
            KeyPairSpec::EccSecgP256K1 => (Some("ES256K"), Some("sig")),
            _ => (None, None),
        };
        assert_eq!(purpose, expected, "{spec:?}");
    }
}

#[test]
fn kinds_without_a_form_are_named_in_the_error() {
    use KeyPairSpec::{EccSecgP256K1, MlKem512, MlKem768, MlKem1024, Sm2};
    for spec in KeyPairSpec::ALL {
        let key = PublicKey::parse(&public_key(*spec), *spec).unwrap();
        let has_jwk = !matches!(spec, MlKem512 | MlKem768 | MlKem1024 | Sm2);
        assert_eq!(key.to_jwk().is_ok(), has_jwk, "{spec:?}");
        assert_eq!(key.to_openssh().is_ok(), has_jwk && *spec != EccSecgP256K1, "{spec:?}");
    }
    let key = PublicKey::parse(&public_key(Sm2), Sm2).unwrap();
    let error = key.to_jwk().unwrap_err().to_string();
    assert_eq!(error, "a public key of kind SM2 has no JSON Web Key form");
}
