//! What makes an answer of KMS usable. The AWS SDK treats every field of an answer as optional. A data key that cannot be
//! decrypted again must never reach a Secret.

use aws_sdk_kms::{
    operation::{
        RequestId, generate_data_key_pair_without_plaintext::GenerateDataKeyPairWithoutPlaintextOutput,
        generate_data_key_without_plaintext::GenerateDataKeyWithoutPlaintextOutput,
    },
    primitives::Blob,
};

use super::errors::KmsFailure;
use datakey::{
    api::{KeyPairSpec, KeyRequest, MAX_BLOB},
    arn,
    public_key::PublicKey,
};

/// A usable answer of KMS.
#[derive(Clone, PartialEq, Eq)]
pub struct GeneratedKey {
    /// The encrypted data key or private key, 1 to [`MAX_BLOB`] bytes.
    pub ciphertext_blob: Vec<u8>,
    /// The public key of a key pair, of the kind that was asked for (DER, SubjectPublicKeyInfo).
    pub public_key: Option<Vec<u8>>,
    /// ARN of the KMS key that encrypted it.
    pub key_arn: String,
    /// ID of the key material, if the answer has one.
    pub key_material_id: Option<String>,
    /// Request ID of the call.
    pub request_id: Option<String>,
}

/// An answer of either operation. Every field is optional for the AWS SDK.
#[derive(Clone, Default)]
pub struct Output {
    /// `CiphertextBlob`, or `PrivateKeyCiphertextBlob` of a key pair.
    blob: Option<Blob>,
    /// `PublicKey`.
    public_key: Option<Blob>,
    /// `KeyPairSpec`.
    pair: Option<String>,
    key_id: Option<String>,
    key_material_id: Option<String>,
    request_id: Option<String>,
}

impl From<GenerateDataKeyWithoutPlaintextOutput> for Output {
    fn from(output: GenerateDataKeyWithoutPlaintextOutput) -> Self {
        let request_id = output.request_id().map(str::to_owned);
        Self {
            blob: output.ciphertext_blob,
            key_id: output.key_id,
            key_material_id: output.key_material_id,
            request_id,
            ..Self::default()
        }
    }
}

impl From<GenerateDataKeyPairWithoutPlaintextOutput> for Output {
    fn from(output: GenerateDataKeyPairWithoutPlaintextOutput) -> Self {
        let request_id = output.request_id().map(str::to_owned);
        Self {
            blob: output.private_key_ciphertext_blob,
            public_key: output.public_key,
            pair: output.key_pair_spec.map(|pair| pair.as_str().to_owned()),
            key_id: output.key_id,
            key_material_id: output.key_material_id,
            request_id,
        }
    }
}

/// Returns the generated data key or key pair if the answer is complete, and comes from the requested key.
///
/// # Errors
/// [`Reason::KmsAnswerInvalid`](datakey::reason::Reason::KmsAnswerInvalid) with what is wrong. Nothing of the answer is kept.
pub fn validate_answer(output: Output, request: &KeyRequest, region: &str) -> Result<GeneratedKey, KmsFailure> {
    let request_id = output.request_id;
    let unusable = |why: String| KmsFailure::unusable_answer(why, request_id.clone());
    let blob = output.blob.map(Blob::into_inner).unwrap_or_default();
    let name = if request.key_pair_spec.is_some() { "PrivateKeyCiphertextBlob" } else { "CiphertextBlob" };
    if blob.is_empty() {
        return Err(unusable(format!("no {name}")));
    }
    if blob.len() > MAX_BLOB {
        return Err(unusable(format!("{name} of {} bytes, at most {MAX_BLOB} are possible", blob.len())));
    }
    let Some(key_arn) = output.key_id else {
        return Err(unusable("no KeyId".to_owned()));
    };
    if !arn::may_answer(&request.key_id, region, &key_arn) {
        return Err(unusable("KeyId is not the ARN of the key that was asked for".to_owned()));
    }
    let public_key = match request.key_pair_spec {
        None => None,
        Some(spec) => Some(checked_public_key(output.public_key, output.pair.as_deref(), spec).map_err(unusable)?),
    };
    // These IDs only identify the call. If the record would not accept one, it is left out, because a rejected record would
    // cost the data key.
    let key_material_id = output.key_material_id.filter(|id| arn::is_key_material_id(id));
    let request_id = request_id.filter(|id| arn::is_request_id(id));
    Ok(GeneratedKey { ciphertext_blob: blob, public_key, key_arn, key_material_id, request_id })
}

