//! Bounds of the API, and defaults.

/// The most versions that one `DataKey` records.
pub const MAX_VERSIONS: usize = 64;

/// The largest `CiphertextBlob` of AWS KMS, in bytes (AWS KMS API reference, `CiphertextType`).
pub const MAX_BLOB: usize = 6144;

/// Whether these bytes have the length of a `CiphertextBlob`: 1 to [`MAX_BLOB`].
pub fn has_blob_length(blob: &[u8]) -> bool {
    (1..=MAX_BLOB).contains(&blob.len())
}

/// The version of a `DataKey` whose spec names none.
pub const FIRST_VERSION: i32 = 1;
