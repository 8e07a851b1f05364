//! Each rule by name, evaluated in this process: an object that it refuses, and one next to it that it accepts. The tests of
//! admission on a real API server have more objects, and decide about the cost of the rules.

use std::{collections::BTreeSet, fmt::Write as _};

use kube_cel::{Validator, compile_schema};
use serde_json::{Value, json};

use super::{
    issued::{
        Demand, deletion_policy_is_fixed_once_issued, demands_on_the_spec, demands_on_the_status, issued_settings_stay,
        pins_agree_with_the_record, pins_are_not_other_recorded_versions, record_is_not_removed,
        recorded_versions_are_different_data_keys, secret_name_is_fixed_once_issued, secret_name_stays,
        spec_answers_the_record,
    },
    *,
};
use crate::{
    api::{DataKey, IssuedVersion, crd},
    fixtures::{ARN, data_key, issued, pinned, recorded},
};

/// A change of an object: a JSON pointer, and the new value; null removes the field.
type Edit = (&'static str, Value);

/// A rule, or one demand of the rule of the whole object, with changes that it refuses and changes that it accepts.
struct Case {
    name: &'static str,
    /// Expression and message.
    rule: (String, String),
    before: DataKey,
    refused: Vec<Edit>,
    accepted: Vec<Edit>,
}

macro_rules! case {
    ($rule:ident, $before:expr, refused: [$($refused:expr),*], accepted: [$($accepted:expr),*]) => {
        Case {
            name: stringify!($rule),
            rule: $rule().in_definition(),
            before: $before,
            refused: vec![$($refused),*],
            accepted: vec![$($accepted),*],
        }
    };
}

fn edited(key: &DataKey, edits: &[Edit]) -> Value {
    let mut object = json!(key);
    for (pointer, value) in edits {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        match object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} is missing")) {
            Value::Array(items) => {
                let index = field.parse::<usize>().unwrap();
                match value {
                    Value::Null => drop(items.remove(index)),
                    value if index == items.len() => items.push(value.clone()),
                    value => items[index] = value.clone(),
                }
            }
            parent if value.is_null() => drop(parent.as_object_mut().unwrap().remove(field)),
            parent => parent[field] = value.clone(),
        }
    }
    object
}

fn schema() -> Value {
    let mut schema = json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    rewrite_optionals(&mut schema);
    schema
}

/// Writes out `name.?field`, a syntax that the evaluator does not have.
fn rewrite_optionals(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(expression) if ["rule", "messageExpression"].contains(&name.as_str()) => {
                        *expression = without_optionals(expression);
                    }
                    value => rewrite_optionals(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite_optionals),
        _ => {}
    }
}

fn without_optionals(expression: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric();
    let (mut out, mut rest) = (String::new(), expression);
    while let Some((before, after)) = rest.split_once(".?") {
        let variable = before.len() - before.chars().rev().take_while(|&c| is_name(c)).count();
        let (mut path, mut present) = (before[variable..].to_owned(), Vec::new());
        rest = after;
        loop {
            let (field, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            path = format!("{path}.{field}");
            present.push(format!("has({path})"));
            rest = after;
            match after.strip_prefix(".?") {
                Some(after) => rest = after,
                None => break,
            }
        }
        out += &before[..variable];
        let _ = write!(out, "({} ? optional.of({path}) : optional.none())", present.join(" && "));
    }
    out + rest
}

/// Expression and message, as the definition has them and as an error names them.
trait InDefinition {
    fn in_definition(&self) -> (String, String);
}

impl InDefinition for Value {
    fn in_definition(&self) -> (String, String) {
        let text = |field: &str| self[field].as_str().unwrap_or_default();
        (without_optionals(text("rule")), text("message").to_owned())
    }
}

impl InDefinition for Rule {
    fn in_definition(&self) -> (String, String) {
        json!(self).in_definition()
    }
}

impl InDefinition for ValidationRule {
    fn in_definition(&self) -> (String, String) {
        json!(self).in_definition()
    }
}

impl InDefinition for Demand {
    fn in_definition(&self) -> (String, String) {
        (without_optionals(&issued_settings_stay().rule), self.message.to_owned())
    }
}

/// The rules of a schema and of everything in it.
fn rules_in(schema: &Value, found: &mut BTreeSet<(String, String)>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(rules.into_iter().flatten().map(Value::in_definition));
            fields.values().for_each(|schema| rules_in(schema, found));
        }
        Value::Array(items) => items.iter().for_each(|schema| rules_in(schema, found)),
        _ => {}
    }
}

