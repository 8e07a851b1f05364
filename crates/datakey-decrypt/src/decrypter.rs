//! The calls of `Decrypt`.

use aws_sdk_kms::primitives::Blob;
use datakey::{
    api::{EncryptionContext, IssuedVersion},
    arn::{self, KmsArn},
    text::clause,
};
use datakey_aws::NO_REGION;
use zeroize::Zeroizing;

use crate::{
    caller::Caller,
    clients::{Clients, sent_context},
    comparison::{Comparison, PlaintextTag},
    decryption::{self, Decryption},
    refusal::{Cause, Refusal},
};

/// What a caller needs.
const PERMISSIONS: &str = "kms:Decrypt, as kubectl datakey policy prints it";

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

/// The result of asking KMS to unwrap a version, and what it is compared with other versions by.
pub struct Comparable {
    /// The result.
    pub decryption: Decryption,
    /// Equal for equal plaintexts; `None` unless KMS unwrapped the version to what was asked for.
    pub tag: Option<PlaintextTag>,
    /// Whether the KMS key is disabled, deleted or about to be deleted, or not for encryption.
    pub is_key_unusable: bool,
}

/// A client of KMS for all Regions, with the credentials of the caller.
pub struct Decrypter {
    clients: Clients,
    comparison: Comparison,
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
        Ok(Self { clients: Clients::new(caller).await?, comparison: Comparison::new()? })
    }

    /// Asks KMS to unwrap a recorded data key, with the recorded key ARN and encryption context.
    pub async fn decrypt(&self, issued: &IssuedVersion) -> Decryption {
        self.decrypt_comparably(issued).await.decryption
    }

    /// Asks the same, and returns what several versions are compared by.
    pub async fn decrypt_comparably(&self, issued: &IssuedVersion) -> Comparable {
        let without_tag = |decryption, is_key_unusable| Comparable { decryption, tag: None, is_key_unusable };
        let Some(arn) = KmsArn::parse(&issued.key_id) else {
            let why = format!("its keyId is no ARN of a KMS key: {}", clause(&issued.key_id));
            return without_tag(Decryption::Failed { why }, false);
        };
        let blob = &issued.ciphertext_blob.0;
        match self.call(arn.region, Some(&issued.key_id), blob, issued.request.context()).await {
            Ok((plaintext, _)) => {
                let decryption = decryption::inspect(&plaintext, issued);
                let tag = decryption.is_unwrapped().then(|| self.comparison.tag(&plaintext));
                Comparable { decryption, tag, is_key_unusable: false }
            }
            Err(refusal) => {
                let is_key_unusable = refusal.cause == Cause::KeyUnusable;
                without_tag(refusal.into(), is_key_unusable)
            }
        }
    }

    /// Asks KMS to unwrap a data key of which little is known, and returns what KMS answers of it.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if it does not unwrap, or if that is not known.
    pub async fn identify(&self, wrapped: &WrappedKey<'_>) -> Result<Identity, Refusal> {
        let WrappedKey { key_id, region, ciphertext_blob, encryption_context } = *wrapped;
        let named = arn::resolve_region(key_id.unwrap_or_default(), region, self.clients.own_region.as_deref());
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
        let answer = self
            .clients
            .of(region)?
            .decrypt()
            .set_key_id(key_id.map(str::to_owned))
            .ciphertext_blob(Blob::new(ciphertext_blob))
            .set_encryption_context(sent_context(context))
            .send()
            .await;
        let mut answer = answer.map_err(|error| self.clients.refusal(&error, PERMISSIONS))?;
        // The bytes are moved out of the answer, not copied, so that overwriting them leaves no copy in memory.
        let plaintext = Zeroizing::new(answer.plaintext.take().map(Blob::into_inner).unwrap_or_default());
        let key_id = answer.key_id.take().unwrap_or_default();
        // KMS answers with both, so another program answered.
        if plaintext.is_empty() || key_id.is_empty() {
            return Err(Refusal::no_answer_of_kms());
        }
        Ok((plaintext, key_id))
    }
}
