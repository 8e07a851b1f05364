//! The fields of the API, from the definition.

use serde_json::Value;

use super::{code, sentence, table};

/// Objects whose fields are in a table of their own, or are those of Kubernetes.
const SEPARATE: [&str; 3] = ["wrappedKeys", "versions", "conditions"];

const HEAD: [&str; 3] = ["field", "type", "meaning"];

fn schema<'a>(crd: &'a Value, part: &str) -> &'a Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
}

pub fn spec(crd: &Value) -> String {
    table(&HEAD, rows(schema(crd, "spec"), ""))
}

pub fn status(crd: &Value) -> String {
    table(&HEAD, rows(schema(crd, "status"), ""))
}

/// The fields of an entry of `status.versions` and `spec.wrappedKeys`.
pub fn version(crd: &Value) -> String {
    table(&HEAD, rows(&schema(crd, "status")["properties"]["versions"]["items"], ""))
}

/// The columns of `kubectl get`.
pub fn columns(crd: &Value) -> String {
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().iter();
    let rows = columns.map(|column| {
        let wide = column["priority"].as_i64().is_some_and(|priority| priority > 0);
        vec![
            column["name"].as_str().unwrap().to_uppercase(),
            code(column["jsonPath"].as_str().unwrap()),
            if wide { "`-o wide` only" } else { "" }.to_owned(),
        ]
    });
    table(&["column", "value", "shown with"], rows)
}

/// One row for each field of an object, and for the fields below it, also of objects in a list.
fn rows(object: &Value, path: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        // A field that is only there to be refused.
        if field["maxLength"] == 0 {
            continue;
        }
        let path = format!("{path}{name}");
        let required = object["required"].as_array().is_some_and(|required| required.iter().any(|other| other == name));
        let of = kind(field) + if required { ", required" } else { "" };
        rows.push(vec![code(&path), of, sentence(field["description"].as_str().unwrap())]);
        if !SEPARATE.contains(&name.as_str()) {
            rows.extend(self::rows(field, &format!("{path}.")));
            rows.extend(self::rows(&field["items"], &format!("{path}[].")));
        }
    }
    rows
}

/// Type and bounds of a field, in words.
fn kind(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        return values.iter().map(|value| code(value.as_str().unwrap())).collect::<Vec<_>>().join(" or ");
    }
    let bounds = |least: &str, most: &str, unit: &str| match (field[least].as_f64(), field[most].as_f64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
        (None, Some(most)) => format!(", at most {most}{unit}"),
        _ => String::new(),
    };
    match field["type"].as_str().unwrap() {
        "array" => {
            let of = if field["items"]["type"] == "string" { "strings" } else { "objects" };
            format!("list of {of}{}", bounds("minItems", "maxItems", ""))
        }
        "object" if field["additionalProperties"].is_object() => {
            format!("map of strings{}", bounds("minProperties", "maxProperties", " entries"))
        }
        "integer" => format!("integer{}", bounds("minimum", "maximum", "")),
        "string" if field["format"] == "date-time" => "time".to_owned(),
        "string" => format!("string{}", bounds("minLength", "maxLength", " characters")),
        other => other.to_owned(),
    }
}
