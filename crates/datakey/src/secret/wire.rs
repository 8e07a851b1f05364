//! Decoding of Secrets in answers of the API server.

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use thiserror::Error;

/// The error that the answer is not a Secret. It repeats nothing of the answer, which can hold a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("can't decode the API server's answer")]
pub struct NotASecret;

/// Decodes a Secret without the metadata that the server maintains: their times can exceed the range of the Rust type (see
/// [`super::metadata`]), and writes need not repeat them.
///
/// # Errors
/// [`NotASecret`], which repeats nothing of the answer.
pub fn decode(json: &str) -> Result<Secret, NotASecret> {
    let mut secret: Value = serde_json::from_str(json).map_err(|_| NotASecret)?;
    if let Some(metadata) = secret.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "creationTimestamp", "deletionTimestamp"] {
            metadata.remove(field);
        }
    }
    serde_json::from_value(secret).map_err(|_| NotASecret)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secret_with_unusable_times_in_its_metadata_is_decoded() {
        let far = "9999-12-31T23:59:59Z";
        let secret = json!({
            "metadata": {
                "name": "orders", "creationTimestamp": far, "deletionTimestamp": far,
                "managedFields": [{ "time": far }], "finalizers": ["example.com/hold"],
            },
            "data": { "version": "MQ==" },
        });
        let read = decode(&secret.to_string()).unwrap();
        assert_eq!(read.metadata.finalizers.as_deref(), Some(&["example.com/hold".to_owned()][..]));
        assert_eq!((read.data.unwrap()["version"].0.as_slice(), read.metadata.managed_fields), (&b"1"[..], None));
        let broken = decode(&json!({ "data": { "version": "hunter2!" } }).to_string()).unwrap_err();
        assert!(!broken.to_string().contains("hunter2"));
    }
}
