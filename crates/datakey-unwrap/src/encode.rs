//! The formats of key files. What is on the way to a file is overwritten when it is dropped.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use datakey::{api::Material, key_format::KeyFormat};
use pem_rfc7468::LineEnding;
use zeroize::Zeroizing;

use crate::{ended::Failure, keys::UnwrappedKey};

mod private_jwk;

/// The label of a private key in PKCS #8 (RFC 7468, section 10).
const PEM_LABEL: &str = "PRIVATE KEY";

/// Returns the content of the file of a key.
///
/// # Errors
/// A private key has not the form of its kind.
pub fn encode(key: &UnwrappedKey, material: Material, format: KeyFormat) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = &key.plaintext;
    let text = match (format, material) {
        (KeyFormat::Raw | KeyFormat::Der, _) => return Ok(Zeroizing::new(bytes.to_vec())),
        (KeyFormat::Hex, _) => base16ct::lower::encode_string(bytes),
        (KeyFormat::Base64, _) => BASE64_STANDARD.encode(bytes),
        (KeyFormat::Pem, _) => pem_rfc7468::encode_string(PEM_LABEL, LineEnding::LF, bytes)
            .map_err(|error| Failure::mismatch(format!("version {}: {error}", key.version)))?,
        (KeyFormat::Jwk, Material::Pair(spec)) => private_jwk::encode(bytes, &key.public_key, spec)
            .map_err(|why| Failure::mismatch(format!("version {}: {why}", key.version)))?,
        (KeyFormat::Jwk, _) => symmetric_jwk(bytes),
    };
    Ok(Zeroizing::new(text.into_bytes()))
}

/// A symmetric key as JSON Web Key (RFC 7518, section 6.4).
fn symmetric_jwk(bytes: &[u8]) -> String {
    const BEGINNING: &str = r#"{"kty":"oct","k":""#;
    const END: &str = r#""}"#;
    let encoded = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes));
    // A growing string would leave copies of the key.
    let mut jwk = String::with_capacity(BEGINNING.len() + encoded.len() + END.len());
    jwk += BEGINNING;
    jwk += &encoded;
    jwk += END;
    jwk
}

#[cfg(test)]
mod tests {
    use datakey::api::{KeyPairSpec, KeySpec};

    use super::*;

    fn key(bytes: &[u8]) -> UnwrappedKey {
        UnwrappedKey { version: 1, plaintext: Zeroizing::new(bytes.to_vec()), public_key: Vec::new() }
    }

    fn text(bytes: &[u8], material: Material, format: KeyFormat) -> String {
        String::from_utf8(encode(&key(bytes), material, format).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn data_key_has_each_format_without_a_line_end() {
        let material = Material::Spec(KeySpec::Aes128);
        // The bytes differ in both alphabets of base64.
        let bytes = [0xfb, 0xef, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(encode(&key(&bytes), material, KeyFormat::Raw).unwrap()[..], bytes);
        assert_eq!(text(&bytes, material, KeyFormat::Hex), "fbefff000102030405060708090a0b0c");
        assert_eq!(text(&bytes, material, KeyFormat::Base64), "++//AAECAwQFBgcICQoLDA==");
        assert_eq!(text(&bytes, material, KeyFormat::Jwk), r#"{"kty":"oct","k":"--__AAECAwQFBgcICQoLDA"}"#);
    }

    #[test]
    fn private_key_is_pkcs8_in_pem_or_der() {
        let material = Material::Pair(KeyPairSpec::EccNistP256);
        let pem = text(&[7; 60], material, KeyFormat::Pem);
        assert!(
            pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("-----END PRIVATE KEY-----\n"),
            "{pem}"
        );
        assert_eq!(pem_rfc7468::decode_vec(pem.as_bytes()).unwrap(), ("PRIVATE KEY", vec![7; 60]));
        assert_eq!(encode(&key(&[7; 60]), material, KeyFormat::Der).unwrap()[..], [7; 60]);
    }
}
