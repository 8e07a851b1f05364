//! What every test begins with.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use datakey_operator::{
    api::{DataKey, IssuedVersion},
    status,
};
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::Status,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testbed::{
    api_proxy::ApiProxy,
    control_plane::ControlPlane,
    eventually,
    kms::{self, Key, KmsServer},
    process::Process,
    proxy::KmsProxy,
};
use tokio::sync::OnceCell;

/// Longest wait for anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// In place of a variable's value: it is not set at all.
pub const UNSET: &str = "(unset)";

struct Shared {
    plane: Arc<ControlPlane>,
    kms: KmsServer,
    operator: PathBuf,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            let plane = Arc::new(ControlPlane::start().await);
            let kms = KmsServer::start(plane.workdir()).await;
            let operator = plane.operator_kubeconfig().await;
            Shared { plane, kms, operator }
        })
        .await
}

/// A namespace with a KMS key `alias/NAMESPACE` and a KMS proxy of its own.
pub struct Test {
    pub namespace: String,
    pub client: Client,
    pub key: Key,
    pub proxy: KmsProxy,
    pub plane: Arc<ControlPlane>,
    pub kms: &'static KmsServer,
    operator: PathBuf,
    operators: AtomicUsize,
}

/// A running operator.
pub struct Operator {
    pub process: Process,
}

/// A Secret's data as a consumer reads it.
pub type Data = BTreeMap<String, Vec<u8>>;

// === impl Test ===

impl Test {
    /// A test of this name; the name is the namespace.
    pub async fn new(name: &str) -> Self {
        let Shared { plane, kms, operator } = shared().await;
        let proxy = KmsProxy::start(kms.address()).await;
        Self::on(name, Arc::clone(plane), operator.clone(), proxy).await
    }

    /// A test that counts data keys and unwraps none: KMS is the proxy alone.
    pub async fn with_many(name: &str) -> Self {
        let Shared { plane, operator, .. } = shared().await;
        Self::on(name, Arc::clone(plane), operator.clone(), KmsProxy::stub().await).await
    }

    /// A test with a control plane of its own, to break it; KMS is the proxy alone.
    pub async fn alone(name: &str) -> Self {
        let plane = Arc::new(ControlPlane::start().await);
        let operator = plane.operator_kubeconfig().await;
        Self::on(name, plane, operator, KmsProxy::stub().await).await
    }

    /// Another namespace on the control plane of this test.
    pub async fn beside(&self, name: &str) -> Self {
        Self::on(name, Arc::clone(&self.plane), self.operator.clone(), KmsProxy::stub().await).await
    }

    /// A test with a control plane of its own, to lose it; the KMS server is everybody's.
    pub async fn with_a_cluster_to_lose(name: &str) -> Self {
        let plane = Arc::new(ControlPlane::without_controllers().await);
        let operator = plane.operator_kubeconfig().await;
        let proxy = KmsProxy::start(shared().await.kms.address()).await;
        Self::on(name, plane, operator, proxy).await
    }

    /// The cluster is gone with everything that its etcd had. Another one is built, with an empty namespace of the same
    /// name; its way to KMS is new, and nothing was asked by it yet.
    pub async fn lose_the_cluster(self) -> Self {
        let Self { namespace, client, key, proxy, plane, kms, .. } = self;
        let files = plane.workdir().path().to_owned();
        drop((client, proxy));
        drop(Arc::into_inner(plane).expect("nobody else uses it"));
        eventually(SOON, "etcd's data are gone", async || !files.exists()).await;

        let plane = Arc::new(ControlPlane::without_controllers().await);
        plane.namespace(&namespace).await;
        Self {
            client: plane.admin().await,
            operator: plane.operator_kubeconfig().await,
            proxy: KmsProxy::start(kms.address()).await,
            operators: AtomicUsize::new(0),
            namespace,
            key,
            plane,
            kms,
        }
    }

    /// A test on this control plane, with the operator's kubeconfig and a proxy of its own.
    pub async fn on(name: &str, plane: Arc<ControlPlane>, operator: PathBuf, proxy: KmsProxy) -> Self {
        let kms = &shared().await.kms;
        plane.namespace(name).await;
        Self {
            namespace: name.to_owned(),
            client: plane.admin().await,
            key: kms.key_with_alias(name).await,
            proxy,
            plane,
            kms,
            operator,
            operators: AtomicUsize::new(0),
        }
    }

    /// Where the KMS server is that all tests share.
    pub async fn kms_address() -> String {
        shared().await.kms.address()
    }

