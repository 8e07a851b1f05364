//! The library chart. tests/integration/unwrap_manifests.rs renders it in a chart of an application, with right and wrong settings.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use serde_json::Value;

use super::{root, tool};

fn library() -> PathBuf {
    root().join("charts/datakey-unwrap")
}

fn file(path: &str) -> String {
    std::fs::read_to_string(library().join(path)).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn each_setting_is_known_to_schema_and_templates() {
    let names = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let mut settings = names(&yaml(&file("values.yaml")));
    // Helm gives it to each chart.
    settings.insert("global".to_owned());
    let schema: Value = serde_json::from_str(&file("values.schema.json")).unwrap();
    assert_eq!(names(&schema["properties"]), settings);
    let templates = file("templates/_settings.tpl");
    let (_, known) = templates.split_once("$known := list ").unwrap();
    let (known, _) = known.split_once("}}").unwrap();
    let known: BTreeSet<_> = known.split_whitespace().map(|name| name.trim_matches('"').to_owned()).collect();
    assert_eq!(known, settings);
}

#[test]
fn library_chart_has_the_version_of_the_operators_chart() {
    let [own, other] = ["datakey-unwrap", "datakey-operator"]
        .map(|chart| yaml(&std::fs::read_to_string(root().join("charts").join(chart).join("Chart.yaml")).unwrap()));
    for field in ["version", "appVersion", "kubeVersion"] {
        assert_eq!(own[field], other[field], "{field}");
    }
    assert_eq!(own["type"], "library");
}

#[test]
fn helm_lint_finds_nothing_in_the_library_chart() {
    let output = Command::new(tool("helm")).args(["lint", "--strict"]).arg(library()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn readme_of_the_library_chart_is_that_of_its_values() {
    testbed::assert_fresh("charts/datakey-unwrap/README.md", &super::readme(&library()));
}
