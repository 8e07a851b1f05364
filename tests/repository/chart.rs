//! The chart: what is generated from it is fresh, every value does what it says, wrong ones are refused.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::flags;

mod classes;
mod release;
mod unwrap;
mod values;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/datakey-operator")
}

fn tool(name: &str) -> PathBuf {
    let path = match std::env::var_os("HELM") {
        Some(helm) if name == "helm" => helm.into(),
        _ => testbed::tools().join("bin").join(name),
    };
    assert!(path.exists(), "{name} is missing: run `make chart-tools`");
    path
}

fn helm(arguments: &[&str], values: &Value) -> Output {
    let mut helm = Command::new(tool("helm"))
        .args(arguments)
        .args(["--values", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // JSON is YAML. Helm may refuse it before it has read all.
    let _ = helm.stdin.take().unwrap().write_all(values.to_string().as_bytes());
    helm.wait_with_output().unwrap()
}

/// The one value without which the chart is not rendered.
fn with_an_image() -> Value {
    json!({ "image": { "repository": "datakey-operator" } })
}

/// What a release `datakey-operator` in the namespace `datakey-system` consists of, or why not.
fn rendered(values: &Value) -> Result<String, String> {
    rendered_by(&["template"], values)
}

/// The same by another command of Helm. The values have an image repository where they name none.
fn rendered_by(command: &[&str], values: &Value) -> Result<String, String> {
    let chart = chart().display().to_string();
    let mut all = with_an_image();
    merge(&mut all, values.clone());
    let output = helm(&[command, &["datakey-operator", &chart, "--namespace", "datakey-system"]].concat(), &all);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn objects(values: &Value) -> Vec<Value> {
    let text = rendered(values).unwrap_or_else(|error| panic!("{values}: {error}"));
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// `a.b.c` and a value as nested values.
fn nested(path: &str, value: &Value) -> Value {
    path.rsplit('.').fold(value.clone(), |inner, name| json!({ name: inner }))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The paths of all values that are no maps of further ones.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !values::WHOLE.contains(&path) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, found);
            }
        }
        _ => _ = found.insert(path.to_owned()),
    }
}

fn defaults() -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap()
}

#[test]
fn each_value_does_what_it_says() {
    let cases = values::cases();
    let run = |case: &values::Case| {
        let mut values = nested(case.path, &case.value);
        merge(&mut values, case.with.clone());
        let before: Option<Value> = find(&objects(&case.with), case);
        let after = find(&objects(&values), case);
        assert_ne!(before, after, "{}: it changes nothing", case.path);
        assert_eq!(after.as_ref(), case.expected.as_ref(), "{} = {}", case.path, case.value);
    };
    let (first, second) = cases.split_at(cases.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| first.iter().for_each(run));
        scope.spawn(|| second.iter().for_each(run));
    });
}

fn find(objects: &[Value], case: &values::Case) -> Option<Value> {
    let (kind, name) = case.object.split_once('/').unwrap_or((case.object, ""));
    let is_it = |object: &&Value| object["kind"] == kind && (name.is_empty() || object["metadata"]["name"] == name);
    let object = objects.iter().find(is_it)?;
    let found = object.pointer(case.pointer)?;
    match case.element {
        // Among the elements of a list.
        Some(element) => found.as_array()?.iter().find(|found| element(found)).cloned(),
        None => Some(found.clone()),
    }
}

#[test]
fn no_value_is_without_a_test() {
    let mut all = BTreeSet::new();
    leaves(&defaults(), "", &mut all);
    let tested: BTreeSet<_> = values::cases().iter().map(|case| case.path.to_owned()).collect();
    let missing: Vec<_> = all.difference(&tested).collect();
    assert!(missing.is_empty(), "values without a test: {missing:#?}");
    let gone: Vec<_> = tested.difference(&all).collect();
    assert!(gone.is_empty(), "tests of values that are not there: {gone:#?}");
}

