//! Answers of KMS that no KMS server made.

use std::fmt::Write as _;

use aws_sdk_kms::types::DataKeyPairSpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::fixtures;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::Call;
use crate::{
    http::{Answer, whole},
    kms,
};

/// A blob of the usual size that no other call is answered with; the public keys of a kind are the same in each answer.
pub(super) fn made_up(call: &Call, pair: Option<&DataKeyPairSpec>) -> Value {
    let (arn, blob) = (arn_of(call, "KeyId"), made_up_blob());
    let Some(spec) = pair else { return json!({ "KeyId": arn, "CiphertextBlob": blob }) };
    let public_key = serde_json::from_value(json!(spec.as_str())).map(fixtures::public_key).unwrap_or_default();
    json!({
        "KeyId": arn,
        "KeyPairSpec": spec.as_str(),
        "PrivateKeyCiphertextBlob": blob,
        "PublicKey": BASE64_STANDARD.encode(public_key),
    })
}

/// Such a blob with the KMS keys of both sides. Nothing was wrapped, so it is not the plaintext of the blob in the call.
pub(super) fn made_up_rewrap(call: &Call) -> Value {
    json!({
        "CiphertextBlob": made_up_blob(),
        "SourceKeyId": arn_of(call, "SourceKeyId"),
        "KeyId": arn_of(call, "DestinationKeyId"),
        "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    })
}

/// The key ARN that a field of the call names; for an alias, always the same one.
fn arn_of(call: &Call, field: &str) -> String {
    let key = call.body[field].as_str().unwrap_or_default();
    if key.starts_with("arn:") && key.contains(":key/") {
        return key.to_owned();
    }
    format!("arn:aws:kms:{}:{}:key/1234abcd-12ab-34cd-56ef-1234567890ab", call.region, kms::ACCOUNT)
}

fn made_up_blob() -> String {
    let blob: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(184).collect();
    BASE64_STANDARD.encode(&blob)
}

/// 32 bytes that belong to the blob. Nothing was wrapped.
pub(super) fn made_up_plaintext(call: &Call) -> Value {
    let digest = datakey::secret::sha256(call.body["CiphertextBlob"].as_str().unwrap_or_default().as_bytes());
    let plaintext = BASE64_STANDARD.encode(&digest.as_bytes()[..32]);
    json!({ "KeyId": call.body["KeyId"], "Plaintext": plaintext, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" })
}

/// The answer to a dry run that would succeed (AWS KMS developer guide, "Testing your permissions").
pub(super) fn would_succeed() -> Answer {
    let message = "The request would have succeeded, but the DryRun option is set.";
    json_answer(StatusCode::PRECONDITION_FAILED, &json!({ "__type": "DryRunOperationException", "message": message }))
}

/// An answer of KMS.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut id = String::new();
    for _ in 0..4 {
        let _ = write!(id, "{:08x}", fastrand::u32(..));
    }
    let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
    answer.header("x-amzn-requestid", id).body(whole(body.to_string())).expect("an answer")
}
