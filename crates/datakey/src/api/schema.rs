//! Parts of the schema that the Rust types cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::rules::record;

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

/// Rejects pins with a plaintext data key that was copied by mistake: other unknown fields are kept, but a plaintext must never
/// reach etcd. The schema bounds its length, because the API server does not repeat the value in the message about that.
pub fn refuse_plaintext_in_pins(root: &mut JSONSchemaProps) {
    let pins =
        root.properties.as_mut().and_then(|root| root.get_mut("spec")?.properties.as_mut()?.get_mut("wrappedKeys"));
    let Some(JSONSchemaPropsOrArray::Schema(pin)) = pins.and_then(|pins| pins.items.as_mut()) else {
        return;
    };
    for name in ["plaintext", "Plaintext"] {
        let refused = JSONSchemaProps {
            description: Some("Remove it: the plaintext of a data key must never be in the cluster.".to_owned()),
            type_: Some("string".to_owned()),
            max_length: Some(0),
            ..JSONSchemaProps::default()
        };
        pin.properties.get_or_insert_default().insert(name.to_owned(), refused);
    }
}

/// Bounds the name: the Secret carries it as a label.
pub fn bound_name(root: &mut JSONSchemaProps) {
    let name = JSONSchemaProps { type_: Some("string".to_owned()), max_length: Some(63), ..JSONSchemaProps::default() };
    let metadata = JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some([("name".to_owned(), name)].into()),
        ..JSONSchemaProps::default()
    };
    root.properties.get_or_insert_default().insert("metadata".to_owned(), metadata);
}

/// Adds the rules of each recorded version. Pins are of the same type, but may change.
pub fn add_rules_of_entries(status: &mut JSONSchemaProps) {
    let record = status.properties.as_mut().and_then(|properties| properties.get_mut("versions"));
    let Some(JSONSchemaPropsOrArray::Schema(entry)) = record.and_then(|list| list.items.as_mut()) else {
        return;
    };
    for name in ["ciphertextBlob", "keyId", "issuedAt"] {
        add_rule(property(entry, name), record::recorded_value_stays());
    }
    if let Some(request) = property(entry, "request") {
        add_rule(property(request, "keyId"), record::recorded_value_stays());
        request.x_kubernetes_validations =
            Some(vec![record::request_of_new_versions(), record::recorded_request_stays()]);
    }
    add_rule(Some(entry), record::recorded_version_stays());
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
