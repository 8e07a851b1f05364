//! Parts of the schema that the Rust types cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    crd::KINDS,
    kind::{Kind, KindId},
    rules::{self, record},
};

pub fn encryption_context(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 8192 },
    })
}

pub fn template_labels(_: &mut SchemaGenerator) -> Schema {
    let value = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": value },
    })
}

pub fn template_annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 2048 },
    })
}

pub fn ciphertext_blob(_: &mut SchemaGenerator) -> Schema {
    // No `format: byte`: CEL would decode it, and the API server's decoder refuses some of what its validation takes.
    let base64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
    json_schema!({ "type": "string", "minLength": 4, "maxLength": 8192, "pattern": base64 })
}

pub fn public_key(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ciphertext_blob(generator);
    schema.insert("maxLength".to_owned(), 10_924.into());
    schema
}

pub fn whole_seconds(_: &mut SchemaGenerator) -> Schema {
    // The next write of the record would drop a fraction, and the record is write-once. The operator cannot decode a time at
    // the end of the year 9999.
    let whole = "^(19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 20, "pattern": whole })
}

pub fn grant_tokens(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 10,
        "items": { "type": "string", "minLength": 1, "maxLength": 8192 },
    })
}

/// The path of the pins, and that of the record. The entries of both are of the same type.
const PINS: [&str; 2] = ["spec", "wrappedKeys"];
const RECORD: [&str; 2] = ["status", "versions"];

/// A list of the object.
fn list<'a>(root: &'a mut JSONSchemaProps, [part, list]: [&str; 2]) -> Option<&'a mut JSONSchemaProps> {
    property(property(root, part)?, list)
}

/// The entries of a list of the object.
fn entry<'a>(root: &'a mut JSONSchemaProps, path: [&str; 2]) -> Option<&'a mut JSONSchemaProps> {
    match list(root, path)?.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(entry) => Some(entry),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

/// Reduces what all kinds have in common to the fields and the noun of one kind: the Rust types have the fields of all of them.
pub fn keep_fields_of(root: &mut JSONSchemaProps, kind: &Kind) {
    // A user can copy a pin from another kind. The schema of pins allows unknown fields, so it would accept the fields of that kind
    // unchecked, and the operator could not decode the object.
    for (path, of_others) in [(PINS, OfOthers::Refused), (RECORD, OfOthers::Removed)] {
        let Some(entry) = entry(root, path) else { continue };
        if let Some(request) = property(entry, "request") {
            keep_fields(request, kind, of_others, record::of_a_request);
        }
        if let Some(written) = property(entry, "asWritten") {
            keep_fields(written, kind, of_others, record::of_a_written_request);
        }
        keep_fields(entry, kind, of_others, record::of_a_version);
        if kind.id == KindId::DataKeyPair
            && let Some(blob) = property(entry, "ciphertextBlob")
        {
            let text = "The wrapped private key that KMS returned (`PrivateKeyCiphertextBlob`), 1 to 6144 bytes, in base64. \
                        Decrypt returns the private key as PKCS #8 in DER.";
            blob.description = Some(text.to_owned());
        }
        reword(entry, kind);
    }
    let Some(status) = property(root, "status") else { return };
    if kind.id == KindId::DataKey {
        status.properties.as_mut().map(|fields| fields.remove("publicKeySha256"));
    }
    reword(status, kind);
}

/// What becomes of the fields that only other kinds have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OfOthers {
    Removed,
    Refused,
}

/// Removes or refuses the fields that only other kinds have, and requires those that each object of this kind has.
fn keep_fields(schema: &mut JSONSchemaProps, kind: &Kind, of_others: OfOthers, of: fn(&Kind) -> record::Fields) {
    let own = of(kind);
    let is_in =
        |name: &str, fields: record::Fields| fields.required.iter().chain(fields.optional).any(|own| *own == name);
    let owner = |name: &str| KINDS.into_iter().find(|kind| is_in(name, of(kind)));
    let foreign = |name: &str| owner(name).filter(|_| !is_in(name, own));
    if let Some(properties) = &mut schema.properties {
        properties.retain(|name, _| of_others == OfOthers::Refused || foreign(name).is_none());
        for (name, field) in properties {
            if let Some(owner) = foreign(name) {
                field.description = Some("Remove it: it is a field of another kind.".to_owned());
                add_rule(Some(field), rules::field_of_another_kind(kind, owner, name));
            }
        }
    }
    let mut required: Vec<_> = own.required.iter().map(|&name| name.to_owned()).collect();
    required.sort();
    schema.required = (!required.is_empty()).then_some(required);
}

/// Writes the noun and the name of the kind into descriptions that are written for data keys.
fn reword(schema: &mut JSONSchemaProps, kind: &Kind) {
    if let Some(description) = &mut schema.description {
        *description = kind.reword(description).into_owned();
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(|field| reword(field, kind));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        reword(items, kind);
    }
}

