//! The calls of `Decrypt`.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use aws_config::{Region, SdkConfig, retry::RetryConfig};
use aws_sdk_kms::{Client, config::timeout::TimeoutConfig, primitives::Blob};
use datakey::{
    api::{EncryptionContext, IssuedVersion},
    arn::{self, KmsArn},
    text::clause,
};
use datakey_aws::{Aws, NO_REGION, lacks_credentials};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::{
    caller::Caller,
    decryption::{self, Decryption},
    refusal::{Cause, Refusal},
};

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

/// A client of KMS for all Regions, with the credentials of the caller.
pub struct Decrypter {
    shared: SdkConfig,
    own_region: Option<String>,
    endpoint_url: Option<String>,
    timeout: Duration,
    retries: Option<u32>,
    regions: Mutex<BTreeMap<String, Client>>,
    /// The first failure to get credentials. Later calls end with it.
    without_credentials: OnceLock<Refusal>,
}

// === impl Decrypter ===

impl Decrypter {
    /// Reads the AWS configuration, as the AWS CLI does. Calls no service.
    ///
    /// Credentials come from the environment, the profile, a web identity, or the metadata of the container or instance; for
    /// a person also from IAM Identity Center and a credential process. `AWS_ENDPOINT_URL_KMS` and `AWS_CA_BUNDLE` apply.
    ///
    /// # Errors
    /// Returns a message if a setting cannot be used.
    pub async fn new(caller: &Caller) -> Result<Self, String> {
        let aws = Aws::with_overrides(caller.app, caller.user, &caller.overrides).await?;
        Ok(Self {
            shared: aws.load_for_command(caller.fallback_region.as_deref()).await,
            own_region: aws.own_region().await.map(|region| region.to_string()),
            endpoint_url: caller.overrides.endpoint_url.clone(),
            timeout: caller.timeout,
            retries: caller.retries,
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
            Ok((plaintext, _)) => decryption::inspect(&plaintext, issued),
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
        let region = named.ok_or_else(|| Refusal::new(Cause::Unavailable, NO_REGION))?;
        let (plaintext, key_arn) = self.call(region, key_id, ciphertext_blob, encryption_context).await?;
        if !KmsArn::parse(&key_arn).is_some_and(|arn| arn.is_key()) {
            return Err(Refusal::no_answer_of_kms());
        }
        Ok(Identity { key_arn, length: plaintext.len() })
    }

    /// Has KMS unwrap a data key or a private key (PKCS #8 in DER) under exactly this KMS key. The plaintext is overwritten when it is
    /// dropped.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if it does not unwrap, if another KMS key answers, or if no ARN of a key is given.
    #[cfg(feature = "plaintext")]
    pub async fn unwrap_key(
        &self,
        key_arn: &str,
        ciphertext_blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let Some(arn) = KmsArn::parse(key_arn).filter(KmsArn::is_key) else {
            let why = format!("{} is no ARN of a KMS key", clause(key_arn));
            return Err(Refusal::new(Cause::Mismatch, &why));
        };
        let (plaintext, answered) = self.call(arn.region, Some(key_arn), ciphertext_blob, context).await?;
        if answered != key_arn {
            let why = format!("AWS KMS answers with another KMS key: {}", clause(&answered));
            return Err(Refusal::new(Cause::Mismatch, &why));
        }
        Ok(plaintext)
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
            let refusal = Refusal::from(&error);
            if lacks_credentials(&error) { self.without_credentials.get_or_init(|| refusal).clone() } else { refusal }
        })?;
        // The bytes are moved out of the answer, not copied, so that overwriting them leaves no copy in memory.
        let plaintext = Zeroizing::new(answer.plaintext.take().map(Blob::into_inner).unwrap_or_default());
        let key_id = answer.key_id.take().unwrap_or_default();
        // KMS answers with both, so another program answered.
        if plaintext.is_empty() || key_id.is_empty() {
            return Err(Refusal::no_answer_of_kms());
        }
        Ok((plaintext, key_id))
    }

    fn regional(&self, region: &str) -> Client {
        let create = || {
            let mut config = aws_sdk_kms::config::Builder::from(&self.shared)
                .region(Region::new(region.to_owned()))
                .timeout_config(TimeoutConfig::builder().operation_timeout(self.timeout).build());
            if let Some(retries) = self.retries {
                config = config.retry_config(RetryConfig::standard().with_max_attempts(retries.saturating_add(1)));
            }
            if let Some(url) = &self.endpoint_url {
                config = config.endpoint_url(url);
            }
            Client::from_conf(config.build())
        };
        self.regions.lock().entry(region.to_owned()).or_insert_with(create).clone()
    }
}
