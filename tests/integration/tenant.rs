//! What a user who holds only the aggregated role `edit` in a namespace, or an ordinary admission policy, can do to a data
//! key: never lose it, replace it or stop it. A file for each kind of attack; each attack also while no operator runs.

mod blocked;
mod changed;
mod deletion;
mod gone;
mod replaced;
mod retries;
mod taken_over;
mod undecodable;

use std::path::PathBuf;

use datakey::api::DataKey;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::{commands, control_plane::client_from, eventually};

use crate::harness::{SOON, TestKind, TestNamespace};

/// A user with the role `edit`.
struct Tenant<K: TestKind = DataKey> {
    kubeconfig: PathBuf,
    secrets: Api<Secret>,
    keys: Api<K>,
}

// === impl Tenant ===

impl<K: TestKind> Tenant<K> {
    /// Creates the user. `None` where no controller aggregates the role.
    async fn of(test: &TestNamespace<K>) -> Option<Self> {
        if !test.plane.has_controllers() {
            return None;
        }
        let (namespace, account) = (test.namespace.as_str(), format!("tenant-{}", test.namespace));
        let subject = format!("--serviceaccount={namespace}:{account}");
        for command in [
            vec!["create", "serviceaccount", &account, "-n", namespace],
            vec!["create", "rolebinding", "tenant", "-n", namespace, "--clusterrole=edit", &subject],
        ] {
            test.plane.kubectl(&command).await.unwrap();
        }
        let kubeconfig = test.plane.kubeconfig_of(namespace, &account).await;
        let client = client_from(&kubeconfig).await;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        eventually(SOON, "the tenant may list Secrets", async || secrets.list(&<_>::default()).await.is_ok()).await;
        Some(Self { kubeconfig, secrets, keys: Api::namespaced(client, namespace) })
    }

    /// Runs kubectl as the tenant.
    async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        commands::kubectl(&self.kubeconfig, arguments).await
    }

    /// Changes a Secret under a field manager of the tenant's choice.
    async fn try_change(&self, name: &str, manager: &str, patch: &Value) -> kube::Result<Secret> {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.secrets.patch(name, &params, &Patch::Merge(patch)).await
    }

    async fn change(&self, name: &str, patch: &Value) -> Secret {
        self.try_change(name, "kubectl-edit", patch).await.unwrap()
    }
}

/// Attacks a ready object, and checks; once while the operator runs, and once while it is stopped.
async fn withstands<K: TestKind>(test: &TestNamespace<K>, attack: impl AsyncFn(&str), check: impl AsyncFn(&str)) {
    for (name, stopped) in [("running", false), ("stopped", true)] {
        let mut operator = Some(test.operator());
        test.issue(name, &json!({ "encryptionContext": { "a": "b" } })).await;
        let calls = test.proxy.calls();
        if stopped {
            operator = None;
        }
        attack(name).await;
        let _operator = operator.take().unwrap_or_else(|| test.operator());
        check(name).await;
        assert_eq!(test.proxy.calls(), calls, "{name}: KMS is not asked");
    }
}

/// Installs an admission policy that mutates every Secret of the namespace, and waits until it works.
async fn mutate_secrets(test: &TestNamespace, expression: &str) {
    let group = format!("admissionregistration.k8s.io/{}", test.plane.release().mutating_policies());
    let policy = json!({
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicy",
        "metadata": { "name": test.namespace },
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": test.namespace } },
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"],
                }],
            },
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } }],
        },
    });
    let binding = json!({
        "apiVersion": group,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": { "name": test.namespace },
        "spec": { "policyName": test.namespace },
    });
    test.apply(&[policy, binding]).await;
    let probe: Secret =
        serde_json::from_value(json!({ "metadata": { "name": "probe" }, "data": { "ciphertextBlob": "" } })).unwrap();
    let dry = kube::api::PostParams { dry_run: true, ..<_>::default() };
    eventually(SOON, "the policy works", async || {
        let stored = test.secrets().create(&dry, &probe).await.unwrap();
        (stored.data, stored.metadata.labels, stored.immutable)
            != (probe.data.clone(), probe.metadata.labels.clone(), None)
    })
    .await;
}
