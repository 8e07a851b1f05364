//! Flux, with the manifests of `deploy/flux`.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use datakey::api::{DataKey, DataKeyPair};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::{
    control_plane::{ControlPlane, deployment_runs},
    eventually,
    flux::{self, Flux, Repository},
    kms::KmsServer,
    proxy::{Fault, KmsProxy},
    repository,
};
use tokio::sync::OnceCell;

use crate::{
    documents,
    harness::{Operator, TestKind, TestNamespace, text, to_json},
};

/// Longest wait for a run of Flux, which polls every five seconds.
const A_RUN: Duration = Duration::from_mins(2);

/// A Kustomization of Flux.
struct Kustomization {
    api: Api<DynamicObject>,
    name: &'static str,
    log: PathBuf,
}

/// A team's repository, and the Kustomization of it in the namespace of a test.
struct Team<K: TestKind = DataKey> {
    test: TestNamespace<K>,
    repository: Repository,
    keys: Kustomization,
}

/// The controller on the shared control plane.
async fn shared(plane: &ControlPlane) {
    static FLUX: OnceCell<Flux> = OnceCell::const_new();
    FLUX.get_or_init(|| Flux::start(plane)).await;
}

// === impl Kustomization ===

impl Kustomization {
    async fn new(plane: &ControlPlane, namespace: &str, name: &'static str) -> Self {
        let kind = GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
        let resource = ApiResource::from_gvk_with_plural(&kind, "kustomizations");
        let api = Api::namespaced_with(plane.admin().await, namespace, &resource);
        Self { api, name, log: flux::log_file(plane) }
    }

