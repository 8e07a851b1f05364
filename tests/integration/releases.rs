//! Installations that replace each other over the same `DataKeys`: other names, other namespaces, Helm and kubectl, an upgrade
//! that fails, a second release, a deleted definition. The commands are those of docs/operations.md. `DataKeys` and Secrets
//! stay as they are, byte for byte.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::{
    control_plane::{ControlPlane, deployment_runs},
    eventually,
    proxy::KmsProxy,
    repository,
};

use crate::{
    chart::{IMAGE, chart, helm},
    harness::{Operator, SOON},
};

/// The first release and its namespace.
const RELEASE: &str = "datakey-operator";
const NAMESPACE: &str = "datakey-system";

/// Keeps the values of the release, and takes the defaults from the new chart.
const REUSE: &str = "--reset-then-reuse-values";

/// What Helm needs to take over objects that another release or kubectl made.
const TAKE_OVER: [&str; 2] = ["--take-ownership", "--force-conflicts"];

/// A cluster with the `DataKeys` of users, who keep them whatever installation runs.
struct Cluster {
    plane: ControlPlane,
    proxy: KmsProxy,
    /// The `DataKeys` and their Secrets as the first operator left them.
    held: [Value; 2],
    issued: usize,
}

/// Ends an operator, which releases its Lease.
pub async fn stop(mut operator: Operator) {
    operator.process.signal("TERM");
    assert_eq!(operator.process.ended().await, 0);
}

/// Reports the pods of each Deployment as ready whose image can be pulled: without nodes there is no kubelet to do so.
async fn pods_run_unless_the_image_is_missing(plane: &ControlPlane) {
    let list = plane.kubectl(&["get", "deployments", "-A", "-o", "json"]).await;
    let list: Value = list.ok().and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_default();
    for deployment in list["items"].as_array().into_iter().flatten() {
        let (metadata, spec) = (&deployment["metadata"], &deployment["spec"]);
        let image = spec["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        if image.ends_with(":missing") || deployment["status"]["observedGeneration"] == metadata["generation"] {
            continue;
        }
        let status = deployment_runs(&metadata["generation"], &spec["replicas"]);
        let (name, namespace) = (metadata["name"].as_str().unwrap(), metadata["namespace"].as_str().unwrap());
        let status = status.to_string();
        let patch = ["patch", "deployment", name, "-n", namespace, "--subresource=status", "--type=merge", "-p"];
        // Helm may have removed it meanwhile.
        let _ = plane.kubectl(&[&patch[..], &[&status]].concat()).await;
    }
}

/// Runs something in a cluster whose pods run as soon as their image can be pulled.
pub async fn with_pods<T>(plane: &ControlPlane, run: impl Future<Output = T>) -> T {
    let pods = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pods_run_unless_the_image_is_missing(plane).await;
        }
    };
    tokio::select! {
        result = run => result,
        never = pods => never,
    }
}

// === impl Cluster ===

impl Cluster {
    /// A cluster where an operator, installed by Helm or by kubectl, issued two data keys and stopped.
    async fn with_data_keys(by_helm: bool) -> Self {
        let plane = ControlPlane::bare().await;
        let mut cluster = Self { plane, proxy: KmsProxy::stub().await, held: [Value::Null, Value::Null], issued: 0 };
        if by_helm {
            cluster.install(RELEASE, NAMESPACE, &[]).await.unwrap();
        } else {
            cluster.apply_deploy().await;
        }
        cluster.plane.namespace("shop").await;
        {
            let operator = cluster.operator(RELEASE, NAMESPACE).await;
            for name in ["orders", "invoices"] {
                cluster.issue(name, "shop").await;
            }
            cluster.settles().await;
            stop(operator).await;
        }
        cluster.held = cluster.objects().await;
        cluster
    }

