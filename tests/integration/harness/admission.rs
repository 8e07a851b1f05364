//! An admission policy that refuses Secrets: a failure that a user of the cluster causes and ends.

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;
use testbed::eventually;

use super::{SOON, TestKind, TestNamespace};

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// Has an admission policy refuse new Secrets in the namespace.
    pub async fn refuse_secrets(&self) {
        self.refuse_secrets_with("secrets need a ticket").await;
    }

    /// The same with this message.
    pub async fn refuse_secrets_with(&self, message: &str) {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": self.namespace },
            "spec": {
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"],
                }]},
                "validations": [{ "expression": "false", "message": message }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": self.namespace },
            "spec": {
                "policyName": self.namespace,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": { "matchLabels": {
                    "kubernetes.io/metadata.name": self.namespace,
                }}},
            },
        });
        self.apply(&[policy, binding]).await;
        let probe: Secret = serde_json::from_value(json!({ "metadata": { "name": "probe" } })).unwrap();
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let is_refused = async || self.secrets().create(&dry, &probe).await.is_err();
        eventually(SOON, "the policy works", is_refused).await;
    }

    /// Removes the admission policy.
    pub async fn accept_secrets(&self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            self.plane.kubectl(&["delete", kind, &self.namespace]).await.unwrap();
        }
    }
}
