//! The Kubernetes versions that users are promised are those that the tests run on.

use std::{fs, path::Path};

use serde_json::Value;
use testbed::kubernetes::{Built, Release};

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&text(file)).unwrap()
}

#[test]
fn the_chart_asks_for_the_oldest_tested_kubernetes() {
    // With -0, so that the versions of vendors are new enough, too: v1.33.5-eks-1234567 is a pre-release to Helm.
    let expected = format!(">={}.0-0", Built::Oldest.release().minor());
    assert_eq!(yaml("charts/datakey-operator/Chart.yaml")["kubeVersion"], expected);
}

#[test]
fn the_documentation_names_the_tested_kubernetes_versions() {
    let (oldest, newest) = (Built::Oldest.release().minor(), Built::Newest.release().minor());
    for (file, promise) in [
        ("README.md", format!("Kubernetes {oldest} or newer, tested on {oldest} and {newest}")),
        ("docs/install.md", format!("Kubernetes {oldest} or newer, tested on {oldest} and {newest}")),
        ("docs/performance.md", format!("the oldest supported version, {oldest}")),
        ("docs/troubleshooting.md", format!("Kubernetes {oldest} or newer")),
    ] {
        let words: Vec<_> = text(file).split_whitespace().map(str::to_owned).collect();
        assert!(words.join(" ").contains(&promise), "{file} does not say: {promise}");
    }
}

#[test]
fn all_modules_of_a_kubernetes_have_one_version() {
    for built in [Built::Oldest, Built::Newest] {
        // k8s.io/api v0.37.2 belongs to Kubernetes v1.37.2.
        let module = built.release().to_string().replacen("v1.", "v0.", 1);
        let go_mod = built.go_mod();
        let replaced: Vec<_> = go_mod.lines().filter_map(|line| line.split_once(" => ")).collect();
        assert!(replaced.len() > 25, "{built:?}: {}", replaced.len());
        for (name, by) in replaced {
            assert_eq!(by, format!("{} {module}", name.trim()), "{built:?}");
        }
    }
}

#[test]
fn ci_tests_the_oldest_kubernetes_in_a_job_of_its_own() {
    let workflow = yaml(".github/workflows/ci.yml");
    let jobs = workflow["jobs"].as_object().unwrap().values();
    let runs =
        jobs.map(|job| job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str()).collect());
    let runs: Vec<Vec<_>> = runs.collect();
    assert!(runs.contains(&vec!["make servers-oldest"]), "{runs:?}");
    assert!(!text(".ci/run").contains("oldest"));
}

#[test]
fn the_release_of_a_vendor_is_the_release_it_is_made_of() {
    let release = Release::parse("v1.33.13").unwrap();
    assert_eq!(release.to_string(), "v1.33.13");
    assert_eq!(release.minor(), "1.33");
    for vendor in ["v1.33.13-eks-1234567", "v1.33.13+rke2r1", "v1.33.13-gke.1010000", "v1.33.13\n"] {
        assert_eq!(Release::parse(vendor), Some(release), "{vendor}");
    }
    for wrong in ["", "v1.33", "1.33.13", "v1.x.13", "master"] {
        assert_eq!(Release::parse(wrong), None, "{wrong}");
    }
}