/// The public key of an answer if it is of the kind that was asked for.
fn checked_public_key(found: Option<Blob>, pair: Option<&str>, asked: KeyPairSpec) -> Result<Vec<u8>, String> {
    let Some(found) = found.map(Blob::into_inner) else { return Err("no PublicKey".to_owned()) };
    if pair.is_some_and(|pair| pair != asked.as_str()) {
        return Err(format!("KeyPairSpec is not {}", asked.as_str()));
    }
    match PublicKey::parse(&found, asked) {
        Ok(_) => Ok(found),
        Err(flaw) => Err(format!("PublicKey is not one of kind {}: {flaw}", asked.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::{
        operation::{
            generate_data_key_pair_without_plaintext::builders::GenerateDataKeyPairWithoutPlaintextOutputBuilder,
            generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextOutputBuilder,
        },
        types::DataKeyPairSpec,
    };

    use super::*;
    use datakey::{
        fixtures::{ARN, public_key_of, request},
        reason::Reason,
    };

    fn output() -> GenerateDataKeyWithoutPlaintextOutputBuilder {
        GenerateDataKeyWithoutPlaintextOutput::builder().ciphertext_blob(Blob::new(vec![7; 184])).key_id(ARN)
    }

    fn why_unusable(output: impl Into<Output>) -> Box<str> {
        why_unusable_for(&request(), output)
    }

    fn why_unusable_for(request: &KeyRequest, output: impl Into<Output>) -> Box<str> {
        let Err(failed) = validate_answer(output.into(), request, "eu-west-1") else {
            panic!("was accepted as usable")
        };
        assert_eq!(failed.failure.reason, Reason::KmsAnswerInvalid);
        failed.message
    }

    #[test]
    fn complete_answer_is_usable() {
        let Ok(key) = validate_answer(output().build().into(), &request(), "eu-west-1") else { panic!("was rejected") };
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

    fn pair_request() -> KeyRequest {
        KeyRequest { key_spec: None, key_pair_spec: Some(KeyPairSpec::EccNistP256), ..request() }
    }

    fn pair() -> GenerateDataKeyPairWithoutPlaintextOutputBuilder {
        GenerateDataKeyPairWithoutPlaintextOutput::builder()
            .private_key_ciphertext_blob(Blob::new(vec![7; 400]))
            .public_key(Blob::new(public_key_of(1).0))
            .key_pair_spec(DataKeyPairSpec::EccNistP256)
            .key_id(ARN)
    }

    #[test]
    fn complete_answer_with_a_key_pair_is_usable() {
        let answer = validate_answer(pair().build().into(), &pair_request(), "eu-west-1");
        let Ok(key) = answer else { panic!("was rejected") };
        assert_eq!((key.ciphertext_blob.len(), key.public_key), (400, Some(public_key_of(1).0)));
    }

    #[test]
    fn answer_with_another_public_key_is_rejected() {
        let rsa = KeyRequest { key_pair_spec: Some(KeyPairSpec::Rsa2048), ..pair_request() };
        for (request, output, why) in [
            (pair_request(), pair().set_private_key_ciphertext_blob(None), "no PrivateKeyCiphertextBlob"),
            (pair_request(), pair().set_public_key(None), "no PublicKey"),
            (pair_request(), pair().public_key(Blob::new(vec![])), "PublicKey is not one of kind ECC_NIST_P256"),
            (pair_request(), pair().public_key(Blob::new(vec![0; 8193])), "PublicKey is not one of kind"),
            (pair_request(), pair().key_pair_spec(DataKeyPairSpec::Rsa2048), "KeyPairSpec is not ECC_NIST_P256"),
            (rsa, pair().set_key_pair_spec(None), "PublicKey is not one of kind RSA_2048"),
        ] {
            let found = why_unusable_for(&request, output.build());
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn invalid_request_ids_are_left_out() {
        let answer = |id: &str| validate_answer(output().key_material_id(id).build().into(), &request(), "eu-west-1");
        for (id, kept) in [("ab".repeat(32), true), ("ab\u{202e}".to_owned(), false), ("a".repeat(65), false)] {
            let Ok(key) = answer(&id) else { panic!("was rejected") };
            assert_eq!(key.key_material_id.is_some(), kept, "{id:?}");
        }
    }

    #[test]
    fn largest_blob_of_kms_is_usable() {
        let largest = output().ciphertext_blob(Blob::new(vec![0; 6144])).build();
        assert!(validate_answer(largest.into(), &request(), "eu-west-1").is_ok());
    }
}
