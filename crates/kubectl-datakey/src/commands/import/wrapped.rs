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
            Some(text) => match Self::base64(text, source)? {
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
            blob if is_hex(blob) => Err(hex_is_there(source)),
            blob if has_blob_length(blob) => Ok(self),
            blob => Err(format!("{source} has {} bytes, and a wrapped data key has 1 to 6144", blob.len())),
        }
    }

    fn of(ciphertext_blob: Vec<u8>) -> Self {
        Self { ciphertext_blob, key_id: None, key_material_id: None }
    }

    /// Reads base64 with line breaks, as programs wrap it; `None` for other text. Refuses a number in hexadecimal, most of which
    /// are base64, too.
    pub fn base64(text: &str, source: &str) -> Result<Option<Self>, String> {
        let text = Zeroizing::new(text.split_ascii_whitespace().collect::<String>());
        if is_hex(text.as_bytes()) {
            return Err(hex_is_there(source));
        }
        Ok(BASE64_STANDARD.decode(text.as_bytes()).ok().map(Self::of))
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
        let blob = ciphertext_blob.map(|blob| Self::base64(&blob, source)).transpose()?.flatten();
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

/// The fewest digits that count as a number in hexadecimal: those of a data key of 16 bytes. A shorter text is too short for a
/// wrapped data key in any case.
const HEX_DIGITS: usize = 32;

/// Whether all bytes are hexadecimal digits. No wrapped data key is of such bytes, or has such base64.
fn is_hex(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"0x").unwrap_or(bytes).trim_ascii();
    digits.len() >= HEX_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
}

fn hex_is_there(source: &str) -> String {
    format!(
        "{source} is in hexadecimal, and a wrapped data key is bytes or base64: it may be the data key itself, which must not be \
         stored"
    )
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
    fn hexadecimal_is_refused_in_each_form() {
        for digits in
            [&*"c0ffee00".repeat(8), &"C0FFEE00".repeat(4), &"a1".repeat(1088), &format!("0x{}", "0a".repeat(31))]
        {
            let wrapped = format!("{}\n{}\n", &digits[..8], &digits[8..]);
            let base64 = BASE64_STANDARD.encode(digits);
            let utf16 =
                [0xfeff].into_iter().chain(digits.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
            let json = format!(r#"{{"CiphertextBlob": "{digits}"}}"#);
            for text in [digits.as_bytes(), wrapped.as_bytes(), base64.as_bytes(), &utf16, json.as_bytes()] {
                let error = Wrapped::parse(text, "orders.txt").unwrap_err();
                assert!(error.starts_with("orders.txt is in hexadecimal") && !error.contains(&digits[..8]), "{error}");
            }
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