    /// A kubeconfig of the operator's identity.
    pub fn operator_kubeconfig(&self) -> &Path {
        &self.operator
    }

    /// A proxy before the API server, and a kubeconfig of the operator's identity that leads through it.
    pub async fn api_proxy(&self) -> (ApiProxy, PathBuf) {
        let proxy = ApiProxy::start(&self.operator).await;
        let kubeconfig = proxy.kubeconfig(&self.operator);
        (proxy, kubeconfig)
    }

    /// Starts an operator that watches this namespace under the operator's own identity.
    pub fn operator(&self) -> Operator {
        self.operator_with(&[], &[])
    }

    /// Starts one with another way to the API server.
    pub fn operator_by(&self, kubeconfig: &Path, flags: &[&str]) -> Operator {
        self.operator_with(flags, &[("KUBECONFIG", &kubeconfig.display().to_string())])
    }

    /// Starts one with more flags and another environment.
    pub fn operator_with(&self, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.start(&testbed::operator(), &[&["--namespace", &self.namespace], flags].concat(), environment)
    }

    /// Starts one that watches every namespace of a control plane of the test's own.
    pub fn operator_of_all(&self, flags: &[&str]) -> Operator {
        self.start(&testbed::operator(), flags, &[])
    }

    /// Starts the binary of another release.
    pub fn operator_of(&self, program: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.start(program, &[&["--namespace", &self.namespace], flags].concat(), environment)
    }

