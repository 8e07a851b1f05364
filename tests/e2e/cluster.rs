//! The cluster: a node that the test starts, or the cluster that the user names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
};

use datakey::api::DataKey;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use testbed::{
    asset, commands,
    control_plane::{ControlPlane, client_from},
    eventually,
    kms::{self, Key, KmsServer},
    node::{self, Node},
    process::Workdir,
    proxy::KmsProxy,
    repository,
};

use crate::{SOON, step, unwrap};

/// The release, its namespace, and the name of its Deployment.
pub const OPERATOR: &str = "datakey-operator";

/// The namespace of the DataKeys and their consumer.
pub const SHOP: &str = "datakey-e2e";

/// A cluster, and KMS behind a proxy that pods reach.
pub struct Cluster {
    pub client: Client,
    pub kms: KmsServer,
    /// The KMS key of `alias/e2e`.
    pub key: Key,
    pub proxy: KmsProxy,
    /// The image of the consumer.
    pub consumer: String,
    /// The image of `datakey-unwrap`.
    pub helper: String,
    operator: String,
    /// Where pods reach this process.
    address: IpAddr,
    kubeconfig: PathBuf,
    place: Place,
}

enum Place {
    Own { plane: Box<ControlPlane>, node: Box<Node> },
    Users { workdir: Workdir },
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster, or takes the user's.
    pub async fn start() -> Self {
        let operator = variable("E2E_OPERATOR_IMAGE", "localhost/datakey-operator:e2e");
        let consumer = variable("E2E_CONSUMER_IMAGE", "localhost/datakey-consumer:e2e");
        let helper = variable("E2E_UNWRAP_IMAGE", "localhost/datakey-unwrap:e2e");
        let (place, kubeconfig, address) = if variable("E2E_CLUSTER", "").is_empty() {
            step(
                "etcd, the API server, its controllers, the scheduler, containerd and the kubelet start: a node is ready",
            );
            let plane = ControlPlane::for_node().await;
            let archives = repository().join("target/e2e");
            let archives = std::env::var_os("E2E_ARCHIVES").map_or(archives, PathBuf::from);
            let archives = ["operator", "unwrap", "consumer"].map(|name| archives.join(format!("datakey-{name}.tar")));
            let node = Node::start(&plane, &archives, &consumer).await;
            let kubeconfig = plane.admin_kubeconfig();
            let own = Place::Own { plane: Box::new(plane), node: Box::new(node) };
            (own, kubeconfig, node::ADDRESS.parse().unwrap())
        } else {
            let kubeconfig = std::env::var_os("KUBECONFIG").expect("E2E_CLUSTER needs KUBECONFIG, one file");
            let address = variable("E2E_ADDRESS", &Ipv4Addr::LOCALHOST.to_string());
            let address: IpAddr = address.parse().expect("E2E_ADDRESS: an IP address of this machine");
            (Place::Users { workdir: Workdir::new("e2e") }, PathBuf::from(kubeconfig), address)
        };
        let kms = KmsServer::start(place.workdir()).await;
        let key = kms.key_with_alias("e2e").await;
        let proxy = KmsProxy::start_on(address, kms.address()).await;
        let client = client_from(&kubeconfig).await;
        let cluster = Self { client, kms, key, proxy, consumer, helper, operator, address, kubeconfig, place };
        println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"]).await.unwrap().trim_end());
        let taken = cluster.kubectl(&["get", "crd", "datakeys.datakey.dev"]).await.is_ok();
        assert!(!taken, "the cluster has DataKeys already: take another one");
        cluster
    }

    /// Leaves the user's cluster as it was found.
    pub async fn end(&self) {
        if matches!(self.place, Place::Users { .. }) {
            self.helm(&["uninstall", OPERATOR, "-n", OPERATOR, "--wait", "--timeout=2m"]).await;
            let arguments = ["delete", "namespace", "--timeout=2m"];
            self.kubectl(&arguments.into_iter().chain(namespaces()).collect::<Vec<_>>()).await.unwrap();
            self.kubectl(&["delete", "crd", "datakeys.datakey.dev"]).await.unwrap();
        }
    }

    /// Where files of the test lie.
    pub fn workdir(&self) -> &Workdir {
        self.place.workdir()
    }

    /// A proxy of its own before a KMS server, which pods reach.
    pub async fn proxy_before(&self, server: &KmsServer) -> KmsProxy {
        KmsProxy::start_on(self.address, server.address()).await
    }

