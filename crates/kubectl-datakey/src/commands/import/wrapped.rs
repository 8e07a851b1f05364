//! A wrapped data key as it is found: JSON of the AWS CLI, base64, or bytes. Pure. No message has a part of what was read,
//! because it can be a plaintext key that is there by mistake.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::api::has_blob_length;
use serde::{Deserialize, de::IgnoredAny};
use zeroize::Zeroizing;

/// What `aws kms generate-data-key-without-plaintext` and `generate-data-key` print.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    ciphertext_blob: Option<String>,
    key_id: Option<String>,
    key_material_id: Option<String>,
    #[serde(alias = "plaintext")]
    plaintext: Option<IgnoredAny>,
    private_key_ciphertext_blob: Option<IgnoredAny>,
}

/// A wrapped data key, and what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The wrapped data key.
    pub ciphertext_blob: Vec<u8>,
    /// The ARN of the KMS key, where the JSON has it.
    pub key_id: Option<String>,
    /// The ID of the key material, where the JSON has it.
    pub key_material_id: Option<String>,
}

// === impl Wrapped ===

impl Wrapped {
    /// Reads it in whatever form it is. `source` names the input in messages.
    pub fn parse(bytes: &[u8], source: &str) -> Result<Self, String> {
        let text = text(bytes);
        let wrapped = match text.as_ref().map(|text| text.trim()) {
            Some("") => Self::of(Vec::new()),
            Some(json) if json.starts_with('{') => Self::json(json, source)?,
            Some(text) => match Self::base64(text) {
                Some(wrapped) => wrapped,
                // A wrapped data key begins with control characters, so this is none.
                None if !text.chars().any(|character| character.is_control() && !character.is_whitespace()) => {
                    return Err(format!(
                        "{source} is text, but neither base64 nor the JSON that the AWS CLI prints; for its other formats \
                         add --query CiphertextBlob"
                    ));
                }
                None => Self::of(bytes.to_vec()),
            },
            None => Self::of(bytes.to_vec()),
        };
        wrapped.checked(source)
    }

    /// Returns it if its length is possible.
    pub fn checked(self, source: &str) -> Result<Self, String> {
        match &self.ciphertext_blob {
            blob if has_blob_length(blob) => Ok(self),
            blob => Err(format!("{source} has {} bytes, and a wrapped data key has 1 to 6144", blob.len())),
        }
    }

    fn of(ciphertext_blob: Vec<u8>) -> Self {
        Self { ciphertext_blob, key_id: None, key_material_id: None }
    }

    /// Reads base64 with line breaks, as programs wrap it.
    pub fn base64(text: &str) -> Option<Self> {
        let text: String = text.split_ascii_whitespace().collect();
        BASE64_STANDARD.decode(text).ok().map(Self::of)
    }

    fn json(text: &str, source: &str) -> Result<Self, String> {
        let Printed { ciphertext_blob, key_id, key_material_id, plaintext, private_key_ciphertext_blob } =
            serde_json::from_str(text).map_err(|error| {
                format!(
                    "{source} is no JSON that the AWS CLI prints (line {}, column {})",
                    error.line(),
                    error.column()
                )
            })?;
        if plaintext.is_some() {
            return Err(plaintext_is_there(source));
        }
        if private_key_ciphertext_blob.is_some() {
            return Err(format!("{source} has a key pair: a DataKey has a symmetric data key only"));
        }
        let blob = ciphertext_blob.as_deref().and_then(Self::base64);
        let blob = blob.ok_or_else(|| format!("{source} has no CiphertextBlob in base64"))?;
        Ok(Self { key_id, key_material_id, ..blob })
    }
}

/// Decodes text with or without a byte order mark; `None` for other bytes. PowerShell redirects what a program prints into a file
/// in UTF-16.
fn text(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let text = std::str::from_utf8(bytes).ok()?;
            return Some(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()));
        }
    };
    let (pairs, []) = bytes[2..].as_chunks::<2>() else { return None };
    char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<_, _>>().ok().map(Zeroizing::new)
}

