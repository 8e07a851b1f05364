//! How many fields the rules of objects select.

use serde_json::{Value, json};

use crate::api::{KINDS, KindId, crds};

/// Fields that the rules of an object select: each costs the API server time on every write. The rule of the whole object selects
/// fewer than it names on most writes, because it returns early.
#[test]
fn rules_of_objects_select_few_fields() {
    for kind in KINDS {
        let mut counted = Vec::new();
        let crd = json!(crds()[kind.id as usize]);
        count_selections("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut counted);
        let (of_the_object, of_a_pin, of_a_request) = match kind.id {
            KindId::DataKey => (218, 4, 12),
            KindId::DataKeyPair => (204, 2, 6),
        };
        let expected = [
            ("", 2, of_the_object),
            ("spec.wrappedKeys[].asWritten", 1, of_a_pin),
            ("spec.wrappedKeys[].request", 1, of_a_pin),
            ("status.versions[]", 1, 10),
            ("status.versions[].asWritten", 2, of_a_pin),
            ("status.versions[].class", 1, 0),
            ("status.versions[].request", 2, of_a_request),
            ("status.versions[].rewrapOf", 1, 0),
        ];
        let expected: Vec<_> = expected.map(|(path, rules, selections)| (path.to_owned(), rules, selections)).into();
        assert_eq!(
            counted, expected,
            "a rule or a selection more: see docs/performance.md, and measure it with make bench"
        );
    }
}

/// For each object with rules: its path, the number of its rules, and of the fields that they select.
fn count_selections(path: &str, schema: &Value, counted: &mut Vec<(String, usize, usize)>) {
    if let (Some(rules), Some(_)) = (schema["x-kubernetes-validations"].as_array(), schema.get("properties")) {
        let selections = rules.iter().map(|rule| selections(rule["rule"].as_str().unwrap())).sum();
        counted.push((path.to_owned(), rules.len(), selections));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        count_selections(format!("{path}.{name}").trim_start_matches('.'), property, counted);
    }
    if let Some(items) = schema.get("items") {
        count_selections(&format!("{path}[]"), items, counted);
    }
}

/// How many fields an expression selects: names after a point that are no functions.
fn selections(expression: &str) -> usize {
    let is_name = |c: char| c.is_ascii_alphanumeric();
    let names = expression.split('.').skip(1).map(|after| after.trim_start_matches('?'));
    names
        .filter(|after| {
            after.starts_with(|c: char| c.is_ascii_lowercase()) && !after.trim_start_matches(is_name).starts_with('(')
        })
        .count()
}
