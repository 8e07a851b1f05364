//! Each rule by name, evaluated in this process: an object that it refuses, and one next to it that it accepts. The tests of
//! admission on a real API server have more objects, and decide about the cost of the rules.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use kube_cel::{Validator, compile_schema};
use serde::Serialize;
use serde_json::{Value, json};

use self::evaluator::{for_this_evaluator, rewrite};
use super::{
    class::{class_name, class_name_has_a_valid_form},
    issued::{
        a_key_or_a_class, deletion_policy_is_fixed_once_issued, demands_on_a_new_spec, demands_on_pins,
        demands_on_the_spec, demands_on_the_status, issued_settings_stay, new_spec_agrees_with_itself, one_length,
        pin_of_the_version_answers_the_spec, pins_agree_with_the_record, pins_are_not_other_recorded_versions,
        pins_rewrap_earlier_versions, record_is_not_removed, recorded_versions_are_different_data_keys,
        recorded_versions_rewrap_earlier_ones, secret_name_is_fixed_once_issued, secret_name_stays,
        spec_answers_the_record,
    },
    record::{
        of_a_request, of_a_version, recorded_part_stays, recorded_request_stays, recorded_value_stays,
        recorded_version_stays, recorded_versions_are_not_removed, request_of_new_versions,
    },
    *,
};
use crate::{
    api::{DataKey, DataKeyPair, IssuedVersion, KINDS, KeyKind as _, crds, initial_status},
    fixtures::{ARN, Sample, data_key, issued, pinned, recorded},
};

mod class;
mod evaluator;
mod selections;

