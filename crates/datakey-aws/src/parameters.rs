//! Parameters of a command line as the AWS CLI reads them: from files, in shorthand syntax or as JSON. Pure but for reading files
//! that the user names.

pub mod param_file;
mod shorthand;

use datakey::{
    api::{EncryptionContext, KeySpec},
    arn::is_region_field,
    text::printable_json,
};

/// Reads an encryption context of the command line as the AWS CLI does: shorthand, JSON, or either from `file://`.
pub fn encryption_context(text: &str) -> Result<EncryptionContext, String> {
    context(&param_file::document(text)?, Files::Read)
}

/// Reads an encryption context of a table or a manifest: shorthand or JSON. It reads no files, because the author of a table can be
/// another user, and the file that a manifest names can be changed by another one.
pub fn encryption_context_without_files(text: &str) -> Result<EncryptionContext, String> {
    if param_file::is_file(text) {
        return Err(NO_FILES.to_owned());
    }
    context(text, Files::Refused)
}

/// Writes an encryption context for a command line: in shorthand where that is not ambiguous, else as JSON.
pub fn encryption_context_argument(context: &EncryptionContext) -> String {
    let is_plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._:/-".contains(letter));
    let pairs = || context.iter().flat_map(|(key, value)| [key, value]);
    if !context.is_empty() && pairs().all(|text| !text.is_empty() && is_plain(text)) {
        return context.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    }
    printable_json(&serde_json::json!(context).to_string()).into_owned()
}

/// Whether a parameter may name files, whose text it then has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    Read,
    Refused,
}

const NO_FILES: &str = "files are read for flags only: write the value itself";

fn context(text: &str, files: Files) -> Result<EncryptionContext, String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return shorthand::pairs(text, files);
    }
    serde_json::from_str(text).map_err(|error| {
        format!(
            "it is no JSON object of strings (line {}, column {}): write it as {{\"purpose\": \"orders\"}}",
            error.line(),
            error.column()
        )
    })
}

/// Reads a key ID, or the file that names it.
pub fn key_id(text: &str) -> Result<String, String> {
    param_file::document(text).map(|text| text.trim().to_owned())
}

/// Reads the code of an AWS Region.
pub fn region(text: &str) -> Result<String, String> {
    let is_region = is_region_field(text);
    is_region
        .then(|| text.to_owned())
        .ok_or_else(|| "write the code of an AWS Region, for example eu-west-1".to_owned())
}

/// Reads a key spec by its name in the KMS API.
pub fn key_spec(text: &str) -> Result<KeySpec, String> {
    let spec = [KeySpec::Aes256, KeySpec::Aes128].into_iter().find(|spec| spec.as_str() == text);
    spec.ok_or_else(|| "write AES_256 or AES_128; for another length use --number-of-bytes".to_owned())
}

/// Reads grant tokens as the AWS CLI does: several parameters, or a JSON list in one. No message has a token.
pub fn grant_tokens(parameters: &[String]) -> Result<Vec<String>, String> {
    let texts: Vec<_> = parameters.iter().map(|parameter| param_file::document(parameter)).collect::<Result<_, _>>()?;
    match &texts[..] {
        [list] if list.trim_start().starts_with('[') => {
            serde_json::from_str(list).map_err(|_| "the list is no JSON list of strings".to_owned())
        }
        // The line end of a file is no part of a token.
        _ => Ok(texts.iter().map(|token| token.trim_end().to_owned()).collect()),
    }
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
        let file = std::env::temp_dir().join(format!("datakey-aws-context-{}", std::process::id()));
        for text in [json, "purpose=orders,stage=prod"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(encryption_context(&format!("file://{}", file.display())).as_ref(), Ok(&expected));
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn context_of_a_table_reads_no_file() {
        let file = std::env::temp_dir().join(format!("datakey-aws-local-{}", std::process::id()));
        std::fs::write(&file, "stage=s3cret").unwrap();
        let path = file.display();
        for text in ["file://PATH", "fileb://PATH", "x@=file://PATH", "a=b,x@=file://PATH", "x @= file://PATH", "x@=y"]
        {
            let error = encryption_context_without_files(&text.replace("PATH", &path.to_string())).unwrap_err();
            assert!(error.contains("files are read for flags only") && !error.contains("s3cret"), "{text}: {error}");
        }
        std::fs::remove_file(&file).unwrap();
        let expected = Ok(pairs(&[("purpose", "file://orders"), ("stage", "prod")]));
        assert_eq!(encryption_context_without_files("purpose=file://orders,stage=prod"), expected);
        assert_eq!(encryption_context_without_files(r#"{"purpose": "file://orders", "stage": "prod"}"#), expected);
    }

    #[test]
    fn key_specs_have_their_names_in_the_kms_api() {
        assert_eq!(key_spec("AES_128"), Ok(KeySpec::Aes128));
        assert!(key_spec("aes_128").unwrap_err().contains("--number-of-bytes"));
        assert!(region("eu-west-1").is_ok() && region("Paris").is_err());
    }

    #[test]
    fn written_context_is_read_back() {
        for pairs_ in [
            &[][..],
            &[("purpose", "orders"), ("stage", "prod")],
            &[("arn:aws:s3", "a/b.c-d_e")],
            &[("a@", "b"), ("c+d", "e")],
            &[("a", "b, c"), ("d", "'e\"=\\")],
            &[("", ""), ("ä", "\u{202e}"), ("file", "file:///etc/hostname")],
        ] {
            let context = pairs(pairs_);
            let written = encryption_context_argument(&context);
            assert_eq!(encryption_context_without_files(&written), Ok(context), "{written}");
        }
        assert_eq!(encryption_context_argument(&pairs(&[("a", "b"), ("c", "d")])), "a=b,c=d");
    }

    #[test]
    fn json_of_another_form_is_refused() {
        for text in [r#"{"number": 1}"#, r#"["a"]"#, "{", r#"{"a": {"b": "c"}}"#] {
            assert!(encryption_context(text).unwrap_err().contains("no JSON object of strings"), "{text}");
        }
    }

    #[test]
    fn grant_tokens_are_words_or_a_json_list() {
        let read = |words: &[&str]| grant_tokens(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let both = || Ok(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(read(&["one", "two"]), both());
        assert_eq!(read(&[r#"["one", "two"]"#]), both());
        let error = read(&[r#"["s3cret", 2]"#]).unwrap_err();
        assert!(error.contains("JSON list") && !error.contains("s3cret"), "{error}");
    }
}
