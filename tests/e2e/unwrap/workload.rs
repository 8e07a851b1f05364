//! A namespace with a DataKey and a workload of the samples, which reaches KMS through a proxy of its own.

use std::collections::BTreeMap;

use aws_sdk_kms::{Client as KmsClient, config::Credentials};
use datakey::{api::DataKey, condition};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testbed::{
    eventually,
    kms::{self, Key, KmsServer},
    proxy::{DECRYPT, KmsProxy},
};

use super::{
    pod::{Container, Containers, containers},
    sample::{self, Filling},
};
use crate::{
    SOON,
    cluster::Cluster,
    consumer::{DATA, encrypted},
};

/// The DataKey and the Deployment of the samples.
pub const ORDERS: &str = "orders";

/// A workload in a namespace of its own.
pub struct Workload<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'static str,
    /// What stands between the workload and KMS.
    pub proxy: KmsProxy,
    /// The KMS key of its DataKey.
    pub key: Key,
    kms: KmsClient,
    /// What was encrypted elsewhere, under each version.
    encrypted: BTreeMap<i32, Vec<u8>>,
}

// === impl Workload: its DataKey ===

impl<'a> Workload<'a> {
    /// Creates the namespace, which admits restricted pods only.
    pub async fn new(cluster: &'a Cluster, namespace: &'static str, server: &KmsServer, key: &Key) -> Self {
        cluster.restricted_namespace(namespace).await;
        let proxy = cluster.proxy_before(server).await;
        let encrypted = BTreeMap::new();
        Self { cluster, namespace, proxy, key: key.clone(), kms: server.client(), encrypted }
    }

    /// Issues the DataKey of the samples, and encrypts data under it.
    pub async fn issue(&mut self) {
        self.create_key(json!({})).await;
    }

    /// The same with other fields in the spec.
    pub async fn create_key(&mut self, more: Value) {
        let mut spec =
            json!({ "keyId": self.key.arn, "keySpec": "AES_256", "encryptionContext": { "purpose": ORDERS } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": ORDERS },
            "spec": spec,
        });
        self.keys().create(&PostParams::default(), &serde_json::from_value(key).unwrap()).await.unwrap();
        self.issued(1).await;
    }

    /// Issues the next version, and encrypts data under it.
    pub async fn rotate(&mut self, version: i32) {
        let patch = json!({ "spec": { "version": version } });
        self.keys().patch(ORDERS, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        self.issued(version).await;
    }

    async fn issued(&mut self, version: i32) {
        eventually(SOON, &format!("version {version} of {}/{ORDERS} is ready", self.namespace), async || {
            let key = self.keys().get(ORDERS).await.unwrap();
            let ready = condition::find(&key, datakey::api::READY);
            let is_current = ready.is_some_and(|ready| ready.observed_generation == key.metadata.generation);
            is_current && ready.is_some_and(|ready| ready.status == "True") && key.recorded_version(version).is_some()
        })
        .await;
        let secret = self.secrets().get(ORDERS).await.unwrap();
        self.encrypted.insert(version, encrypted(&self.kms, &secret, version).await);
    }

    fn keys(&self) -> Api<DataKey> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// How often KMS was asked to unwrap.
    pub fn calls(&self) -> usize {
        self.proxy.calls_of(DECRYPT)
    }
}

// === impl Workload: its pod ===

impl Workload<'_> {
    /// Starts a sample with these arguments of its application, as the root of the account.
    pub async fn start(&self, sample: &str, arguments: &[&str]) {
        self.start_as(&Credentials::new(kms::ACCOUNT, "test", None, None, "e2e"), sample, arguments).await;
    }

    /// Starts a sample with these credentials.
    pub async fn start_as(&self, credentials: &Credentials, sample: &str, arguments: &[&str]) {
        let filling = Filling {
            helper: &self.cluster.helper,
            application: &self.cluster.consumer,
            arguments,
            key_arn: &self.key.arn,
            endpoint: &self.proxy.url(),
            credentials,
        };
        self.cluster.create(self.namespace, &sample::manifests(sample, &filling)).await;
    }

    /// Data that was encrypted elsewhere, under a version.
    pub fn encrypted(&self, version: i32) -> &[u8] {
        &self.encrypted[&version]
    }

    /// Waits until the application decrypts the data of a version with the key file at this path, and asserts what it answers.
    pub async fn decrypts(&self, path: &str, version: i32) {
        let mut answer = None;
        eventually(SOON, &format!("{} decrypts data of version {version} at {path}", self.namespace), async || {
            answer = self.answer(path, version).await.ok();
            answer.is_some()
        })
        .await;
        assert_eq!(answer.as_deref(), Some(DATA));
    }

    /// What the application answers to the data of a version.
    pub async fn answer(&self, path: &str, version: i32) -> Result<String, String> {
        let pod = self.pod_of(ORDERS).await.ok_or("no pod")?;
        let url = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy{path}", self.namespace, pod.name_any());
        let request = http::Request::post(url).body(self.encrypted(version).to_vec()).unwrap();
        self.cluster.client.request_text(request).await.map_err(|error| error.to_string())
    }

    /// The one pod of an application.
    async fn pod_of(&self, app: &str) -> Option<Pod> {
        let ours = ListParams::default().labels(&format!("app={app}"));
        let mut pods = self.pods().list(&ours).await.unwrap().items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.pop().filter(|_| pods.is_empty())
    }

    /// The containers in the one pod of an application.
    pub async fn containers_of(&self, app: &str) -> Containers {
        self.pod_of(app).await.map(|pod| containers(&pod)).unwrap_or_default()
    }

    /// The containers of the Deployment.
    pub async fn containers(&self) -> Containers {
        self.containers_of(ORDERS).await
    }

    /// Waits until a container has ended with this exit code.
    pub async fn ends(&self, container: &str, code: i32) {
        eventually(SOON, &format!("{container} in {} ends with {code}", self.namespace), async || {
            self.containers().await.get(container).is_some_and(|container| container.exit_code == Some(code))
        })
        .await;
    }

    /// Asserts that all containers run since the pod was started.
    pub async fn never_restarted(&self) {
        let containers = self.containers().await;
        let is_first = |container: &Container| container.is_running && container.restarts == 0;
        assert!(containers.values().all(is_first) && containers.len() == 2, "{containers:?}");
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Makes the kubelet look at the pod now, and so mount the present Secret. By itself it does so within about a minute.
    pub async fn hurry(&self) {
        let patch = json!({ "metadata": { "annotations": { "datakey.dev/hurry": self.calls().to_string() } } });
        let pod = self.pod_of(ORDERS).await.unwrap().name_any();
        self.pods().patch(&pod, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Waits until a container of the Deployment printed these words.
    pub async fn prints(&self, container: &str, words: &str) {
        let deployment = format!("deployment/{ORDERS}");
        let logs = ["logs", "-n", self.namespace, &deployment, "-c", container];
        eventually(SOON, &format!("{container} in {} prints: {words}", self.namespace), async || {
            self.cluster.kubectl(&logs).await.is_ok_and(|log| log.contains(words))
        })
        .await;
    }
}
