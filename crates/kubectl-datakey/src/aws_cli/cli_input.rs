//! `--cli-input-json`, `--cli-input-yaml` and `--generate-cli-skeleton`: the parameters of `aws kms
//! generate-data-key-without-plaintext` in one document.

use std::{collections::BTreeMap, fmt::Display};

use datakey::api::{EncryptionContext, KeySpec};
use serde::Deserialize;
use serde_json::Value;

use super::param_file;

/// The parameters, by the names of the KMS API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CliInput {
    pub key_id: Option<String>,
    pub key_spec: Option<KeySpec>,
    pub number_of_bytes: Option<i32>,
    pub encryption_context: Option<EncryptionContext>,
    pub grant_tokens: Option<Vec<String>>,
    pub dry_run: Option<bool>,
    /// What KMS does not know.
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// What `aws kms generate-data-key-without-plaintext --generate-cli-skeleton` prints.
pub const JSON_SKELETON: &str = r#"{
    "KeyId": "",
    "EncryptionContext": {
        "KeyName": ""
    },
    "KeySpec": "AES_256",
    "NumberOfBytes": 0,
    "GrantTokens": [
        ""
    ],
    "DryRun": true
}
"#;

/// The same in YAML, with what to do about each field.
pub const YAML_SKELETON: &str = "\
KeyId: ''  # [REQUIRED] Key ID, key ARN, alias name or alias ARN of the symmetric KMS key.
EncryptionContext:  # Pairs that KMS binds to the data key. Remove it for none.
  KeyName: ''
KeySpec: AES_256  # AES_256 or AES_128. Keep KeySpec or NumberOfBytes, and remove the other one.
NumberOfBytes: 0  # 1 to 1024.
GrantTokens:  # Up to 10. Remove it for none.
- ''
DryRun: true  # true: KMS checks the request, and nothing is applied. Remove it to apply.
";

// === impl CliInput ===

impl CliInput {
    /// Reads JSON, or the file that the parameter names by `file://`.
    pub fn json(parameter: &str) -> Result<Self, String> {
        let text = param_file::text(parameter)?;
        serde_json::from_str::<Self>(&text).map_err(|error| unreadable("JSON", &error)).and_then(Self::known)
    }

    /// Reads YAML, or the file that the parameter names by `file://`.
    pub fn yaml(parameter: &str) -> Result<Self, String> {
        let text = param_file::text(parameter)?;
        serde_saphyr::from_str::<Self>(&text).map_err(|error| unreadable("YAML", &error)).and_then(Self::known)
    }

    fn known(self) -> Result<Self, String> {
        if self.unknown.is_empty() {
            return Ok(self);
        }
        let names: Vec<_> = self.unknown.keys().map(String::as_str).collect();
        Err(format!(
            "unknown fields: {}; there are KeyId, KeySpec, NumberOfBytes, EncryptionContext, GrantTokens and DryRun",
            names.join(", ")
        ))
    }
}

fn unreadable(format: &str, error: &dyn Display) -> String {
    format!("it is not the {format} that --generate-cli-skeleton prints: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_are_read_from_json_and_yaml() {
        let json = r#"{"KeyId": "alias/orders", "KeySpec": "AES_128", "EncryptionContext": {"a": "b"}, "GrantTokens": ["t"],
            "DryRun": false}"#;
        let expected = CliInput {
            key_id: Some("alias/orders".to_owned()),
            key_spec: Some(KeySpec::Aes128),
            encryption_context: Some([("a".to_owned(), "b".to_owned())].into()),
            grant_tokens: Some(vec!["t".to_owned()]),
            dry_run: Some(false),
            ..CliInput::default()
        };
        assert_eq!(CliInput::json(json), Ok(expected.clone()));
        assert_eq!(CliInput::yaml(json), Ok(expected), "JSON is YAML");
        let bytes = CliInput::yaml("KeyId: alias/orders\nNumberOfBytes: 64\n").unwrap();
        assert_eq!((bytes.number_of_bytes, bytes.key_spec), (Some(64), None));
    }

    #[test]
    fn unknown_fields_and_other_types_are_refused_by_name() {
        let unknown = CliInput::json(r#"{"KeyId": "k", "KeySpecs": "x", "keyId": "y"}"#).unwrap_err();
        assert!(unknown.starts_with("unknown fields: KeySpecs, keyId; there are KeyId"), "{unknown}");
        for (json, word) in
            [(r#"{"KeySpec": "AES_512"}"#, "AES_512"), (r#"{"NumberOfBytes": "x"}"#, "string"), ("[", "JSON")]
        {
            let error = CliInput::json(json).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(CliInput::yaml("KeyId: [").unwrap_err().contains("YAML"));
    }

    #[test]
    fn skeletons_have_every_field() {
        let json = CliInput::json(JSON_SKELETON).unwrap();
        assert_eq!(CliInput::yaml(YAML_SKELETON).as_ref(), Ok(&json));
        let CliInput { key_id, key_spec, number_of_bytes, encryption_context, grant_tokens, dry_run, .. } = json;
        assert!(key_id.is_some() && key_spec.is_some() && number_of_bytes.is_some() && encryption_context.is_some());
        assert!(grant_tokens.is_some() && dry_run.is_some());
    }
}
