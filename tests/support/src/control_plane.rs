//! A Kubernetes control plane without nodes.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::{
    asset, commands, eventually, free_port,
    kubernetes::Release,
    node, pki,
    process::{Process, Workdir},
    repository,
};

/// The namespace and the service account that `deploy` gives to the operator.
pub const OPERATOR: (&str, &str) = ("datakey-system", "datakey-operator");

const START: Duration = Duration::from_mins(1);

/// etcd, kube-apiserver and, where it can be had, the controller manager, with the `DataKey` definition and the operator's
/// RBAC installed. RBAC is on.
pub struct ControlPlane {
    // In the order of their end.
    controller_manager: Option<Process>,
    apiserver: Server,
    etcd: Server,
    release: Release,
    workdir: Workdir,
    url: String,
}

/// A server that can be started again as it was.
pub(crate) struct Server {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

/// The status of a Deployment whose pods run, which nothing reports without nodes.
pub fn deployment_runs(generation: &Value, replicas: &Value) -> Value {
    json!({ "status": {
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
        "conditions": [
            { "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable" },
            { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" },
        ],
    } })
}

// === impl Server ===

impl Server {
    pub(crate) fn start(name: &'static str, program: PathBuf, workdir: &Workdir, arguments: Vec<String>) -> Self {
        let log = workdir.file(&format!("{name}.log"));
        let server = Self { name, program, arguments, log, process: Mutex::default() };
        server.run();
        server
    }

    /// Runs it; if it runs already, it is killed first.
    pub(crate) fn run(&self) {
        self.kill();
        let mut process = self.process.lock().expect("the process");
        let none = std::iter::empty::<(&str, &str)>();
        *process = Some(Process::start(&self.program, &self.arguments, none, &self.log));
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        *self.process.lock().expect("the process") = None;
    }

    pub(crate) fn must_run(&self) {
        let mut process = self.process.lock().expect("the process");
        let process = process.as_mut().expect("it was started");
        assert!(process.is_running(), "{} ended:\n{}", self.name, last_lines(&process.log()));
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts one and installs what lies in `deploy`.
    pub async fn start() -> Self {
        Self::without_controllers().await.with_usual_controllers()
    }

    /// Starts the controllers that the tests and users notice. The definition should be there: the garbage collector asks
    /// for new kinds of objects every 30 seconds.
    #[must_use]
    pub fn with_usual_controllers(self) -> Self {
        self.with_controllers(
            "garbage-collector-controller,namespace-controller,serviceaccount-controller,resourcequota-controller,\
             clusterrole-aggregation-controller",
        )
    }

    /// Starts one that deletes nothing by itself, and installs what lies in `deploy`.
    pub async fn without_controllers() -> Self {
        let plane = Self::bare().await;
        // As users do. Without nodes the Deployment is an object and no more; operators run as processes of their own.
        plane.kubectl(&["apply", "-k", &deploy("")]).await.expect("install deploy/");
        plane
            .kubectl(&["wait", "--for=condition=Established", "crd/datakeys.datakey.dev"])
            .await
            .expect("the definition");
        plane
    }

    /// Starts one with nothing installed and no controllers.
    pub async fn bare() -> Self {
        let workdir = Workdir::new("control-plane");
        let flags = [
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            // On by default in OpenShift: only a client that may delete an object may change its owner references.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        ]
        .map(str::to_owned);
        Self::serve(workdir, "127.0.0.1", free_port(), flags).await
    }

    /// Starts one with nothing installed and all controllers, where a node and its pods reach it: in the namespaces of
    /// `tests/e2e/node.sh`.
    pub async fn for_node() -> Self {
        let workdir = Workdir::new("control-plane");
        let flags = [
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-client-certificate={}", workdir.file("admin.crt").display()),
            format!("--kubelet-client-key={}", workdir.file("admin.key").display()),
        ];
        Self::serve(workdir, node::KUBERNETES, 443, flags).await.with_controllers("*")
    }

    async fn serve(workdir: Workdir, host: &str, port: u16, flags: impl IntoIterator<Item = String>) -> Self {
        pki::write(workdir.path());
        let file = |name: &str| workdir.file(name).display().to_string();

        let (client, peer) = (free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let etcd = Server::start(
            "etcd",
            program("etcd"),
            &workdir,
            vec![
                format!("--data-dir={}", file("etcd")),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
                "--unsafe-no-fsync".to_owned(),
                // Two hundred thousand objects with their history, for the benchmark.
                "--quota-backend-bytes=8589934592".to_owned(),
            ],
        );
        let program = program("kube-apiserver");
        let release = Release::of(&program);
        let own = flags.into_iter().chain(release.flags());
        let apiserver = Server::start(
            "kube-apiserver",
            program,
            &workdir,
            own.chain([
                format!("--etcd-servers={etcd_url}"),
                format!("--secure-port={port}"),
                format!("--bind-address={host}"),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", file("service-accounts.key")),
            ])
            .collect(),
        );
        let url = format!("https://{host}:{port}");
        for user in ["admin", "controller-manager", "scheduler", "node"] {
            let credentials = json!({
                "client-certificate": workdir.file(&format!("{user}.crt")),
                "client-key": workdir.file(&format!("{user}.key")),
            });
            write_kubeconfig(&workdir, &url, user, &credentials);
        }
        let plane = Self { controller_manager: None, apiserver, etcd, release, workdir, url };
        plane.is_ready().await;
        plane
    }

    /// Waits until kube-apiserver is ready.
    pub async fn is_ready(&self) {
        let client = self.admin().await;
        eventually(START, "kube-apiserver is ready", async || {
            self.etcd.must_run();
            self.apiserver.must_run();
            client.request_text(http_get("/readyz")).await.is_ok_and(|answer| answer == "ok")
        })
        .await;
    }

    /// The process ID of kube-apiserver.
    pub fn apiserver_pid(&self) -> u32 {
        self.apiserver.process.lock().expect("the process").as_ref().expect("it was started").pid()
    }

    /// Kills kube-apiserver and starts it again; it is not ready yet.
    pub fn restart_apiserver(&self) {
        self.apiserver.run();
    }

    /// Kills etcd and starts it again on its data.
    pub fn restart_etcd(&self) {
        self.etcd.run();
    }

    fn with_controllers(mut self, controllers: &str) -> Self {
        let Some(program) = asset("kube-controller-manager") else {
            eprintln!("no kube-controller-manager: garbage collection and namespace deletion are not tested");
            return self;
        };
        let process = Process::start(
            &program,
            [
                format!("--kubeconfig={}", self.workdir.file("controller-manager.kubeconfig").display()),
                format!("--controllers={controllers}"),
                // Each controller under its own service account and roles, as everywhere.
                "--use-service-account-credentials".to_owned(),
                format!("--service-account-private-key-file={}", self.workdir.file("service-accounts.key").display()),
                format!("--flex-volume-plugin-dir={}", self.workdir.file("volume-plugins").display()),
                // What pods trust.
                format!("--root-ca-file={}", self.workdir.file("ca.crt").display()),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
            std::iter::empty::<(&str, &str)>(),
            &self.workdir.file("kube-controller-manager.log"),
        );
        self.controller_manager = Some(process);
        self
    }

    /// Whether garbage collection, namespace deletion and quotas work: whether there is a controller manager.
    pub fn has_controllers(&self) -> bool {
        self.controller_manager.is_some()
    }

    /// The release of its kube-apiserver.
    pub fn release(&self) -> Release {
        self.release
    }

    /// The folder of its files.
    pub fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// The kubeconfig of a cluster admin.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.workdir.file("admin.kubeconfig")
    }

    /// A client that may do everything. It belongs to the async runtime that it is made in.
    pub async fn admin(&self) -> Client {
        client_from(&self.admin_kubeconfig()).await
    }

    /// A kubeconfig with the identity that `deploy` gives to the operator.
    pub async fn operator_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(OPERATOR.0, OPERATOR.1).await
    }

    /// A kubeconfig with a token of a service account.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin().await, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: vec![], expiration_seconds: Some(3600), ..<_>::default() },
            ..TokenRequest::default()
        };
        let token = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let token = token.expect("a token").status.expect("a status").token;
        write_kubeconfig(&self.workdir, &self.url, account, &json!({ "token": token }))
    }

    /// A new namespace.
    pub async fn namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.admin().await);
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a namespace");
        namespaces.create(&PostParams::default(), &namespace).await.expect("create a namespace");
    }

