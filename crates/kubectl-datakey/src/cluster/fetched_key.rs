//! `DataKey`s and `DataKeyPair`s as the API server returns them.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use datakey::{
    api::{DataKey, DataKeyPair, IssuedVersion, KeyKind, KeyStatus, Kind, KindId, Object},
    decode::Encoded,
};
use kube::core::ObjectMeta;
use serde_json::Value;

use super::answer;
use crate::{
    output::{CommandError, Health},
    reference::{plural, shown, titled},
};

/// A `DataKey` or a `DataKeyPair` from the API server.
///
/// The JSON is kept beside the typed object: manifests are made from it, so that they keep fields which this version of
/// the plugin does not know.
#[derive(Clone, Debug)]
pub struct FetchedKey {
    /// The JSON that the API server returned.
    pub value: Value,
    /// The same object with the types of the operator.
    pub key: AnyKey,
}

/// An object of any kind. What the commands read of it is the same for all kinds.
#[derive(Clone, Debug)]
pub struct AnyKey(Arc<dyn Viewed>);

trait Viewed: Debug {
    fn view(&self) -> Object<'_>;
}

impl<K: KeyKind> Viewed for K {
    fn view(&self) -> Object<'_> {
        self.as_object()
    }
}

/// The objects of a list. One that cannot be decoded does not hide the others.
#[derive(Debug, Default)]
pub struct Listing {
    /// The objects that can be decoded.
    pub keys: Vec<FetchedKey>,
    /// One message for each object that cannot be decoded, by its namespace and how messages name it.
    pub unreadable: BTreeMap<(String, String), String>,
    /// The kinds that were not listed although the others were.
    pub unlisted: Vec<Unlisted>,
}

/// A kind that could not be listed.
#[derive(Debug)]
pub struct Unlisted {
    /// The kind.
    pub kind: &'static Kind,
    /// Whether that means that there are no objects of it.
    pub has_no_definition: bool,
    /// What the user reads.
    pub note: String,
}

// === impl AnyKey ===

impl AnyKey {
    /// What the protocol reads of the object.
    pub fn object(&self) -> Object<'_> {
        self.0.view()
    }

    /// The kind.
    pub fn kind(&self) -> &'static Kind {
        self.object().kind
    }

    /// The metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        self.object().metadata
    }

    /// The status.
    pub fn status(&self) -> Option<&KeyStatus> {
        self.object().status
    }

    /// `metadata.name`.
    pub fn name(&self) -> String {
        self.metadata().name.clone().unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> String {
        self.metadata().namespace.clone().unwrap_or_default()
    }

    /// How messages and tables name it.
    pub fn shown(&self) -> String {
        shown(self.kind(), &self.name())
    }

    /// The version that the spec makes current.
    pub fn wanted_version(&self) -> i32 {
        self.object().wanted_version()
    }

    /// The name of the Secret.
    pub fn secret_name(&self) -> &str {
        self.object().secret_name()
    }

    /// Every issued version.
    pub fn record(&self) -> &[IssuedVersion] {
        self.object().record()
    }

    /// The recorded data key of a version.
    pub fn recorded_version(&self, version: i32) -> Option<&IssuedVersion> {
        self.object().recorded_version(version)
    }

    /// The versions that the spec pins.
    pub fn pinned_versions(&self) -> &[IssuedVersion] {
        self.object().spec.pins
    }

    /// The version that the Secret's plain entries hold.
    pub fn published_version(&self) -> Option<i32> {
        self.status()?.version
    }
}

impl<'a> From<&'a AnyKey> for Object<'a> {
    fn from(key: &'a AnyKey) -> Self {
        key.object()
    }
}

// === impl FetchedKey ===

impl FetchedKey {
    /// Decodes the JSON of an object as the operator does, and with all of its metadata.
    ///
    /// # Errors
    /// Names the object and what is wrong with it, and repeats no value of the spec.
    pub fn decode(kind: &'static Kind, json: &str) -> Result<Self, CommandError> {
        match kind.id {
            KindId::DataKey => Self::decode_as::<DataKey>(json),
            KindId::DataKeyPair => Self::decode_as::<DataKeyPair>(json),
        }
    }

