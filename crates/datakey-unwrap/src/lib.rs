//! AWS KMS `Decrypt`, under the user's own credentials: whether a recorded data key unwraps. The plaintext is measured
//! and overwritten here; nothing of it leaves this module but its length and, where that gives nothing away, its
//! SHA-256.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{collections::BTreeMap, time::Duration};

use aws_config::{
    Region, SdkConfig, environment::region::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
    profile::ProfileFileRegionProvider,
};
use aws_sdk_kms::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::decrypt::DecryptError,
    primitives::Blob,
};
use datakey::{
    api::{IssuedVersion, KeyRequest, KeySpec},
    arn::KmsArn,
    secret::sha256,
    text::{self, error_chain},
};
use datakey_aws::{Aws, User};
use serde::Serialize;
use zeroize::Zeroizing;

/// Longest wait for the answer to one call, credentials and retries included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The shortest plaintext whose SHA-256 is shown: of fewer random bytes somebody may try them all.
const SHORTEST_FINGERPRINTED: usize = 16;

/// What came of asking KMS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all_fields = "camelCase")]
pub enum Decryption {
    /// It unwraps, to a data key of the length that was asked for.
    Unwrapped {
        /// The length of the data key, in bytes.
        length: usize,
        /// SHA-256 of the data key in hexadecimal digits, of 16 bytes and more only.
        #[serde(skip_serializing_if = "Option::is_none")]
        plaintext_sha256: Option<String>,
    },
    /// It does not unwrap, or to something else: this data key can't be used now.
    Failed {
        /// Why.
        why: String,
    },
    /// It is not known whether it unwraps: KMS was not reached, or did not let this user try.
    NotAsked {
        /// Why.
        why: String,
    },
}

/// KMS under the user's own credentials, in any Region.
pub struct Unwrapper {
    shared: SdkConfig,
    regions: BTreeMap<String, Client>,
}

// === impl Unwrapper ===

impl Unwrapper {
    /// Reads the AWS configuration as the AWS CLI does: environment, profile, IAM Identity Center, credential process,
    /// web identity, container and instance metadata; AWS_ENDPOINT_URL_KMS, AWS_CA_BUNDLE. Nothing is called yet. `app` names
    /// the program and its version in the user agent of each call.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub async fn from_env(app: &'static str) -> Result<Self, String> {
        let aws = Aws::from_env(app, User::Person).await?;
        // Each client has the Region of a recorded ARN; the user's own is for roles that are assumed on the way. A
        // terminal without one is seldom on EC2, so its metadata service is not asked.
        let own = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static("us-east-1"));
        Ok(Self { shared: aws.loader().region(own).load().await, regions: BTreeMap::new() })
    }

    /// Asks KMS to unwrap a recorded data key by what is recorded of it: its key ARN and its encryption context.
    pub async fn unwrap(&mut self, issued: &IssuedVersion) -> Decryption {
        let Some(arn) = KmsArn::parse(&issued.key_id) else {
            return Decryption::Failed {
                why: format!("its keyId is no ARN of a KMS key: {}", printable(&issued.key_id)),
            };
        };
        // None rather than an empty one: policies can tell them apart.
        let context = issued.request.context();
        let context = (!context.is_empty()).then(|| context.clone().into_iter().collect());
        let decrypt = self
            .regional(arn.region)
            .decrypt()
            .key_id(&issued.key_id)
            .ciphertext_blob(Blob::new(issued.ciphertext_blob.0.clone()))
            .set_encryption_context(context);
        match decrypt.send().await {
            Ok(mut answer) => {
                // The bytes are this answer's alone, so they are taken out of it and not copied.
                let plaintext = answer.plaintext.take().map(Blob::into_inner).unwrap_or_default();
                measured(&Zeroizing::new(plaintext), expected_length(&issued.request))
            }
            Err(error) => failed(&error),
        }
    }

    fn regional(&mut self, region: &str) -> &Client {
        self.regions.entry(region.to_owned()).or_insert_with(|| {
            let config = aws_sdk_kms::config::Builder::from(&self.shared)
                .region(Region::new(region.to_owned()))
                .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build())
                .build();
            Client::from_conf(config)
        })
    }
}

fn expected_length(request: &KeyRequest) -> Option<usize> {
    match request.key_spec {
        Some(KeySpec::Aes256) => Some(32),
        Some(KeySpec::Aes128) => Some(16),
        None => request.number_of_bytes.and_then(|bytes| usize::try_from(bytes).ok()),
    }
}