/// Rejects pins with a plaintext that was copied by mistake: other unknown fields are kept, but a plaintext must never
/// reach etcd. The schema bounds its length, because the API server does not repeat the value in the message about that.
pub fn refuse_plaintext_in_pins(root: &mut JSONSchemaProps, kind: &Kind) {
    let Some(pin) = entry(root, PINS) else { return };
    // As KMS and its clients name it.
    let (names, what) = match kind.id {
        KindId::DataKey => (["plaintext", "Plaintext"], "a data key"),
        KindId::DataKeyPair => (["privateKeyPlaintext", "PrivateKeyPlaintext"], "a private key"),
    };
    for name in names {
        let refused = JSONSchemaProps {
            description: Some(format!("Remove it: the plaintext of {what} must never be in the cluster.")),
            type_: Some("string".to_owned()),
            max_length: Some(0),
            ..JSONSchemaProps::default()
        };
        pin.properties.get_or_insert_default().insert(name.to_owned(), refused);
    }
}

/// Bounds the name: the Secret carries it as a label. Adds the other fields that every object has and rules can name: where one
/// is absent, the API server makes a copy of the schema that has them, on every write.
pub fn add_fields_of_every_object(root: &mut JSONSchemaProps) {
    let string = || JSONSchemaProps { type_: Some("string".to_owned()), ..JSONSchemaProps::default() };
    let name = JSONSchemaProps { max_length: Some(63), ..string() };
    let metadata = JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some([("name".to_owned(), name), ("generateName".to_owned(), string())].into()),
        ..JSONSchemaProps::default()
    };
    let fields = [("apiVersion", string()), ("kind", string()), ("metadata", metadata)];
    root.properties.get_or_insert_default().extend(fields.map(|(name, schema)| (name.to_owned(), schema)));
}

/// Adds the rules of each pin and of each recorded version. Both are of the same type, but pins may change.
pub fn add_rules_of_entries(root: &mut JSONSchemaProps, kind: &Kind) {
    if let Some(pin) = entry(root, PINS) {
        add_rule(property(pin, "request"), rules::request_of_entries(kind));
        add_rule(property(pin, "asWritten"), rules::request_of_entries(kind));
    }
    add_rule(list(root, RECORD), record::recorded_versions_are_not_removed(kind));
    let Some(entry) = entry(root, RECORD) else { return };
    // These two have rules of their own.
    let values = record::of_a_version(kind).required.iter().filter(|name| !["version", "request"].contains(name));
    for name in values {
        add_rule(property(entry, name), record::recorded_value_stays(kind));
    }
    if let Some(request) = property(entry, "request") {
        for name in record::of_a_request(kind).required {
            add_rule(property(request, name), record::recorded_value_stays(kind));
        }
        add_rule(Some(&mut *request), record::request_of_new_versions(kind));
        add_rule(Some(request), record::recorded_request_stays(kind));
    }
    for name in ["asWritten", "class", "rewrapOf"] {
        add_rule(property(entry, name), record::recorded_part_stays(kind));
    }
    add_rule(property(entry, "asWritten"), record::request_of_new_versions(kind));
    add_rule(Some(entry), record::recorded_version_stays(kind));
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn add_rule(schema: Option<&mut JSONSchemaProps>, rule: ValidationRule) {
    if let Some(schema) = schema {
        schema.x_kubernetes_validations.get_or_insert_default().push(rule);
    }
}

/// Removes null from the allowed values, because CEL's `has` is true for null, and line breaks of doc comments from the
/// descriptions, because `kubectl explain` wraps lines itself.
pub fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|JSON(value)| !value.is_null());
    }
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Adds the bounds of `metav1.Condition` in Kubernetes to the schema of conditions; the generated type has none.
pub fn bound_conditions(status: &mut JSONSchemaProps) {
    let conditions = status.properties.as_mut().and_then(|properties| properties.get_mut("conditions"));
    let Some(JSONSchemaPropsOrArray::Schema(condition)) = conditions.and_then(|list| list.items.as_mut()) else {
        return;
    };
    let domain = "([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?";
    let mut bound = |field: &str, min: i64, max: i64, pattern: Option<String>| {
        if let Some(field) = condition.properties.as_mut().and_then(|properties| properties.get_mut(field)) {
            (field.min_length, field.max_length, field.pattern) = (Some(min), Some(max), pattern);
        }
    };
    bound("type", 1, 316, Some(format!("^{domain}([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")));
    bound("status", 4, 7, Some("^(True|False|Unknown)$".to_owned()));
    bound("reason", 1, 1024, Some("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$".to_owned()));
    bound("message", 0, 32768, None);
}