    async fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        helm(&self.plane, arguments).await
    }

    async fn install(&self, release: &str, namespace: &str, flags: &[&str]) -> Result<String, String> {
        let chart = chart();
        let install = ["upgrade", "--install", release, &chart, "--namespace", namespace, "--create-namespace"];
        // A value that is set here would replace the one that is to be used again.
        let image: &[&str] = if flags.contains(&REUSE) { &[] } else { &IMAGE };
        self.helm(&[&install[..], image, flags].concat()).await
    }

    async fn uninstall(&self, release: &str, namespace: &str) {
        self.helm(&["uninstall", release, "--namespace", namespace]).await.unwrap();
    }

    async fn apply_deploy(&self) {
        self.kubectl(&["apply", "-k", &repository().join("deploy").display().to_string()]).await;
        self.kubectl(&["wait", "--for=condition=Established", "crd/datakeys.datakey.dev", "--timeout=30s"]).await;
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        self.plane.kubectl(arguments).await.unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[arguments, &["-o", "json"]].concat()).await).unwrap()
    }

    /// Starts the operator as the Deployment of a release says, under the identity that it gives.
    async fn operator(&self, release: &str, namespace: &str) -> Operator {
        let operator = Operator::as_deployed(&self.plane, release, namespace, &self.proxy.url()).await;
        operator.logs("this replica leads").await;
        operator.is_ready().await;
        operator
    }

    /// Issues a data key.
    async fn issue(&mut self, name: &str, namespace: &str) {
        let key = json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "keyId": "alias/orders", "keySpec": "AES_256" },
        });
        let file = self.plane.workdir().file(&format!("{name}.json"));
        std::fs::write(&file, key.to_string()).unwrap();
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await;
        self.is_ready(name, namespace).await;
        self.issued += 1;
        assert_eq!(self.proxy.calls(), self.issued, "{name}");
    }

    async fn is_ready(&self, name: &str, namespace: &str) {
        let key = format!("datakey/{name}");
        self.kubectl(&["wait", &key, "--for=condition=Ready", "-n", namespace, "--timeout=30s"]).await;
    }

    /// Waits until the statuses name the Secrets as they are: nothing more is written then.
    async fn settles(&self) {
        eventually(SOON, "the statuses name their Secrets", async || {
            let [keys, secrets] = self.objects().await;
            let named = |key: &Value| key["status"]["secret"]["resourceVersion"].clone();
            let revision = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
            let (keys, secrets) = (keys.as_array().unwrap(), secrets.as_array().unwrap());
            keys.len() == secrets.len() && keys.iter().zip(secrets).all(|(key, secret)| named(key) == revision(secret))
        })
        .await;
    }

    /// All `DataKeys` and Secrets of the users' namespace, complete, by name.
    async fn objects(&self) -> [Value; 2] {
        let list = self.json(&["get", "datakeys,secrets", "-n", "shop"]).await;
        let of = |kind: &str| {
            list["items"].as_array().unwrap().iter().filter(|item| item["kind"] == kind).cloned().collect()
        };
        [of("DataKey"), of("Secret")]
    }

    /// Asserts that no object of the users changed, and that KMS was called only for the `DataKeys` that this test issued.
    async fn is_unchanged(&self, after: &str) {
        assert_eq!(self.objects().await, self.held, "after: {after}");
        assert_eq!(self.proxy.calls(), self.issued, "after: {after}");
    }

    /// Asserts that an installation works: it changes no existing object, and issues a new `DataKey`.
    async fn works(&mut self, release: &str, namespace: &str, deployment: &str, after: &str) {
        let operator = self.operator(deployment, namespace).await;
        self.issue(&format!("new-{}", self.issued), namespace).await;
        self.is_unchanged(after).await;
        let log = operator.process.log();
        // Kubernetes 1.33 forbids streamed lists, which the operator expects.
        let mut others = log.lines().filter(|line| !line.contains("the API server streams no whole list"));
        assert!(!others.any(|line| line.contains("Forbidden")), "{release}: {log}");
        stop(operator).await;
    }

    /// The image of an installation.
    async fn image(&self, deployment: &str, namespace: &str) -> String {
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        self.kubectl(&["get", "deployment", deployment, "-n", namespace, "-o", image]).await
    }

    /// Runs Helm in a cluster whose pods run as soon as their image can be pulled.
    async fn helm_with_pods(&self, arguments: &[&str]) -> Result<String, String> {
        with_pods(&self.plane, self.helm(arguments)).await
    }
}