/// What may be told of a plaintext.
fn measured(plaintext: &Zeroizing<Vec<u8>>, expected: Option<usize>) -> Decryption {
    let length = plaintext.len();
    if Some(length) != expected {
        let expected = expected.map_or_else(|| "none".to_owned(), |expected| expected.to_string());
        return Decryption::Failed { why: format!("it unwraps to {length} bytes, and {expected} were asked for") };
    }
    let plaintext_sha256 = (length >= SHORTEST_FINGERPRINTED).then(|| sha256(plaintext));
    Decryption::Unwrapped { length, plaintext_sha256 }
}

fn failed(error: &SdkError<DecryptError>) -> Decryption {
    match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an error without a code");
            let message =
                service.err().message().map(|message| format!(": {}", printable(message))).unwrap_or_default();
            refused(code, &message)
        }
        SdkError::TimeoutError(_) => not_asked("AWS KMS did not answer in time: check the network"),
        // What it says could hold a part of the answer, and so of the plaintext.
        SdkError::ResponseError(_) => {
            not_asked("the answer was none of AWS KMS: check what endpoint is called (AWS_ENDPOINT_URL_KMS)")
        }
        // No call was made; most often there are no credentials.
        other => not_asked(&format!(
            "AWS KMS could not be called: {}; check AWS credentials (aws sts get-caller-identity) and network",
            printable(&error_chain(other))
        )),
    }
}

fn not_asked(why: &str) -> Decryption {
    Decryption::NotAsked { why: why.to_owned() }
}

/// Whether a refusal speaks of the data key and the KMS key, or of the caller (AWS KMS API reference, `Decrypt`, errors).
fn refused(code: &str, message: &str) -> Decryption {
    let why = format!("AWS KMS refuses: {code}{message}");
    match code {
        "InvalidCiphertextException" => Decryption::Failed {
            why: format!("{why}: the wrapped data key, its KMS key and its encryption context don't belong together"),
        },
        "IncorrectKeyException"
        | "DisabledException"
        | "NotFoundException"
        | "KMSInvalidStateException"
        | "InvalidKeyUsageException" => Decryption::Failed { why },
        "AccessDeniedException" => Decryption::NotAsked {
            why: format!("{why}; your AWS identity needs kms:Decrypt, as kubectl datakey policy prints it"),
        },
        _ => Decryption::NotAsked { why },
    }
}

/// On one line, as a terminal may show it.
fn printable(text: &str) -> String {
    text::printable(text, usize::MAX)
}

#[cfg(test)]
mod tests {
    use datakey::fixtures;

    use super::*;

    fn plaintext(length: usize) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(vec![7; length])
    }

    #[test]
    fn a_plaintext_that_could_be_guessed_has_no_fingerprint() {
        for length in [1, 8, 15] {
            let told = measured(&plaintext(length), Some(length));
            assert_eq!(told, Decryption::Unwrapped { length, plaintext_sha256: None });
        }
        for length in [16, 32, 1024] {
            let plaintext_sha256 = Some(sha256(&vec![7; length]));
            assert_eq!(measured(&plaintext(length), Some(length)), Decryption::Unwrapped { length, plaintext_sha256 });
        }
    }

    #[test]
    fn a_plaintext_of_another_length_is_told_and_not_fingerprinted() {
        for expected in [Some(16), None] {
            let Decryption::Failed { why } = measured(&plaintext(32), expected) else { panic!("{expected:?}") };
            assert!(why.contains("32 bytes"), "{why}");
        }
    }

    #[test]
    fn the_length_is_the_one_that_was_asked_for() {
        let mut request = fixtures::request();
        assert_eq!(expected_length(&request), Some(32));
        request.key_spec = Some(KeySpec::Aes128);
        assert_eq!(expected_length(&request), Some(16));
        (request.key_spec, request.number_of_bytes) = (None, Some(64));
        assert_eq!(expected_length(&request), Some(64));
    }

    #[test]
    fn what_speaks_of_the_caller_says_nothing_about_the_data_key() {
        for code in
            ["DisabledException", "InvalidCiphertextException", "IncorrectKeyException", "KMSInvalidStateException"]
        {
            assert!(matches!(refused(code, ""), Decryption::Failed { .. }), "{code}");
        }
        for code in ["AccessDeniedException", "ExpiredTokenException", "ThrottlingException", "KMSInternalException"] {
            assert!(matches!(refused(code, ""), Decryption::NotAsked { .. }), "{code}");
        }
    }
}
