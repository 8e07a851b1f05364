//! The kinds that tests run for.

use datakey::api::{DataKey, DataKeyPair, KeyKind};
use serde_json::{Map, Value};

/// A kind that tests run for.
pub trait TestKind: KeyKind {
    /// The resource of its status, as the proxy before the API server names it.
    const STATUS: &'static str;

    /// Adds what KMS generates to the fields of a spec or of a request that does not say it.
    fn complete(fields: &mut Map<String, Value>);
}

impl TestKind for DataKey {
    const STATUS: &'static str = "datakeys/status";

    fn complete(fields: &mut Map<String, Value>) {
        if !fields.contains_key("numberOfBytes") {
            fields.entry("keySpec").or_insert_with(|| "AES_256".into());
        }
    }
}

impl TestKind for DataKeyPair {
    const STATUS: &'static str = "datakeypairs/status";

    fn complete(fields: &mut Map<String, Value>) {
        fields.entry("keyPairSpec").or_insert_with(|| "ECC_NIST_P256".into());
    }
}
