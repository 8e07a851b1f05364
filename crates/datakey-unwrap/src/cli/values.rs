//! The values of arguments.

use std::{fmt, time::Duration};

use datakey::{
    api::{EncryptionContext, KeyPairSpec},
    arn::KmsArn,
    selection::{Versions, version_number},
    text::clause,
};
use datakey_aws::parameters;

use crate::folder::{CURRENT, NUMBER, ORIGIN};

/// A KMS key that may have wrapped a key, with the encryption context that is used with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The ARN of the KMS key.
    pub key_arn: String,
    /// The encryption context; empty for none.
    pub context: EncryptionContext,
}

/// The SHA-256 that the wrapped key of a version must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPin {
    /// The version.
    pub version: i32,
    /// Hexadecimal digits, in lower case.
    pub sha256: String,
}

/// The name of the file of a version: `{version}` in it stands for the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

const VERSION: &str = "{version}";

/// Reads a KMS key and its encryption context.
pub fn trusted(text: &str) -> Result<Trusted, String> {
    let (arn, context) = text.trim().split_once(char::is_whitespace).ok_or(
        "after the key ARN there is no encryption context: write a space and the context, for example purpose=orders, or none",
    )?;
    if !KmsArn::parse(arn).is_some_and(|arn| arn.is_key()) {
        return Err(format!(
            "{} is no ARN of a KMS key: write arn:aws:kms:REGION:ACCOUNT:key/KEY-ID, as keyId of the Secret has it",
            clause(arn)
        ));
    }
    let context = match context.trim() {
        "none" => EncryptionContext::new(),
        context => parameters::encryption_context_without_files(context)?,
    };
    Ok(Trusted { key_arn: arn.to_owned(), context })
}

/// Reads the kind of a key pair by its name in the KMS API.
pub fn key_pair_spec(text: &str) -> Result<KeyPairSpec, String> {
    let spec = KeyPairSpec::ALL.iter().find(|spec| spec.as_str() == text);
    spec.copied().ok_or_else(|| {
        let names: Vec<_> = KeyPairSpec::ALL.iter().map(|spec| spec.as_str()).collect();
        format!("write one of {}", names.join(", "))
    })
}

/// Reads the SHA-256 of a version.
pub fn blob_pin(text: &str) -> Result<BlobPin, String> {
    let (number, digits) = text.split_once('=').unwrap_or_default();
    let is_sha256 = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match version_number(number).filter(|_| is_sha256) {
        Some(version) => Ok(BlobPin { version, sha256: digits.to_ascii_lowercase() }),
        None => Err("write VERSION=SHA256, for example 1= and 64 hexadecimal digits".to_owned()),
    }
}

/// Reads permissions.
pub fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| text.len() <= 4);
    match mode {
        Some(mode) if mode & 0o7111 != 0 || mode & 0o022 != 0 => {
            Err("a key file is not executable, and only its owner may write it: write for example 0400 or 0440"
                .to_owned())
        }
        Some(mode) if mode & 0o400 != 0 => Ok(mode),
        _ => Err("write octal digits with which the owner can read, for example 0400".to_owned()),
    }
}

/// Reads a longest wait.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok();
    duration
        .filter(|duration| (Duration::from_millis(100)..=Duration::from_hours(1)).contains(duration))
        .ok_or_else(|| "write a duration from 100ms to 1h, for example 30s".to_owned())
}

/// Reads the name of the file of a version.
pub fn file_name(text: &str) -> Result<FileName, String> {
    // The links of the folder begin with two periods.
    if text.is_empty() || text.len() > 200 || text.contains(['/', '\0']) || text.starts_with("..") || text == "." {
        return Err(
            "write the name of a file of at most 200 bytes, without '/', that does not begin with '..'".to_owned()
        );
    }
    if [CURRENT, NUMBER, ORIGIN].contains(&text) {
        return Err(format!("{text} is the name of another file in the folder: write another one"));
    }
    Ok(FileName(text.to_owned()))
}

// === impl FileName ===

impl FileName {
    /// The name for a version.
    pub fn of(&self, version: i32) -> String {
        self.0.replace(VERSION, &version.to_string())
    }

    /// Refuses one name for several files.
    pub fn check_for(&self, versions: &Versions) -> Result<(), String> {
        let is_one = match versions {
            Versions::All => false,
            Versions::Current => true,
            Versions::Only(numbers) => numbers.len() == 1,
        };
        if is_one || self.0.contains(VERSION) {
            return Ok(());
        }
        Err(format!("all versions would have one file: write {VERSION} in the name, or --versions current"))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
