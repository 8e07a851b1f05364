//! `classes.usePolicy` of the chart: which users may name which class. Nothing is issued here.

use serde_json::{Value, json};
use testbed::{control_plane::OPERATOR, eventually};

use crate::{
    chart::{IMAGE, chart, helm},
    harness::{SOON, TestNamespace},
};

/// A user who may do everything with `DataKey`s, and may use the class `shop`.
const EDITOR: &str = "--as=editor";

/// What the policy says of a class.
fn refusal(class: &str) -> String {
    format!("you may not use the DataKeyClass {class}: set spec.className to a class that you may use")
}

struct Judged {
    test: TestNamespace,
}

// === impl Judged ===

impl Judged {
    /// A control plane with the policy of the chart with these values.
    async fn new(name: &str, values: &[&str]) -> Self {
        let test = TestNamespace::with_own_control_plane(name).await;
        let chart = chart();
        let render =
            ["template", "datakey-operator", &chart, "-n", "datakey-system", "--set", "classes.usePolicy.enabled=true"];
        let only = ["--show-only", "templates/use-classes.yaml"];
        let policy = helm(&test.plane, &[&render[..], &only, &IMAGE, values].concat()).await.unwrap();
        let file = test.plane.workdir().file("policy.yaml");
        std::fs::write(&file, policy).unwrap();
        test.plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
        let judged = Self { test };
        let keys = json!({ "apiGroups": ["datakey.dev"], "resources": ["datakeys"], "verbs": ["*"] });
        judged.role("edit-data-keys", &keys).await;
        judged.grant("rolebinding", "edit-data-keys").await;
        judged.may_use("shop").await;
        judged.grant("clusterrolebinding", "use-shop").await;
        eventually(SOON, "the editor has both rights", async || {
            judged.create(EDITOR, "probe", &named("shop"), true).await.is_ok()
        })
        .await;
        eventually(SOON, "the policy is in force", async || {
            judged
                .create(EDITOR, "probe", &named("bank"), true)
                .await
                .is_err_and(|error| error.contains(&refusal("bank")))
        })
        .await;
        judged
    }

    async fn role(&self, name: &str, allowed: &Value) {
        let rbac = "rbac.authorization.k8s.io/v1";
        let role =
            json!({ "apiVersion": rbac, "kind": "ClusterRole", "metadata": { "name": name }, "rules": [allowed] });
        self.test.apply(&[role]).await;
    }

    /// A cluster role with the right to use a class.
    async fn may_use(&self, class: &str) {
        let rule = json!({
            "apiGroups": ["datakey.dev"], "resources": ["datakeyclasses"], "resourceNames": [class], "verbs": ["use"],
        });
        self.role(&format!("use-{class}"), &rule).await;
    }

    /// Gives the editor a role, by a binding of this kind.
    async fn grant(&self, kind: &str, role: &str) {
        self.kubectl(&["create", kind, role, &format!("--clusterrole={role}"), "--user=editor"]).await.unwrap();
    }

    /// Runs kubectl in the namespace.
    async fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.test.plane.kubectl(&[words, &["-n", &self.test.namespace]].concat()).await
    }

    /// A `DataKey`. The class names the KMS key, if there is one.
    fn manifest(&self, name: &str, spec: &Value) -> Value {
        let mut manifest = self.test.manifest(name, spec);
        if spec["className"].is_string() {
            manifest["spec"].as_object_mut().unwrap().remove("keyId");
        }
        manifest
    }

    async fn create(&self, user: &str, name: &str, spec: &Value, is_tried: bool) -> Result<String, String> {
        let manifest = self.manifest(name, spec);
        let file = self.test.plane.workdir().file(&format!("key-{}.json", fastrand::u64(..)));
        std::fs::write(&file, manifest.to_string()).unwrap();
        let file = file.display().to_string();
        let create = ["create", "-f", &file, user, if is_tried { "--dry-run=server" } else { "--dry-run=none" }];
        self.kubectl(&create).await
    }

    async fn patch(&self, user: &str, name: &str, patch: &Value) -> Result<String, String> {
        self.kubectl(&["patch", "datakey", name, "--type=merge", "-p", &patch.to_string(), user]).await
    }
}

