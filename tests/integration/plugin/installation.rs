//! `check`, `orphans` and `version`: what is installed, and what is left.

use std::net::{IpAddr, UdpSocket};

use serde_json::{Value, json};
use testbed::{control_plane::deployment_runs, eventually};

use super::{User, row, text};
use crate::harness::{NO_RETRY, Operator, SOON, TestNamespace};

/// The address of this machine at which the API server reaches the operator. It refuses loopback addresses.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address for documentation (RFC 5737); nothing is sent.
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// A Deployment of the operator, as the chart has it.
fn deployment(namespace: &str, name: &str, flags: &[&str]) -> Value {
    let labels = json!({ "app.kubernetes.io/name": "datakey-operator" });
    let arguments = [&["run", "--leader-elect", "--lease-name=keys"], flags].concat();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{
                    "name": "operator",
                    "image": "registry.example.com/datakey-operator:v0.1.0",
                    "args": arguments,
                    "env": [{ "name": "AWS_REGION", "value": "eu-west-1" }],
                }] },
            },
        },
    })
}

/// A metrics Service that leads to the operator. The proxy of the API server connects to addresses of pods only, so there is a
/// pod that has the address; without nodes it stays pending. An older API server reads Endpoints, a newer one EndpointSlices.
fn metrics_service(namespace: &str, address: IpAddr, port: u16) -> [Value; 4] {
    let ports = json!([{ "name": "metrics", "port": port, "protocol": "TCP" }]);
    let pod = json!({ "kind": "Pod", "name": "keys-abc", "namespace": namespace });
    let metadata = |labels: Value| json!({ "name": "keys-metrics", "namespace": namespace, "labels": labels });
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(json!({ "app.kubernetes.io/name": "datakey-operator" })),
            "spec": { "clusterIP": "None", "ports": ports },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "keys-abc", "namespace": namespace },
            "spec": { "containers": [{ "name": "operator", "image": "registry.example.com/datakey-operator:v0.1.0" }] },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": metadata(json!({})),
            "subsets": [{ "addresses": [{ "ip": address, "targetRef": pod }], "ports": ports }],
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata(json!({ "kubernetes.io/service-name": "keys-metrics" })),
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true }, "targetRef": pod }],
            "ports": ports,
        }),
    ]
}