/// The message about a plaintext key.
pub fn plaintext_is_there(source: &str) -> String {
    format!(
        "{source} has Plaintext, the data key itself, which must not be stored: delete it now, with every copy (files, shell \
         history, logs), and import CiphertextBlob alone. Next time call generate-data-key-without-plaintext. If others could \
         read it, issue a new data key"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AQIDAHg=";

    #[test]
    fn json_base64_and_bytes_are_recognized() {
        let expected = BASE64_STANDARD.decode(KEY).unwrap();
        for text in [KEY.to_owned(), format!("\n{}\r\n{}\n", &KEY[..4], &KEY[4..])] {
            assert_eq!(Wrapped::parse(text.as_bytes(), "x"), Ok(Wrapped::of(expected.clone())));
        }
        let json = format!(r#" {{"CiphertextBlob": "{KEY}", "KeyId": "arn", "KeyMaterialId": "ab"}}"#);
        let parsed = Wrapped::parse(json.as_bytes(), "x").unwrap();
        assert_eq!((parsed.ciphertext_blob, parsed.key_id.as_deref()), (expected, Some("arn")));
        let bytes = b"\x01\x02\xff".to_vec();
        assert_eq!(Wrapped::parse(&bytes, "x"), Ok(Wrapped::of(bytes)));
    }

    #[test]
    fn text_of_windows_programs_is_read() {
        let json = format!("\u{feff}{{\"CiphertextBlob\": \"{KEY}\"}}\r\n");
        let expected = Ok(Wrapped::of(BASE64_STANDARD.decode(KEY).unwrap()));
        assert_eq!(Wrapped::parse(json.as_bytes(), "x"), expected);
        for in_order in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes = |text: &str| text.encode_utf16().flat_map(in_order).collect::<Vec<_>>();
            assert_eq!(Wrapped::parse(&bytes(&json), "x"), expected);
            let with_plaintext = json.replace('{', "{\"Plaintext\": \"x\", ");
            assert!(Wrapped::parse(&bytes(&with_plaintext), "x").unwrap_err().contains("has Plaintext"));
        }
    }

    #[test]
    fn plaintext_is_refused_and_never_repeated() {
        let plaintext = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
        let json = format!(r#"{{"CiphertextBlob": "{KEY}", "Plaintext": "{plaintext}", "KeyId": "arn"}}"#);
        let error = Wrapped::parse(json.as_bytes(), "orders.json").unwrap_err();
        assert!(error.starts_with("orders.json has Plaintext") && error.contains("delete it now"), "{error}");
        for odd in [json.replace('}', ""), format!(r#"{{"KeyId": ["{plaintext}"]}}"#), format!("{{{plaintext}")] {
            let error = Wrapped::parse(odd.as_bytes(), "x").unwrap_err();
            assert!(!error.contains(&plaintext[..8]), "{error}");
        }
    }

    #[test]
    fn input_that_is_no_wrapped_data_key_is_refused() {
        for (bytes, message) in [
            (&b""[..], "has 0 bytes"),
            (b" \n", "has 0 bytes"),
            (&[255; 6145], "has 6145 bytes"),
            (br#"{"KeyId": "arn"}"#, "no CiphertextBlob"),
            (br#"{"CiphertextBlob": "%"}"#, "no CiphertextBlob"),
            (br#"{"PrivateKeyCiphertextBlob": "AQID"}"#, "key pair"),
            (b"AQID\tarn:aws:kms", "is text, but neither"),
            (b"CiphertextBlob: AQID\nPlaintext: x\n", "--query CiphertextBlob"),
            (b"[{\"Plaintext\": \"x\"}]", "is text, but neither"),
        ] {
            let error = Wrapped::parse(bytes, "x").unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