/// The spec of a `DataKey` of a class.
fn named(class: &str) -> Value {
    json!({ "className": class })
}

fn refused(result: Result<String, String>, class: &str) {
    let error = result.expect_err(class);
    assert!(error.contains(&refusal(class)) && error.contains("Forbidden"), "{error}");
}

#[tokio::test]
async fn users_name_only_classes_that_they_may_use() {
    let judged = Judged::new("use-classes", &[]).await;
    judged.create(EDITOR, "carts", &named("shop"), false).await.unwrap();
    refused(judged.create(EDITOR, "accounts", &named("bank"), false).await, "bank");
    judged.create(EDITOR, "free", &json!({}), false).await.unwrap();
    refused(judged.patch(EDITOR, "free", &json!({ "spec": named("bank") })).await, "bank");
    judged.patch(EDITOR, "free", &json!({ "spec": named("shop") })).await.unwrap();
    judged.patch(EDITOR, "free", &json!({ "spec": { "className": null } })).await.unwrap();

    // A binding in the namespace is not enough: a class is in none.
    judged.may_use("bank").await;
    judged.grant("rolebinding", "use-bank").await;
    refused(judged.create(EDITOR, "accounts", &named("bank"), false).await, "bank");

    // A cluster admin has every right.
    judged.test.apply(&[judged.manifest("accounts", &named("bank"))]).await;

    // What changes no spec is free, for all of these: metadata, finalizers, status, deletion.
    let metadata = json!({ "labels": { "team": "shop" }, "finalizers": ["example.com/hold"] });
    judged.patch(EDITOR, "accounts", &json!({ "metadata": metadata })).await.unwrap();
    refused(judged.patch(EDITOR, "accounts", &json!({ "spec": { "version": 2 } })).await, "bank");
    judged.patch(EDITOR, "accounts", &json!({ "spec": named("shop") })).await.unwrap();
    judged.patch(EDITOR, "accounts", &json!({ "metadata": { "finalizers": null } })).await.unwrap();
    judged.kubectl(&["delete", "datakey", "accounts", EDITOR]).await.unwrap();
}

#[tokio::test]
async fn operator_writes_the_status_under_the_use_policy() {
    let judged = Judged::new("use-status", &["--set", "classes.required=true"]).await;
    judged.test.apply(&[judged.manifest("accounts", &named("bank"))]).await;
    let stored = judged.kubectl(&["get", "datakey", "accounts", "-o", "json"]).await.unwrap();
    let mut stored: Value = serde_json::from_str(&stored).unwrap();
    stored["status"]["observedGeneration"] = json!(1);
    let file = judged.test.plane.workdir().file("status.json");
    std::fs::write(&file, stored.to_string()).unwrap();
    let user = format!("--as=system:serviceaccount:{}:{}", OPERATOR.0, OPERATOR.1);
    let replace = ["replace", "--subresource=status", "-f", &file.display().to_string(), &user];
    judged.kubectl(&replace).await.unwrap();
    let written = judged.kubectl(&["get", "datakey", "accounts", "-o", "jsonpath={.status.observedGeneration}"]).await;
    assert_eq!(written.unwrap(), "1");
}

#[tokio::test]
async fn required_classes_need_the_right_to_use_the_default() {
    let judged = Judged::new("use-default", &["--set", "classes.required=true"]).await;
    refused(judged.create(EDITOR, "free", &json!({}), false).await, "default");
    judged.create(EDITOR, "carts", &named("shop"), false).await.unwrap();
    refused(
        judged.patch(EDITOR, "carts", &json!({ "spec": { "className": null, "keyId": "alias/shop" } })).await,
        "default",
    );
    judged.may_use("default").await;
    judged.grant("clusterrolebinding", "use-default").await;
    eventually(SOON, "the editor may use the class", async || {
        judged.create(EDITOR, "free", &json!({}), true).await.is_ok()
    })
    .await;
    judged.create(EDITOR, "free", &json!({}), false).await.unwrap();
}
