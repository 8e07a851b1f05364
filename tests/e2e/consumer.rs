//! The workload: tests/e2e/consumer in a Deployment, with data that was encrypted elsewhere.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use testbed::{eventually, kms};

use crate::{
    SOON,
    cluster::{Cluster, SHOP},
};

const DATA: &str = "Three apples and a pear, for Ada.";

/// A Deployment that decrypts data with the data key of the DataKey `orders`.
pub struct Consumer;

// === impl Consumer ===

impl Consumer {
    /// Encrypts data, and starts the Deployment.
    pub async fn start(cluster: &Cluster) -> Self {
        let data = encrypted(cluster).await;
        let configs: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SHOP);
        let config = ConfigMap {
            metadata: ObjectMeta { name: Some("orders-data".to_owned()), ..ObjectMeta::default() },
            binary_data: Some(BTreeMap::from([("orders".to_owned(), ByteString(data))])),
            ..ConfigMap::default()
        };
        configs.create(&PostParams::default(), &config).await.unwrap();
        let deployments = Api::namespaced(cluster.client.clone(), SHOP);
        let deployment = serde_json::from_value(deployment(&cluster.consumer, &cluster.proxy.url())).unwrap();
        let deployment: k8s_openapi::api::apps::v1::Deployment = deployment;
        deployments.create(&PostParams::default(), &deployment).await.unwrap();
        Self
    }

    /// Waits until its one pod answers, and asserts that it does so with the decrypted data.
    pub async fn decrypts(&self, cluster: &Cluster) {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), SHOP);
        let mut answer = None;
        eventually(SOON, "the consumer answers", async || {
            let pods = pods.list(&ListParams::default().labels("app=consumer")).await.unwrap().items;
            let [pod] = &pods[..] else { return false };
            let path = format!("/api/v1/namespaces/{SHOP}/pods/{}:8080/proxy/", pod.name_any());
            answer = cluster.client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await.ok();
            answer.is_some()
        })
        .await;
        assert_eq!(answer.as_deref(), Some(DATA));
    }
}

/// Unwraps the data key as a workload does, and encrypts the data under it: the nonce, and what AES-GCM made.
async fn encrypted(cluster: &Cluster) -> Vec<u8> {
    let held = cluster.secrets().await.remove("orders").unwrap().data.unwrap();
    let context: BTreeMap<String, String> = serde_json::from_slice(&held["encryptionContext"].0).unwrap();
    let arn = String::from_utf8(held["keyId"].0.clone()).unwrap();
    let key = kms::unwrap_key(&cluster.kms.client(), &arn, &held["ciphertextBlob"].0, &context).await.unwrap();
    let key = RandomizedNonceKey::new(&AES_256_GCM, &key).unwrap();
    let mut sealed = DATA.as_bytes().to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed).unwrap();
    [&nonce.as_ref()[..], &sealed].concat()
}

/// Only the init container has credentials and the wrapped data key; the plaintext lies in memory.
fn deployment(image: &str, kms_url: &str) -> Value {
    let environment: Vec<_> =
        kms::environment(kms_url).into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let restricted = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    let labels = json!({ "app": "consumer" });
    let pod = json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "initContainers": [{
            "name": "unwrap",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["unwrap", "/keys", "/plaintext/key"],
            "env": environment,
            "securityContext": restricted,
            "volumeMounts": [
                { "name": "keys", "mountPath": "/keys", "readOnly": true },
                { "name": "plaintext", "mountPath": "/plaintext" },
            ],
        }],
        "containers": [{
            "name": "app",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["serve", "/plaintext/key", "/data/orders"],
            "securityContext": restricted,
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
            "volumeMounts": [
                { "name": "plaintext", "mountPath": "/plaintext", "readOnly": true },
                { "name": "data", "mountPath": "/data", "readOnly": true },
            ],
        }],
        "volumes": [
            { "name": "keys", "secret": { "secretName": "orders", "defaultMode": 0o440 } },
            { "name": "plaintext", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
            { "name": "data", "configMap": { "name": "orders-data" } },
        ],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "consumer" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}