#[tokio::test]
async fn another_release_or_namespace_takes_the_definition_over() {
    let mut cluster = Cluster::with_data_keys(true).await;
    for (release, namespace, deployment) in [
        ("data-keys", NAMESPACE, "data-keys-datakey-operator"),
        ("data-keys", "keys-system", "data-keys-datakey-operator"),
    ] {
        let installed = cluster.json(&["get", "crd", "datakeys.datakey.dev"]).await["metadata"]["annotations"].clone();
        let before = |what: &str| installed[format!("meta.helm.sh/release-{what}")].as_str().unwrap().to_owned();
        cluster.uninstall(&before("name"), &before("namespace")).await;
        cluster.is_unchanged("uninstall").await;

        let refused = cluster.install(release, namespace, &[]).await.unwrap_err();
        assert!(refused.contains("invalid ownership metadata"), "{refused}");
        cluster.install(release, namespace, &["--take-ownership"]).await.unwrap();
        cluster.works(release, namespace, deployment, &format!("{release} in {namespace}")).await;
    }
}

#[tokio::test]
async fn an_installation_goes_from_kubectl_to_helm_and_back() {
    let mut cluster = Cluster::with_data_keys(false).await;
    let image = ["--set", "image.repository=registry.example.com/datakey-operator"];
    let refused = cluster.install(RELEASE, NAMESPACE, &image).await.unwrap_err();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    cluster.install(RELEASE, NAMESPACE, &[&TAKE_OVER[..], &image].concat()).await.unwrap();
    assert_eq!(cluster.image(RELEASE, NAMESPACE).await, "registry.example.com/datakey-operator:0.1.0");
    cluster.works(RELEASE, NAMESPACE, RELEASE, "to Helm").await;

    // kubectl owns the fields that it applied until Helm changes them.
    let change = [REUSE, "--set", "replicaCount=3"];
    let refused = cluster.install(RELEASE, NAMESPACE, &change).await.unwrap_err();
    assert!(refused.contains("conflict with \\\"kubectl-client-side-apply"), "{refused}");
    cluster.install(RELEASE, NAMESPACE, &[&change[..], &["--force-conflicts"]].concat()).await.unwrap();
    assert_eq!(cluster.image(RELEASE, NAMESPACE).await, "registry.example.com/datakey-operator:0.1.0");

    cluster.uninstall(RELEASE, NAMESPACE).await;
    assert_eq!(cluster.kubectl(&["get", "deployments", "-n", NAMESPACE, "-o", "name"]).await, "");
    cluster.apply_deploy().await;
    cluster.works(RELEASE, NAMESPACE, RELEASE, "back to kubectl").await;
}

#[tokio::test]
async fn an_upgrade_that_fails_is_rolled_back_and_no_data_key_with_it() {
    let mut cluster = Cluster::with_data_keys(true).await;
    let chart = chart();
    let upgrade = |image: &'static str| {
        let flags = ["--rollback-on-failure", "--timeout", "15s", REUSE, "--set", image];
        [&["upgrade", RELEASE, &chart, "--namespace", NAMESPACE][..], &flags].concat()
    };
    cluster.helm_with_pods(&upgrade("image.tag=first")).await.unwrap();
    let failed = cluster.helm_with_pods(&upgrade("image.tag=missing")).await.unwrap_err();
    assert!(failed.contains("rolled back due to rollback-on-failure"), "{failed}");
    assert_eq!(cluster.image(RELEASE, NAMESPACE).await, "datakey-operator:first");
    cluster.works(RELEASE, NAMESPACE, RELEASE, "an upgrade was rolled back").await;

    // A failed installation is uninstalled, except for the definition that it took over.
    cluster.uninstall(RELEASE, NAMESPACE).await;
    let install = ["upgrade", "--install", "data-keys", &chart, "--namespace", "keys-system", "--create-namespace"];
    let fails = ["--take-ownership", "--rollback-on-failure", "--timeout", "5s", "--set", "image.tag=missing"];
    let failed = cluster.helm_with_pods(&[&install[..], &IMAGE, &fails].concat()).await.unwrap_err();
    assert!(failed.contains("uninstalled due to rollback-on-failure"), "{failed}");
    assert_eq!(cluster.kubectl(&["get", "deployments", "-A", "-o", "name"]).await, "");
    cluster.is_unchanged("an installation was rolled back").await;
    cluster.install(RELEASE, NAMESPACE, &["--take-ownership"]).await.unwrap();
    cluster.works(RELEASE, NAMESPACE, RELEASE, "installed again").await;
}

