//! Which KMS keys wrapped what the objects have recorded. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cluster::FetchedKey;

/// What a KMS key wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KmsKeyCount {
    /// Its ARN.
    pub key_id: String,
    /// How many versions it wrapped.
    pub versions: usize,
    /// How many objects have such a version.
    pub objects: usize,
    /// How many namespaces have such an object.
    pub namespaces: usize,
}

/// Counts what each KMS key wrapped, in the order of their ARNs.
pub fn census<'a>(listed: impl IntoIterator<Item = &'a FetchedKey>) -> Vec<KmsKeyCount> {
    let mut keys = BTreeMap::<&str, (usize, usize, BTreeSet<String>)>::new();
    for fetched in listed {
        let mut of_object = BTreeSet::new();
        for issued in fetched.key.record() {
            let (versions, objects, namespaces) = keys.entry(&issued.key_id).or_default();
            *versions += 1;
            if of_object.insert(&issued.key_id) {
                *objects += 1;
                namespaces.insert(fetched.namespace());
            }
        }
    }
    let count = |(key_id, (versions, objects, namespaces)): (&str, (usize, usize, BTreeSet<_>))| KmsKeyCount {
        key_id: key_id.to_owned(),
        versions,
        objects,
        namespaces: namespaces.len(),
    };
    keys.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{ARN, edited, pair_of, ready};

    #[test]
    fn census_counts_versions_objects_and_namespaces() {
        let other = ARN.replace("1234abcd", "99999999");
        let both = edited(ready(&[1, 2]), |value| {
            value["metadata"]["name"] = json!("payments");
            value["status"]["versions"][1]["keyId"] = json!(other);
        });
        let elsewhere = edited(ready(&[1]), |value| value["metadata"]["namespace"] = json!("bank"));
        let listed = [ready(&[1, 2]), both, pair_of(&elsewhere)];
        let count = |key_id: &str, versions, objects, namespaces| KmsKeyCount {
            key_id: key_id.to_owned(),
            versions,
            objects,
            namespaces,
        };
        assert_eq!(census(&listed), [count(ARN, 4, 3, 2), count(&other, 1, 1, 1)]);
    }
}