/// A change of an object: a JSON pointer, and the new value; null removes the field.
type Edit = (&'static str, Value);

/// A rule, or one of the demands of a rule, with changes that it refuses and changes that it accepts.
struct Case {
    name: &'static str,
    /// Expression and message.
    rule: (String, String),
    /// Another rule that refuses the same.
    also: Option<(String, String)>,
    before: Value,
    /// Whether the changes are made before the object is created.
    is_new: bool,
    refused: Vec<Edit>,
    accepted: Vec<Edit>,
}

macro_rules! case {
    ($name:expr, $rule:expr, $before:expr, refused: [$($refused:expr),*], accepted: [$($accepted:expr),*]) => {
        Case {
            name: $name,
            rule: $rule,
            also: None,
            before: $before,
            is_new: false,
            refused: vec![$($refused),*],
            accepted: vec![$($accepted),*],
        }
    };
    ($demand:ident($($of_demand:expr)?) of $rule:ident($($of_rule:expr)?), $($rest:tt)*) => {
        case!(stringify!($demand), in_rule(&$rule($($of_rule)?), &$demand($($of_demand)?)), $($rest)*)
    };
    ($rule:ident($($of_rule:expr)?), $($rest:tt)*) => {
        case!(stringify!($rule), in_definition(&$rule($($of_rule)?)), $($rest)*)
    };
}

/// The same changes of an object that does not exist yet, which another rule with the same demand refuses.
fn of_a_new_object(case: Case, rule: &ValidationRule) -> Case {
    let (_, message) = case.rule;
    Case { rule: (in_definition(rule).0, message), is_new: true, ..case }
}

/// An object of a kind that is the counterpart of this `DataKey`.
fn of(kind: &Kind, key: &DataKey) -> Value {
    match kind.id {
        KindId::DataKey => json!(key),
        KindId::DataKeyPair => json!(DataKeyPair::like(key)),
    }
}

/// A version of a kind that is the counterpart of this one.
fn entry(kind: &Kind, issued: &IssuedVersion) -> Value {
    match kind.id {
        KindId::DataKey => json!(issued),
        KindId::DataKeyPair => json!(DataKeyPair::version_like(issued)),
    }
}

/// A valid request of a kind with this key ID.
fn request_of(kind: &Kind, key_id: &str) -> Value {
    match kind.id {
        KindId::DataKey => json!({ "keyId": key_id, "keySpec": "AES_256" }),
        KindId::DataKeyPair => json!({ "keyId": key_id, "keyPairSpec": "RSA_2048" }),
    }
}

fn with_region(mut request: Value, region: &str) -> Value {
    request["region"] = json!(region);
    request
}

fn edited(before: &Value, edits: &[Edit]) -> Value {
    let mut object = before.clone();
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

fn schema(kind: &Kind) -> Value {
    let mut schema = json!(crds()[kind.id as usize])["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
    rewrite(&mut schema);
    schema
}

/// Expression and message, as the definition has them and as an error names them.
fn in_definition(rule: &impl Serialize) -> (String, String) {
    let rule = json!(rule);
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    (for_this_evaluator(text("rule")), text("message").to_owned())
}

/// The expression of a rule, and the message of one of its demands.
fn in_rule(rule: &impl Serialize, demand: &Demand) -> (String, String) {
    (in_definition(rule).0, demand.message.clone())
}

/// The rules of several demands.
fn rules_of_demands(kind: &Kind) -> Vec<((String, String), Vec<Demand>)> {
    let of_the_whole_object =
        [demands_on_the_status(kind), demands_on_the_spec(kind), demands_on_pins(kind), demands_on_a_new_spec(kind)];
    let of_a_request = demands_on_a_request(kind);
    let of_entries =
        (of_a_request.len() > 1).then(|| (in_definition(&request_of_entries(kind)), demands_on_a_request(kind)));
    let of_several = vec![
        (in_definition(&issued_settings_stay(kind)), of_the_whole_object.into_iter().flatten().collect()),
        (in_definition(&new_spec_agrees_with_itself(kind)), demands_on_a_new_spec(kind)),
        (in_definition(&request_of_new_versions(kind)), of_a_request),
        (in_definition(&key_id()), demands_on_a_key_id()),
        (in_definition(&template_keys()), demands_on_template_keys()),
        (in_definition(&encryption_context()), demands_on_a_context()),
    ];
    of_several.into_iter().chain(of_entries).collect()
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

/// A change of what is asked for.
fn other_material(kind: &Kind) -> Edit {
    match kind.id {
        KindId::DataKey => ("/spec/keySpec", json!("AES_128")),
        KindId::DataKeyPair => ("/spec/keyPairSpec", json!("RSA_4096")),
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

/// An issued version with another request.
fn with_request(kind: &Kind, version: i32, request: &Value) -> Value {
    let mut entry = entry(kind, &issued(version));
    entry["request"] = request.clone();
    entry
}

/// Another data key than that of the version in the fixtures.
fn other_blob() -> Value {
    json!(issued(9))["ciphertextBlob"].take()
}

fn of_the_whole_object(kind: &Kind) -> Vec<Case> {
    let with_pin_of_1 = {
        let mut key = recorded(&[1]);
        key.spec.wrapped_keys = Some(vec![issued(1)]);
        key
    };
    vec![
        case!(record_is_not_removed(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1, 2])),
            refused: [("/status/versions", Value::Null)],
            accepted: [("/status/versions/2", entry(kind, &issued(3)))]),
        case!(secret_name_stays() of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/status/secretName", json!("other")), ("/spec/secretName", json!("other"))],
            accepted: [("/status/version", json!(1))]),
        case!(recorded_versions_are_different_data_keys(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/status/versions/1", entry(kind, &same_data_key(2)))],
            accepted: [("/status/versions/1", entry(kind, &issued(2)))]),
        case!(spec_answers_the_record(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/spec/keyId", json!("alias/other"))],
            accepted: [("/spec/keyId", json!("alias/other")), ("/spec/version", json!(2))]),
        case!(pins_agree_with_the_record(kind) of issued_settings_stay(kind), of(kind, &with_pin_of_1),
            refused: [("/spec/wrappedKeys/0/ciphertextBlob", other_blob())],
            accepted: [("/spec/wrappedKeys/1", entry(kind, &issued(2)))]),
        case!(pins_are_not_other_recorded_versions(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/spec/wrappedKeys", json!([entry(kind, &same_data_key(2))]))],
            accepted: [("/spec/wrappedKeys", json!([entry(kind, &issued(2))]))]),
        case!(secret_name_is_fixed_once_issued(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/spec/secretName", json!("other"))],
            accepted: [("/spec/secretName", json!("orders"))]),
        case!(deletion_policy_is_fixed_once_issued(kind) of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/spec/deletionPolicy", json!("Delete"))],
            accepted: [("/spec/deletionPolicy", json!("Retain"))]),
        case!(recorded_versions_rewrap_earlier_ones() of issued_settings_stay(kind), of(kind, &recorded(&[1])),
            refused: [("/status/versions/1", rewrap_of(kind, 2))],
            accepted: [("/status/versions/1", rewrap_of(kind, 1))]),
    ]
}

/// Version 2 as a rewrap of a version.
fn rewrap_of(kind: &Kind, version: i32) -> Value {
    let mut rewrapped = entry(kind, &issued(2));
    rewrapped["rewrapOf"] = json!({ "version": version });
    rewrapped
}

/// The object as the API server creates it.
fn unissued(key: DataKey) -> DataKey {
    DataKey { status: Some(initial_status()), ..key }
}

fn of_a_changed_spec(kind: &Kind) -> Vec<Case> {
    let mut all = vec![
        case!(one_length() of issued_settings_stay(kind), of(kind, &unissued(data_key())),
            refused: [("/spec/numberOfBytes", json!(32))],
            accepted: [("/spec/numberOfBytes", json!(32)), ("/spec/keySpec", Value::Null)]),
        case!(a_key_or_a_class() of issued_settings_stay(kind), of(kind, &unissued(data_key())),
            refused: [("/spec/keyId", Value::Null)],
            accepted: [("/spec/keyId", Value::Null), ("/spec/className", json!("shop"))]),
        case!("no_region_beside_an_arn", in_rule(&issued_settings_stay(kind), &no_region_beside_an_arn("spec")), of(kind, &unissued(data_key())),
            refused: [("/spec/keyId", json!(ARN)), ("/spec/region", json!("eu-west-1"))],
            accepted: [("/spec/region", json!("eu-west-1"))]),
        case!(pin_of_the_version_answers_the_spec(kind) of issued_settings_stay(kind), of(kind, &unissued(pinned(&[1]))),
            refused: [other_material(kind)],
            accepted: [other_material(kind), ("/spec/version", json!(2))]),
        case!("rewraps_are_of_earlier_versions", in_rule(&issued_settings_stay(kind), &pins_rewrap_earlier_versions()),
            of(kind, &unissued(pinned(&[1, 2]))),
            refused: [("/spec/wrappedKeys/1/rewrapOf", json!({ "version": 2 }))],
            accepted: [("/spec/wrappedKeys/1/rewrapOf", json!({ "version": 1 }))]),
    ];
    // The schema demands the kind of a key pair.
    all.retain(|case| kind.id == KindId::DataKey || case.name != "one_length");
    all
}

fn of_a_new_spec(kind: &Kind) -> Vec<Case> {
    let rule = new_spec_agrees_with_itself(kind);
    of_a_changed_spec(kind).into_iter().map(|case| of_a_new_object(case, &rule)).collect()
}

fn of_fields_of_the_spec(kind: &Kind) -> Vec<Case> {
    vec![
        case!(key_id_has_a_known_form() of key_id(), of(kind, &data_key()),
            refused: [("/spec/keyId", json!("orders"))],
            accepted: [("/spec/keyId", json!("1234abcd-12ab-34cd-56ef-1234567890ab"))]),
        case!(key_is_customer_managed() of key_id(), of(kind, &data_key()),
            refused: [("/spec/keyId", json!("alias/aws/s3"))],
            accepted: [("/spec/keyId", json!("alias/awsome"))]),
        case!(region_has_a_known_form() of region(), of(kind, &data_key()),
            refused: [("/spec/region", json!("Ireland"))],
            accepted: [("/spec/region", json!("us-gov-east-1"))]),
        case!(class_name_has_a_valid_form() of class_name(), of(kind, &data_key()),
            refused: [("/spec/className", json!("Shop"))],
            accepted: [("/spec/className", json!("shop.eu"))]),
        case!(secret_name_has_a_valid_form() of secret_name(), of(kind, &data_key()),
            refused: [("/spec/secretName", json!("Orders"))],
            accepted: [("/spec/secretName", json!("orders.v1"))]),
        case!(template_keys_have_a_valid_form() of template_keys(), of(kind, &data_key()),
            refused: [template(&json!({ "-team": "a" }))],
            accepted: [template(&json!({ "example.com/team": "a" }))]),
        case!(template_keys_are_not_reserved() of template_keys(), of(kind, &data_key()),
            refused: [template(&json!({ "meta.helm.sh/release-name": "a" }))],
            accepted: [template(&json!({ "app.kubernetes.io/part-of": "a" }))]),
    ]
}

fn of_the_encryption_context(kind: &Kind) -> Vec<Case> {
    vec![
        case!(context_keys_are_not_empty() of encryption_context(), of(kind, &data_key()),
            refused: [context(&json!({ "": "a" }))],
            accepted: [context(&json!({ "a": "" }))]),
        case!(context_keys_are_not_reserved() of encryption_context(), of(kind, &data_key()),
            refused: [context(&json!({ "AWS:x": "a" }))],
            accepted: [context(&json!({ "awsx": "a" }))]),
        case!(context_keys_differ_in_more_than_case() of encryption_context(), of(kind, &data_key()),
            refused: [context(&json!({ "team": "a", "Team": "b" }))],
            accepted: [context(&json!({ "team": "a", "teams": "b" }))]),
        case!(context_fits() of encryption_context(), of(kind, &data_key()),
            refused: [context(&json!({ "a": "ä".repeat(4096) }))],
            accepted: [context(&json!({ "a": "a".repeat(8191) }))]),
    ]
}

/// A `DataKey` whose version a class allowed and changed.
fn recorded_by_a_class() -> DataKey {
    let mut key = recorded(&[1]);
    let version = &mut key.status.as_mut().unwrap().versions[0];
    version.as_written = Some(version.request.view().to_written());
    version.class = Some(serde_json::from_value(json!({ "name": "shop", "uid": "a", "generation": 7 })).unwrap());
    key
}

fn of_the_record_and_pins(kind: &Kind) -> Vec<Case> {
    vec![
        Case {
            also: Some(in_definition(&recorded_version_stays(kind))),
            ..case!(recorded_part_stays(kind), of(kind, &recorded_by_a_class()),
                refused: [("/status/versions/0/class/generation", json!(8))],
                accepted: [("/status/versions/1", entry(kind, &issued(2)))])
        },
        case!(spec_answers_the_record(kind) of issued_settings_stay(kind), of(kind, &recorded_by_a_class()),
            refused: [("/spec/keyId", json!("alias/other"))],
            accepted: [("/status/versions/1", entry(kind, &issued(2)))]),
        case!(recorded_version_stays(kind), of(kind, &recorded(&[1])),
            refused: [("/status/versions/0/requestId", json!("another"))],
            accepted: [("/status/versions/1", entry(kind, &issued(2)))]),
        // This evaluator has no equality of optional values, so the rule of the entry compares the entry with its request.
        Case {
            also: Some(in_definition(&recorded_version_stays(kind))),
            ..case!(recorded_request_stays(kind), of(kind, &recorded(&[1, 2])),
                refused: [("/status/versions/0/request/region", json!("eu-west-1"))],
                accepted: [("/status/versions/2", entry(kind, &issued(3)))])
        },
        Case {
            also: Some(in_definition(&recorded_version_stays(kind))),
            ..case!(recorded_value_stays(kind), of(kind, &recorded(&[1])),
                refused: [("/status/versions/0/ciphertextBlob", other_blob())],
                accepted: [("/status/versions/1", entry(kind, &issued(2)))])
        },
        case!(version_is_an_integer(), of(kind, &pinned(&[1])),
            refused: [("/spec/wrappedKeys/0/version", json!(0)), ("/spec/version", json!(2))],
            accepted: [("/spec/wrappedKeys/0/version", json!(2))]),
        case!(recorded_versions_are_not_removed(kind), of(kind, &recorded(&[1, 2])),
            refused: [("/status/versions/1", Value::Null)],
            accepted: [("/status/versions/2", entry(kind, &issued(3)))]),
        case!(pins_are_different_data_keys(kind), of(kind, &pinned(&[1, 2])),
            refused: [("/spec/wrappedKeys/1/ciphertextBlob", json!(issued(1))["ciphertextBlob"].take())],
            accepted: [("/spec/wrappedKeys/1/ciphertextBlob", other_blob())]),
        case!(key_id_is_a_key_arn() of key_arn(), of(kind, &pinned(&[1])),
            refused: [("/spec/wrappedKeys/0/keyId", json!("alias/orders"))],
            accepted: [("/spec/wrappedKeys/0/keyId", json!("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"))]),
        case!("no_region_beside_an_arn", in_rule(&request_of_new_versions(kind), &no_region_beside_an_arn("self")), of(kind, &recorded(&[1])),
            refused: [("/status/versions/1", with_request(kind, 2, &with_region(request_of(kind, ARN), "eu-west-1")))],
            accepted: [("/status/versions/1", with_request(kind, 2, &request_of(kind, ARN)))]),
        case!("no_region_beside_an_arn", in_rule(&request_of_entries(kind), &no_region_beside_an_arn("self")), of(kind, &pinned(&[2, 1])),
            refused: [("/spec/wrappedKeys/0/request/keyId", json!(ARN)), ("/spec/wrappedKeys/0/request/region", json!("eu-west-1"))],
            accepted: [("/spec/wrappedKeys/0/request/region", json!("eu-west-1"))]),
    ]
}

fn field_of(owner: &Kind, kind: &Kind, name: &'static str, path: &'static str, value: Value) -> Case {
    case!(name, in_definition(&field_of_another_kind(kind, owner, name)), of(kind, &pinned(&[2, 1])),
        refused: [(path, value)],
        accepted: [("/spec/wrappedKeys/0/note", json!("x"))])
}

fn of_one_kind(kind: &Kind) -> Vec<Case> {
    match kind.id {
        KindId::DataKey => vec![
            field_of(
                DataKeyPair::KIND,
                kind,
                "publicKey",
                "/spec/wrappedKeys/0/publicKey",
                json!(crate::fixtures::public_key_of(1)),
            ),
            field_of(DataKeyPair::KIND, kind, "keyPairSpec", "/spec/wrappedKeys/0/request/keyPairSpec", json!("SM2")),
            case!(request_has_one_length() of request_of_entries(kind), of(kind, &pinned(&[2, 1])),
                refused: [("/spec/wrappedKeys/0/request/keySpec", Value::Null)],
                accepted: [("/spec/wrappedKeys/0/request/keySpec", json!("AES_128"))]),
            case!(request_has_one_length() of request_of_new_versions(kind), of(kind, &recorded(&[1])),
                refused: [("/status/versions/1", with_request(kind, 2, &json!({ "keyId": "alias/orders" })))],
                accepted: [("/status/versions/1", with_request(kind, 2, &json!({ "keyId": "alias/orders", "numberOfBytes": 1 })))]),
        ],
        KindId::DataKeyPair => {
            let mut pinned = of(kind, &recorded(&[1]));
            pinned["spec"]["wrappedKeys"] = json!([entry(kind, &issued(1))]);
            let other = json!(crate::fixtures::public_key_of(2));
            vec![
                field_of(DataKey::KIND, kind, "keySpec", "/spec/wrappedKeys/0/request/keySpec", json!("AES_128")),
                field_of(DataKey::KIND, kind, "numberOfBytes", "/spec/wrappedKeys/0/request/numberOfBytes", json!(32)),
                case!(pins_agree_with_the_record(kind) of issued_settings_stay(kind), pinned,
                    refused: [("/spec/wrappedKeys/0/publicKey", other.clone())],
                    accepted: [("/spec/wrappedKeys/1", entry(kind, &issued(2)))]),
                Case {
                    also: Some(in_definition(&recorded_version_stays(kind))),
                    ..case!(recorded_value_stays(kind), of(kind, &recorded(&[1])),
                        refused: [("/status/versions/0/publicKey", other)],
                        accepted: [("/status/versions/1", entry(kind, &issued(2)))])
                },
            ]
        }
    }
}

fn cases(kind: &Kind) -> Vec<Case> {
    let all = [
        of_one_kind(kind),
        of_the_whole_object(kind),
        of_a_changed_spec(kind),
        of_a_new_spec(kind),
        of_fields_of_the_spec(kind),
        of_the_encryption_context(kind),
        of_the_record_and_pins(kind),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn each_rule_refuses_and_accepts_what_its_row_says() {
    // The evaluator is recursive and is not optimized here.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        for kind in KINDS {
            check(kind);
        }
    });
    thread.unwrap().join().unwrap();
}

fn check(kind: &Kind) {
    let (validator, schema) = (Validator::new(), compile_schema(&schema(kind)));
    for Case { name, rule, also, before, is_new, refused, accepted } in cases(kind) {
        let broken_by = |edits: &[Edit]| {
            let checked = validator.validate_compiled(&schema, &edited(&before, edits), (!is_new).then_some(&before));
            let errors = checked.err().map(kube_cel::ValidationErrors::into_vec).unwrap_or_default();
            errors.into_iter().map(|error| (error.rule, error.message)).collect::<BTreeSet<_>>()
        };
        assert_eq!(broken_by(&[]), BTreeSet::new(), "{} {name}: the object before", kind.name);
        assert_eq!(broken_by(&accepted), BTreeSet::new(), "{} {name}", kind.name);
        assert_eq!(broken_by(&refused), [rule].into_iter().chain(also).collect(), "{} {name}", kind.name);
    }
}

#[test]
fn every_rule_of_the_definition_has_a_row() {
    for kind in KINDS {
        let mut defined = BTreeSet::new();
        rules_in(&schema(kind), &mut defined);
        for (rule, demands) in rules_of_demands(kind) {
            assert!(defined.remove(&rule), "its message is that of a demand");
            defined.extend(demands.iter().map(|demand| (rule.0.clone(), demand.message.clone())));
        }
        let in_table: BTreeSet<_> = cases(kind).into_iter().map(|case| case.rule).collect();
        assert_eq!(defined, in_table, "{}", kind.name);
    }
}

/// The rules of the record compare other fields at a higher cost.
#[test]
fn rules_of_the_record_name_every_field() {
    for kind in KINDS {
        let schema = schema(kind);
        let entry = &schema["properties"]["status"]["properties"]["versions"]["items"];
        for (object, of) in [(entry, of_a_version(kind)), (&entry["properties"]["request"], of_a_request(kind))] {
            let fields: BTreeSet<_> = object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, of.required.iter().chain(of.optional).copied().collect());
            let of_each: BTreeSet<_> =
                object["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            assert_eq!(of_each, of.required.iter().copied().collect());
            let rule = json!(recorded_value_stays(kind));
            for field in of.required.iter().filter(|field| !["version", "request"].contains(field)) {
                let rules = object["properties"][field]["x-kubernetes-validations"].as_array().unwrap();
                assert!(rules.contains(&rule), "{field}");
            }
        }
    }
}