async fn admin_port(operator: &Operator) -> u16 {
    operator.logs("serving /livez").await;
    let lines = operator.log_lines();
    let address = lines.iter().find_map(|line| line["address"].as_str()).unwrap();
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

async fn report_replicas(test: &TestNamespace, replicas: u32) {
    let status = deployment_runs(&json!(1), &json!(replicas)).to_string();
    let namespace = test.namespace.as_str();
    let patch = ["patch", "deployment", "keys", "-n", namespace, "--subresource=status", "--type=merge", "-p", &status];
    test.plane.kubectl(&patch).await.unwrap();
}

/// Result and detail of one check.
fn finding(checked: &Value, check: &str) -> (String, String) {
    let mut items = checked["items"].as_array().unwrap().iter();
    let found = items.find(|item| item["check"] == check).unwrap_or_else(|| panic!("no {check}: {checked}"));
    let field = |name: &str| found[name].as_str().unwrap().to_owned();
    (field("result"), field("detail"))
}

#[tokio::test]
async fn check_says_what_of_the_installation_does_not_work() {
    let test = TestNamespace::new("plugin-check").await;
    let user = User::of(&test);
    let here = ["check", "--operator-namespace=plugin-check"];
    let none = user.json(2, &here).await;
    assert_eq!(finding(&none, "operator").0, "Failed");
    let definition = "datakeys.datakey.dev serves v1alpha1, and v1alpha1 is stored";
    assert_eq!(finding(&none, "definition"), ("Ok".to_owned(), definition.to_owned()));

    test.apply(&[deployment("plugin-check", "keys", &[])]).await;
    // Another test may have a Deployment in the operator's namespace, so the exit code is 1 or 2.
    let untrusted = user.runs(&["check", "-o", "json"]).await;
    assert_ne!(untrusted.code, 0, "{untrusted:?}");
    let untrusted: Value = serde_json::from_slice(&untrusted.out).unwrap();
    let mine = |item: &&Value| item["detail"].as_str().unwrap().contains("keys in namespace plugin-check");
    let found: Vec<_> = untrusted["items"].as_array().unwrap().iter().filter(mine).collect();
    assert!(found.len() == 1 && found[0]["result"] == "NotChecked", "{untrusted}");
    report_replicas(&test, 0).await;
    let stopped = user.json(2, &here).await;
    for check in ["operator", "leader"] {
        assert_eq!(finding(&stopped, check).0, "Failed", "{check}");
    }
    assert_eq!(finding(&stopped, "kms").0, "NotChecked", "there is no Service");
    assert_eq!(
        finding(&stopped, "region"),
        ("Ok".to_owned(), "eu-west-1, by the environment of the operator".to_owned())
    );

    test.grant_lease_access().await;
    let flags = ["--leader-elect", "--lease-namespace=plugin-check", "--lease-name=keys", "--admin-address=0.0.0.0:0"];
    let operator = test.operator_with(&[&NO_RETRY[..], &flags].concat(), &[("POD_NAME", "keys-abc")]);
    operator.logs("this replica leads").await;
    report_replicas(&test, 1).await;
    let runs = user.json(1, &here).await;
    let (leads, holder) = finding(&runs, "leader");
    assert!(leads == "Ok" && holder.starts_with("keys-abc"), "{holder}");
    let watched = "Deployment keys in namespace plugin-check watches all namespaces";
    assert_eq!(finding(&runs, "watched by"), ("Ok".to_owned(), watched.to_owned()));
    test.apply(&[deployment("plugin-check", "second", &["--namespace=plugin-check"])]).await;
    let (result, detail) = finding(&user.json(2, &here).await, "watched by");
    assert!(result == "Failed" && detail.contains("both watch namespace plugin-check"), "{detail}");
    test.plane.kubectl(&["delete", "deployment", "second", "-n", "plugin-check"]).await.unwrap();
    for right in ["list datakeys", "patch datakeys", "get secrets", "list datakeypairs"] {
        assert_eq!(finding(&runs, right).0, "Ok", "{right}");
    }
    assert_eq!(finding(&runs, "definition of pairs").0, "Ok");

    if let Some(address) = own_address() {
        let [service, pod, endpoints, slice] = metrics_service("plugin-check", address, admin_port(&operator).await);
        test.apply(&[service]).await;
        let (unreachable, why) = finding(&user.json(1, &here).await, "kms");
        assert!(unreachable == "NotChecked" && why.contains("no endpoints available"), "{why}");
        test.apply(&[pod]).await;
        let status = json!({ "status": { "podIP": address, "podIPs": [{ "ip": address }] } }).to_string();
        let patch =
            ["patch", "pod", "keys-abc", "-n", "plugin-check", "--subresource=status", "--type=merge", "-p", &status];
        test.plane.kubectl(&patch).await.unwrap();
        test.apply(&[endpoints, slice]).await;
        eventually(SOON, "the API server knows the endpoints", async || {
            !finding(&user.json(1, &here).await, "kms").1.contains("no endpoints available")
        })
        .await;
        let unused = finding(&user.json(1, &here).await, "kms");
        assert_eq!(unused, ("NotChecked".to_owned(), "the operator has not called KMS since it started".to_owned()));
        test.issue("orders", &json!({})).await;
        let answered = finding(&user.json(0, &here).await, "kms");
        assert_eq!(answered, ("Ok".to_owned(), "KMS answered the operator in eu-west-1".to_owned()));
        test.proxy.fail_always(testbed::proxy::Fault::Reset);
        test.create("late", &json!({})).await;
        test.failed("late", "KmsUnreachable").await;
        let unreached = user.ends(2, &here).await;
        assert!(text(&unreached).contains("1 DataKey reads KmsUnreachable"), "{unreached:?}");
    }

    let versions = user.json(0, &["version"]).await;
    assert_eq!(versions["api"], json!(["v1alpha1"]));
    let operators = versions["operators"].as_array().unwrap();
    assert!(
        operators.iter().any(|found| found["image"] == "registry.example.com/datakey-operator:v0.1.0"),
        "{versions}"
    );
    let client = user.ends(0, &["version", "--client", "--kubeconfig=/no/such/file"]).await;
    assert_eq!(text(&client), concat!("plugin      ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn check_by_a_viewer_names_what_it_could_not_look_at() {
    let test = TestNamespace::new("plugin-check-viewer").await;
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    let checked = viewer.json(2, &["check"]).await;
    assert_eq!(finding(&checked, "operator").0, "NotChecked");
    let (result, detail) = finding(&checked, "definition");
    assert!(result == "Ok" && detail.contains("v1alpha1 is served; you may not read"), "{detail}");
    assert_eq!(finding(&checked, "list datakeys").0, "Ok");
    assert_eq!(finding(&checked, "patch datakeys").0, "Failed");

    // The same as an administrator who acts as that user.
    let account = "--as=system:serviceaccount:plugin-check-viewer:plugin-check-viewer";
    let acting = User::of(&test).json(2, &["check", account, "--as-group=system:authenticated"]).await;
    assert_eq!(acting, checked);
}

#[tokio::test]
async fn orphans_are_the_secrets_without_a_data_key() {
    let test = TestNamespace::new("plugin-orphans").await;
    let _operator = test.operator();
    for (name, spec) in [("kept", json!({})), ("used", json!({})), ("named", json!({ "secretName": "wrapped" }))] {
        test.issue(name, &spec).await;
    }
    let user = User::of(&test);
    let none = user.ends(0, &["orphans"]).await;
    assert_eq!(
        (none.out.len(), none.err.as_str()),
        (0, "Each of 3 Secrets with data keys or key pairs has its DataKey or DataKeyPair.\n")
    );
    test.delete("kept").await;
    test.delete("named").await;
    let table = text(&user.ends(0, &["orphans"]).await);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(row(&table, "wrapped")[..3], ["wrapped", "named", "1"]);
    assert_eq!(text(&user.ends(0, &["orphans", "-o", "name"]).await), "secret/kept\nsecret/wrapped\n");
    let everywhere = text(&user.ends(0, &["orphans", "-A", "-o", "wide"]).await);
    assert!(
        everywhere.lines().any(|line| line.starts_with("plugin-orphans ") && line.contains(" kept ")),
        "{everywhere}"
    );
    test.issue("kept", &json!({})).await;
    let items = user.json(0, &["orphans"]).await["items"].as_array().unwrap().len();
    assert_eq!(items, 1, "it was adopted");
}