fn context(entries: &Value) -> Edit {
    ("/spec/encryptionContext", entries.clone())
}

fn template(labels: &Value) -> Edit {
    ("/spec/secretTemplate", json!({ "metadata": { "labels": labels } }))
}

/// The data key of version 1 under another version.
fn same_data_key(version: i32) -> IssuedVersion {
    IssuedVersion { version, ..issued(1) }
}

/// Another data key than that of the version in the fixtures.
fn other_blob() -> Value {
    json!(issued(9))["ciphertextBlob"].take()
}

fn of_the_whole_object() -> Vec<Case> {
    let with_pin_of_1 = {
        let mut key = recorded(&[1]);
        key.spec.wrapped_keys = Some(vec![issued(1)]);
        key
    };
    vec![
        case!(record_is_not_removed, recorded(&[1, 2]),
            refused: [("/status/versions", Value::Null)],
            accepted: [("/status/versions/2", json!(issued(3)))]),
        case!(secret_name_stays, recorded(&[1]),
            refused: [("/status/secretName", json!("other")), ("/spec/secretName", json!("other"))],
            accepted: [("/status/version", json!(1))]),
        case!(recorded_versions_are_different_data_keys, recorded(&[1]),
            refused: [("/status/versions/1", json!(same_data_key(2)))],
            accepted: [("/status/versions/1", json!(issued(2)))]),
        case!(spec_answers_the_record, recorded(&[1]),
            refused: [("/spec/keyId", json!("alias/other"))],
            accepted: [("/spec/keyId", json!("alias/other")), ("/spec/version", json!(2))]),
        case!(pins_agree_with_the_record, with_pin_of_1,
            refused: [("/spec/wrappedKeys/0/ciphertextBlob", other_blob())],
            accepted: [("/spec/wrappedKeys/1", json!(issued(2)))]),
        case!(pins_are_not_other_recorded_versions, recorded(&[1]),
            refused: [("/spec/wrappedKeys", json!([same_data_key(2)]))],
            accepted: [("/spec/wrappedKeys", json!([issued(2)]))]),
        case!(secret_name_is_fixed_once_issued, recorded(&[1]),
            refused: [("/spec/secretName", json!("other"))],
            accepted: [("/spec/secretName", json!("orders"))]),
        case!(deletion_policy_is_fixed_once_issued, recorded(&[1]),
            refused: [("/spec/deletionPolicy", json!("Delete"))],
            accepted: [("/spec/deletionPolicy", json!("Retain"))]),
    ]
}

fn of_the_spec() -> Vec<Case> {
    vec![
        case!(one_length, data_key(),
            refused: [("/spec/numberOfBytes", json!(32))],
            accepted: [("/spec/numberOfBytes", json!(32)), ("/spec/keySpec", Value::Null)]),
        case!(no_region_beside_an_arn, data_key(),
            refused: [("/spec/keyId", json!(ARN)), ("/spec/region", json!("eu-west-1"))],
            accepted: [("/spec/region", json!("eu-west-1"))]),
        case!(pin_of_the_version_answers_the_spec, pinned(&[1]),
            refused: [("/spec/keySpec", json!("AES_128"))],
            accepted: [("/spec/keySpec", json!("AES_128")), ("/spec/version", json!(2))]),
        case!(key_id_has_a_known_form, data_key(),
            refused: [("/spec/keyId", json!("orders"))],
            accepted: [("/spec/keyId", json!("1234abcd-12ab-34cd-56ef-1234567890ab"))]),
        case!(key_is_customer_managed, data_key(),
            refused: [("/spec/keyId", json!("alias/aws/s3"))],
            accepted: [("/spec/keyId", json!("alias/awsome"))]),
        case!(region_has_a_known_form, data_key(),
            refused: [("/spec/region", json!("Ireland"))],
            accepted: [("/spec/region", json!("us-gov-east-1"))]),
        case!(secret_name_has_a_valid_form, data_key(),
            refused: [("/spec/secretName", json!("Orders"))],
            accepted: [("/spec/secretName", json!("orders.v1"))]),
        case!(template_keys_have_a_valid_form, data_key(),
            refused: [template(&json!({ "-team": "a" }))],
            accepted: [template(&json!({ "example.com/team": "a" }))]),
        case!(template_keys_are_not_reserved, data_key(),
            refused: [template(&json!({ "meta.helm.sh/release-name": "a" }))],
            accepted: [template(&json!({ "app.kubernetes.io/part-of": "a" }))]),
    ]
}

