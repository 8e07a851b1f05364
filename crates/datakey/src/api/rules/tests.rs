//! Each rule by name, evaluated in this process: an object that it refuses, and one next to it that it accepts. The tests of
//! admission on a real API server have more objects, and decide about the cost of the rules.

use std::collections::BTreeSet;

use kube_cel::Validator;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{DataKey, IssuedVersion, crd},
    fixtures::{ARN, data_key, issued, pinned, recorded},
};

/// A change of an object: a JSON pointer, and the new value; null removes the field.
type Edit = (&'static str, Value);

/// A rule, with changes that it refuses and changes that it accepts.
struct Case {
    rule: (&'static str, Rule),
    before: DataKey,
    refused: Vec<Edit>,
    accepted: Vec<Edit>,
}

macro_rules! case {
    ($rule:ident, $before:expr, refused: [$($refused:expr),*], accepted: [$($accepted:expr),*]) => {
        Case {
            rule: (stringify!($rule), $rule()),
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
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// Expression and message of a rule, as the definition has them.
fn in_definition(rule: &Value) -> (String, String) {
    let text = |field: &str| rule[field].as_str().unwrap().to_owned();
    (text("rule"), text("message"))
}

/// The rules of a schema and of everything in it.
fn rules_in(schema: &Value, found: &mut BTreeSet<(String, String)>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(rules.into_iter().flatten().map(in_definition));
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
        case!(name_is_a_label_value, data_key(),
            refused: [("/metadata/name", json!("a".repeat(64)))],
            accepted: [("/metadata/name", json!("a".repeat(63)))]),
        case!(record_is_write_once, recorded(&[1, 2]),
            refused: [("/status/versions/0", Value::Null)],
            accepted: [("/status/versions/2", json!(issued(3)))]),
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
        case!(recorded_versions_are_different_data_keys, recorded(&[1]),
            refused: [("/status/versions/1", json!(same_data_key(2)))],
            accepted: [("/status/versions/1", json!(issued(2)))]),
        case!(secret_name_stays, recorded(&[1]),
            refused: [("/status/secretName", json!("other")), ("/spec/secretName", json!("other"))],
            accepted: [("/status/version", json!(1))]),
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
    let (validator, schema) = (Validator::new(), schema());
    for Case { rule: (name, rule), before, refused, accepted } in cases() {
        let broken_by = |edits: &[Edit]| {
            let checked = validator.validate(&schema, &edited(&before, edits), Some(&json!(before)));
            let errors = checked.err().map(kube_cel::ValidationErrors::into_vec).unwrap_or_default();
            errors.into_iter().map(|error| (error.rule, error.message)).collect::<BTreeSet<_>>()
        };
        assert_eq!(broken_by(&[]), BTreeSet::new(), "{name}: the object before");
        assert_eq!(broken_by(&accepted), BTreeSet::new(), "{name}");
        assert_eq!(broken_by(&refused), BTreeSet::from([in_definition(&json!(rule))]), "{name}");
    }
}

#[test]
fn every_rule_of_the_definition_has_a_row() {
    let mut defined = BTreeSet::new();
    rules_in(&schema(), &mut defined);
    let in_table: BTreeSet<_> = cases().into_iter().map(|case| in_definition(&json!(case.rule.1))).collect();
    assert_eq!(defined, in_table);
}
