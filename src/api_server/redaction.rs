//! Redaction of sensitive values from messages of the API server, which can repeat what the operator sent.

use datakey::{api::Object, text::redact};

/// A message without the sensitive values of the object that was sent.
pub(super) fn redacted(message: &str, sent: Object<'_>) -> String {
    redact(message, &sensitive_values(sent))
}

/// The values of an object that no message may repeat: grant tokens, and the wrapped data keys, recorded or pinned, as they
/// are sent.
fn sensitive_values(key: Object<'_>) -> Vec<String> {
    let issued = key.record().iter().chain(key.spec.pins);
    let blobs = issued.filter_map(|issued| serde_json::to_value(&issued.ciphertext_blob).ok());
    let blobs = blobs.filter_map(|blob| blob.as_str().map(str::to_owned));
    key.spec.grant_tokens.iter().cloned().chain(blobs).collect()
}