    fn start(&self, program: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Operator {
        let mut variables: BTreeMap<_, _> = kms::environment(&self.proxy.url()).into();
        variables.insert("KUBECONFIG", self.operator.display().to_string());
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables.retain(|_, value| value != UNSET);
        Operator::run(program, flags, variables, &self.log_file(1))
    }

    /// The log of the last operator that was started, or of the next one.
    fn log_file(&self, next: usize) -> PathBuf {
        let number = self.operators.fetch_add(next, Ordering::Relaxed) + next;
        self.plane.workdir().file(&format!("operator-{}-{number}.log", self.namespace))
    }

    pub fn alias(&self) -> String {
        format!("alias/{}", self.namespace)
    }

    pub fn keys(&self) -> Api<DataKey> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A manifest with this spec; a spec without a key ID gets the test's alias, one without a length AES_256.
    pub fn manifest(&self, name: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        let fields = spec.as_object_mut().unwrap();
        fields.entry("keyId").or_insert_with(|| self.alias().into());
        if !fields.contains_key("numberOfBytes") {
            fields.entry("keySpec").or_insert_with(|| "AES_256".into());
        }
        json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": spec,
        })
    }

    /// Creates a `DataKey`, as written.
    pub async fn try_create(&self, manifest: &Value) -> Result<DataKey, Box<Status>> {
        self.send("POST", "", manifest).await
    }

    /// Creates a `DataKey` with this spec.
    pub async fn create(&self, name: &str, spec: &Value) -> DataKey {
        self.try_create(&self.manifest(name, spec)).await.unwrap()
    }

    /// Sends an object about `DataKey`s past the typed client, so that anything can be sent.
    pub async fn send<T: DeserializeOwned>(&self, method: &str, path: &str, body: &Value) -> Result<T, Box<Status>> {
        let url =
            format!("/apis/datakey.dev/v1alpha1/namespaces/{}/datakeys{path}?fieldValidation=Strict", self.namespace);
        let request = http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        match self.client.request(request.body(serde_json::to_vec(body).unwrap()).unwrap()).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    /// Changes a `DataKey` by a merge patch.
    pub async fn try_patch(&self, name: &str, patch: &Value) -> Result<DataKey, Box<Status>> {
        refusal(self.keys().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    pub async fn patch(&self, name: &str, patch: &Value) -> DataKey {
        self.try_patch(name, patch).await.unwrap()
    }

    /// Changes the status of a `DataKey` by a merge patch, as a cluster admin can.
    pub async fn try_patch_status(&self, name: &str, status: &Value) -> Result<DataKey, Box<Status>> {
        let patch = json!({ "status": status });
        refusal(self.keys().patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
    }

    pub async fn get(&self, name: &str) -> DataKey {
        self.keys().get(name).await.unwrap()
    }

    /// Waits until the condition `Ready` of the present generation has this status and reason.
    pub async fn condition(&self, name: &str, status: &str, reason: &str) -> DataKey {
        let mut last = None;
        let reached = tokio::time::timeout(SOON, async {
            loop {
                let key = self.get(name).await;
                let ready = status::find(&key, status::READY).cloned();
                let current = ready.as_ref().is_some_and(|ready| ready.observed_generation == key.metadata.generation);
                if current && ready.as_ref().is_some_and(|ready| ready.status == status && ready.reason == reason) {
                    return key;
                }
                last = ready;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        reached.await.unwrap_or_else(|_| panic!("{name} is not {status} ({reason}) but {last:?}\n{}", self.log_tail()))
    }

    pub async fn ready(&self, name: &str) -> DataKey {
        self.condition(name, "True", status::ISSUED).await
    }

    pub async fn failed(&self, name: &str, reason: &str) -> DataKey {
        self.condition(name, "False", reason).await
    }

    /// Creates a `DataKey` and waits until it is ready.
    pub async fn issue(&self, name: &str, spec: &Value) -> DataKey {
        self.create(name, spec).await;
        self.ready(name).await
    }

    /// Creates so many `DataKey`s, `PREFIX-0` and so on.
    pub async fn create_many(&self, prefix: &str, count: usize, spec: &Value) {
        let created = stream::iter(0..count).map(|number| {
            let manifest = self.manifest(&format!("{prefix}-{number}"), spec);
            async move { self.try_create(&manifest).await.map(drop) }
        });
        let created: Vec<_> = created.buffer_unordered(16).collect().await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Waits until all `DataKey`s of the namespace are ready, so many.
    pub async fn all_ready(&self, count: usize, limit: Duration) -> Vec<DataKey> {
        let mut last = Vec::new();
        let is_ready = |key: &DataKey| {
            status::find(key, status::READY)
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == key.metadata.generation)
        };
        let reached = tokio::time::timeout(limit, async {
            loop {
                // The API server may be away.
                if let Ok(list) = self.keys().list(&ListParams::default()).await {
                    last = list.items;
                    if last.len() == count && last.iter().all(is_ready) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        if reached.await.is_err() {
            let mut reasons = BTreeMap::<_, usize>::new();
            for key in &last {
                *reasons.entry(status::find(key, status::READY).map(|ready| ready.reason.clone())).or_default() += 1;
            }
            panic!("not {count} DataKeys ready within {limit:?} but {reasons:?}\n{}", self.log_tail());
        }
        last
    }

    /// Waits until the Secret of each holds exactly what its `DataKey` records.
    pub async fn secrets_hold_the_record(&self, keys: &[DataKey]) {
        let all_hold = async || {
            let secrets = self.secrets().list(&ListParams::default()).await.unwrap().items;
            let held: BTreeMap<_, _> = secrets.iter().map(|secret| (secret.name_any(), secret.data.as_ref())).collect();
            let wanted = |key: &DataKey| datakey_operator::secret::project(key, key.version()).unwrap().data;
            let holds = |key: &DataKey| held.get(key.secret_name()) == Some(&Some(&wanted(key)));
            keys.iter().all(holds)
        };
        let what = format!("{} Secrets hold what is recorded", keys.len());
        eventually(SOON, &what, all_hold).await;
    }

    /// The last lines of the operator that was started last.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_file(0)).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains(r#""level":"TRACE""#)).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The data of a Secret, once it is there.
    pub async fn data(&self, name: &str) -> Data {
        let mut data = None;
        eventually(SOON, "the Secret is there", async || {
            data = self.secrets().get_opt(name).await.unwrap().and_then(|secret| secret.data);
            data.is_some()
        })
        .await;
        data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect()
    }

    pub async fn namespace_uid(&self) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.get(&self.namespace).await.unwrap().metadata.uid.unwrap()
    }

    pub async fn secret(&self, name: &str) -> Secret {
        self.secrets().get(name).await.unwrap()
    }

    /// Waits until a Secret holds exactly this.
    pub async fn holds(&self, name: &str, expected: &Data) {
        let mut last = Data::new();
        eventually(SOON, "the Secret holds what it should", async || {
            last = self.data(name).await;
            &last == expected
        })
        .await;
    }

    /// Deletes a `DataKey` and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.keys().delete(name, &DeleteParams::default()).await.unwrap();
        eventually(SOON, "the DataKey is gone", async || self.keys().get_opt(name).await.unwrap().is_none()).await;
    }

    /// Deletes a Secret, if garbage collection was not faster.
    pub async fn delete_secret(&self, name: &str) {
        match self.secrets().delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            deleted => drop(deleted.unwrap()),
        }
    }

    pub async fn create_secret(&self, secret: &Secret) -> Secret {
        self.secrets().create(&PostParams::default(), secret).await.unwrap()
    }

    /// Edits a Secret as a user does, under a user's field manager.
    pub async fn edit_secret(&self, name: &str, patch: &Value) -> Secret {
        let params = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        self.secrets().patch(name, &params, &Patch::Merge(patch)).await.unwrap()
    }

    /// Unwraps what a Secret holds as a workload does, with what stands in the Secret itself.
    pub async fn unwrap(&self, data: &Data, suffix: &str) -> Vec<u8> {
        let context: BTreeMap<String, String> =
            serde_json::from_slice(&data[&format!("encryptionContext{suffix}")]).unwrap();
        self.unwrap_with(data, suffix, &context).await.unwrap()
    }

    pub async fn unwrap_with(
        &self,
        data: &Data,
        suffix: &str,
        context: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, String> {
        let arn = text(data, &format!("keyId{suffix}"));
        let region = arn.split(':').nth(3).unwrap();
        let account = arn.split(':').nth(4).unwrap();
        let client = self.kms.client_in(region, account);
        kms::unwrap_key(&client, &arn, &data[&format!("ciphertextBlob{suffix}")], context).await
    }

    /// Applies manifests as a cluster admin.
    pub async fn apply(&self, manifests: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifests });
        let file = self.plane.workdir().file(&format!("{}.json", self.namespace));
        std::fs::write(&file, list.to_string()).unwrap();
        self.plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
    }

    /// The events about a `DataKey` with this reason.
    pub async fn events(&self, name: &str, reason: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name)
                && event.reason.as_deref() == Some(reason)
        };
        all.items.into_iter().filter(about).collect()
    }

    /// Waits until the operator has seen everything that happened so far: a new `DataKey` goes through the same watches
    /// and the same queue.
    pub async fn settled(&self) {
        let before = self.proxy.calls();
        let name = format!("settled-{before}");
        self.issue(&name, &json!({})).await;
        assert_eq!(self.proxy.calls(), before + 1, "only the DataKey that was just created asks KMS");
        self.delete(&name).await;
        self.delete_secret(&name).await;
    }
}

/// What a Secret's entry says.
pub fn text(data: &Data, entry: &str) -> String {
    String::from_utf8(data[entry].clone()).unwrap()
}

/// A version that a `DataKey` records.
pub fn recorded(key: &DataKey, version: i32) -> IssuedVersion {
    key.issued(version).unwrap_or_else(|| panic!("{} has no version {version}", key.name_any())).clone()
}

/// A Secret as a backup tool restores it: no uid, no owner, no managed fields, no time.
pub fn restored(secret: &Secret) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: secret.metadata.name.clone(),
            namespace: secret.metadata.namespace.clone(),
            labels: secret.metadata.labels.clone(),
            annotations: secret.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        ..secret.clone()
    }
}

/// Asserts that something was refused, with these words.
pub fn assert_refused<T: Debug>(result: Result<T, Box<Status>>, words: &str) {
    let status = result.expect_err(words);
    assert!(status.message.contains(words), "expected: {words}\nbut the API server says: {}", status.message);
}

fn refusal<T>(result: kube::Result<T>) -> Result<T, Box<Status>> {
    result.map_err(|error| match error {
        kube::Error::Api(status) => status,
        error => panic!("{error}"),
    })
}

/// JSON of anything.
pub fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

// === impl Operator ===

impl Operator {
    /// Starts the binary with waits that suit tests.
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

    /// Starts one as a Deployment says: its arguments, its identity, its environment.
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

    /// Its log, line by line.
    pub fn log(&self) -> Vec<Value> {
        self.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line of the log that says this.
    pub async fn says(&self, words: &str) {
        let what = format!("the operator logs: {words}");
        let said = async || self.process.log().contains(words);
        let waited = tokio::time::timeout(SOON, eventually(2 * SOON, &what, said)).await;
        assert!(waited.is_ok(), "{what}; it logs:\n{}", self.process.log());
    }

    /// Asks the admin server.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        self.says("serving /livez").await;
        let address = self.log().iter().find_map(|line| line["address"].as_str().map(str::to_owned)).unwrap();
        get(&address, path).await
    }

    /// Waits until it is ready.
    pub async fn is_ready(&self) {
        eventually(SOON, "the operator is ready", async || self.admin("/readyz").await.0 == 200).await;
    }
}

/// A plain HTTP GET.
async fn get(address: &str, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
