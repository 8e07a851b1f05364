//! `protectSecrets` of the chart: what other clients can still do to a Secret that holds data keys, as a user with the
//! role `edit` and as a cluster admin.

use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    chart::{IMAGE, chart, helm},
    harness::{SOON, TestNamespace, restored, to_json},
};

/// The users who try to change Secrets: one with only the aggregated role `edit` in the namespace, and a cluster admin.
const USERS: [&[&str]; 2] = [&["--as=editor"], &[]];

struct Protected {
    test: TestNamespace,
}

// === impl Protected ===

impl Protected {
    /// A control plane with the policy, and a user `editor` in the test's namespace.
    async fn new(name: &str, values: &[&str]) -> Self {
        let test = TestNamespace::with_own_control_plane(name).await;
        let chart = chart();
        let render =
            ["template", "datakey-operator", &chart, "-n", "datakey-system", "--set", "protectSecrets.enabled=true"];
        let only = ["--show-only", "templates/protect-secrets.yaml"];
        let policy = helm(&test.plane, &[&render[..], &only, &IMAGE, values].concat()).await.unwrap();
        let file = test.plane.workdir().file("policy.yaml");
        std::fs::write(&file, policy).unwrap();
        test.plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
        let bind = ["create", "rolebinding", "editor", "-n", name, "--clusterrole=edit", "--user=editor"];
        test.plane.kubectl(&bind).await.unwrap();
        let probe = json!({ "metadata": { "name": "probe" }, "type": "datakey.dev/wrapped-key" });
        let protected = Self { test };
        eventually(SOON, "the policy is in force", async || {
            let tried = protected.create(&["--dry-run=server"], &probe).await;
            tried.is_err_and(|error| error.contains("only datakey-operator"))
        })
        .await;
        protected
    }

    /// Runs kubectl in the namespace.
    async fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.test.plane.kubectl(&[words, &["-n", &self.test.namespace]].concat()).await
    }

    async fn patch(&self, user: &[&str], name: &str, patch: &Value) -> Result<String, String> {
        let patch = patch.to_string();
        self.kubectl(&[&["patch", "secret", name, "--type=merge", "-p", &patch][..], user].concat()).await
    }

    async fn create(&self, user: &[&str], secret: &Value) -> Result<String, String> {
        let mut secret = secret.clone();
        (secret["apiVersion"], secret["kind"]) = ("v1".into(), "Secret".into());
        let file = self.test.plane.workdir().file(&format!("secret-{}.json", fastrand::u64(..)));
        std::fs::write(&file, secret.to_string()).unwrap();
        self.kubectl(&[&["create", "-f", &file.display().to_string()][..], user].concat()).await
    }

    async fn is_gone(&self, secret: &str) {
        eventually(SOON, "garbage collection works", async || {
            self.test.secrets().get_opt(secret).await.unwrap().is_none()
        })
        .await;
    }
}

/// A reference to an owner that does not exist: it makes the garbage collector delete the object.
fn owned_by_nothing(kind: &str, api_version: &str) -> Value {
    let uid = "00000000-1111-2222-3333-444444444444";
    json!([{ "apiVersion": api_version, "kind": kind, "name": "orders", "uid": uid }])
}

fn refused(result: Result<String, String>, words: &str) {
    let error = result.expect_err(words);
    assert!(error.contains(words), "expected: {words}\nbut: {error}");
}

#[tokio::test]
async fn protected_secrets_resist_editors_and_cluster_admins() {
    let protected = Protected::new("protected", &[]).await;
    let test = &protected.test;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    test.issue("owned", &json!({ "deletionPolicy": "Delete" })).await;
    let (before, data) = (test.secret("orders").await, test.data("orders").await);
    if test.plane.has_controllers() {
        eventually(SOON, "the editor has the aggregated role", async || {
            protected.kubectl(&["auth", "can-i", "patch", "secrets", "--as=editor"]).await.is_ok()
        })
        .await;
    }

    let (kept, owned) = (test.secret("orders").await, test.secret("owned").await);
    for user in USERS {
        refused(protected.kubectl(&[&["delete", "secret", "orders"], user].concat()).await, "Delete its object under");
        for patch in [
            json!({ "data": { "version": "eA==" } }),
            json!({ "data": { "more": "eA==" } }),
            json!({ "stringData": { "version": "x" } }),
            json!({ "data": null }),
            json!({ "immutable": true }),
        ] {
            refused(protected.patch(user, "orders", &patch).await, "change its data or make it immutable");
        }
        for owners in [
            owned_by_nothing("ConfigMap", "v1"),
            owned_by_nothing("DataKey", "datakey.dev/v1alpha1"),
            owned_by_nothing("Namespace", "v1"),
        ] {
            let patch = json!({ "metadata": { "ownerReferences": owners } });
            refused(protected.patch(user, "orders", &patch).await, "may be removed, not added or changed");
        }
        let mut reference = to_json(&owned.owner_references()[0]);
        reference["uid"] = json!("00000000-1111-2222-3333-444444444444");
        let patch = json!({ "metadata": { "ownerReferences": [reference] } });
        refused(protected.patch(user, "owned", &patch).await, "may be removed, not added or changed");
        for metadata in [
            json!({ "labels": { "datakey.dev/name": "other" } }),
            json!({ "labels": { "datakey.dev/name": null } }),
            json!({ "labels": { "datakey.dev/more": "x" } }),
            json!({ "labels": { "app.kubernetes.io/managed-by": "Helm" } }),
            json!({ "labels": null }),
            json!({ "annotations": { "datakey.dev/version": "2" } }),
            json!({ "annotations": { "datakey.dev/issued.v1": null } }),
            json!({ "annotations": { "datakey.dev/issued.v2": "{}" } }),
            json!({ "annotations": null }),
        ] {
            let patch = json!({ "metadata": metadata });
            refused(protected.patch(user, "orders", &patch).await, "they say which object it belongs to");
        }
        // Lookalikes: one that a new DataKey would adopt, and one without any label.
        let mut lookalike = to_json(&restored(&before));
        lookalike["metadata"]["name"] = json!("lookalike");
        lookalike["metadata"]["labels"]["datakey.dev/name"] = json!("lookalike");
        refused(protected.create(user, &lookalike).await, "pin them in spec.wrappedKeys");
        let bare = json!({ "metadata": { "name": "lookalike" }, "type": "datakey.dev/wrapped-key" });
        refused(protected.create(user, &bare).await, "pin them in spec.wrappedKeys");
        refused(protected.kubectl(&[&["delete", "secrets", "--all"], user].concat()).await, "Delete its object under");
    }
    let all = test.secrets().delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    assert!(all.is_err_and(|error| error.to_string().contains("only datakey-operator may")));
    assert_eq!((test.secret("orders").await, test.secret("owned").await), (kept, owned), "nothing was changed");

    // The operator may do all of it.
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    assert_eq!(test.data("orders").await["ciphertextBlob.v1"], data["ciphertextBlob"]);
    drop(operator);
}

