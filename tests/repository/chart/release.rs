//! The chart of a release: what Artifact Hub and Helm show of it.

use std::process::Command;

use serde_json::{Value, json};
use testbed::process::Workdir;

use super::{root, tool};

const IMAGE: &str = "registry.example.com/security/datakey-operator";

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn file(path: &str) -> Value {
    yaml(&std::fs::read_to_string(root().join(path)).unwrap())
}

/// An annotation that is YAML in a string.
fn annotation(chart: &Value, name: &str) -> Value {
    yaml(chart["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap())
}

/// The chart that a release publishes, in a folder.
fn released() -> Workdir {
    let folder = Workdir::new("chart");
    let mut render = Command::new(root().join("deploy/chart/render.sh"));
    let output = render.args(["example/datakey-operator", IMAGE]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn helm(arguments: &[&str], folder: &Workdir) -> String {
    let chart = folder.file("datakey-operator");
    let output = Command::new(tool("helm")).args(arguments).arg(chart).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn artifact_hub_shows_the_definition_and_a_sample_of_it() {
    let chart = file("charts/datakey-operator/Chart.yaml");
    let shown = annotation(&chart, "crds");
    let shown = shown.as_array().unwrap();
    let definitions = datakey::api::crds();
    assert_eq!(shown.len(), definitions.len());
    for (shown, definition) in shown.iter().zip(definitions) {
        let definition = json!(definition);
        let versions = definition["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1);
        let kind = &definition["spec"]["names"]["kind"];
        for (field, expected) in [
            ("name", &definition["metadata"]["name"]),
            ("kind", kind),
            ("displayName", kind),
            ("version", &versions[0]["name"]),
        ] {
            assert_eq!(&shown[field], expected, "{field}");
        }
        assert!(shown["description"].as_str().unwrap().len() > 20);
    }
    assert_eq!(annotation(&chart, "crdsExamples"), json!([file("deploy/samples/orders.yaml")]));
    assert_eq!(chart["annotations"]["artifacthub.io/license"], env!("CARGO_PKG_LICENSE"));
}

#[test]
fn released_chart_names_its_home_its_icon_and_its_image() {
    let folder = released();
    let chart = yaml(&helm(&["show", "chart"], &folder));
    let version = env!("CARGO_PKG_VERSION");
    let home = "https://github.com/example/datakey-operator";
    assert_eq!(chart["home"], home);
    assert_eq!(chart["sources"], json!([home]));
    let icon = "charts/icon.svg";
    let at_the_tag = format!("https://raw.githubusercontent.com/example/datakey-operator/v{version}/");
    assert_eq!(chart["icon"], format!("{at_the_tag}{icon}"));
    assert!(root().join(icon).exists());
    let image = json!([{ "name": "datakey-operator", "image": format!("{IMAGE}:{version}") }]);
    assert_eq!(annotation(&chart, "images"), image);
    for link in annotation(&chart, "links").as_array().unwrap() {
        assert!(link["url"].as_str().unwrap().starts_with(&format!("{home}/")), "{link}");
    }
    // What the chart has otherwise stays.
    let before = file("charts/datakey-operator/Chart.yaml");
    for (name, value) in before.as_object().unwrap().iter().filter(|(name, _)| *name != "annotations") {
        assert_eq!(&chart[name], value, "{name}");
    }
    for (name, value) in before["annotations"].as_object().unwrap() {
        assert_eq!(&chart["annotations"][name], value, "{name}");
    }
}

#[test]
fn alerts_of_a_released_chart_lead_to_its_own_runbooks() {
    let objects = helm(&["template", "datakey-operator", "--set=metrics.prometheusRule.enabled=true"], &released());
    let runbooks = format!(
        "runbook_url: https://github.com/example/datakey-operator/blob/v{}/docs/operations.md#datakeyoperatornotworking",
        env!("CARGO_PKG_VERSION")
    );
    assert!(objects.contains(&runbooks), "{objects}");
}

#[test]
fn released_chart_installs_the_published_image() {
    let folder = released();
    let objects = helm(&["template", "datakey-operator"], &folder);
    let image = format!("image: {IMAGE}:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(objects.contains(&image), "{objects}");
    assert!(!objects.contains("OWNER"), "{objects}");
    let lint = helm(&["lint", "--strict"], &folder);
    assert!(!lint.contains("[INFO]") && !lint.contains("[WARNING]"), "{lint}");
}
