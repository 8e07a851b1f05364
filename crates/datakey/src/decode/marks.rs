//! The labels and annotations of an object that the operator acts on. All others are skipped: they can take 256 KiB.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    names::{RESTORED_ANNOTATION, RETRY_AT_ANNOTATION, VELERO_RESTORE_LABEL},
    secret::sha256,
};

/// How many digits of the digest stand for a value of [`RETRY_AT_ANNOTATION`]. A user who finds two values with the same digits
/// can only keep one of them from having an effect.
const DIGITS: usize = 16;

/// What the operator reads of the labels or annotations of an object.
#[derive(Default)]
pub(super) struct Marks {
    has_velero_label: bool,
    has_restored_annotation: bool,
    /// The digest of the value: a value can be long, and only its change counts.
    retry_at: Option<String>,
}

/// The annotations that stand for these labels and annotations; `None` if there are none.
pub(super) fn annotations(labels: Option<Marks>, annotations: Option<Marks>) -> Option<BTreeMap<String, String>> {
    let (labels, annotations) = (labels.unwrap_or_default(), annotations.unwrap_or_default());
    let restored = labels.has_velero_label || annotations.has_restored_annotation;
    let restored = restored.then(|| (RESTORED_ANNOTATION.to_owned(), String::new()));
    let retry_at = annotations.retry_at.map(|digest| (RETRY_AT_ANNOTATION.to_owned(), digest));
    Some(restored.into_iter().chain(retry_at).collect::<BTreeMap<_, _>>()).filter(|marks| !marks.is_empty())
}

/// About how many bytes of memory these annotations take. The map allocates room for eleven of them at once.
pub(super) fn size(annotations: &BTreeMap<String, String>) -> usize {
    size_of::<[(String, String); 11]>()
        + annotations.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MarksVisitor)
    }
}

struct MarksVisitor;

impl<'de> Visitor<'de> for MarksVisitor {
    type Value = Marks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels or annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Marks, A::Error> {
        let mut marks = Marks::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == RETRY_AT_ANNOTATION {
                let value = map.next_value::<Box<RawValue>>()?;
                let mut digest = sha256(value.get().as_bytes());
                digest.truncate(DIGITS);
                marks.retry_at = Some(digest);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            marks.has_velero_label |= name == VELERO_RESTORE_LABEL;
            marks.has_restored_annotation |= name == RESTORED_ANNOTATION;
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(labels: &Value, values: &Value) -> Option<BTreeMap<String, String>> {
        let marks = |names: &Value| serde_json::from_str::<Option<Marks>>(&names.to_string()).unwrap();
        annotations(marks(labels), marks(values))
    }

    #[test]
    fn other_labels_and_annotations_are_skipped() {
        assert_eq!(read(&json!(null), &json!(null)), None);
        let other = json!({ "team": "shop", "more": ["x", { "y": null }] });
        assert_eq!(read(&other, &other), None);
        let restored = Some([(RESTORED_ANNOTATION.to_owned(), String::new())].into());
        assert_eq!(read(&json!({ VELERO_RESTORE_LABEL: "x" }), &json!(null)), restored);
        assert_eq!(read(&json!(null), &json!({ RESTORED_ANNOTATION: "x" })), restored);
        assert_eq!(read(&json!({ RESTORED_ANNOTATION: "x" }), &json!({ VELERO_RESTORE_LABEL: "x" })), None);
    }

    #[test]
    fn any_value_of_retry_at_is_kept_as_its_digest() {
        let digest = |value: Value| read(&json!(null), &json!({ RETRY_AT_ANNOTATION: value })).unwrap();
        let values = [json!("2026-11-27T08:00:00Z"), json!("garbage"), json!(""), json!("x".repeat(200_000)), json!(7)];
        let digests: std::collections::BTreeSet<_> = values.iter().map(|value| digest(value.clone())).collect();
        assert_eq!(digests.len(), values.len());
        assert!(digests.iter().all(|marks| size(marks) < 1000), "{digests:?}");
        assert_eq!(digest(json!("a")), digest(json!("a")));
        assert_eq!(read(&json!({ RETRY_AT_ANNOTATION: "x" }), &json!(null)), None, "a label is none");
    }
}
