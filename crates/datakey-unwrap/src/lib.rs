//! Unwraps recorded data keys and key pairs with `Decrypt` of AWS KMS, and shows nothing of their plaintext.
//!
//! This is the only crate of the workspace that calls `Decrypt`; the operator does not depend on it. A [`Decrypter`]
//! uses the credentials of the user who runs the program. It reports the length of a plaintext and, if the plaintext is
//! too long to be guessed, its SHA-256; of a private key, whether it belongs to the recorded public key. It overwrites the plaintext.
//!
//! | item | purpose |
//! | --- | --- |
//! | [`Decrypter::from_env`] | reads the AWS configuration, as the AWS CLI does |
//! | [`Decrypter::decrypt`] | asks KMS to unwrap one recorded version |
//! | [`Decryption`] | the result: it unwraps, it does not, or that is not known |
//!
//! # Example
//!
//! ```no_run
//! use datakey::api::DataKey;
//! use datakey_unwrap::{Decrypter, Decryption};
//!
//! # async fn example(key: DataKey) -> Result<(), String> {
//! let decrypter = Decrypter::from_env("my-program-1.0").await?;
//! for issued in key.record() {
//!     match decrypter.decrypt(issued).await {
//!         Decryption::Unwrapped { length, .. } => println!("version {}: {length} bytes", issued.version),
//!         Decryption::UnwrappedPair { public_half, .. } => println!("version {}: {public_half:?}", issued.version),
//!         Decryption::Failed { why } => println!("version {} does not unwrap: {why}", issued.version),
//!         Decryption::Unknown { why } => println!("version {}: {why}", issued.version),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use aws_config::{Region, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::decrypt::DecryptError,
    primitives::Blob,
};
use datakey::{
    api::{EncryptionContext, IssuedVersion, KeyPairSpec, Material},
    arn::{self, KmsArn},
    secret::sha256,
    text::clause,
};
use datakey_aws::{Aws, NO_REGION, Overrides, User, lacks_credentials, why_unsent};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::Zeroizing;

mod key_pair;

pub use key_pair::PublicHalf;

/// The longest wait for the answer to one call. It includes retries and the time to get credentials.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The length of the shortest plaintext whose SHA-256 is reported. From the SHA-256 of fewer bytes, an attacker could
/// find the plaintext by trying all values.
const SHORTEST_FINGERPRINTED: usize = 16;

/// The result of asking KMS to unwrap a recorded data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "result", rename_all_fields = "camelCase")]
pub enum Decryption {
    /// KMS unwrapped it, to a data key of the requested length.
    Unwrapped {
        /// The length of the data key, in bytes.
        length: usize,
        /// SHA-256 of the data key, in hexadecimal digits; `None` for a data key of less than 16 bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        plaintext_sha256: Option<String>,
    },
    /// KMS unwrapped the private key of a key pair, and it is of the requested kind.
    UnwrappedPair {
        /// The kind of the key pair.
        key_pair_spec: KeyPairSpec,
        /// Whether the recorded public key belongs to the private key.
        public_half: PublicHalf,
    },
    /// KMS cannot unwrap it, or the plaintext is not what was asked for: the data key or key pair cannot be used now.
    Failed {
        /// The cause.
        why: String,
    },
    /// It is not known whether it unwraps: the call did not reach KMS, or KMS refused the caller.
    // The name in JSON is part of the output of `kubectl datakey verify`.
    #[serde(rename = "NotAsked")]
    Unknown {
        /// The cause.
        why: String,
    },
}

/// Why a wrapped data key was not unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// KMS cannot unwrap it.
    Failed {
        /// The cause.
        why: String,
    },
    /// It is not known whether it unwraps.
    Unknown {
        /// The cause.
        why: String,
    },
}

/// A wrapped data key from outside the cluster, with what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct WrappedKey<'a> {
    /// The KMS key, in one of the forms that KMS accepts. Without it KMS finds the key by the wrapped data key.
    pub key_id: Option<&'a str>,
    /// The Region to call, where the KMS key is named by no ARN.
    pub region: Option<&'a str>,
    /// The wrapped data key.
    pub ciphertext_blob: &'a [u8],
    /// The encryption context.
    pub encryption_context: &'a EncryptionContext,
}

/// What KMS knows about a wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The ARN of the KMS key that wrapped it.
    pub key_arn: String,
    /// The length of the data key, in bytes.
    pub length: usize,
}

/// A client of KMS for all Regions, with the credentials of the user.
pub struct Decrypter {
    shared: SdkConfig,
    own_region: Option<String>,
    endpoint_url: Option<String>,
    regions: Mutex<BTreeMap<String, Client>>,
    /// The first failure to get credentials. Later calls end with it.
    without_credentials: OnceLock<Refusal>,
}

// === impl Decrypter ===

