//! `DataKey`s as the API server returns them.

use datakey::api::DataKey;
use kube::ResourceExt;
use serde_json::Value;

use crate::output::{CommandError, Health};

/// A `DataKey` from the API server.
///
/// The JSON is kept beside the typed object: manifests are made from it, so that they keep fields which this version of
/// the plugin does not know.
#[derive(Clone, Debug)]
pub struct FetchedKey {
    /// The JSON that the API server returned.
    pub value: Value,
    /// The same object with the types of the operator.
    pub key: DataKey,
}

/// The `DataKey`s of a list. One that cannot be parsed does not hide the others.
#[derive(Debug, Default)]
pub struct Listing {
    /// The DataKeys that could be parsed.
    pub keys: Vec<FetchedKey>,
    /// One message for each DataKey that could not be parsed.
    pub unreadable: Vec<String>,
}

// === impl FetchedKey ===

impl FetchedKey {
    /// Parses the JSON of a `DataKey`.
    pub fn parse(value: Value) -> Result<Self, CommandError> {
        match serde_json::from_value(value.clone()) {
            Ok(key) => Ok(Self { value, key }),
            Err(error) => {
                let field = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
                Err(CommandError::Failed(format!(
                    "DataKey {} in namespace {} is not of a form that this plugin knows ({error}): install the plugin of the \
                     operator's version",
                    field("name"),
                    field("namespace")
                )))
            }
        }
    }

    /// Returns `metadata.name`.
    pub fn name(&self) -> String {
        self.key.name_any()
    }

    /// Returns `metadata.namespace`.
    pub fn namespace(&self) -> String {
        self.key.namespace().unwrap_or_default()
    }
}

// === impl Listing ===

impl Listing {
    /// Separates the DataKeys that could be parsed from the errors of the others.
    pub fn of(results: impl IntoIterator<Item = Result<FetchedKey, CommandError>>) -> Self {
        let mut listing = Self::default();
        for result in results {
            match result {
                Ok(fetched) => listing.keys.push(fetched),
                Err(error) => listing.unreadable.push(error.to_string()),
            }
        }
        listing
    }

    /// Returns `Unknown` if a DataKey could not be parsed.
    pub fn health(&self) -> Health {
        if self.unreadable.is_empty() { Health::Healthy } else { Health::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, recorded};

    fn with_unknown_key_spec() -> Value {
        let mut value = recorded(&[1]).value;
        value["spec"]["keySpec"] = json!("AES_512");
        value
    }

    #[test]
    fn fields_that_the_plugin_does_not_know_are_kept() {
        let fetched = edited(recorded(&[1]), |value| value["spec"]["more"] = json!("x"));
        assert_eq!(fetched.value["spec"]["more"], "x");
    }

    #[test]
    fn parse_error_names_the_data_key_and_the_fix() {
        let error = FetchedKey::parse(with_unknown_key_spec()).unwrap_err().to_string();
        assert!(error.contains("orders in namespace shop") && error.contains("install the plugin"), "{error}");
    }

    #[test]
    fn unreadable_data_key_does_not_hide_the_others() {
        let listing = Listing::of([FetchedKey::parse(with_unknown_key_spec()), Ok(recorded(&[1]))]);
        assert_eq!((listing.keys.len(), listing.unreadable.len(), listing.health()), (1, 1, Health::Unknown));
        assert_eq!(Listing::of([Ok(recorded(&[1]))]).health(), Health::Healthy);
    }
}
