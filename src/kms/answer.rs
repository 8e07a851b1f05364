//! What makes an answer of KMS usable. The AWS SDK treats every field of an answer as optional. A data key that cannot be
//! decrypted again must never reach a Secret.

use aws_sdk_kms::{
    operation::{RequestId, generate_data_key_without_plaintext::GenerateDataKeyWithoutPlaintextOutput},
    primitives::Blob,
};

use super::errors::KmsFailure;
use datakey::{
    api::{KeyRequest, MAX_BLOB},
    arn,
};

/// A usable answer of KMS.
#[derive(Clone, PartialEq, Eq)]
pub struct GeneratedKey {
    /// The encrypted data key, 1 to [`MAX_BLOB`] bytes.
    pub ciphertext_blob: Vec<u8>,
    /// ARN of the KMS key that encrypted it.
    pub key_arn: String,
    /// ID of the key material, if the answer has one.
    pub key_material_id: Option<String>,
    /// Request ID of the call.
    pub request_id: Option<String>,
}

/// Returns the generated data key if the answer is complete and comes from the requested key.
///
/// # Errors
/// [`Reason::KmsAnswerInvalid`](datakey::reason::Reason::KmsAnswerInvalid) with what is wrong. Nothing of the answer is kept.
pub fn validate_answer(
    output: GenerateDataKeyWithoutPlaintextOutput,
    request: &KeyRequest,
    region: &str,
) -> Result<GeneratedKey, KmsFailure> {
    let request_id = output.request_id().map(str::to_owned);
    let unusable = |why: String| KmsFailure::unusable_answer(why, request_id.clone());
    let blob = output.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
    if blob.is_empty() {
        return Err(unusable("no CiphertextBlob".to_owned()));
    }
    if blob.len() > MAX_BLOB {
        return Err(unusable(format!("CiphertextBlob of {} bytes, at most {MAX_BLOB} are possible", blob.len())));
    }
    let Some(key_arn) = output.key_id else {
        return Err(unusable("no KeyId".to_owned()));
    };
    if !arn::may_answer(&request.key_id, region, &key_arn) {
        return Err(unusable("KeyId is not the ARN of the key that was asked for".to_owned()));
    }
    // These IDs only identify the call. If the record would not accept one, it is left out, because a rejected record would
    // cost the data key.
    let key_material_id = output.key_material_id.filter(|id| arn::is_key_material_id(id));
    let request_id = request_id.filter(|id| arn::is_request_id(id));
    Ok(GeneratedKey { ciphertext_blob: blob, key_arn, key_material_id, request_id })
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::operation::generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextOutputBuilder;

    use super::*;
    use datakey::{
        fixtures::{ARN, request},
        reason::Reason,
    };

    fn output() -> GenerateDataKeyWithoutPlaintextOutputBuilder {
        GenerateDataKeyWithoutPlaintextOutput::builder().ciphertext_blob(Blob::new(vec![7; 184])).key_id(ARN)
    }

    fn why_unusable(output: GenerateDataKeyWithoutPlaintextOutput) -> Box<str> {
        let Err(failed) = validate_answer(output, &request(), "eu-west-1") else { panic!("was accepted as usable") };
        assert_eq!(failed.failure.reason, Reason::KmsAnswerInvalid);
        failed.message
    }

    #[test]
    fn complete_answer_is_usable() {
        let Ok(key) = validate_answer(output().build(), &request(), "eu-west-1") else { panic!("was rejected") };
        assert_eq!((key.ciphertext_blob.len(), key.key_arn.as_str()), (184, ARN));
    }

    #[test]
    fn answer_without_a_usable_data_key_is_rejected() {
        assert!(why_unusable(output().set_ciphertext_blob(None).build()).contains("no CiphertextBlob"));
        assert!(why_unusable(output().ciphertext_blob(Blob::new(vec![])).build()).contains("no CiphertextBlob"));
        assert!(why_unusable(output().ciphertext_blob(Blob::new(vec![0; 6145])).build()).contains("6145 bytes"));
        assert!(why_unusable(output().set_key_id(None).build()).contains("no KeyId"));
        for odd in ["alias/orders", &ARN.replace("1234abcd", "\u{1b}[2J"), &format!("{ARN} "), &ARN.replace("-1:", ":")]
        {
            assert!(why_unusable(output().key_id(odd).build()).contains("not the ARN"), "{odd:?}");
        }
    }

    #[test]
    fn invalid_request_ids_are_left_out() {
        let answer = |id: &str| validate_answer(output().key_material_id(id).build(), &request(), "eu-west-1");
        for (id, kept) in [("ab".repeat(32), true), ("ab\u{202e}".to_owned(), false), ("a".repeat(65), false)] {
            let Ok(key) = answer(&id) else { panic!("was rejected") };
            assert_eq!(key.key_material_id.is_some(), kept, "{id:?}");
        }
    }

    #[test]
    fn largest_blob_of_kms_is_usable() {
        let largest = output().ciphertext_blob(Blob::new(vec![0; 6144])).build();
        assert!(validate_answer(largest, &request(), "eu-west-1").is_ok());
    }
}