impl Decrypter {
    /// Reads the AWS configuration, as the AWS CLI does. Calls no service.
    ///
    /// Credentials come from the environment, the profile, IAM Identity Center, a credential process, a web identity,
    /// or the metadata of the container or instance. `AWS_ENDPOINT_URL_KMS` and `AWS_CA_BUNDLE` apply. `app` is the
    /// name and version of the program in the user agent of each call.
    ///
    /// # Errors
    /// Returns a message if a setting cannot be used.
    pub async fn from_env(app: &'static str) -> Result<Self, String> {
        Self::with_overrides(app, &Overrides::default()).await
    }

    /// The same, with the settings of a command line before those of the environment and the profile files.
    ///
    /// # Errors
    /// Returns a message if a setting cannot be used.
    pub async fn with_overrides(app: &'static str, overrides: &Overrides) -> Result<Self, String> {
        let aws = Aws::with_overrides(app, User::Person, overrides).await?;
        Ok(Self {
            shared: aws.load_for_person().await,
            own_region: aws.own_region().await.map(|region| region.to_string()),
            endpoint_url: overrides.endpoint_url.clone(),
            regions: Mutex::default(),
            without_credentials: OnceLock::new(),
        })
    }

    /// Asks KMS to unwrap a recorded data key, with the recorded key ARN and encryption context.
    pub async fn decrypt(&self, issued: &IssuedVersion) -> Decryption {
        let Some(arn) = KmsArn::parse(&issued.key_id) else {
            return Decryption::Failed { why: format!("its keyId is no ARN of a KMS key: {}", clause(&issued.key_id)) };
        };
        let blob = &issued.ciphertext_blob.0;
        match self.call(arn.region, Some(&issued.key_id), blob, issued.request.context()).await {
            Ok((plaintext, _)) => inspect(&plaintext, issued),
            Err(refusal) => refusal.into(),
        }
    }

    /// Asks KMS to unwrap a data key of which little is known, and returns what KMS answers of it.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if it does not unwrap, or if that is not known.
    pub async fn identify(&self, wrapped: &WrappedKey<'_>) -> Result<Identity, Refusal> {
        let WrappedKey { key_id, region, ciphertext_blob, encryption_context } = *wrapped;
        let named = arn::resolve_region(key_id.unwrap_or_default(), region, self.own_region.as_deref());
        let region = named.ok_or_else(|| unknown(NO_REGION))?;
        let (plaintext, key_arn) = self.call(region, key_id, ciphertext_blob, encryption_context).await?;
        if !KmsArn::parse(&key_arn).is_some_and(|arn| arn.is_key()) {
            return Err(unknown("the answer names no KMS key: check what endpoint is called (AWS_ENDPOINT_URL_KMS)"));
        }
        Ok(Identity { key_arn, length: plaintext.len() })
    }

    /// Calls `Decrypt`. Returns the plaintext and the ARN of the KMS key.
    async fn call(
        &self,
        region: &str,
        key_id: Option<&str>,
        ciphertext_blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, String), Refusal> {
        // To look for credentials again takes seconds, where instance metadata do not answer, for each of many data keys.
        if let Some(known) = self.without_credentials.get() {
            return Err(known.clone());
        }
        // Policies can distinguish an empty encryption context from an absent one, so an empty one is not sent.
        let context = (!context.is_empty()).then(|| context.clone().into_iter().collect());
        let answer = self
            .regional(region)
            .decrypt()
            .set_key_id(key_id.map(str::to_owned))
            .ciphertext_blob(Blob::new(ciphertext_blob))
            .set_encryption_context(context)
            .send()
            .await;
        let mut answer = answer.map_err(|error| {
            let refusal = refusal(&error);
            if lacks_credentials(&error) { self.without_credentials.get_or_init(|| refusal).clone() } else { refusal }
        })?;
        // The bytes are moved out of the answer, not copied, so that overwriting them leaves no copy in memory.
        let plaintext = Zeroizing::new(answer.plaintext.take().map(Blob::into_inner).unwrap_or_default());
        Ok((plaintext, answer.key_id.take().unwrap_or_default()))
    }

    fn regional(&self, region: &str) -> Client {
        let create = || {
            let mut config = aws_sdk_kms::config::Builder::from(&self.shared)
                .region(Region::new(region.to_owned()))
                .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build());
            if let Some(url) = &self.endpoint_url {
                config = config.endpoint_url(url);
            }
            Client::from_conf(config.build())
        };
        self.regions.lock().entry(region.to_owned()).or_insert_with(create).clone()
    }
}

// === impl Refusal ===

impl From<Refusal> for Decryption {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed { why } => Self::Failed { why },
            Refusal::Unknown { why } => Self::Unknown { why },
        }
    }
}

