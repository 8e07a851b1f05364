//! The chart, installed, upgraded, rolled back, uninstalled and installed again with DataKeys in place. Without nodes the
//! operator runs as a process, under the identity and with the arguments that the chart gives it.

use serde_json::{Value, json};
use testbed::{commands, control_plane::ControlPlane, eventually, proxy::KmsProxy, repository};

use crate::harness::{Operator, SOON, TestNamespace};

/// Runs Helm as a cluster admin.
pub async fn helm(plane: &ControlPlane, arguments: &[&str]) -> Result<String, String> {
    commands::helm(&plane.admin_kubeconfig(), &plane.workdir().file("helm"), arguments).await
}

pub fn chart() -> String {
    repository().join("charts/datakey-operator").display().to_string()
}

/// The one value without which the chart is not rendered.
pub const IMAGE: [&str; 2] = ["--set", "image.repository=datakey-operator"];

/// A bare control plane with the chart installed into a namespace.
async fn installed(values: &[&str]) -> ControlPlane {
    let plane = ControlPlane::bare().await;
    install(&plane, "datakey-operator", "datakey-system", values).await.unwrap();
    plane
}

async fn install(plane: &ControlPlane, release: &str, namespace: &str, values: &[&str]) -> Result<String, String> {
    let chart = chart();
    let arguments = ["upgrade", "--install", release, &chart, "--namespace", namespace, "--create-namespace"];
    helm(plane, &[&arguments[..], &IMAGE, values].concat()).await
}

async fn apply(plane: &ControlPlane, namespace: &str, names: &[&str]) {
    let spec = json!({ "keyId": "alias/orders", "keySpec": "AES_256" });
    let item = |name: &&str| {
        json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": name, "namespace": namespace },
            "spec": spec,
        })
    };
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": names.iter().map(item).collect::<Vec<_>>() });
    let file = plane.workdir().file(&format!("{namespace}.json"));
    std::fs::write(&file, list.to_string()).unwrap();
    plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
}

async fn ready(plane: &ControlPlane, namespace: &str) {
    let wait = ["wait", "datakeys", "--all", "--for=condition=Ready", "-n", namespace, "--timeout=30s"];
    plane.kubectl(&wait).await.unwrap();
}

async fn data(plane: &ControlPlane, namespace: &str) -> Value {
    let field = ["get", "secrets", "-n", namespace, "--field-selector=type=datakey.dev/wrapped-key", "-o", "json"];
    let secrets: Value = serde_json::from_str(&plane.kubectl(&field).await.unwrap()).unwrap();
    secrets["items"].as_array().unwrap().iter().map(|secret| secret["data"].clone()).collect()
}

#[tokio::test]
async fn upgrade_rollback_and_reinstall_keep_secrets_without_calls() {
    let plane = installed(&[]).await;
    let proxy = KmsProxy::stub().await;
    plane.namespace("shop").await;
    {
        let first = Operator::as_deployed(&plane, "datakey-operator", "datakey-system", &proxy.url()).await;
        apply(&plane, "shop", &["orders", "invoices"]).await;
        ready(&plane, "shop").await;
        first.process.signal("TERM");
    }
    let held = data(&plane, "shop").await;
    assert_eq!(held.as_array().unwrap().len(), 2);

    let changes: [(&str, &[&str]); 4] = [
        ("upgrade", &["--set", "config.kmsRate=50", "--set", "replicaCount=3", "--set", "commonLabels.team=platform"]),
        ("rollback", &[]),
        ("uninstall", &[]),
        ("install", &[]),
    ];
    for (change, values) in changes {
        match change {
            "rollback" => {
                drop(helm(&plane, &["rollback", "datakey-operator", "1", "-n", "datakey-system"]).await.unwrap());
            }
            "uninstall" => {
                let said = helm(&plane, &["uninstall", "datakey-operator", "-n", "datakey-system"]).await.unwrap();
                assert!(said.contains("datakeys.datakey.dev"), "the definition is kept: {said}");
                let keys = plane.kubectl(&["get", "datakeys", "-n", "shop", "-o", "name"]).await.unwrap();
                assert_eq!(keys.lines().count(), 2);
                continue;
            }
            _ => drop(install(&plane, "datakey-operator", "datakey-system", values).await.unwrap()),
        }
        let operator = Operator::as_deployed(&plane, "datakey-operator", "datakey-system", &proxy.url()).await;
        operator.logs("this replica leads").await;
        operator.is_ready().await;
        ready(&plane, "shop").await;
        // It issues a new DataKey.
        let calls = proxy.calls();
        apply(&plane, "datakey-system", &[change]).await;
        ready(&plane, "datakey-system").await;
        assert_eq!(proxy.calls(), calls + 1, "{change}");
        assert_eq!(data(&plane, "shop").await, held, "{change}");
        operator.process.signal("TERM");
    }
    assert_eq!(proxy.calls(), 2 + 3);
}

