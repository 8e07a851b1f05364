//! Argo CD's engine, with the health check and the sync waves of `deploy`.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use testbed::{commands, eventually, proxy::Fault, repository};

use crate::{
    documents,
    harness::{SOON, TestNamespace, text},
};

/// The example of `deploy/gitops` in the namespace of a test, and how Argo CD is configured.
struct Example {
    test: TestNamespace,
    config: PathBuf,
}

// === impl Example ===

impl Example {
    async fn new(name: &str) -> Self {
        let config = repository().join("deploy/argocd/argocd-cm.yaml");
        Self { test: TestNamespace::new(name).await, config }
    }

    /// Has Argo CD sync the example once, to the end, with this version of the data key.
    async fn sync(&self, version: i32) -> Result<String, String> {
        let mut files = Vec::new();
        for (number, file) in ["gitops/app/orders.yaml", "gitops/keys/orders.yaml"].into_iter().enumerate() {
            let mut manifest = documents(file).remove(0);
            manifest["metadata"]["namespace"] = self.test.namespace.clone().into();
            if manifest["kind"] == "DataKey" {
                manifest["spec"]["keyId"] = self.test.alias().into();
                manifest["spec"]["version"] = version.into();
            }
            let path = self.test.plane.workdir().file(&format!("{}-{number}.json", self.test.namespace));
            std::fs::write(&path, manifest.to_string()).unwrap();
            files.push(path.display().to_string());
        }
        let config = self.config.display().to_string();
        let arguments: Vec<_> = [&self.test.namespace, &config].into_iter().chain(&files).map(String::as_str).collect();
        let kubeconfig = self.test.plane.admin_kubeconfig();
        let sync = commands::argocd_sync(&kubeconfig, &arguments);
        tokio::time::timeout(Duration::from_mins(2), sync).await.expect("the sync ends")
    }

    async fn has_deployment(&self) -> bool {
        let deployments: Api<Deployment> = Api::namespaced(self.test.client.clone(), &self.test.namespace);
        deployments.get_opt("orders").await.unwrap().is_some()
    }

    async fn version(&self) -> String {
        text(&self.test.data("orders").await, "version")
    }
}

#[tokio::test]
async fn sync_waits_for_the_data_key_before_the_next_wave() {
    let example = Example::new("argocd-waves").await;
    let test = &example.test;
    test.proxy.fail_always(Fault::code("ThrottlingException"));
    let _operator = test.operator();
    let meanwhile = async {
        eventually(SOON, "KMS was asked and asked again", async || test.proxy.calls() > 3).await;
        assert!(!example.has_deployment().await);
        test.proxy.clear_faults();
    };
    let (synced, ()) = tokio::join!(example.sync(1), meanwhile);
    synced.unwrap();
    assert!(example.has_deployment().await);
    assert_eq!(example.version().await, "1");

    test.proxy.fail_next(3, Fault::code("ThrottlingException"));
    example.sync(2).await.unwrap();
    assert_eq!(example.version().await, "2", "synced is synced for this version");
}

#[tokio::test]
async fn sync_fails_with_the_message_of_a_stalled_data_key() {
    let example = Example::new("argocd-fails").await;
    let test = &example.test;
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    let _operator = test.operator();
    let failure = example.sync(1).await.unwrap_err();
    assert!(failure.contains("Allow it kms:GenerateDataKeyWithoutPlaintext"), "{failure}");
    assert!(!example.has_deployment().await);
    test.proxy.clear_faults();
    test.ready("orders").await;
    example.sync(1).await.unwrap();
    assert!(example.has_deployment().await);
}

/// The reason for the health check.
#[tokio::test]
async fn sync_without_the_health_check_does_not_wait() {
    let mut example = Example::new("argocd-blind").await;
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "argocd-cm", "namespace": "argocd" },
        "data": {},
    });
    example.config = example.test.plane.workdir().file("argocd-cm.json");
    std::fs::write(&example.config, config.to_string()).unwrap();
    // There is no operator.
    example.sync(1).await.unwrap();
    assert!(example.has_deployment().await);
}

#[tokio::test]
async fn argocd_config_map_gets_the_health_check_and_keeps_the_rest() {
    let test = TestNamespace::new("argocd").await;
    let install = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "argocd-cm", "namespace": "argocd" },
        "data": { "url": "https://argocd.example.com" },
    });
    let mut expected = install["data"].clone();
    expected
        .as_object_mut()
        .unwrap()
        .extend(documents("argocd/argocd-cm.yaml")[0]["data"].as_object().unwrap().clone());
    test.apply(std::slice::from_ref(&install)).await;
    let patch = repository().join("deploy/argocd/argocd-cm.yaml").display().to_string();
    test.plane.kubectl(&["patch", "configmap", "argocd-cm", "-n", "argocd", "--patch-file", &patch]).await.unwrap();
    let patched = test.plane.kubectl(&["get", "configmap", "argocd-cm", "-n", "argocd", "-o", "json"]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&patched).unwrap()["data"], expected);

    // The same as a Kustomize component.
    let folder = test.plane.workdir().file("argocd");
    let copy = folder.join("component");
    std::fs::create_dir_all(&copy).unwrap();
    for file in ["kustomization.yaml", "argocd-cm.yaml"] {
        std::fs::copy(repository().join("deploy/argocd").join(file), copy.join(file)).unwrap();
    }
    std::fs::write(folder.join("install.yaml"), install.to_string()).unwrap();
    let kustomization = json!({ "resources": ["install.yaml"], "components": ["component"] });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let built = test.plane.kubectl(&["kustomize", &folder.display().to_string()]).await.unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(&built).unwrap()["data"], expected);
}
