//! Bounds of the API, and defaults.

/// The most versions that one `DataKey` records.
pub const MAX_VERSIONS: usize = 64;

/// The largest `CiphertextBlob` of AWS KMS, in bytes (AWS KMS API reference, `CiphertextType`).
pub const MAX_BLOB: usize = 6144;

/// The version of a `DataKey` whose spec names none.
pub const FIRST_VERSION: i32 = 1;
