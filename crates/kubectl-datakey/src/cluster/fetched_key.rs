//! `DataKey`s as the API server returns them.

use std::collections::BTreeMap;

use datakey::{api::DataKey, decode::Encoded};
use kube::{ResourceExt, core::ObjectMeta};
use serde_json::Value;

use super::answer;
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

/// The `DataKey`s of a list. One that cannot be decoded does not hide the others.
#[derive(Debug, Default)]
pub struct Listing {
    /// The DataKeys that can be decoded.
    pub keys: Vec<FetchedKey>,
    /// One message for each DataKey that cannot be decoded, by its namespace and name.
    pub unreadable: BTreeMap<(String, String), String>,
}

// === impl FetchedKey ===

impl FetchedKey {
    /// Decodes the JSON of a `DataKey` as the operator does, and with all of its metadata.
    ///
    /// # Errors
    /// Names the object and what is wrong with it, and repeats no value of the spec.
    pub fn decode(json: &str) -> Result<Self, CommandError> {
        let encoded: Encoded = serde_json::from_str(json).map_err(|error| {
            CommandError::Failed(format!("the API server's answer is no DataKey that this plugin can read: {error}"))
        })?;
        let decoded = encoded.decode::<DataKey>().map_err(|unreadable| unreadable.failure().detail.unwrap_or_default());
        let fetched = decoded.and_then(|mut key| {
            let value = answer::object(json).map_err(|error| error.to_string())?;
            key.metadata = metadata(&value, &key.metadata).map_err(|error| error.to_string())?;
            Ok(Self { value, key })
        });
        fetched.map_err(|why| {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            CommandError::Failed(format!(
                "DataKey {} in namespace {} can't be read ({why}): correct it, or install the plugin of the operator's version",
                name(&encoded.metadata.name),
                name(&encoded.metadata.namespace)
            ))
        })
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

/// Returns the namespace and the name of an object that cannot be decoded. The API server always names them.
fn place(json: &str) -> (String, String) {
    let metadata = serde_json::from_str::<Encoded>(json).map(|encoded| encoded.metadata).unwrap_or_default();
    (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default())
}

/// Returns all metadata of an object, with the times of `known`: one can exceed the range of the Rust type.
fn metadata(value: &Value, known: &ObjectMeta) -> Result<ObjectMeta, serde_json::Error> {
    let mut metadata = value["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| !["creationTimestamp", "deletionTimestamp"].contains(&name.as_str()));
    }
    Ok(ObjectMeta {
        creation_timestamp: known.creation_timestamp.clone(),
        deletion_timestamp: known.deletion_timestamp.clone(),
        ..serde_json::from_value(metadata)?
    })
}

// === impl Listing ===

impl Listing {
    /// Decodes a list. Separates the DataKeys that can be decoded from the errors of the others.
    pub fn decode(list: &str) -> Result<Self, kube::Error> {
        let mut listing = Self::default();
        for item in answer::items(list)? {
            match FetchedKey::decode(item.get()) {
                Ok(fetched) => listing.keys.push(fetched),
                Err(error) => _ = listing.unreadable.insert(place(item.get()), error.to_string()),
            }
        }
        Ok(listing)
    }

    /// Returns `Unknown` if a DataKey cannot be decoded.
    pub fn health(&self) -> Health {
        if self.unreadable.is_empty() { Health::Healthy } else { Health::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, issued, recorded};

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
    fn error_names_the_data_key_the_field_and_the_fix() {
        let error = FetchedKey::decode(&with_unknown_key_spec().to_string()).unwrap_err().to_string();
        for part in ["orders in namespace shop", "spec.keySpec", "install the plugin"] {
            assert!(error.contains(part), "{error}");
        }
        let mut secret = recorded(&[1]).value;
        secret["spec"]["grantTokens"] = json!({ "hidden": "hidden" });
        assert!(!FetchedKey::decode(&secret.to_string()).unwrap_err().to_string().contains("hidden\""));
    }

    #[test]
    fn undecodable_data_key_does_not_hide_the_others() {
        let far = "9999-12-31T23:59:59Z";
        let mut odd = recorded(&[1]).value;
        odd["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "time": far }]);
        odd["metadata"]["creationTimestamp"] = json!(far);
        odd["metadata"]["labels"] = json!({ "team": "shop" });
        let mut nested = recorded(&[1]).value;
        nested["metadata"]["name"] = json!("nested");
        nested["spec"]["wrappedKeys"] = json!([issued(1)]);
        nested["spec"]["wrappedKeys"][0]["more"] = json!("DEEP");
        let deep = format!("{}1{}", r#"{"a":"#.repeat(150), "}".repeat(150));
        let list = json!({ "items": [recorded(&[1]).value, odd, nested, with_unknown_key_spec()] });
        let listing = Listing::decode(&list.to_string().replace(r#""DEEP""#, &deep)).unwrap();
        assert_eq!((listing.keys.len(), listing.unreadable.len(), listing.health()), (2, 2, Health::Unknown));
        assert_eq!(listing.keys[1].key.metadata.labels.as_ref().unwrap()["team"], "shop");
        for name in ["nested", "orders"] {
            let why = &listing.unreadable[&("shop".to_owned(), name.to_owned())];
            assert!(why.contains(&format!("DataKey {name} in namespace shop can't be read")), "{why}");
        }
        let good = Listing::decode(&json!({ "items": [recorded(&[1]).value] }).to_string()).unwrap();
        assert_eq!(good.health(), Health::Healthy);
    }
}
