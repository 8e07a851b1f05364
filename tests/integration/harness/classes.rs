//! Classes of a test: each has the name of the namespace, because classes are of the whole cluster.

use datakey::api::{ACCEPTED, DataKeyClass, ROLE_ASSUMED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::eventually;

use super::{SOON, TestKind, TestNamespace};

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// The API for classes, as a cluster admin.
    pub fn classes(&self) -> Api<DataKeyClass> {
        Api::all(self.client.clone())
    }

    /// The spec of a class that admits this namespace and its KMS key, with these fields.
    pub fn class_spec(&self, fields: &Value) -> Value {
        let mut spec = json!({
            "namespaces": [self.namespace],
            "allow": [{ "keyIds": [self.alias()], "keyArns": [self.key.arn] }],
        });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    }

    /// Creates or replaces the class of this namespace.
    pub async fn class(&self, fields: &Value) -> DataKeyClass {
        self.class_of_name(&self.namespace, fields).await
    }

    /// The same with another name.
    pub async fn class_of_name(&self, name: &str, fields: &Value) -> DataKeyClass {
        let class = json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": "DataKeyClass",
            "metadata": { "name": name },
            "spec": self.class_spec(fields),
        });
        let params = PatchParams::apply("platform-team").force();
        self.classes().patch(name, &params, &Patch::Apply(class)).await.unwrap()
    }

    /// Deletes the class of this namespace.
    pub async fn delete_class(&self) {
        self.classes().delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the class has this status of `Accepted` and this number of objects, and returns the message of the condition.
    pub async fn class_is(&self, name: &str, accepted: &str, in_use: i64) -> String {
        let mut message = String::new();
        eventually(SOON, "the class has this status", async || {
            let status = self.classes().get(name).await.unwrap().status.unwrap_or_default();
            let found = status.conditions.iter().flatten().find(|condition| condition.type_ == ACCEPTED).cloned();
            message = found.as_ref().map(|found| found.message.clone()).unwrap_or_default();
            found.is_some_and(|found| found.status == accepted) && status.in_use == Some(in_use)
        })
        .await;
        message
    }

    /// The condition `RoleAssumed` of the class of this namespace, if it is about the class as it is now.
    pub async fn role_assumed(&self) -> Option<Condition> {
        let class = self.classes().get(&self.namespace).await.unwrap();
        let mut conditions = class.status.unwrap_or_default().conditions.into_iter().flatten();
        let is_current = |found: &Condition| found.observed_generation == class.metadata.generation;
        conditions.find(|condition| condition.type_ == ROLE_ASSUMED && is_current(condition))
    }

    /// Waits until the condition `RoleAssumed` of the class of this namespace has this status, and returns its message.
    pub async fn role_becomes_assumed(&self, status: &str) -> String {
        let mut found = None;
        eventually(SOON, &format!("RoleAssumed is {status}"), async || {
            found = self.role_assumed().await;
            found.as_ref().is_some_and(|found| found.status == status)
        })
        .await;
        found.unwrap().message
    }
}