    /// Waits until its status meets a predicate. Returns its condition `Ready`.
    async fn until(&self, what: &str, is_so: impl Fn(&Value, &Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waited = tokio::time::timeout(A_RUN, async {
            loop {
                let status = self.api.get(self.name).await.unwrap().data["status"].take();
                let ready = ready(&status);
                if is_so(&status, &ready) {
                    return ready;
                }
                last = status;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        waited.await.unwrap_or_else(|_| {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let lines: Vec<_> = log.lines().collect();
            let log = lines[lines.len().saturating_sub(20)..].join("\n");
            panic!("{} is not {what} within {A_RUN:?} but {last:#}\n{log}", self.name)
        })
    }

    /// Waits until it is ready with a revision.
    async fn ready(&self, revision: &str) {
        let is_ready =
            |status: &Value, ready: &Value| status["lastAppliedRevision"] == revision && ready["status"] == "True";
        self.until("ready", is_ready).await;
    }

    /// Waits until a revision has failed. Returns the message.
    async fn failed(&self, revision: &str, reason: &str) -> String {
        let has_failed = |status: &Value, ready: &Value| {
            status["lastAttemptedRevision"] == revision && ready["status"] == "False" && ready["reason"] == reason
        };
        self.until(reason, has_failed).await["message"].as_str().unwrap().to_owned()
    }

    /// Waits until it reports that it waits for another Kustomization.
    async fn waits_for_another(&self) {
        self.until("waiting for another", |_, ready| ready["reason"] == "DependencyNotReady").await;
    }

    /// Requests another run, and waits until it is ready.
    async fn again(&self) {
        let token = fastrand::u64(..).to_string();
        let patch = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": token } } });
        self.api.patch(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let is_done =
            |status: &Value, ready: &Value| status["lastHandledReconcileAt"] == token && ready["status"] == "True";
        self.until("ready again", is_done).await;
    }

    async fn delete(&self) {
        self.api.delete(self.name, &DeleteParams::default()).await.unwrap();
        eventually(A_RUN, "the Kustomization is gone", async || self.api.get_opt(self.name).await.unwrap().is_none())
            .await;
    }
}

fn ready(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default()
}

// === impl Team ===

impl Team {
    /// A team with the data keys of `deploy/flux/shop.yaml`. Flux tries each revision once.
    async fn new(name: &str) -> Self {
        Self::of(TestNamespace::new(name).await).await
    }
}

impl<K: TestKind> Team<K> {
    async fn of(test: TestNamespace<K>) -> Self {
        let name = test.namespace.as_str();
        shared(&test.plane).await;
        let mut manifests = documents("flux/shop.yaml");
        manifests.retain(|manifest| manifest["kind"] == "GitRepository" || manifest["metadata"]["name"] == "shop-keys");
        assert_eq!(manifests.len(), 2);
        for manifest in &mut manifests {
            manifest["metadata"]["namespace"] = name.into();
        }
        let spec = manifests[1]["spec"].as_object_mut().unwrap();
        spec.remove("dependsOn");
        spec.insert("retryInterval".to_owned(), "1h".into());
        test.apply(&manifests).await;
        let repository = Repository::new(&test.plane, name).await;
        let keys = Kustomization::new(&test.plane, name, "shop-keys").await;
        Self { test, repository, keys }
    }

    fn write(&self, name: &str, spec: &Value) {
        self.repository.write(&format!("keys/{name}.yaml"), &self.test.manifest(name, spec).to_string());
    }

    /// Commits and publishes what was written. Returns the revision.
    async fn push(&self, subject: &str) -> String {
        self.repository.commit(subject).await;
        self.publish().await
    }

    /// Reverts the last commit and publishes. Returns the revision.
    async fn revert(&self) -> String {
        self.repository.revert().await;
        self.publish().await
    }

    async fn publish(&self) -> String {
        self.repository.publish(&self.test.client, &self.test.namespace, "shop").await
    }
}

#[tokio::test]
async fn operator_data_keys_and_workloads_are_applied_in_order() {
    let plane = ControlPlane::bare().await;
    let _flux = Flux::start(&plane).await;
    let client = plane.admin().await;
    let kms = KmsServer::start(plane.workdir()).await;
    kms.key_with_alias("orders").await;
    let proxy = KmsProxy::start(kms.address()).await;
    proxy.fail_always(Fault::code("ThrottlingException"));

    let deploy = repository().join("deploy");
    let copy = |to: &Repository, file: &str, path: &str| {
        to.write(path, &std::fs::read_to_string(deploy.join(file)).unwrap());
    };
    let platform = Repository::new(&plane, "platform").await;
    for file in ["kustomization.yaml", "namespace.yaml", "crd.yaml", "operator.yaml"] {
        copy(&platform, file, &format!("deploy/{file}"));
    }
    platform.commit("Install the operator").await;
    let team = Repository::new(&plane, "shop").await;
    for file in ["keys/orders.yaml", "app/orders.yaml"] {
        copy(&team, &format!("gitops/{file}"), file);
    }
    team.commit("Run orders").await;
    for file in ["operator.yaml", "shop.yaml"] {
        plane.kubectl(&["apply", "-f", &deploy.join("flux").join(file).display().to_string()]).await.unwrap();
    }
    let of = async |name| Kustomization::new(&plane, "flux-system", name).await;
    let (operator, keys, app) = (of("datakey-operator").await, of("shop-keys").await, of("shop").await);
    let team_revision = team.publish(&client, "flux-system", "shop").await;
    let revision = platform.publish(&client, "flux-system", "datakey-operator").await;

    // The operator is applied, and does not run yet.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "datakey-system");
    let name = "datakey-operator";
    eventually(A_RUN, "the operator is applied", async || deployments.get_opt(name).await.unwrap().is_some()).await;
    let image =
        to_json(&deployments.get(name).await.unwrap())["spec"]["template"]["spec"]["containers"][0]["image"].take();
    assert_eq!(image, "registry.example.com/datakey-operator:0.1.0");
    keys.waits_for_another().await;
    app.waits_for_another().await;

    // The operator runs. Without nodes no controller says so in the Deployment's status.
    let process = Operator::as_deployed(&plane, name, "datakey-system", &proxy.url()).await;
    process.is_ready().await;
    let deployment = deployments.get(name).await.unwrap();
    let replicas = deployment.spec.as_ref().unwrap().replicas;
    let status = deployment_runs(&json!(deployment.metadata.generation), &json!(replicas));
    deployments.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    operator.ready(&revision).await;

    // The data key is not issued while KMS throttles.
    eventually(A_RUN, "KMS was asked and asked again", async || proxy.calls() > 2).await;
    let shop: Api<Deployment> = Api::namespaced(client.clone(), "shop");
    assert!(shop.get_opt("orders").await.unwrap().is_none());
    keys.until("waiting", |_, ready| ready["status"] == "Unknown").await;
    app.waits_for_another().await;
    proxy.clear_faults();
    keys.ready(&team_revision).await;
    app.ready(&team_revision).await;

    let data_keys: Api<DataKey> = Api::namespaced(client.clone(), "shop");
    let key = data_keys.get("orders").await.unwrap();
    let since = datakey::condition::find(&key, "Ready").unwrap().last_transition_time.0;
    let created = shop.get("orders").await.unwrap().metadata.creation_timestamp.unwrap().0;
    assert!(since <= created, "the key is ready at {since}, and the workload created at {created}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
    let data = secrets.get("orders").await.unwrap().data.unwrap();

    // The definition outlives the Kustomization of the operator, the Secret that of the keys.
    operator.delete().await;
    assert!(deployments.get_opt(name).await.unwrap().is_none_or(|left| left.metadata.deletion_timestamp.is_some()));
    assert_eq!(data_keys.get("orders").await.unwrap().metadata.uid, key.metadata.uid);
    keys.delete().await;
    eventually(A_RUN, "the DataKey is gone", async || data_keys.get_opt("orders").await.unwrap().is_none()).await;
    assert_eq!(secrets.get("orders").await.unwrap().data.unwrap(), data);
}

#[tokio::test]
async fn stalled_data_key_fails_the_kustomization_before_its_timeout() {
    let team = Team::new("flux-fails").await;
    let test = &team.test;
    let _operator = test.operator();
    let stalled = "failed early due to stalled resources";

    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    team.write("denied", &json!({}));
    let revision = team.push("Add a key that the operator may not use").await;
    let message = team.keys.failed(&revision, "HealthCheckFailed").await;
    assert!(message.contains(stalled) && message.contains("denied"), "{message}");
    test.proxy.clear_faults();
    test.ready("denied").await;
    team.keys.again().await;

    let key = test.kms.key().await;
    test.kms.client().disable_key().key_id(&key.id).send().await.unwrap();
    team.write("disabled", &json!({ "keyId": key.arn }));
    let revision = team.push("Add a key that is disabled").await;
    let message = team.keys.failed(&revision, "HealthCheckFailed").await;
    assert!(message.contains(stalled) && message.contains("disabled"), "{message}");

    // The failure of the earlier spec does not fail the corrected one.
    team.write("disabled", &json!({}));
    let revision = team.push("Name another key").await;
    team.keys.ready(&revision).await;
    assert_eq!(text(&test.data("disabled").await, "keyId"), test.key.arn);
}

#[tokio::test]
async fn refused_data_key_fails_the_kustomization_before_any_change() {
    let team = Team::new("flux-refused").await;
    let test = &team.test;
    let _operator = test.operator();
    team.write("good", &json!({}));
    let revision = team.push("Add a key").await;
    team.keys.ready(&revision).await;

    team.write("good", &json!({ "encryptionContext": { "purpose": "orders" } }));
    let revision = team.push("Change what is issued").await;
    let message = team.keys.failed(&revision, "ReconciliationFailed").await;
    assert!(message.contains("this version's data key is issued"), "{message}");
    let revision = team.revert().await;
    team.keys.ready(&revision).await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn a_pruned_data_key_leaves_its_secret_and_comes_back_to_it() {
    let team = Team::new("flux-prunes").await;
    let test = &team.test;
    let _operator = test.operator();
    team.write("orders", &json!({ "encryptionContext": { "purpose": "orders" } }));
    team.write("invoices", &json!({}));
    let revision = team.push("Add two keys").await;
    team.keys.ready(&revision).await;
    let (key, secret) = (test.get("orders").await, test.secret("orders").await);

    team.repository.remove("keys/orders.yaml");
    let revision = team.push("Remove one").await;
    team.keys.ready(&revision).await;
    assert!(test.keys().get_opt("orders").await.unwrap().is_none());
    assert_eq!(test.secret("orders").await, secret);

    let revision = team.revert().await;
    team.keys.ready(&revision).await;
    let again = test.get("orders").await;
    assert_ne!(again.metadata.uid, key.metadata.uid);
    assert_eq!(again.record(), key.record());
    assert_eq!(test.secret("orders").await.data, secret.data);
    assert_eq!(test.proxy.calls(), 2, "one for each data key");
}

#[tokio::test]
async fn a_version_is_raised_and_reverted_in_git() {
    is_raised_and_reverted(TestNamespace::new("flux-versions").await).await;
}

#[tokio::test]
async fn a_version_of_a_pair_is_raised_and_reverted_in_git() {
    is_raised_and_reverted(TestNamespace::new("flux-pair-versions").await.of_kind::<DataKeyPair>()).await;
}

async fn is_raised_and_reverted<K: TestKind>(test: TestNamespace<K>) {
    let team = Team::of(test).await;
    let test = &team.test;
    let _operator = test.operator();
    team.write("orders", &json!({}));
    let revision = team.push("Add a key").await;
    team.keys.ready(&revision).await;
    let first = test.data("orders").await;

    team.write("orders", &json!({ "version": 2, "encryptionContext": { "purpose": "orders" } }));
    let revision = team.push("Rotate it").await;
    team.keys.ready(&revision).await;
    // Without another wait: it is ready for this revision.
    let second = test.data("orders").await;
    assert_eq!((text(&first, "version"), text(&second, "version")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(second["ciphertextBlob.v1"], first["ciphertextBlob"]);

    let revision = team.revert().await;
    team.keys.ready(&revision).await;
    let back = test.data("orders").await;
    assert_eq!(back["ciphertextBlob"], first["ciphertextBlob"]);
    assert_eq!(back["ciphertextBlob.v2"], second["ciphertextBlob"]);

    let revision = team.revert().await;
    team.keys.ready(&revision).await;
    assert_eq!(test.data("orders").await, second);
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn flux_and_the_operator_share_no_field_and_stop_writing() {
    let team = Team::new("flux-rests").await;
    let test = &team.test;
    let _operator = test.operator_with(&["--resync=100ms"], &[]);
    team.write("orders", &json!({ "encryptionContext": { "purpose": "orders" }, "deletionPolicy": "Delete" }));
    let revision = team.push("Add a key").await;
    team.keys.ready(&revision).await;

    let key = test.get("orders").await;
    let managers = key.metadata.managed_fields.clone().unwrap();
    let owns = |manager: &str| -> BTreeSet<String> {
        let own = managers.iter().filter(|entry| entry.manager.as_deref() == Some(manager));
        own.flat_map(|entry| entry.fields_v1.as_ref().unwrap().0.as_object().unwrap().keys().cloned()).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(owns("kustomize-controller"), set(&["f:metadata", "f:spec"]));
    assert_eq!(owns("datakey-operator"), set(&["f:status"]));
    assert_eq!(managers.len(), 2);

    let versions =
        async || (test.get("orders").await.resource_version(), test.secret("orders").await.resource_version());
    let before = versions().await;
    for _ in 0..3 {
        team.keys.again().await;
    }
    test.barrier().await;
    assert_eq!(versions().await, before);

    // A version that was raised with kubectl goes back to what Git says, and no data key is lost.
    let raise = ["patch", "datakey/orders", "-n", "flux-rests", "--type=merge", "-p", r#"{"spec":{"version":2}}"#];
    test.plane.kubectl(&raise).await.unwrap();
    test.ready("orders").await;
    let raised = test.data("orders").await;
    team.keys.again().await;
    let key = test.ready("orders").await;
    assert_eq!(key.wanted_version(), 1);
    let back = test.data("orders").await;
    assert_eq!(back["ciphertextBlob.v2"], raised["ciphertextBlob"]);
    assert_eq!(text(&back, "version"), "1");
}
