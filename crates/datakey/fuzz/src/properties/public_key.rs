//! A public key is accepted as it is, as one kind only, and every form of it is well-formed.

use datakey::{api::KeyPairSpec, public_key::PublicKey};
use serde_json::Value;

use super::Reached;

/// A SubjectPublicKeyInfo in DER.
pub fn public_key(data: &[u8]) -> Reached {
    let mut keys = KeyPairSpec::ALL.iter().filter_map(|spec| PublicKey::parse(data, *spec).ok());
    let Some(key) = keys.next() else {
        // What begins as a sequence is worth a try.
        return if data.first() == Some(&0x30) { Reached::Checks } else { Reached::Nothing };
    };
    assert!(keys.next().is_none(), "it is of one kind");
    assert_eq!(key.der(), data);
    assert_eq!(PublicKey::parse(key.der(), key.spec()).as_ref(), Ok(&key));

    let pem = key.to_pem();
    let body = pem.strip_prefix("-----BEGIN PUBLIC KEY-----\n").expect("a label");
    let body = body.strip_suffix("-----END PUBLIC KEY-----\n").expect("a label");
    assert!(body.lines().all(|line| (1..=64).contains(&line.len()) && is_base64(line)), "{pem}");
    assert_eq!(key.sha256().len(), 64);

    if let Ok(jwk) = key.to_jwk() {
        let kid = jwk.kid().to_owned();
        assert_eq!(kid.len(), 43);
        let json = serde_json::to_value(jwk).expect("JSON");
        assert_eq!(json["kid"], kid);
        let members = json.as_object().expect("an object").values();
        assert!(members.map(Value::as_str).all(|value| value.is_some_and(|value| !value.is_empty())), "{json}");
    }
    if let Ok(line) = key.to_openssh() {
        let (name, blob) = line.split_once(' ').expect("two words");
        assert!((name.starts_with("ssh-") || name.starts_with("ecdsa-sha2-")) && is_base64(blob), "{line}");
    }
    Reached::All
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}