#[test]
fn unknown_and_wrong_values_are_refused() {
    let mut all = BTreeSet::new();
    leaves(&defaults(), "", &mut all);
    for path in &all {
        // No value takes this.
        let refused = rendered(&nested(path, &json!([[0]])));
        assert!(refused.as_ref().is_err_and(|error| error.contains("don't meet")), "{path}: {refused:?}");
    }
    let sections: BTreeSet<_> =
        all.iter().map(|path| path.rsplit_once('.').map_or("", |(section, _)| section)).collect();
    for section in sections {
        let path = format!("{section}.noSuchValue");
        let refused = rendered(&nested(path.trim_start_matches('.'), &json!(1)));
        assert!(refused.as_ref().is_err_and(|error| error.contains("noSuchValue")), "{path}: {refused:?}");
    }
    for (path, value) in [
        ("replicaCount", json!(-1)),
        ("image.pullPolicy", json!("Sometimes")),
        ("image.digest", json!("sha256:short")),
        ("image.tag", json!("v1:2")),
        ("image.tag", json!("-rc")),
        ("watchNamespaces", json!(["Not_A_Namespace"])),
        ("leaderElection.duration", json!("500ms")),
        ("config.issue", json!("no")),
        ("config.kmsRate", json!(0)),
        ("config.retryMax", json!("soon")),
        ("config.logFormat", json!("xml")),
        ("aws.region", json!("Ireland")),
        ("aws.region", json!("eu-west")),
        ("aws.region", json!("eu-a123456789-123456789-123456789-1")),
        ("aws.region", json!("eu-abcdefghijklmnopqrstuvwxyzabcdefg-1")),
        ("aws.kmsEndpoint", json!("kms.example.com")),
        ("aws.stsEndpoint", json!("sts.example.com")),
        ("metrics.port", json!(70000)),
    ] {
        assert!(rendered(&nested(path, &value)).is_err(), "{path} = {value} is taken");
    }
    for variant in ["useFipsEndpoint", "useDualstackEndpoint"] {
        for value in ["kmsEndpoint", "stsEndpoint"] {
            let endpoint = "https://kms.example.com";
            assert!(rendered(&json!({ "aws": { variant: true, value: "" } })).is_ok());
            assert!(rendered(&json!({ "aws": { variant: false, value: endpoint } })).is_ok());
            let both = rendered(&json!({ "aws": { variant: true, value: endpoint } }));
            assert!(both.is_err_and(|error| error.contains(&format!("'/aws/{variant}'"))), "{variant} {value}");
        }
    }
    let no_account = json!({ "serviceAccount": { "create": false } });
    assert!(rendered(&no_account).unwrap_err().contains("serviceAccount.name is needed"));
    let no_service = json!({ "metrics": { "service": { "enabled": false }, "serviceMonitor": { "enabled": true } } });
    assert!(rendered(&no_service).unwrap_err().contains("needs metrics.service.enabled"));
}