    /// Runs kubectl as a cluster admin: what it prints, or what it says is wrong.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        commands::kubectl(&self.admin_kubeconfig(), arguments).await
    }
}

fn program(name: &str) -> PathBuf {
    let missing =
        "is missing: run `make tools` or `make oldest-tools`, or set KUBEBUILDER_ASSETS to a folder that has it";
    asset(name).unwrap_or_else(|| panic!("{name} {missing}"))
}

fn deploy(manifest: &str) -> String {
    repository().join("deploy").join(manifest).display().to_string()
}

fn http_get(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).expect("a request")
}

fn write_kubeconfig(workdir: &Workdir, url: &str, name: &str, user: &serde_json::Value) -> PathBuf {
    let path = workdir.file(&format!("{name}.kubeconfig"));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "testbed", "cluster": { "server": url, "certificate-authority": workdir.file("ca.crt") } }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": name } }],
        "current-context": "testbed",
    });
    // JSON is YAML.
    std::fs::write(&path, config.to_string()).expect("write a kubeconfig");
    path
}

/// A client with a kubeconfig. It belongs to the async runtime that it is made in.
pub async fn client_from(kubeconfig: &Path) -> Client {
    // Several tests may be first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("read a kubeconfig");
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("use a kubeconfig");
    // A refusal is what many tests wait for.
    config.default_retry = false;
    config.proxy_url = None;
    Client::try_from(config).expect("a client")
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