    fn decode_as<K: KeyKind>(json: &str) -> Result<Self, CommandError> {
        let kind = K::KIND.name;
        let encoded: Encoded = serde_json::from_str(json).map_err(|error| {
            CommandError::Failed(format!("the API server's answer is no {kind} that this plugin can read: {error}"))
        })?;
        let decoded = encoded.decode::<K>().map_err(|unreadable| unreadable.failure().detail.unwrap_or_default());
        let fetched = decoded.and_then(|mut key| {
            let value = answer::object(json).map_err(|error| error.to_string())?;
            *key.meta_mut() = metadata(&value, key.meta()).map_err(|error| error.to_string())?;
            Ok(Self { value, key: AnyKey(Arc::new(key)) })
        });
        fetched.map_err(|why| {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            CommandError::Failed(format!(
                "{kind} {} in namespace {} can't be read ({why}): correct it, or install the plugin of the operator's version",
                name(&encoded.metadata.name),
                name(&encoded.metadata.namespace)
            ))
        })
    }

    /// Returns the kind.
    pub fn kind(&self) -> &'static Kind {
        self.key.kind()
    }

    /// Returns `metadata.name`.
    pub fn name(&self) -> String {
        self.key.name()
    }

    /// Returns `metadata.namespace`.
    pub fn namespace(&self) -> String {
        self.key.namespace()
    }

    /// Returns how messages and tables name it.
    pub fn shown(&self) -> String {
        self.key.shown()
    }

    /// Returns the kind and the name, as a sentence has them.
    pub fn titled(&self) -> String {
        titled(self.kind(), &self.name())
    }
}

/// Returns the namespace of an object that cannot be decoded, and how messages name it. The API server always names both.
fn place(kind: &Kind, json: &str) -> (String, String) {
    let metadata = serde_json::from_str::<Encoded>(json).map(|encoded| encoded.metadata).unwrap_or_default();
    (metadata.namespace.unwrap_or_default(), shown(kind, &metadata.name.unwrap_or_default()))
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
    /// Adds a list. Separates the objects that can be decoded from the errors of the others.
    pub fn decode(&mut self, kind: &'static Kind, list: &str) -> Result<(), kube::Error> {
        for item in answer::items(list)? {
            match FetchedKey::decode(kind, item.get()) {
                Ok(fetched) => self.keys.push(fetched),
                Err(error) => _ = self.unreadable.insert(place(kind, item.get()), error.to_string()),
            }
        }
        Ok(())
    }

    /// Returns `Unknown` if an object cannot be decoded. A kind that is not listed may not be used at all.
    pub fn health(&self) -> Health {
        if self.unreadable.is_empty() { Health::Healthy } else { Health::Unknown }
    }

    /// Returns the names of the kinds of the objects, in a sentence.
    pub fn nouns(&self) -> String {
        plural(self.keys.iter().map(|fetched| fetched.kind().id))
    }

    /// Returns a note for each object that cannot be decoded, and for each kind that could not be listed.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.unreadable.values().chain(self.unlisted.iter().map(|unlisted| &unlisted.note)).cloned()
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
        let error = FetchedKey::decode(DataKey::KIND, &with_unknown_key_spec().to_string()).unwrap_err().to_string();
        for part in ["orders in namespace shop", "spec.keySpec", "install the plugin"] {
            assert!(error.contains(part), "{error}");
        }
        let mut secret = recorded(&[1]).value;
        secret["spec"]["grantTokens"] = json!({ "hidden": "hidden" });
        assert!(!FetchedKey::decode(DataKey::KIND, &secret.to_string()).unwrap_err().to_string().contains("hidden\""));
    }

    #[test]
    fn undecodable_data_key_does_not_hide_the_others() {
        let decode = |list: &str| {
            let mut listing = Listing::default();
            listing.decode(DataKey::KIND, list).map(|()| listing).unwrap()
        };
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
        let listing = decode(&list.to_string().replace(r#""DEEP""#, &deep));
        assert_eq!((listing.keys.len(), listing.unreadable.len(), listing.health()), (2, 2, Health::Unknown));
        assert_eq!(listing.keys[1].key.metadata().labels.as_ref().unwrap()["team"], "shop");
        for name in ["nested", "orders"] {
            let why = &listing.unreadable[&("shop".to_owned(), name.to_owned())];
            assert!(why.contains(&format!("DataKey {name} in namespace shop can't be read")), "{why}");
        }
        let good = decode(&json!({ "items": [recorded(&[1]).value] }).to_string());
        assert_eq!(good.health(), Health::Healthy);
    }
}
