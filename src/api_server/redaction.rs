//! Redaction of sensitive values from messages of the API server, which can repeat what the operator sent.

use datakey::{api::DataKey, text::redact};

/// A message without the sensitive values of the `DataKey` that was sent.
pub(super) fn redacted(message: &str, sent: &DataKey) -> String {
    redact(message, &sensitive_values(sent))
}

/// The values of a `DataKey` that no message may repeat: grant tokens, and the wrapped data keys, recorded or pinned, as they
/// are sent.
fn sensitive_values(key: &DataKey) -> Vec<String> {
    let issued = key.record().iter().chain(key.pinned_versions());
    let blobs = issued.filter_map(|issued| serde_json::to_value(&issued.ciphertext_blob).ok());
    let blobs = blobs.filter_map(|blob| blob.as_str().map(str::to_owned));
    key.spec.grant_tokens.iter().flatten().cloned().chain(blobs).collect()
}
