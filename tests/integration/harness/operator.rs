//! Operators as processes: how they are started, what they log and what they serve.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use serde_json::{Value, json};
use testbed::{api_proxy::ApiProxy, control_plane::ControlPlane, eventually, kms, process::Process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{SOON, TestKind, TestNamespace};

/// In place of a variable's value: the variable is not set.
pub const UNSET: &str = "(unset)";

/// Delays that no test outlasts: nothing is retried without a cause.
pub const NO_RETRY: [&str; 2] = ["--retry-min=1h", "--retry-max=1h"];

/// A running operator. It ends with this value.
pub struct Operator {
    pub process: Process,
}

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// The kubeconfig that operators of this test use unless a test passes another one.
    pub fn operator_kubeconfig(&self) -> &Path {
        &self.operator
    }

    /// A proxy before the API server, and a kubeconfig with the operator's identity that leads through it.
    pub async fn api_proxy(&self) -> (ApiProxy, PathBuf) {
        let proxy = ApiProxy::start(&self.operator).await;
        let kubeconfig = proxy.kubeconfig(&self.operator);
        (proxy, kubeconfig)
    }

    /// Starts an operator that watches this namespace.
    pub fn operator(&self) -> Operator {
        self.operator_with(&[], &[])
    }

    /// Starts one that reaches the API server by another kubeconfig.
    pub fn operator_by(&self, kubeconfig: &Path, flags: &[&str]) -> Operator {
        self.operator_with(flags, &[("KUBECONFIG", &kubeconfig.display().to_string())])
    }

    /// Starts one with more flags and another environment. [`UNSET`](super::UNSET) removes a variable.
    pub fn operator_with(&self, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.start(&testbed::operator(), &[&["--namespace", &self.namespace], flags].concat(), environment)
    }

    /// Starts an operator that retries nothing while a test runs.
    pub fn operator_without_retries(&self) -> Operator {
        self.operator_with(&NO_RETRY, &[])
    }

    /// Starts one that watches every namespace. Only for a control plane that no other test uses.
    pub fn operator_of_all(&self, flags: &[&str]) -> Operator {
        self.operator_of_all_with(flags, &[])
    }

    /// The same with another environment.
    pub fn operator_of_all_with(&self, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.start(&testbed::operator(), flags, environment)
    }

    /// Starts the binary of another release.
    pub fn operator_of(&self, program: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.start(program, &[&["--namespace", &self.namespace], flags].concat(), environment)
    }

    fn start(&self, program: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        let mut variables: BTreeMap<_, _> = kms::environment(&self.proxy.url()).into();
        variables.insert("KUBECONFIG", self.operator.display().to_string());
        // A dry run is due at a moment of the wall clock. It would be one more request in a test that counts them, once in a while.
        variables.insert("DATAKEY_KEY_CHECK_INTERVAL", "72h".to_owned());
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables.retain(|_, value| value != UNSET);
        Operator::run(program, flags, variables, &self.log_file(1))
    }

    /// The log of the operator that was started last (`next` is 0), or of the next one (1).
    fn log_file(&self, next: usize) -> PathBuf {
        let number = self.operators.fetch_add(next, Ordering::Relaxed) + next;
        self.plane.workdir().file(&format!("operator-{}-{number}.log", self.namespace))
    }

    /// The last lines of the operator that was started last, for the message of a failed wait.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_file(0)).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains(r#""level":"TRACE""#)).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The kubeconfig of a user who has this role in this namespace, and no other right.
    pub async fn kubeconfig_with_role(&self, cluster_role: &str) -> PathBuf {
        // The name of the file is that of the account.
        let account = &self.namespace;
        let name = json!({ "name": account, "namespace": self.namespace });
        let rbac = "rbac.authorization.k8s.io";
        self.apply(&[
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": name }),
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "RoleBinding",
                "metadata": name,
                "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": cluster_role },
                "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": self.namespace }],
            }),
        ])
        .await;
        self.plane.kubeconfig_of(&self.namespace, account).await
    }

    /// Gives the operator's identity access to Leases in this namespace; the role of `deploy` is for its own namespace.
    pub async fn grant_lease_access(&self) {
        let name = "may-lead";
        let rbac = "rbac.authorization.k8s.io";
        let subject = json!({ "kind": "ServiceAccount", "name": "datakey-operator", "namespace": "datakey-system" });
        self.apply(&[
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "Role",
                "metadata": { "name": name, "namespace": self.namespace },
                "rules": [
                    { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"] },
                ],
            }),
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "RoleBinding",
                "metadata": { "name": name, "namespace": self.namespace },
                "roleRef": { "apiGroup": rbac, "kind": "Role", "name": name },
                "subjects": [subject],
            }),
        ])
        .await;
    }
}

// === impl Operator ===

impl Operator {
    /// Starts the binary with short retry delays.
    pub fn start(flags: &[&str], environment: BTreeMap<&str, String>, log: &Path) -> Self {
        Self::run(&testbed::operator(), flags, environment, log)
    }

    fn run(program: &Path, flags: &[&str], environment: BTreeMap<&str, String>, log: &Path) -> Self {
        let common = [
            "run",
            "--admin-address=127.0.0.1:0",
            "--log-format=json",
            "--log-level=trace",
            "--retry-min=20ms",
            "--retry-max=1s",
        ];
        Self { process: Process::start(program, common.iter().chain(flags), environment, log) }
    }

    /// Starts the binary with the arguments, the identity and the environment of a Deployment.
    pub async fn as_deployed(plane: &ControlPlane, name: &str, namespace: &str, kms_url: &str) -> Self {
        let deployment = plane.kubectl(&["get", "deployment", name, "-n", namespace, "-o", "json"]).await.unwrap();
        let deployment: Value = serde_json::from_str(&deployment).unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().unwrap();
        let kubeconfig = plane.kubeconfig_of(namespace, account).await;
        let arguments: Vec<_> = pod["containers"][0]["args"].as_array().unwrap()[1..]
            .iter()
            .map(|argument| argument.as_str().unwrap().to_owned())
            // Two of them on one machine, and their logs for the tests.
            .filter(|argument| !["--admin-address", "--log-"].iter().any(|own| argument.starts_with(own)))
            .collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut environment: BTreeMap<_, _> = kms::environment(kms_url).into();
        environment.insert("KUBECONFIG", kubeconfig.display().to_string());
        let log = plane.workdir().file(&format!("{namespace}-{name}-{}.log", fastrand::u32(..)));
        Self::start(&arguments, environment, &log)
    }

    /// The log, one value a line.
    pub fn log_lines(&self) -> Vec<Value> {
        self.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the log contains this text.
    pub async fn logs(&self, words: &str) {
        let what = format!("the operator logs: {words}");
        let said = async || self.process.log().contains(words);
        let waited = tokio::time::timeout(SOON, eventually(2 * SOON, &what, said)).await;
        assert!(waited.is_ok(), "{what}; it logs:\n{}", self.process.log());
    }

    /// Sends a GET to the admin server: the HTTP status and the body.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        self.logs("serving /livez").await;
        let address = self.log_lines().iter().find_map(|line| line["address"].as_str().map(str::to_owned)).unwrap();
        get(&address, path).await
    }

    /// Waits until `/readyz` answers 200.
    pub async fn is_ready(&self) {
        eventually(SOON, "the operator is ready", async || self.admin("/readyz").await.0 == 200).await;
    }
}

/// An HTTP GET without a client library: the HTTP status and the body.
async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
