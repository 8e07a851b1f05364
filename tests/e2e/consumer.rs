//! The workload: the Deployment of deploy/samples/consumers/aws-cli, with tests/e2e/consumer in place of the AWS CLI and of
//! the application, and with data that was encrypted elsewhere.

use std::{collections::BTreeMap, fs};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_sdk_kms::Client;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
    },
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use testbed::{eventually, kms, repository};

use crate::{
    SOON,
    cluster::{Cluster, SHOP},
};

/// What the data says.
pub const DATA: &str = "Three apples and a pear, for Ada.";

/// A Deployment that decrypts data with the data key of the DataKey `orders`.
pub struct Consumer;

// === impl Consumer ===

impl Consumer {
    /// Encrypts data, and starts the Deployment.
    pub async fn start(cluster: &Cluster) -> Self {
        let secret = cluster.secrets().await.remove("orders").unwrap();
        let data = encrypted(&cluster.kms.client(), &secret, 1).await;
        let sample = repository().join("deploy/samples/consumers/aws-cli");
        let configs: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SHOP);
        let script = fs::read(sample.join("unwrap.sh")).unwrap();
        for (name, entry, content) in [("orders-data", "orders", data), ("unwrap", "unwrap.sh", script)] {
            let config = ConfigMap {
                metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                binary_data: Some(BTreeMap::from([(entry.to_owned(), ByteString(content))])),
                ..ConfigMap::default()
            };
            configs.create(&PostParams::default(), &config).await.unwrap();
        }
        let manifests = fs::read_to_string(sample.join("deployment.yaml")).unwrap();
        let [account, deployment] = &mut serde_saphyr::from_multiple::<Value>(&manifests).unwrap()[..] else {
            panic!("a service account and a Deployment")
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), SHOP);
        let account = serde_json::from_value(account.take()).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        fill_in(deployment, &cluster.consumer, &cluster.proxy.url());
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), SHOP);
        let deployment = serde_json::from_value(deployment.take()).unwrap();
        deployments.create(&PostParams::default(), &deployment).await.unwrap();
        Self
    }

    /// Waits until its one pod answers, and asserts that it does so with the decrypted data.
    pub async fn decrypts(&self, cluster: &Cluster) {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), SHOP);
        let mut answer = None;
        eventually(SOON, "the consumer answers", async || {
            let pods = pods.list(&ListParams::default().labels("app=orders")).await.unwrap().items;
            let [pod] = &pods[..] else { return false };
            let path = format!("/api/v1/namespaces/{SHOP}/pods/{}:8080/proxy/", pod.name_any());
            answer = cluster.client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.ok();
            answer.is_some()
        })
        .await;
        assert_eq!(answer.as_deref(), Some(DATA));
    }
}

/// Unwraps a version of the data key as a workload does, and encrypts the data under it: the nonce, and what AES-GCM made.
pub async fn encrypted(kms: &Client, secret: &Secret, version: i32) -> Vec<u8> {
    let entry = |name: &str| &secret.data.as_ref().unwrap()[&format!("{name}.v{version}")].0;
    let context: BTreeMap<String, String> = serde_json::from_slice(entry("encryptionContext")).unwrap();
    let arn = String::from_utf8(entry("keyId").clone()).unwrap();
    let key = kms::unwrap_key(kms, &arn, entry("ciphertextBlob"), &context).await.unwrap();
    let key = RandomizedNonceKey::new(&AES_256_GCM, &key).unwrap();
    let mut sealed = DATA.as_bytes().to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed).unwrap();
    [&nonce.as_ref()[..], &sealed].concat()
}

/// Fills in what the sample leaves open: the programs, the address of KMS and the data. Volumes, accounts and security
/// settings stay those of the sample.
fn fill_in(deployment: &mut Value, image: &str, kms_url: &str) {
    let pod = &mut deployment["spec"]["template"]["spec"];
    // The pod ends at once.
    pod["terminationGracePeriodSeconds"] = 5.into();
    let unwrap = &mut pod["initContainers"][0];
    unwrap["image"] = image.into();
    unwrap["imagePullPolicy"] = "IfNotPresent".into();
    unwrap["command"] = json!(["/consumer", "unwrap", "/keys", "/plaintext/key"]);
    let environment = unwrap["env"].as_array_mut().unwrap();
    environment
        .extend(kms::environment(kms_url).into_iter().map(|(name, value)| json!({ "name": name, "value": value })));
    let app = &mut pod["containers"][0];
    app["image"] = image.into();
    app["imagePullPolicy"] = "IfNotPresent".into();
    app["args"] = json!(["serve", "/plaintext/key", "/data/orders"]);
    app["readinessProbe"] = json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    let mounts = app["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "data", "mountPath": "/data", "readOnly": true }));
    let volumes = pod["volumes"].as_array_mut().unwrap();
    volumes.push(json!({ "name": "data", "configMap": { "name": "orders-data" } }));
}