#[tokio::test]
async fn protection_leaves_the_rest_of_a_secret_free() {
    let protected = Protected::new("protected-rest", &["--set", "protectSecrets.allowedUsers={backup}"]).await;
    let test = &protected.test;
    let operator = test.operator();
    for name in ["orders", "owned"] {
        test.issue(name, &json!({ "deletionPolicy": "Delete" })).await;
    }
    let data = test.data("orders").await;
    if test.plane.has_controllers() {
        eventually(SOON, "the editor has the aggregated role", async || {
            protected.kubectl(&["auth", "can-i", "patch", "secrets", "--as=editor"]).await.is_ok()
        })
        .await;
        for user in USERS {
            for metadata in [
                json!({ "labels": { "team": "shop", "app.kubernetes.io/part-of": "shop" } }),
                json!({ "annotations": { "example.com/note": "x" } }),
                json!({ "finalizers": ["example.com/hold"] }),
                json!({ "labels": { "team": null }, "annotations": { "example.com/note": null }, "finalizers": null }),
            ] {
                protected.patch(user, "orders", &json!({ "metadata": metadata })).await.unwrap();
            }
            // The policy ignores other Secrets, whatever their labels are.
            let other = json!({ "metadata": { "name": "other", "labels": { "datakey.dev/name": "orders" } } });
            protected.create(user, &other).await.unwrap();
            protected.patch(user, "other", &json!({ "stringData": { "a": "b" }, "immutable": true })).await.unwrap();
            protected.kubectl(&[&["delete", "secret", "other"], user].concat()).await.unwrap();
        }
    }
    assert_eq!(test.data("orders").await, data);
    drop(operator);

    // An owner reference may be taken away. Then nothing is owned.
    protected.patch(&[], "owned", &json!({ "metadata": { "ownerReferences": null } })).await.unwrap();
    assert!(test.secret("owned").await.owner_references().is_empty());

    // The users that the chart exempts may do everything.
    let bind = ["create", "rolebinding", "backup", "--clusterrole=edit", "--user=backup"];
    protected.kubectl(&bind).await.unwrap();
    if test.plane.has_controllers() {
        let copy = to_json(&restored(&test.secret("orders").await));
        eventually(SOON, "the backup tool deletes", async || {
            protected.kubectl(&["delete", "secret", "orders", "--as=backup"]).await.is_ok()
        })
        .await;
        protected.create(&["--as=backup"], &copy).await.unwrap();
        assert_eq!(test.data("orders").await, data);
    }
}

#[tokio::test]
async fn deletion_by_every_cascade_works_under_protection() {
    let protected = Protected::new("protected-cascades", &[]).await;
    let test = &protected.test;
    if !test.plane.has_controllers() {
        return;
    }
    let operator = test.operator();
    for name in ["background", "foreground", "orphan"] {
        test.issue(name, &json!({ "deletionPolicy": "Delete" })).await;
        assert_eq!(test.secret(name).await.owner_references().len(), 1);
    }
    test.issue("kept", &json!({})).await;
    let held = test.data("orphan").await;
    for name in ["background", "foreground", "orphan"] {
        let cascade = format!("--cascade={name}");
        protected.kubectl(&["delete", "datakey", name, &cascade, "--timeout=30s"]).await.unwrap();
    }
    protected.is_gone("background").await;
    protected.is_gone("foreground").await;
    assert_eq!(test.secret("orphan").await.owner_references(), []);
    assert_eq!(test.data("orphan").await, held);
    test.delete("kept").await;
    drop(operator);

    // The namespace can still be deleted with everything in it.
    assert_eq!(test.secrets().list(&ListParams::default()).await.unwrap().items.len(), 2);
    test.plane.kubectl(&["delete", "namespace", "protected-cascades", "--timeout=60s"]).await.unwrap();
}
