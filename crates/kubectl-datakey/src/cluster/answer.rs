//! Answers of the API server. Each object of a list is decoded separately, so that one that cannot be decoded does not hide
//! the others.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

/// The fields of an object, as text.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Returns the objects of a list, as text. For an empty one the API server may send `null`.
pub fn items(list: &str) -> Result<Vec<Box<RawValue>>, kube::Error> {
    #[derive(Deserialize)]
    struct List {
        items: Option<Vec<Box<RawValue>>>,
    }
    let list: List = serde_json::from_str(list).map_err(kube::Error::SerdeError)?;
    Ok(list.items.unwrap_or_default())
}

/// Decodes an object without `metadata.managedFields`. A client sets the times in it, which can exceed the range of the Rust
/// type, and it can be nested deeper than serde_json reads.
pub fn object(json: &str) -> Result<Value, serde_json::Error> {
    let fields: Fields = serde_json::from_str(json)?;
    let decoded = fields.iter().map(|(name, raw)| Ok((name.clone(), field(name, raw)?)));
    decoded.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn field(name: &str, raw: &RawValue) -> Result<Value, serde_json::Error> {
    if name != "metadata" {
        return serde_json::from_str(raw.get());
    }
    let mut metadata: Fields = serde_json::from_str(raw.get())?;
    metadata.remove("managedFields");
    serde_json::to_value(metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_list_may_be_null() {
        for list in [r#"{"items":null}"#, r#"{"items":[]}"#, "{}"] {
            assert!(items(list).unwrap().is_empty(), "{list}");
        }
        assert_eq!(items(r#"{"items":[1,{}]}"#).unwrap().len(), 2);
        assert!(items("<html>").is_err());
    }

    #[test]
    fn managed_fields_are_left_out_however_deep_they_are() {
        let deep = format!("{}1{}", r#"{"f:a":"#.repeat(5000), "}".repeat(5000));
        let json = format!(r#"{{"kind":"X","metadata":{{"name":"a","managedFields":[{deep}]}},"spec":{{"a":[1]}}}}"#);
        assert_eq!(object(&json).unwrap(), json!({ "kind": "X", "metadata": { "name": "a" }, "spec": { "a": [1] } }));
    }
}