#[tokio::test]
async fn classes_in_values_need_their_definition_first() {
    let plane = ControlPlane::bare().await;
    let items = json!({ "shop": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/shop"] }] } });
    let with_classes = ["--set-json", &format!("classes.items={items}")];
    let release = ("datakey-operator", "datakey-system");
    let error = install(&plane, release.0, release.1, &with_classes).await.unwrap_err();
    assert!(error.contains(r#"no matches for kind "DataKeyClass""#), "{error}");
    let releases = helm(&plane, &["list", "-A", "-q"]).await.unwrap();
    assert_eq!(releases.trim(), "", "nothing is installed");

    let classes = async || plane.kubectl(&["get", "datakeyclasses", "-o", "name"]).await.unwrap();
    install(&plane, release.0, release.1, &[]).await.unwrap();
    install(&plane, release.0, release.1, &with_classes).await.unwrap();
    assert_eq!(classes().await.trim(), "datakeyclass.datakey.dev/shop");
    install(&plane, release.0, release.1, &[]).await.unwrap();
    assert_eq!(classes().await.trim(), "", "a class that is not in the values any more is deleted");
}

#[tokio::test]
async fn pods_are_admitted_under_the_restricted_standard() {
    let test = TestNamespace::new("pod-security").await;
    let get = ["get", "deployment", "datakey-operator", "-n", "datakey-system", "-o", "json"];
    let deployment: Value = serde_json::from_str(&test.plane.kubectl(&get).await.unwrap()).unwrap();
    let admitted = async |change: fn(&mut Value)| {
        let mut spec = deployment["spec"]["template"]["spec"].clone();
        change(&mut spec);
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec });
        let file = test.plane.workdir().file("pod.json");
        std::fs::write(&file, pod.to_string()).unwrap();
        // Its namespace enforces the standard.
        let create = ["create", "--dry-run=server", "-n", "datakey-system", "-f", &file.display().to_string()];
        test.plane.kubectl(&create).await
    };
    admitted(|_| {}).await.unwrap();
    let refused = admitted(|pod| pod["containers"][0]["securityContext"]["capabilities"] = Value::Null).await;
    assert!(refused.unwrap_err().contains("violates PodSecurity"));
}

#[tokio::test]
async fn two_releases_work_in_their_own_namespaces_only() {
    let plane = ControlPlane::bare().await;
    let proxy = KmsProxy::stub().await;
    for namespace in ["shop", "bank", "other"] {
        plane.namespace(namespace).await;
    }
    install(&plane, "shop-keys", "keys-of-shop", &["--set", "watchNamespaces={shop}"]).await.unwrap();
    let second = ["--set", "watchNamespaces={bank}", "--set", "crds.enabled=false", "--set", "rbac.aggregate=false"];
    install(&plane, "bank-keys", "keys-of-bank", &second).await.unwrap();
    let shop = Operator::as_deployed(&plane, "shop-keys-datakey-operator", "keys-of-shop", &proxy.url()).await;
    let bank = Operator::as_deployed(&plane, "bank-keys-datakey-operator", "keys-of-bank", &proxy.url()).await;
    for operator in [&shop, &bank] {
        operator.logs("this replica leads").await;
    }
    for namespace in ["shop", "bank", "other"] {
        apply(&plane, namespace, &["k"]).await;
    }
    ready(&plane, "shop").await;
    ready(&plane, "bank").await;
    assert_eq!(proxy.calls(), 2);
    assert!(
        !shop.process.log().contains(r#""namespace":"bank""#) && !bank.process.log().contains(r#""namespace":"shop""#)
    );
    let may = async |account: &str, namespace: &str| {
        let user = format!("--as=system:serviceaccount:{account}");
        plane.kubectl(&["auth", "can-i", "get", "secrets", "-n", namespace, &user]).await.is_ok()
    };
    let account = "keys-of-shop:shop-keys-datakey-operator";
    assert!(may(account, "shop").await);
    for namespace in ["bank", "other", "keys-of-shop", "kube-system"] {
        assert!(!may(account, namespace).await, "{namespace}");
    }
}

#[tokio::test]
async fn namespace_editors_can_edit_data_keys_but_not_the_record() {
    let test = TestNamespace::new("aggregated").await;
    if !test.plane.has_controllers() {
        // Roles are aggregated by a controller.
        return;
    }
    for (role, user) in [("view", "viewer"), ("edit", "editor")] {
        let bind = ["create", "rolebinding", user, "-n", "aggregated", "--clusterrole", role, "--user", user];
        test.plane.kubectl(&bind).await.unwrap();
    }
    let may = async |user: &str, verb: &str, resource: &str| {
        let user = format!("--as={user}");
        test.plane.kubectl(&["auth", "can-i", verb, resource, "-n", "aggregated", &user]).await.is_ok()
    };
    eventually(SOON, "the roles are aggregated", async || {
        may("viewer", "get", "datakeys").await && may("editor", "get", "datakeys").await
    })
    .await;
    eventually(SOON, "the roles are aggregated", async || may("editor", "create", "datakeys").await).await;
    assert!(may("editor", "delete", "datakeys").await);
    assert!(!may("viewer", "create", "datakeys").await);
    for (user, verb) in [("viewer", "update"), ("editor", "update"), ("editor", "patch")] {
        let user = format!("--as={user}");
        let record = ["auth", "can-i", verb, "datakeys", "--subresource=status", "-n", "aggregated", &user];
        assert!(test.plane.kubectl(&record).await.is_err(), "{user} may {verb} the record");
    }
}