/// A value of the flags' table, in the type of the value in the chart.
fn in_the_type_of(default: &Value, text: &str) -> Value {
    match default {
        Value::Array(_) => text.split(',').collect(),
        Value::Number(_) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

#[test]
fn the_chart_refuses_what_the_flags_refuse() {
    let defaults = defaults();
    let rows: Vec<_> = flags::ROWS.iter().filter_map(|row| Some((row.chart?, row.refused))).collect();
    assert!(rows.len() > 10);
    let most = rows.iter().map(|(_, refused)| refused.len()).max().unwrap();
    for number in 0..most {
        let wrong: Vec<_> = rows
            .iter()
            .filter_map(|(path, refused)| Some((*path, pointer(path), refused.get(number)?)))
            .map(|(path, pointer, text)| (path, in_the_type_of(defaults.pointer(&pointer).unwrap(), text)))
            .collect();
        // Helm lists everything that is against the schema, and of the rest the first only.
        let mut all = json!({});
        for (path, value) in &wrong {
            merge(&mut all, nested(path, value));
        }
        let listed = rendered(&all).unwrap_err();
        for (path, value) in wrong {
            if !listed.contains(&format!("- at '{}", pointer(path))) {
                let Err(error) = rendered(&nested(path, &value)) else { panic!("{path} = {value} is accepted") };
                assert!(error.contains(&format!("{path}: ")) && error.contains("write "), "{path} = {value}: {error}");
            }
        }
    }
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// Lists that may be left out; an empty one becomes no flag.
const LISTS: [&str; 3] = ["aws.extraRegions", "config.kmsPairRates", "config.reservedTemplateKeys"];

#[test]
fn values_that_become_flags_cannot_be_null() {
    let paths = flags::ROWS.iter().filter_map(|row| row.chart).filter(|path| !LISTS.contains(path));
    for path in paths.chain(["config", "leaderElection", "metrics", "metrics.port"]) {
        let Err(error) = rendered(&nested(path, &Value::Null)) else { panic!("{path} = null is accepted") };
        let name = path.rsplit('.').next().unwrap();
        assert!(error.contains(&format!("missing property '{name}'")), "{path}: {error}");
    }
}

#[test]
fn the_operator_accepts_the_flags_of_the_chart() {
    for values in [
        json!({}),
        json!({
            "watchNamespaces": ["shop", "bank", "shop"],
            "aws": { "extraRegions": ["xx-new-1", "xx-a-2"] },
            // Helm writes numbers of this size as 1e+06.
            "config": { "reservedTemplateKeys": ["example.com/", "a.b/C"], "kmsRate": 1_000_000, "kmsPairRates": ["RSA_4096=0.001", "SM2=1000000"], "issue": false, "logLevel": "info,kube=debug", "retryMax": "1h30m" },
            "leaderElection": { "duration": "1m" },
            "classes": { "required": true },
        }),
    ] {
        let all = objects(&values);
        let deployment = all.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let flags = deployment.pointer("/spec/template/spec/containers/0/args").unwrap().as_array().unwrap();
        let arguments = ["datakey-operator"].into_iter().chain(flags.iter().map(|flag| flag.as_str().unwrap()));
        let arguments: Vec<_> = arguments.map(Into::into).collect();
        let read = datakey_operator::args::Cli::read(&arguments, &[]);
        assert!(read.is_ok(), "{read:?}");
    }
}

#[test]
fn the_same_values_give_the_same_text() {
    let everything = json!({
        "watchNamespaces": ["b", "a"],
        "metrics": { "serviceMonitor": { "enabled": true }, "dashboard": { "enabled": true } },
        "protectSecrets": { "enabled": true },
        "commonLabels": { "z": "1", "a": "2" },
    });
    assert_eq!(rendered(&everything), rendered(&everything));
    for file in std::fs::read_dir(chart().join("templates")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for word in ["lookup", "rand", "now", "genCA", "uuidv4"] {
            assert!(!text.contains(&format!("{word} ")), "a template says {word}");
        }
    }
}

#[test]
fn a_cluster_older_than_the_oldest_tested_one_is_refused() {
    let chart = chart().display().to_string();
    let on =
        |version: &str| helm(&["template", "datakey-operator", &chart, "--kube-version", version], &with_an_image());
    let oldest = testbed::kubernetes::Built::Oldest.release().minor();
    let troubleshooting = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    for old in ["v1.32.13", "v1.32.13-eks-1234567"] {
        let output = on(old);
        let error = String::from_utf8(output.stderr).unwrap();
        let expected =
            format!("chart requires kubeVersion: >={oldest}.0-0 which is incompatible with Kubernetes v1.32.13");
        assert!(!output.status.success() && error.contains(&expected), "{old}: {error}");
        assert!(troubleshooting.contains(&expected), "docs/troubleshooting.md does not have: {expected}");
    }
    for vendor in ["0", "5-eks-1234567", "4-gke.1010000"] {
        let output = on(&format!("v{oldest}.{vendor}"));
        assert!(output.status.success(), "{vendor}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn helm_lint_finds_nothing() {
    for values in [json!({}), with_an_image()] {
        let output = helm(&["lint", "--strict", &chart().display().to_string()], &values);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn notes(values: &Value) -> String {
    let printed = rendered_by(&["install", "--dry-run=client"], values).unwrap();
    printed.split_once("NOTES:").unwrap().1.to_owned()
}

#[test]
fn the_first_datakey_in_the_notes_is_in_a_watched_namespace() {
    for (values, namespace) in [(json!({}), "default"), (json!({ "watchNamespaces": ["shop", "bank"] }), "shop")] {
        let notes = notes(&values);
        assert!(notes.contains(&format!("metadata: {{name: orders, namespace: {namespace}}}")), "{notes}");
        assert!(notes.contains(&format!("datakey/orders -n {namespace}\n")), "{notes}");
    }
}

#[test]
fn notes_warn_of_values_that_cannot_work_or_cost_data() {
    assert!(!notes(&json!({})).contains("WARNING"));
    for (path, value, warning) in [
        ("crds.enabled", json!(false), "the cluster has no CustomResourceDefinition of DataKey"),
        ("crds.keep", json!(false), "uninstalling this release deletes every DataKey"),
        ("rbac.create", json!(false), "the operator waits until service account datakey-system/datakey-operator has"),
        ("replicaCount", json!(0), "no data key is issued and no Secret is restored"),
        ("config.issue", json!(false), "the operator calls no KMS"),
        ("leaderElection.enabled", json!(false), "2 replicas without leader election all call KMS"),
        ("config.shutdownGrace", json!("30s"), "pods can be killed before they release the Lease"),
        ("podDisruptionBudget.minAvailable", json!(2), "no pod can be evicted"),
        ("podDisruptionBudget.minAvailable", json!("100%"), "no pod can be evicted"),
    ] {
        let notes = notes(&nested(path, &value));
        assert_eq!(notes.matches("WARNING").count(), 1, "{path}: {notes}");
        assert!(notes.contains(warning), "{path}: {notes}");
    }
    let one = json!({ "replicaCount": 1, "leaderElection": { "enabled": false } });
    assert!(notes(&one).contains("two replicas work during each rollout"));
    let recreated =
        json!({ "replicaCount": 1, "leaderElection": { "enabled": false }, "strategy": { "type": "Recreate" } });
    assert!(!notes(&recreated).contains("WARNING"));
}

#[test]
fn chart_without_an_image_repository_says_what_to_set() {
    let refused = rendered(&json!({ "image": { "repository": "" } })).unwrap_err();
    assert!(refused.contains("image.repository is required: build the image with `make image`"), "{refused}");
}

#[test]
fn image_repository_has_no_tag_and_no_upper_case() {
    let with = |repository: &str| rendered(&json!({ "image": { "repository": repository } }));
    for good in ["datakey-operator", "localhost:5000/datakey-operator", "registry.example.com/a/b_c"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for wrong in ["REGISTRY/datakey-operator", "r.example.com/a:0.1.0", "a:0.1.0", "r/a@sha256:0", "r/", "Team/a"] {
        let refused = with(wrong).unwrap_err();
        assert!(
            refused.contains("write the name in lower-case letters, and the tag in image.tag"),
            "{wrong}: {refused}"
        );
    }
}

#[test]
fn the_pods_meet_the_restricted_pod_security_standard() {
    // What the standard asks for that a static reader can see; the API server's own check is in the server tests.
    let all = objects(&json!({}));
    let deployment = all.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"], json!({ "drop": ["ALL"] }));
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[field].is_null(), "{field}");
    }
}

/// The values of a section of docs/install.md: its blocks of YAML.
fn documented(section: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("docs/install.md")).unwrap();
    let section = text.split("\n## ").find(|found| found.starts_with(section)).unwrap();
    let blocks = section.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| serde_saphyr::from_str(block).unwrap()).collect()
}

fn pod(values: &Value) -> Value {
    let deployment = objects(values).into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    deployment["spec"]["template"].clone()
}

#[test]
fn the_values_for_openshift_leave_user_and_group_to_it() {
    let values = documented("OpenShift and other hardened clusters");
    let expected = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    assert_eq!(pod(&values[0])["spec"]["securityContext"], expected);
    // And without any.
    let none = json!({ "podSecurityContext": null, "securityContext": null });
    let pod = pod(&none);
    assert!(pod["spec"]["securityContext"].is_null() && pod["spec"]["containers"][0]["securityContext"].is_null());
    let own = json!({ "podSecurityContext": { "runAsUser": 1_000_650_000, "supplementalGroups": [7] } });
    let own = &self::pod(&own)["spec"]["securityContext"];
    assert_eq!((&own["runAsUser"], &own["supplementalGroups"]), (&json!(1_000_650_000), &json!([7])));
}

#[test]
fn the_values_for_service_meshes_reach_the_pods() {
    let [without, with] = documented("Service meshes").try_into().unwrap();
    let without = &pod(&without)["metadata"];
    assert_eq!(without["labels"]["sidecar.istio.io/inject"], "false");
    assert_eq!(without["annotations"]["linkerd.io/inject"], "disabled");
    let template = pod(&with);
    let annotations = &template["metadata"]["annotations"];
    let config: Value = serde_saphyr::from_str(annotations["proxy.istio.io/config"].as_str().unwrap()).unwrap();
    assert_eq!(config["holdApplicationUntilProxyStarts"], true);
    // The proxy works until the Lease is released, and the pod is killed only then.
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let arguments = template["spec"]["containers"][0]["args"].as_array().unwrap();
    let grace = arguments.iter().find_map(|flag| flag.as_str()?.strip_prefix("--shutdown-grace=")).unwrap();
    let kill = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let linkerd = annotations["config.alpha.linkerd.io/proxy-wait-before-exit-seconds"].as_str().unwrap();
    for drain in [config["terminationDrainDuration"].as_str().unwrap(), linkerd] {
        assert!(seconds(grace) < seconds(drain) && seconds(drain) < kill, "{drain}");
    }
}

#[test]
fn probes_and_metrics_are_served_on_ipv6_and_ipv4() {
    let pod = pod(&json!({ "metrics": { "port": 9090 } }));
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--admin-address=[::]:9090")), "{arguments:?}");
}

/// The alerts and the dashboard name metrics that the operator has, and every alert has a runbook.
#[test]
fn alerts_and_dashboard_name_real_metrics_and_runbooks() {
    let metrics = datakey_operator::metrics::Metrics::default();
    metrics.kms_call("r", "OK", std::time::Duration::ZERO);
    metrics.reconciled(datakey_operator::metrics::ReconcileOutcome::Error, std::time::Duration::ZERO);
    metrics.secret_written(datakey_operator::metrics::SecretWrite::Create);
    metrics.role_assumption("AccessDenied");
    let states = vec![(datakey::api::KindId::DataKey, datakey::condition::ReadyState::Issued)];
    let unusable = vec![(datakey::condition::key_usable::Cause::DisabledException, "shop".to_owned())];
    let gauges = datakey_operator::metrics::Gauges { states, unusable, ..<_>::default() };
    let shown = metrics.render(gauges).unwrap();
    let runbooks = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = std::fs::read_to_string(chart().join("files").join(file)).unwrap();
        let names: BTreeSet<_> = text
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .filter(|word| word.starts_with("datakey_") || word.starts_with("process_"))
            .collect();
        assert!(names.len() > 3, "{names:?}");
        for name in names {
            assert!(shown.contains(&format!("{name}{{")) || shown.contains(&format!("{name} ")), "{file}: {name}");
        }
    }
    let alerts: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart().join("files/alerts.yaml")).unwrap()).unwrap();
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(runbooks.contains(&format!("### {alert}\n")), "docs/operations.md has no runbook for {alert}");
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(url, format!("RUNBOOK_URL#{}", alert.to_lowercase()));
    }
}

// === generated files ===

#[test]
fn the_manifests_in_deploy_are_the_chart() {
    let text = rendered(&json!({ "crds": { "enabled": false } })).unwrap();
    // kubectl applies these manifests, not Helm.
    let helms = ["app.kubernetes.io/managed-by: Helm", "helm.sh/chart:"];
    let plain: String = text
        .lines()
        .filter(|line| !helms.iter().any(|helms| line.trim().starts_with(helms)))
        .fold(String::from("# Rendered from charts/datakey-operator; make generate writes it.\n"), |text, line| {
            text + line + "\n"
        });
    testbed::assert_fresh("deploy/operator.yaml", &plain);
}

/// What helm-docs writes for a chart.
fn readme(chart: &Path) -> String {
    let output = Command::new(tool("helm-docs"))
        .args(["--dry-run", "--sort-values-order=file", "--log-level=error", "--chart-search-root"])
        .arg(chart)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_charts_readme_is_that_of_its_values() {
    testbed::assert_fresh("charts/datakey-operator/README.md", &readme(&chart()));
}