#[tokio::test]
async fn a_second_release_comes_and_goes_beside_the_first() {
    let mut cluster = Cluster::with_data_keys(true).await;
    let second = "bank-keys-datakey-operator";
    let own = ["--set", "watchNamespaces={keys-of-bank}"];
    let flags = [&own[..], &["--set", "crds.enabled=false", "--set", "rbac.aggregate=false"]].concat();
    let refused = cluster.install("bank-keys", "keys-of-bank", &own).await.unwrap_err();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    cluster.install("bank-keys", "keys-of-bank", &flags).await.unwrap();
    cluster.works("bank-keys", "keys-of-bank", second, "the second is installed").await;
    cluster.uninstall("bank-keys", "keys-of-bank").await;
    cluster.works(RELEASE, NAMESPACE, RELEASE, "the second is uninstalled").await;

    // The first release is uninstalled, and the second one takes the definition over.
    cluster.install("bank-keys", "keys-of-bank", &flags).await.unwrap();
    cluster.uninstall(RELEASE, NAMESPACE).await;
    cluster.works("bank-keys", "keys-of-bank", second, "the first is uninstalled").await;
    let takes_over = [REUSE, "--set", "crds.enabled=true", "--set", "rbac.aggregate=true"];
    cluster.install("bank-keys", "keys-of-bank", &[&takes_over[..], &["--take-ownership"]].concat()).await.unwrap();
    cluster.works("bank-keys", "keys-of-bank", second, "the second has the definition").await;
}

#[tokio::test]
async fn a_definition_that_is_deleted_is_installed_again() {
    let mut cluster = Cluster::with_data_keys(true).await;
    let operator = cluster.operator(RELEASE, NAMESPACE).await;
    let chart = chart();
    for by_helm in [true, false] {
        cluster.kubectl(&["delete", "crd", "datakeys.datakey.dev", "--timeout=30s"]).await;
        let secrets = cluster.json(&["get", "secrets", "-n", "shop"]).await["items"].clone();
        assert_eq!(secrets, cluster.held[1], "the Secrets stay");

        if by_helm {
            let again = ["upgrade", RELEASE, &chart, "--namespace", NAMESPACE, REUSE];
            cluster.helm(&again).await.unwrap();
            let established = ["wait", "--for=condition=Established", "crd/datakeys.datakey.dev", "--timeout=30s"];
            cluster.kubectl(&established).await;
        } else {
            cluster.apply_deploy().await;
        }
        // The manifests come from Git again; the running operator adopts their Secrets.
        for name in ["orders", "invoices"] {
            let file = cluster.plane.workdir().file(&format!("{name}.json")).display().to_string();
            cluster.kubectl(&["apply", "-f", &file]).await;
            cluster.is_ready(name, "shop").await;
        }
        cluster.settles().await;
        let [keys, secrets] = cluster.objects().await;
        assert_eq!(secrets, cluster.held[1], "no Secret was written");
        for (before, after) in cluster.held[0].as_array().unwrap().iter().zip(keys.as_array().unwrap()) {
            assert_eq!(before["status"]["versions"], after["status"]["versions"]);
            assert_eq!(before["spec"], after["spec"]);
        }
        assert_eq!(cluster.proxy.calls(), 2, "KMS is asked for nothing");
        cluster.held = [keys, secrets];
    }
    cluster.issue("new", NAMESPACE).await;
    stop(operator).await;
}
