//! What is generated: the kinds of data keys and their lengths.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of a data key: `AES_256` (32 bytes) or `AES_128` (16 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum KeySpec {
    #[serde(rename = "AES_256")]
    #[allow(missing_docs)]
    Aes256,
    #[serde(rename = "AES_128")]
    #[allow(missing_docs)]
    Aes128,
}

// === impl KeySpec ===

impl KeySpec {
    /// As KMS writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES_256",
            Self::Aes128 => "AES_128",
        }
    }
}
