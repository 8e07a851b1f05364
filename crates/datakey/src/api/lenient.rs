//! Decoding of single fields: each error says what is expected, and never the value, which can be anything.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// Fields that this release does not know, of a newer one. They are carried through every write unchanged.
pub type Rest = BTreeMap<String, serde_json::Value>;

/// A field that the operator derives and writes itself: a value that cannot be decoded counts as absent, so the next
/// write replaces it.
pub fn derived<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// A list where null is the empty one.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A time that a Rust time can hold: that ends on the day before the last one of the year 9999.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "invalid value, expected a time such as 2026-11-24T01:02:03Z, before the year 9999";
    text.parse::<Timestamp>().map(Time).map_err(|_| D::Error::custom(expected))
}

/// Bytes in base64.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString, D::Error> {
    ByteString::deserialize(deserializer).map_err(|_| D::Error::custom("invalid value, expected base64 with padding"))
}
