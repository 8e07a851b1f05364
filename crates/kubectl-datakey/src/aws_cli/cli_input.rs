//! `--cli-input-json`, `--cli-input-yaml` and `--generate-cli-skeleton`: the parameters of `aws kms
//! generate-data-key-without-plaintext` or of `aws kms generate-data-key-pair-without-plaintext` in one document. No message has a value of the document, because grant tokens are
//! among them.

use datakey::api::{EncryptionContext, KeyPairSpec, KeySpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::param_file;

/// The parameters, by the names of the KMS API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CliInput {
    pub key_id: Option<String>,
    pub key_spec: Option<KeySpec>,
    pub number_of_bytes: Option<i32>,
    pub key_pair_spec: Option<KeyPairSpec>,
    pub encryption_context: Option<EncryptionContext>,
    pub grant_tokens: Option<Vec<String>>,
    pub dry_run: Option<bool>,
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

/// What `aws kms generate-data-key-pair-without-plaintext --generate-cli-skeleton` prints, with this kind.
pub fn json_skeleton_of_pair(spec: KeyPairSpec) -> String {
    let spec = spec.as_str();
    format!(
        r#"{{
    "EncryptionContext": {{
        "KeyName": ""
    }},
    "KeyId": "",
    "KeyPairSpec": "{spec}",
    "GrantTokens": [
        ""
    ],
    "DryRun": true
}}
"#
    )
}

/// The same in YAML, with what to do about each field.
pub fn yaml_skeleton_of_pair(spec: KeyPairSpec) -> String {
    let spec = spec.as_str();
    format!(
        "\
EncryptionContext:  # Pairs that KMS binds to the private key. Remove it for none.
  KeyName: ''
KeyId: ''  # [REQUIRED] Key ID, key ARN, alias name or alias ARN of the symmetric KMS key.
KeyPairSpec: {spec}  # [REQUIRED] The kind of the key pair.
GrantTokens:  # Up to 10. Remove it for none.
- ''
DryRun: true  # true: KMS checks the request, and nothing is applied. Remove it to apply.
"
    )
}

// === impl CliInput ===

impl CliInput {
    /// Reads JSON, or the file that the parameter names by `file://`.
    pub fn json(parameter: &str) -> Result<Self, String> {
        let text = param_file::document(parameter)?;
        let read = serde_json::from_str(&text);
        read.map_err(|error| unreadable("JSON", error.line(), error.column())).and_then(Self::of)
    }

    /// Reads YAML, or the file that the parameter names by `file://`.
    pub fn yaml(parameter: &str) -> Result<Self, String> {
        let text = param_file::document(parameter)?;
        serde_saphyr::from_str(&text)
            .map_err(|error| {
                let at = error.location().map(|at| (at.line(), at.column())).unwrap_or_default();
                unreadable("YAML", at.0, at.1)
            })
            .and_then(Self::of)
    }

    fn of(document: Value) -> Result<Self, String> {
        let Value::Object(fields) = document else {
            return Err("it has no parameters by name: --generate-cli-skeleton prints the form".to_owned());
        };
        let mut input = Self::default();
        let mut unknown = Vec::new();
        for (name, value) in fields {
            match name.as_str() {
                "KeyId" => input.key_id = field(&name, value, "a string")?,
                "KeySpec" => input.key_spec = field(&name, value, "AES_256 or AES_128")?,
                "NumberOfBytes" => input.number_of_bytes = field(&name, value, "a number from 1 to 1024")?,
                "KeyPairSpec" => {
                    input.key_pair_spec = field(&name, value, "the kind of a key pair, such as ECC_NIST_P256")?;
                }
                "EncryptionContext" => input.encryption_context = field(&name, value, "an object of strings")?,
                "GrantTokens" => input.grant_tokens = field(&name, value, "a list of strings")?,
                "DryRun" => input.dry_run = field(&name, value, "true or false")?,
                _ => unknown.push(name),
            }
        }
        if unknown.is_empty() {
            return Ok(input);
        }
        Err(format!(
            "unknown fields: {}; there are KeyId, KeySpec, NumberOfBytes, KeyPairSpec, EncryptionContext, \
             GrantTokens and DryRun",
            unknown.join(", ")
        ))
    }
}

fn field<T: DeserializeOwned>(name: &str, value: Value, kind: &str) -> Result<Option<T>, String> {
    serde_json::from_value(value).map(Some).map_err(|_| format!("{name} must be {kind}"))
}

fn unreadable(format: &str, line: impl std::fmt::Display, column: impl std::fmt::Display) -> String {
    format!("it is no {format} (line {line}, column {column}): --generate-cli-skeleton prints the form")
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
        for (json, message) in [
            (r#"{"KeySpec": "AES_512"}"#, "KeySpec must be AES_256 or AES_128"),
            (r#"{"NumberOfBytes": "x"}"#, "NumberOfBytes must be a number"),
            (r#"{"DryRun": null}"#, "DryRun must be true or false"),
            (r#"{"EncryptionContext": {"a": 1}}"#, "EncryptionContext must be an object of strings"),
            ("[", "it is no JSON (line 1, column 1)"),
            ("[]", "no parameters by name"),
        ] {
            let error = CliInput::json(json).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        assert!(CliInput::yaml("EncryptionContext: {a: 1}").unwrap_err().contains("object of strings"));
    }

    #[test]
    fn no_message_has_a_grant_token() {
        for document in
            [r#"{"GrantTokens": "s3cret"}"#, r#"{"GrantTokens": ["s3cret", 1]}"#, r#"{"GrantTokens": ["s3cret""#]
        {
            for error in [CliInput::json(document).unwrap_err(), CliInput::yaml(document).unwrap_err()] {
                assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
            }
        }
        let error = CliInput::yaml("GrantTokens:\n- s3cret\n -: [x").unwrap_err();
        assert!(error.contains("it is no YAML (line ") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn skeletons_have_every_field() {
        let json = CliInput::json(JSON_SKELETON).unwrap();
        assert_eq!(CliInput::yaml(YAML_SKELETON).as_ref(), Ok(&json));
        let CliInput { key_id, key_spec, number_of_bytes, key_pair_spec, encryption_context, grant_tokens, dry_run } =
            json;
        assert!(key_id.is_some() && key_spec.is_some() && number_of_bytes.is_some() && encryption_context.is_some());
        assert!(key_pair_spec.is_none());
        assert!(grant_tokens.is_some() && dry_run.is_some());
        let pair = CliInput::json(&json_skeleton_of_pair(KeyPairSpec::EccNistP256)).unwrap();
        assert_eq!(CliInput::yaml(&yaml_skeleton_of_pair(KeyPairSpec::EccNistP256)).as_ref(), Ok(&pair));
        assert_eq!(
            (pair.key_pair_spec, pair.key_spec, pair.dry_run),
            (Some(KeyPairSpec::EccNistP256), None, Some(true))
        );
    }
}