    /// Runs kubectl as a cluster admin.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        commands::kubectl(&self.kubeconfig, arguments).await
    }

    /// Runs Helm as a cluster admin.
    pub async fn helm(&self, arguments: &[&str]) {
        let home = self.workdir().file("helm");
        commands::helm(&self.kubeconfig, &home, arguments).await.unwrap();
    }

    /// Creates a namespace that admits restricted pods only.
    pub async fn restricted_namespace(&self, name: &str) {
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl(&["create", "namespace", name]).await.unwrap();
        self.kubectl(&["label", "namespace", name, enforce]).await.unwrap();
    }

    /// Creates objects in a namespace.
    pub async fn create(&self, namespace: &str, objects: &[Value]) {
        let file = self.workdir().file(&format!("{namespace}.json"));
        fs::write(&file, json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).unwrap();
        let file = file.display().to_string();
        self.kubectl(&["create", "-n", namespace, "-f", &file, "--validate=strict"]).await.unwrap();
    }

    /// Installs or upgrades the release, and waits until its pods are ready.
    pub async fn install(&self, values: &[&str]) {
        let (repository_, tag) = self.operator.rsplit_once(':').expect("E2E_OPERATOR_IMAGE: NAME:TAG");
        let settings = json!({
            "replicaCount": 2,
            "image": { "repository": repository_, "tag": tag },
            "aws": { "region": kms::REGION, "kmsEndpoint": self.proxy.url() },
            "extraEnv": [
                { "name": "AWS_ACCESS_KEY_ID", "value": kms::ACCOUNT },
                { "name": "AWS_SECRET_ACCESS_KEY", "value": "test" },
            ],
        });
        let file = self.workdir().file("values.json");
        fs::write(&file, settings.to_string()).unwrap();
        let chart = repository().join("charts/datakey-operator").display().to_string();
        let file = file.display().to_string();
        let arguments =
            ["upgrade", "--install", OPERATOR, &chart, "-n", OPERATOR, "--wait", "--timeout=2m", "--values", &file];
        self.helm(&[&arguments[..], values].concat()).await;
    }

    /// The names of the pods in a namespace.
    pub async fn pods(&self, namespace: &str) -> BTreeSet<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect()
    }

    /// The IDs of all containers of the test that are ready.
    async fn containers(&self) -> BTreeSet<String> {
        let mut containers = BTreeSet::new();
        for namespace in namespaces() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let pods = pods.list(&ListParams::default()).await.unwrap().items.into_iter();
            let statuses = pods.filter_map(|pod| pod.status?.container_statuses).flatten();
            containers.extend(statuses.filter(|status| status.ready).filter_map(|status| status.container_id));
        }
        containers
    }

    /// Restarts the node; in a user's cluster, deletes all pods of the test instead. Waits until the pods are back.
    pub async fn restart(&self) {
        let before = self.containers().await;
        match &self.place {
            Place::Own { node, .. } => node.restart().await,
            Place::Users { .. } => {
                for namespace in namespaces() {
                    self.kubectl(&["delete", "pods", "--all", "-n", namespace, "--force"]).await.unwrap();
                }
            }
        }
        eventually(SOON, "other containers of the same pods are ready", async || {
            let now = self.containers().await;
            now.len() == before.len() && now.is_disjoint(&before)
        })
        .await;
    }

    pub fn api(&self) -> Api<DataKey> {
        Api::namespaced(self.client.clone(), SHOP)
    }

    /// All DataKeys by name.
    pub async fn keys(&self) -> BTreeMap<String, DataKey> {
        let keys = self.api().list(&ListParams::default()).await.unwrap();
        keys.into_iter().map(|key| (key.name_any(), key)).collect()
    }

    /// All their Secrets by name.
    pub async fn secrets(&self) -> BTreeMap<String, Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SHOP);
        let ours = ListParams::default().fields("type=datakey.dev/wrapped-key");
        secrets.list(&ours).await.unwrap().into_iter().map(|secret| (secret.name_any(), secret)).collect()
    }

    /// Prints what may explain a failure. Keeps all logs of a node that the test started.
    fn print_state(&self) {
        let kubectl = asset("kubectl").unwrap_or_else(|| "kubectl".into());
        let print = |arguments: &[&str]| {
            println!("\n--- kubectl {}", arguments.join(" "));
            let _ = Command::new(&kubectl).args(arguments).env("KUBECONFIG", &self.kubeconfig).status();
        };
        print(&["get", "pods", "--all-namespaces", "-o", "wide"]);
        print(&["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]);
        print(&["get", "datakeys", "--all-namespaces", "-o", "wide"]);
        for namespace in namespaces() {
            let label = if namespace == OPERATOR { "app.kubernetes.io/name=datakey-operator" } else { "app=orders" };
            print(&["logs", "-n", namespace, "-l", label, "--all-containers", "--prefix", "--tail=25"]);
        }
        if let Place::Own { plane, .. } = &self.place {
            keep_logs(plane.workdir().path());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_state();
        }
    }
}

// === impl Place ===

impl Place {
    fn workdir(&self) -> &Workdir {
        match self {
            Self::Own { plane, .. } => plane.workdir(),
            Self::Users { workdir } => workdir,
        }
    }
}

/// Prints the ends of the servers' logs, and copies the logs out of the node.
fn keep_logs(folder: &Path) {
    let kept = repository().join("target/e2e/logs");
    fs::create_dir_all(&kept).unwrap();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        println!("\n--- {}\n{}", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        fs::copy(&path, kept.join(entry.file_name())).unwrap();
    }
    println!("\nAll of the logs: {}", kept.display());
}

/// All namespaces of the test.
fn namespaces() -> impl Iterator<Item = &'static str> {
    [OPERATOR, SHOP].into_iter().chain(unwrap::NAMESPACES)
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}
