//! Decoding of single fields. Errors say what is expected and never repeat the value, which can be a plaintext.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// Fields that only a newer release knows. Every write keeps them unchanged.
pub type Rest = BTreeMap<String, serde_json::Value>;

const EXPECTED_BASE64: &str = "invalid value, expected base64 with padding";

/// Decodes a field that the operator derives itself: an undecodable value counts as absent, so the next write replaces it.
pub fn derived<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// Decodes a list; null is the empty list.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Decodes a time. The Rust type ends one day before the end of the year 9999.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "invalid value, expected a time such as 2026-11-24T01:02:03Z, before the year 9999";
    text.parse::<Timestamp>().map(Time).map_err(|_| D::Error::custom(expected))
}

/// Decodes bytes in base64 that can be absent.
pub fn optional_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteString>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED_BASE64))
}

/// Decodes bytes in base64.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteString, D::Error> {
    ByteString::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED_BASE64))
}
