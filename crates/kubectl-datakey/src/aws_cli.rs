//! What users know from the AWS CLI: parameters from files, the shorthand syntax, `--cli-input-json`. Pure but for reading
//! files that the user names.

pub mod cli_input;
pub mod param_file;
pub mod shorthand;

use datakey::api::EncryptionContext;

/// Reads an encryption context as the AWS CLI does: shorthand, JSON, or either from `file://`.
pub fn encryption_context(text: &str) -> Result<EncryptionContext, String> {
    let text = param_file::text(text)?;
    if !text.trim_start().starts_with(['{', '[']) {
        return shorthand::pairs(&text);
    }
    serde_json::from_str(&text).map_err(|error| {
        format!(
            "it is no JSON object of strings (line {}, column {}): write it as {{\"purpose\": \"orders\"}}",
            error.line(),
            error.column()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> EncryptionContext {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn context_is_shorthand_json_or_a_file_with_either() {
        let expected = pairs(&[("purpose", "orders"), ("stage", "prod")]);
        let json = r#" {"purpose": "orders", "stage": "prod"} "#;
        assert_eq!(encryption_context("purpose=orders,stage=prod").as_ref(), Ok(&expected));
        assert_eq!(encryption_context(json).as_ref(), Ok(&expected));
        let file = std::env::temp_dir().join(format!("kubectl-datakey-context-{}", std::process::id()));
        for text in [json, "purpose=orders,stage=prod"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(encryption_context(&format!("file://{}", file.display())).as_ref(), Ok(&expected));
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn json_of_another_form_is_refused() {
        for text in [r#"{"number": 1}"#, r#"["a"]"#, "{", r#"{"a": {"b": "c"}}"#] {
            assert!(encryption_context(text).unwrap_err().contains("no JSON object of strings"), "{text}");
        }
    }
}