fn of_the_encryption_context() -> Vec<Case> {
    vec![
        case!(context_keys_are_not_empty, data_key(),
            refused: [context(&json!({ "": "a" }))],
            accepted: [context(&json!({ "a": "" }))]),
        case!(context_keys_are_not_reserved, data_key(),
            refused: [context(&json!({ "AWS:x": "a" }))],
            accepted: [context(&json!({ "awsx": "a" }))]),
        case!(context_keys_differ_in_more_than_case, data_key(),
            refused: [context(&json!({ "team": "a", "Team": "b" }))],
            accepted: [context(&json!({ "team": "a", "teams": "b" }))]),
        case!(context_fits, data_key(),
            refused: [context(&json!({ "a": "ä".repeat(4096) }))],
            accepted: [context(&json!({ "a": "a".repeat(8191) }))]),
    ]
}

fn of_the_record_and_pins() -> Vec<Case> {
    vec![
        case!(recorded_version_stays, recorded(&[1]),
            refused: [("/status/versions/0/ciphertextBlob", other_blob())],
            accepted: [("/status/versions/1", json!(issued(2)))]),
        case!(version_is_an_integer, pinned(&[1]),
            refused: [("/spec/wrappedKeys/0/version", json!(0)), ("/spec/version", json!(2))],
            accepted: [("/spec/wrappedKeys/0/version", json!(2))]),
        case!(recorded_versions_are_not_removed, recorded(&[1, 2]),
            refused: [("/status/versions/1", Value::Null)],
            accepted: [("/status/versions/2", json!(issued(3)))]),
        case!(pins_are_different_data_keys, pinned(&[1, 2]),
            refused: [("/spec/wrappedKeys/1/ciphertextBlob", json!(issued(1))["ciphertextBlob"].take())],
            accepted: [("/spec/wrappedKeys/1/ciphertextBlob", other_blob())]),
        case!(key_id_is_a_key_arn, pinned(&[1]),
            refused: [("/spec/wrappedKeys/0/keyId", json!("alias/orders"))],
            accepted: [("/spec/wrappedKeys/0/keyId", json!("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"))]),
        case!(request_has_one_length, pinned(&[2, 1]),
            refused: [("/spec/wrappedKeys/0/request/keySpec", Value::Null)],
            accepted: [("/spec/wrappedKeys/0/request/keySpec", json!("AES_128"))]),
    ]
}

fn cases() -> Vec<Case> {
    [of_the_whole_object(), of_the_spec(), of_the_encryption_context(), of_the_record_and_pins()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn each_rule_refuses_and_accepts_what_its_row_says() {
    // The evaluator is recursive and is not optimized here.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let (validator, schema) = (Validator::new(), compile_schema(&schema()));
        for Case { name, rule, before, refused, accepted } in cases() {
            let broken_by = |edits: &[Edit]| {
                let checked = validator.validate_compiled(&schema, &edited(&before, edits), Some(&json!(before)));
                let errors = checked.err().map(kube_cel::ValidationErrors::into_vec).unwrap_or_default();
                errors.into_iter().map(|error| (error.rule, error.message)).collect::<BTreeSet<_>>()
            };
            assert_eq!(broken_by(&[]), BTreeSet::new(), "{name}: the object before");
            assert_eq!(broken_by(&accepted), BTreeSet::new(), "{name}");
            assert_eq!(broken_by(&refused), BTreeSet::from([rule]), "{name}");
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn every_rule_of_the_definition_has_a_row() {
    let mut defined = BTreeSet::new();
    rules_in(&schema(), &mut defined);
    let whole_object = json!(issued_settings_stay()).in_definition();
    assert!(defined.remove(&whole_object), "its message is that of a demand");
    defined.extend([demands_on_the_status(), demands_on_the_spec()].iter().flatten().map(Demand::in_definition));
    let in_table: BTreeSet<_> = cases().into_iter().map(|case| case.rule).collect();
    assert_eq!(defined, in_table);
}

/// Fields that the rules of an object select: each costs the API server time on every write. The rule of the whole object selects
/// fewer than it names on most writes, because it returns early.
#[test]
fn rules_of_objects_select_few_fields() {
    let mut counted = Vec::new();
    count_selections("", &json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut counted);
    let expected = [
        ("", 1, 110),
        ("spec", 3, 21),
        ("spec.wrappedKeys[].request", 2, 4),
        ("status.versions[]", 1, 0),
        ("status.versions[].request", 2, 4),
    ];
    let expected: Vec<_> = expected.map(|(path, rules, selections)| (path.to_owned(), rules, selections)).into();
    assert_eq!(
        counted, expected,
        "a rule or a selection more: see docs/performance.md, and measure it with make bench"
    );
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
