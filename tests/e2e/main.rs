//! The life of a release in a cluster with a node: the image, the chart and the operator as pods, and a workload that
//! decrypts with its data key through all of it. `make e2e` runs it; README.md beside this file says how.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod cluster;
mod consumer;
mod unwrap;

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use testbed::{eventually, proxy::ISSUE};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::{Cluster, OPERATOR, SHOP},
    consumer::Consumer,
    unwrap::Workloads,
};

/// Longest wait for what pods do on a busy machine.
const SOON: Duration = Duration::from_mins(2);

const ALL: Duration = Duration::from_mins(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node or a cluster: make e2e"]
async fn workload_decrypts_through_upgrade_and_reinstallation() {
    let cluster = timeout(SOON, Cluster::start()).await.expect("a cluster within the time limit");
    timeout(ALL, life(&cluster)).await.expect("all of it within the time limit");
    cluster.end().await;
    step("All of it held");
}

async fn life(cluster: &Cluster) {
    install(cluster).await;
    let consumer = consume(cluster).await;
    let mut workloads = Workloads::start(cluster).await;
    workloads.rotate().await;
    upgrade(cluster).await;
    consumer.decrypts(cluster).await;
    workloads.complete_a_job().await;
    workloads.ask_iam().await;
    workloads.follow_rotation().await;
    workloads.outlast_an_outage().await;
    let calls = workloads.calls();
    restart(cluster, &consumer).await;
    workloads.come_back(calls).await;
    uninstall(cluster, &consumer).await;
    let application = workloads.refuse_another_data_key().await;
    reinstall(cluster).await;
    consumer.decrypts(cluster).await;
    workloads.accept_the_restored_one(&application).await;
    assert_eq!(cluster.proxy.operations(), ["Decrypt", ISSUE], "KMS is asked for nothing else");
}

async fn install(cluster: &Cluster) {
    step("The chart is installed where only restricted pods are admitted, and two replicas are ready");
    for namespace in [OPERATOR, SHOP] {
        cluster.restricted_namespace(namespace).await;
        // Until then the API server refuses pods.
        let account = ["wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=1m"];
        cluster.kubectl(&account).await.unwrap();
        let plain = ["run", "plain", "--image=plain", "--dry-run=server", "-n", namespace];
        let refusal = cluster.kubectl(&plain).await.unwrap_err();
        assert!(refusal.contains("violates PodSecurity"), "{refusal}");
    }
    cluster.install(&[]).await;
    let pods = cluster.pods(OPERATOR).await;
    assert_eq!(pods.len(), 2, "{pods:?}");
    println!("{}", cluster.kubectl(&["get", "pods", "-n", OPERATOR, "-o", "wide"]).await.unwrap().trim_end());
    let holder = ["get", "lease", "datakey-operator", "-n", OPERATOR, "-o", "jsonpath={.spec.holderIdentity}"];
    eventually(SOON, "one of them leads", async || {
        let holder = cluster.kubectl(&holder).await.unwrap_or_default();
        pods.iter().any(|pod| holder.starts_with(pod.as_str()))
    })
    .await;
    assert_eq!(cluster.proxy.operations(), [""; 0], "a start asks KMS nothing");
}

async fn consume(cluster: &Cluster) -> Consumer {
    step("A DataKey is ready, and a workload decrypts with it what was encrypted under it elsewhere");
    cluster.create_key("orders").await;
    cluster.ready("orders").await;
    assert_eq!(cluster.proxy.calls(), 1);
    let consumer = Consumer::start(cluster).await;
    consumer.decrypts(cluster).await;
    assert_eq!(cluster.proxy.calls_of("Decrypt"), 1);
    println!("{}", cluster.kubectl(&["logs", "-n", SHOP, "-l=app=orders", "-c=unwrap"]).await.unwrap().trim_end());
    consumer
}

async fn upgrade(cluster: &Cluster) {
    step("The operator is upgraded while DataKeys are created: each is issued once");
    let before = cluster.secrets().await;
    let issued = cluster.proxy.calls();
    let old = cluster.pods(OPERATOR).await;
    let mut names = Vec::new();
    {
        let upgraded = async {
            cluster.install(&["--set", "config.logLevel=debug"]).await;
            eventually(SOON, "the old pods are gone", async || {
                let now = cluster.pods(OPERATOR).await;
                now.len() == 2 && now.is_disjoint(&old)
            })
            .await;
        };
        tokio::pin!(upgraded);
        loop {
            let name = format!("key-{}", names.len());
            cluster.create_key(&name).await;
            names.push(name);
            tokio::select! {
                () = &mut upgraded => break,
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }
    for name in &names {
        cluster.ready(name).await;
    }
    let mut asked = BTreeMap::<_, usize>::new();
    for call in &cluster.proxy.requests()[issued..] {
        *asked.entry(call.body["EncryptionContext"]["name"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let doubled: Vec<_> = asked.iter().filter(|(_, calls)| **calls != 1).collect();
    assert!(doubled.is_empty(), "KMS was asked more than once: {doubled:?}");
    assert_eq!(asked.len(), names.len());
    let after = cluster.secrets().await;
    assert_eq!(after.len(), names.len() + 1);
    for (name, secret) in &before {
        assert_eq!(&after[name], secret, "the Secret {name} changed");
    }
    for (key, data) in cluster.keys().await.values().zip(after.values().map(|secret| &secret.data)) {
        let recorded = datakey::secret::Projection::of(key, key.wanted_version()).unwrap().data;
        assert_eq!(data.as_ref(), Some(&recorded), "{} holds something else than is recorded", key.name_any());
    }
    println!("{} DataKeys were created meanwhile, and KMS was asked as often", names.len());
}

async fn restart(cluster: &Cluster, consumer: &Consumer) {
    step("The node is switched off and on: operator and workload come back, nothing is issued, no Secret changes");
    let (secrets, keys) = (cluster.secrets().await, versions(&cluster.keys().await));
    let (issued, unwrapped) = (cluster.proxy.calls(), cluster.proxy.calls_of("Decrypt"));
    cluster.restart().await;
    consumer.decrypts(cluster).await;
    assert!(cluster.proxy.calls_of("Decrypt") > unwrapped, "the workload has not unwrapped its data key again");
    cluster.create_key("after-the-restart").await;
    cluster.ready("after-the-restart").await;
    assert_eq!(cluster.proxy.calls(), issued + 1);
    unchanged(&secrets, &cluster.secrets().await);
    unchanged(&keys, &versions(&cluster.keys().await));
}

async fn uninstall(cluster: &Cluster, consumer: &Consumer) {
    step(
        "The release is uninstalled: definition, DataKeys and Secrets stay, and the workload works and starts without it",
    );
    let (secrets, keys) = (cluster.secrets().await, versions(&cluster.keys().await));
    cluster.helm(&["uninstall", OPERATOR, "-n", OPERATOR, "--wait", "--timeout=2m"]).await;
    eventually(SOON, "the operator's pods are gone", async || cluster.pods(OPERATOR).await.is_empty()).await;
    consumer.decrypts(cluster).await;
    cluster.kubectl(&["delete", "pod", "-n", SHOP, "-l=app=orders"]).await.unwrap();
    consumer.decrypts(cluster).await;
    assert_eq!(secrets, cluster.secrets().await);
    assert_eq!(keys, versions(&cluster.keys().await));
}

async fn reinstall(cluster: &Cluster) {
    step("It is installed again, and one DataKey was deleted and created meanwhile: nothing is issued again");
    let (secrets, mut keys) = (cluster.secrets().await, versions(&cluster.keys().await));
    let issued = cluster.proxy.calls();
    cluster.api().delete("key-0", &DeleteParams::default()).await.unwrap();
    keys.remove("key-0");
    cluster.create_key("key-0").await;
    cluster.install(&[]).await;
    let adopted = cluster.ready("key-0").await;
    let record = adopted.recorded_version(1).unwrap();
    assert_eq!(secrets["key-0"].data.as_ref().unwrap()["ciphertextBlob"], record.ciphertext_blob);
    assert_eq!(cluster.proxy.calls(), issued);
    cluster.create_key("after-the-reinstallation").await;
    cluster.ready("after-the-reinstallation").await;
    assert_eq!(cluster.proxy.calls(), issued + 1, "only the new DataKey");
    unchanged(&secrets, &cluster.secrets().await);
    unchanged(&keys, &versions(&cluster.keys().await));
}

/// The identity and the version of each object: equal means that no client wrote it.
fn versions<K: Resource>(objects: &BTreeMap<String, K>) -> BTreeMap<String, (Option<String>, Option<String>)> {
    objects.iter().map(|(name, object)| (name.clone(), (object.uid(), object.resource_version()))).collect()
}

/// Asserts that everything in `before` is unchanged; there may be more.
fn unchanged<T: PartialEq + std::fmt::Debug>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) {
    for (name, object) in before {
        assert_eq!(after.get(name), Some(object), "{name} changed");
    }
}

fn step(text: &str) {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    println!("\n=== after {} s: {text}", BEGUN.get_or_init(Instant::now).elapsed().as_secs());
}

// === impl Cluster ===

impl Cluster {
    /// Creates a `DataKey` whose encryption context has its name.
    async fn create_key(&self, name: &str) {
        let key = json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKey",
            "metadata": { "name": name },
            "spec": { "keyId": "alias/e2e", "keySpec": "AES_256", "encryptionContext": { "name": name } },
        });
        self.api().create(&PostParams::default(), &serde_json::from_value(key).unwrap()).await.unwrap();
    }

    async fn ready(&self, name: &str) -> datakey::api::DataKey {
        let mut last = None;
        eventually(SOON, &format!("{name} is ready"), async || {
            last = self.api().get(name).await.ok();
            let ready = last.as_ref().and_then(|key| datakey::condition::find(key, datakey::api::READY));
            ready.is_some_and(|ready| ready.status == "True")
        })
        .await;
        last.unwrap()
    }
}