/// Reports on a plaintext what reveals nothing of it.
fn inspect(plaintext: &Zeroizing<Vec<u8>>, issued: &IssuedVersion) -> Decryption {
    match issued.request.material() {
        Some(Material::Pair(key_pair_spec)) => {
            let public_key = issued.public_key.as_ref().map(|key| key.0.as_slice()).unwrap_or_default();
            match key_pair::check(plaintext, key_pair_spec, public_key) {
                Ok(public_half) => Decryption::UnwrappedPair { key_pair_spec, public_half },
                Err(why) => Decryption::Failed { why },
            }
        }
        material => measure(plaintext, material.and_then(Material::length)),
    }
}

/// Reports the length of a plaintext, and its SHA-256 if that reveals nothing.
fn measure(plaintext: &Zeroizing<Vec<u8>>, expected: Option<usize>) -> Decryption {
    let length = plaintext.len();
    if Some(length) != expected {
        let expected = expected.map_or_else(|| "none".to_owned(), |expected| expected.to_string());
        return Decryption::Failed { why: format!("it unwraps to {length} bytes, and {expected} were asked for") };
    }
    let plaintext_sha256 = (length >= SHORTEST_FINGERPRINTED).then(|| sha256(plaintext));
    Decryption::Unwrapped { length, plaintext_sha256 }
}

/// Converts an error of the AWS SDK.
fn refusal(error: &SdkError<DecryptError>) -> Refusal {
    match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an error without a code");
            let message = service.err().message().map(|message| format!(": {}", clause(message))).unwrap_or_default();
            refused(code, &message)
        }
        SdkError::TimeoutError(_) => unknown("AWS KMS did not answer in time: check the network"),
        // The text of this error can contain a part of the answer, and so of the plaintext.
        SdkError::ResponseError(_) => {
            unknown("the answer was none of AWS KMS: check what endpoint is called (AWS_ENDPOINT_URL_KMS)")
        }
        // The call was not sent; the usual cause is that no credentials were found.
        other => unknown(&format!(
            "AWS KMS could not be called: {}; check AWS credentials (aws sts get-caller-identity) and network",
            why_unsent(other)
        )),
    }
}

fn unknown(why: &str) -> Refusal {
    Refusal::Unknown { why: why.to_owned() }
}

/// Converts an error code of KMS: some concern the data key and its KMS key, the others concern the caller (AWS KMS API
/// reference, `Decrypt`, errors).
fn refused(code: &str, message: &str) -> Refusal {
    let why = format!("AWS KMS refuses: {code}{message}");
    match code {
        "InvalidCiphertextException" => Refusal::Failed {
            why: format!("{why}: what is wrapped, its KMS key and its encryption context don't belong together"),
        },
        "IncorrectKeyException"
        | "DisabledException"
        | "NotFoundException"
        | "KMSInvalidStateException"
        | "InvalidKeyUsageException" => Refusal::Failed { why },
        "AccessDeniedException" => Refusal::Unknown {
            why: format!("{why}; your AWS identity needs kms:Decrypt, as kubectl datakey policy prints it"),
        },
        _ => Refusal::Unknown { why },
    }
}

#[cfg(test)]
mod tests {
    use datakey::{api::DataKeyPair, fixtures::Sample as _};

    use super::*;

    fn plaintext(length: usize) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(vec![7; length])
    }

    #[test]
    fn short_plaintext_has_no_fingerprint() {
        for length in [1, 8, 15] {
            let decryption = measure(&plaintext(length), Some(length));
            assert_eq!(decryption, Decryption::Unwrapped { length, plaintext_sha256: None });
        }
        for length in [16, 32, 1024] {
            let plaintext_sha256 = Some(sha256(&vec![7; length]));
            assert_eq!(measure(&plaintext(length), Some(length)), Decryption::Unwrapped { length, plaintext_sha256 });
        }
    }

    #[test]
    fn plaintext_of_another_length_has_no_fingerprint() {
        for expected in [Some(16), None] {
            let Decryption::Failed { why } = measure(&plaintext(32), expected) else { panic!("{expected:?}") };
            assert!(why.contains("32 bytes"), "{why}");
        }
    }

    #[test]
    fn plaintext_of_a_key_pair_is_no_data_key() {
        let mut issued = datakey::fixtures::issued(1);
        assert!(matches!(inspect(&plaintext(32), &issued), Decryption::Unwrapped { length: 32, .. }));
        issued = DataKeyPair::version_like(&issued);
        let Decryption::Failed { why } = inspect(&plaintext(32), &issued) else { panic!("{issued:?}") };
        assert!(why.contains("PKCS #8"), "{why}");
    }

    #[test]
    fn error_of_the_caller_leaves_the_result_unknown() {
        for code in
            ["DisabledException", "InvalidCiphertextException", "IncorrectKeyException", "KMSInvalidStateException"]
        {
            assert!(matches!(refused(code, ""), Refusal::Failed { .. }), "{code}");
        }
        for code in ["AccessDeniedException", "ExpiredTokenException", "ThrottlingException", "KMSInternalException"] {
            assert!(matches!(refused(code, ""), Refusal::Unknown { .. }), "{code}");
        }
    }
}
