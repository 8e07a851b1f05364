//! Objects of a test: requests for them, and waits for their conditions.

use std::{collections::BTreeMap, time::Duration};

use datakey::{
    api::{self, KindId},
    condition, fixtures,
};
use futures::{StreamExt, stream};
use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::eventually;

use super::{SOON, TestKind, TestNamespace};

/// The KMS key of pinned versions, which is in no KMS server.
const PINNED_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// A manifest with this spec. The defaults are the key ID of this namespace, and AES_256 or ECC_NIST_P256.
    pub fn manifest(&self, name: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        let fields = spec.as_object_mut().unwrap();
        fields.entry("keyId").or_insert_with(|| self.alias().into());
        K::complete(fields);
        json!({
            "apiVersion": K::KIND.api_version,
            "kind": K::KIND.name,
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": spec,
        })
    }

    /// A pinned version as another cluster exports it. No KMS server can decrypt it.
    pub fn pin(&self, version: i32) -> Value {
        let mut pin = json!({
            "version": version,
            "request": { "keyId": self.alias() },
            "ciphertextBlob": format!("AQID{version:04}"),
            "keyId": PINNED_ARN,
            "issuedAt": "2026-11-23T00:00:00Z",
        });
        K::complete(pin["request"].as_object_mut().unwrap());
        if K::KIND.id == KindId::DataKeyPair {
            pin["publicKey"] = json!(fixtures::public_key_of(version));
        }
        pin
    }

    /// Creates an object from a manifest; an error where the API server refuses it.
    pub async fn try_create(&self, manifest: &Value) -> Result<K, Box<Status>> {
        self.send("POST", "", manifest).await
    }

    /// Creates an object with this spec.
    pub async fn create(&self, name: &str, spec: &Value) -> K {
        self.try_create(&self.manifest(name, spec)).await.unwrap()
    }

    /// Creates an object and waits until it is ready.
    pub async fn issue(&self, name: &str, spec: &Value) -> K {
        self.create(name, spec).await;
        self.ready(name).await
    }

    /// Creates `count` objects: `PREFIX-0`, `PREFIX-1` and so on.
    pub async fn create_many(&self, prefix: &str, count: usize, spec: &Value) {
        let created = stream::iter(0..count).map(|number| {
            let manifest = self.manifest(&format!("{prefix}-{number}"), spec);
            async move { self.try_create(&manifest).await.map(drop) }
        });
        let created: Vec<_> = created.buffer_unordered(16).collect().await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Sends a request about objects without the typed client, which would drop or refuse unknown fields.
    pub async fn send<T: DeserializeOwned>(&self, method: &str, path: &str, body: &Value) -> Result<T, Box<Status>> {
        let url = format!(
            "/apis/datakey.dev/v1alpha1/namespaces/{}/{}{path}?fieldValidation=Strict",
            self.namespace,
            K::KIND.plural
        );
        let request = http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        match self.client.request(request.body(serde_json::to_vec(body).unwrap()).unwrap()).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    /// Changes an object by a merge patch; an error where the API server refuses it.
    pub async fn try_patch(&self, name: &str, patch: &Value) -> Result<K, Box<Status>> {
        refusal(self.keys().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// Changes an object by a merge patch.
    pub async fn patch(&self, name: &str, patch: &Value) -> K {
        self.try_patch(name, patch).await.unwrap()
    }

    /// Changes the status of an object by a merge patch, as a cluster admin can.
    pub async fn try_patch_status(&self, name: &str, status: &Value) -> Result<K, Box<Status>> {
        let patch = json!({ "status": status });
        refusal(self.keys().patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
    }

    /// An object as the API server has it.
    pub async fn get(&self, name: &str) -> K {
        self.keys().get(name).await.unwrap()
    }

    /// Waits until the condition `Ready` of the current generation has this status and reason.
    pub async fn condition(&self, name: &str, status: &str, reason: &str) -> K {
        let mut last = None;
        let reached = tokio::time::timeout(SOON, async {
            loop {
                let key = self.get(name).await;
                let ready = condition::find(&key, api::READY).cloned();
                let current = ready.as_ref().is_some_and(|ready| ready.observed_generation == key.meta().generation);
                if current && ready.as_ref().is_some_and(|ready| ready.status == status && ready.reason == reason) {
                    return key;
                }
                last = ready;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        reached.await.unwrap_or_else(|_| panic!("{name} is not {status} ({reason}) but {last:?}\n{}", self.log_tail()))
    }

    /// Waits until an object is ready for its current spec.
    pub async fn ready(&self, name: &str) -> K {
        self.condition(name, "True", condition::ISSUED).await
    }

    /// Waits until an object is not ready for this reason.
    pub async fn failed(&self, name: &str, reason: &str) -> K {
        self.condition(name, "False", reason).await
    }

    /// Waits until the namespace has `count` objects and all are ready.
    pub async fn all_ready(&self, count: usize, limit: Duration) -> Vec<K> {
        let mut last = Vec::new();
        let is_ready = |key: &K| {
            condition::find(key, api::READY)
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == key.meta().generation)
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
                *reasons.entry(condition::find(key, api::READY).map(|ready| ready.reason.clone())).or_default() += 1;
            }
            panic!("not {count} {} ready within {limit:?} but {reasons:?}\n{}", K::KIND.plural, self.log_tail());
        }
        last
    }

    /// Deletes an object and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.keys().delete(name, &DeleteParams::default()).await.unwrap();
        eventually(SOON, "the object is gone", async || self.keys().get_opt(name).await.unwrap().is_none()).await;
    }

    /// Waits until the operator has handled everything that happened before: a new object passes the same watches and
    /// the same queue, so once it is ready, earlier changes are done. It costs one call to KMS.
    pub async fn barrier(&self) {
        let before = self.proxy.calls();
        let name = format!("settled-{before}");
        self.issue(&name, &json!({})).await;
        assert_eq!(self.proxy.calls(), before + 1, "only the object that was just created asks KMS");
        self.delete(&name).await;
        self.delete_secret(&name).await;
    }
}

/// The refusal of the API server; panics at any other error.
fn refusal<T>(result: kube::Result<T>) -> Result<T, Box<Status>> {
    result.map_err(|error| match error {
        kube::Error::Api(status) => status,
        error => panic!("{error}"),
    })
}
