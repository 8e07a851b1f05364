//! The calls of `ReEncrypt`.

use aws_sdk_kms::{operation::RequestId as _, primitives::Blob};
use datakey::{
    api::{EncryptionContext, IssuedVersion, has_blob_length},
    arn::{self, KmsArn},
    text::clause,
};

use crate::{
    caller::Caller,
    clients::{Clients, sent_context},
    refusal::{Cause, Refusal},
};

/// What a caller needs.
const PERMISSIONS: &str = "kms:ReEncryptFrom on the KMS key that wrapped it and kms:ReEncryptTo on the new one, as kubectl datakey \
                           policy --rewrap prints them";

/// Where a data key is moved.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The ARN of the KMS key.
    pub key_arn: &'a str,
    /// The encryption context.
    pub context: &'a EncryptionContext,
}

/// A data key, wrapped by another KMS key or under another encryption context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The wrapped data key, or the wrapped private key of a pair.
    pub ciphertext_blob: Vec<u8>,
    /// The ARN of the new KMS key.
    pub key_arn: String,
    /// The ID of the key material in the new KMS key, if KMS returned it.
    pub key_material_id: Option<String>,
    /// The request ID of the call, for AWS CloudTrail.
    pub request_id: Option<String>,
}

/// A client of KMS for all Regions, with the credentials of the caller.
pub struct Rewrapper(Clients);

// === impl Rewrapper ===

impl Rewrapper {
    /// Reads the AWS configuration, as the AWS CLI does. Calls no service.
    ///
    /// # Errors
    /// Returns a message if a setting cannot be used.
    pub async fn new(caller: &Caller) -> Result<Self, String> {
        Clients::new(caller).await.map(Self)
    }

    /// Has KMS wrap a recorded data key once more. Its plaintext stays in KMS.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if KMS does not, or if the answer is not about these two KMS keys.
    pub async fn rewrap(&self, source: &IssuedVersion, to: &Destination<'_>) -> Result<Rewrapped, Refusal> {
        let Destination { key_arn, context } = *to;
        let region = KmsArn::parse(key_arn).filter(KmsArn::is_key).map(|arn| arn.region);
        let source_key = arn::in_region_of(&source.key_id, key_arn);
        let (Some(region), Some(source_key)) = (region, source_key) else {
            let why =
                format!("KMS keys of one Region are needed, and these are {} and {key_arn}", clause(&source.key_id));
            return Err(Refusal::new(Cause::Mismatch, &why));
        };
        let answer = self
            .0
            .of(region)?
            .re_encrypt()
            .ciphertext_blob(Blob::new(source.ciphertext_blob.0.clone()))
            .source_key_id(&source_key)
            .set_source_encryption_context(sent_context(source.request.context()))
            .destination_key_id(key_arn)
            .set_destination_encryption_context(sent_context(context))
            .send()
            .await
            .map_err(|error| self.0.refusal(&error, PERMISSIONS))?;
        let request_id = answer.request_id().filter(|id| arn::is_request_id(id)).map(str::to_owned);
        let blob = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        let is_new = has_blob_length(&blob) && blob != source.ciphertext_blob.0;
        let (Some(from), Some(by), true) = (answer.source_key_id, answer.key_id, is_new) else {
            return Err(Refusal::no_answer_of_kms());
        };
        // Of a multi-Region key, the answer can name the replica that wrapped: AWS documents the key that decrypted as SourceKeyId, and which
        // of the replicas that is was not seen on AWS.
        if !arn::decrypts_for(&from, &source_key) || by != key_arn {
            let why = format!("AWS KMS answers with other KMS keys: {} and {}", clause(&from), clause(&by));
            return Err(Refusal::new(Cause::Mismatch, &why));
        }
        let key_material_id = answer.destination_key_material_id.filter(|id| arn::is_key_material_id(id));
        Ok(Rewrapped { ciphertext_blob: blob, key_arn: by, key_material_id, request_id })
    }
}
