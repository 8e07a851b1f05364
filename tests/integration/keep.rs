//! `kubectl datakey keep`: from `deletionPolicy: Delete` to `Retain`, with the same Secret and without a KMS call.

use std::path::PathBuf;

use datakey::api::{DataKey, DeletionPolicy};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use testbed::{
    api_proxy::{ApiProxy, Fault},
    eventually,
};

use crate::{
    harness::{SOON, TestNamespace, to_json},
    plugin::{User, text},
};

/// The file that `keep` saves to, and the flag that names it.
fn keep_file(test: &TestNamespace, name: &str) -> (PathBuf, String) {
    let file = test.plane.workdir().file(&format!("{}-{name}.yaml", test.namespace));
    (file.clone(), format!("--to={}", file.display()))
}

/// Issues a `DataKey` under `Delete` with two versions.
async fn issue_two_versions(test: &TestNamespace, name: &str) -> DataKey {
    test.issue(name, &json!({ "deletionPolicy": "Delete", "encryptionContext": { "purpose": "orders" } })).await;
    test.patch(name, &json!({ "spec": { "version": 2 } })).await;
    let key = test.ready(name).await;
    assert_eq!(test.secret(name).await.owner_references().len(), 1);
    key
}

/// Asserts that a `DataKey` is under `Retain` with the record, the Secret and the bytes that were there before.
async fn assert_kept(test: &TestNamespace, before: &DataKey, secret_before: &k8s_openapi::api::core::v1::Secret) {
    let name = before.name_any();
    let key = test.get(&name).await;
    assert_ne!(key.uid(), before.uid());
    assert_eq!((key.spec.deletion_policy(), key.record()), (DeletionPolicy::Retain, before.record()));
    assert_eq!(to_json(&key)["spec"]["wrappedKeys"], to_json(&before)["status"]["versions"]);
    let secret = test.secret(&name).await;
    assert_eq!((secret.uid(), &secret.data), (secret_before.uid(), &secret_before.data));
    assert!(secret.owner_references().is_empty());
}

/// A proxy before the API server, and the kubeconfig of a user whose requests pass through it.
async fn through_a_proxy(test: &TestNamespace) -> (ApiProxy, String) {
    let kubeconfig = test.kubeconfig_with_role("cluster-admin").await;
    let proxy = ApiProxy::start(&kubeconfig).await;
    let kubeconfig = proxy.kubeconfig(&kubeconfig).display().to_string();
    (proxy, kubeconfig)
}

#[tokio::test]
async fn keep_changes_the_policy_and_nothing_else_without_a_call() {
    let test = TestNamespace::new("keep").await;
    if !test.plane.has_controllers() {
        // The garbage collector carries out the orphaning.
        return;
    }
    let _operator = test.operator();
    issue_two_versions(&test, "orders").await;
    let metadata = json!({
        "labels": { "team": "shop" },
        "annotations": { "argocd.argoproj.io/tracking-id": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
    });
    let before = test.patch("orders", &json!({ "metadata": metadata })).await;
    let (secret, calls) = (test.secret("orders").await, test.proxy.calls());
    let user = User::of(&test);
    let (file, to) = keep_file(&test, "orders");

    let dry = user.ends(0, &["keep", "orders", "--dry-run"]).await;
    let manifest: Value = serde_saphyr::from_str(&text(&dry)).unwrap();
    let no = user.ends(1, &["keep", "orders", &to]).await;
    assert!(no.err.contains("Do you want to continue? (y/n): \nkubectl datakey: nothing was done"), "{no:?}");
    assert!(!file.exists());
    assert_eq!(test.get("orders").await.resource_version(), before.resource_version());

    let kept = user.ends(0, &["keep", "orders", "--yes", &to]).await;
    assert!(text(&kept).contains("Secret orders holds its 2 data keys as before"), "{kept:?}");
    assert!(kept.err.contains("Argo CD applies this DataKey") && kept.err.contains("commit it"), "{kept:?}");
    assert_kept(&test, &before, &secret).await;
    let saved: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(saved, manifest);
    let after = test.get("orders").await;
    assert_eq!(after.labels(), before.labels());
    assert_eq!(after.annotations().keys().collect::<Vec<_>>(), ["argocd.argoproj.io/tracking-id"]);
    assert!(
        text(&user.ends(0, &["keep", "orders", "--yes", &to]).await).contains("its 2 data keys as before"),
        "again with the file"
    );
    let (_, elsewhere) = keep_file(&test, "elsewhere");
    assert!(text(&user.ends(0, &["keep", "orders", &elsewhere]).await).contains("Retain already"));
    assert_eq!(test.proxy.calls(), calls);

    // The purpose of `keep`: the Secret outlives the DataKey.
    test.delete("orders").await;
    test.barrier().await;
    assert_eq!(test.secret("orders").await.uid(), secret.uid());
}

#[tokio::test]
async fn keep_resumes_after_an_interruption() {
    let test = TestNamespace::new("keep-interrupted").await;
    if !test.plane.has_controllers() {
        return;
    }
    let _operator = test.operator();
    let (proxy, kubeconfig) = through_a_proxy(&test).await;
    let user = User::of(&test).with("KUBECONFIG", &kubeconfig);
    for name in ["again", "create", "held", "gone"] {
        let before = issue_two_versions(&test, name).await;
        let (secret, calls) = (test.secret(name).await, test.proxy.calls());
        let (file, to) = keep_file(&test, name);
        if name == "held" {
            // A finalizer delays the deletion beyond the timeout.
            test.patch(name, &json!({ "metadata": { "finalizers": ["example.com/hold"] } })).await;
            let held = user.ends(2, &["keep", name, "--yes", &to, "--timeout=1s"]).await;
            assert!(
                held.err.contains("example.com/hold") && held.err.contains("run the same command again"),
                "{held:?}"
            );
            let (_, elsewhere) = keep_file(&test, "elsewhere");
            let refused = user.ends(2, &["keep", name, "--yes", &elsewhere]).await;
            assert!(refused.err.contains("is being deleted, and nothing was done"), "{refused:?}");
            eventually(SOON, "garbage collection has orphaned the Secret", async || {
                test.get(name).await.finalizers() == ["example.com/hold"]
            })
            .await;
            test.patch(name, &json!({ "metadata": { "finalizers": null } })).await;
        } else {
            // The connection ends between deletion and creation; the first POST only asks whether it would be accepted.
            proxy.fail_after(1, "create", "datakeys", Fault::Lose);
            let lost = user.ends(1, &["keep", name, "--yes", &to]).await;
            assert!(lost.err.contains("to finish") && lost.err.contains(&file.display().to_string()), "{lost:?}");
            proxy.clear_faults();
            assert!(test.keys().get_opt(name).await.unwrap().is_none(), "{name} is gone");
            assert!(test.secret(name).await.owner_references().is_empty());
        }
        match name {
            "create" => {
                let create = ["create", "-f", &file.display().to_string(), "-n", "keep-interrupted"];
                test.plane.kubectl(&create).await.unwrap();
                test.ready(name).await;
            }
            "gone" => {
                // Even without the Secret the file has everything.
                test.delete_secret(name).await;
                // The file could come from another cluster, so the command asks.
                let no = user.ends(1, &["keep", name, &to]).await;
                assert!(no.err.contains("has no DataKey gone") && no.err.contains("(y/n)"), "{no:?}");
                assert!(test.keys().get_opt(name).await.unwrap().is_none());
                user.ends(0, &["keep", name, "--yes", &to]).await;
                assert_eq!(test.secret(name).await.data, secret.data);
                assert_eq!(test.get(name).await.record(), before.record());
            }
            _ => drop(user.ends(0, &["keep", name, "--yes", &to]).await),
        }
        if name != "gone" {
            assert_kept(&test, &before, &secret).await;
        }
        assert_eq!(test.proxy.calls(), calls, "{name}");
    }
}

#[tokio::test]
async fn keep_refuses_before_anything_is_deleted() {
    let test = TestNamespace::new("keep-refused").await;
    let _operator = test.operator();
    let user = User::of(&test);
    let (file, to) = keep_file(&test, "orders");
    test.issue("retained", &json!({})).await;
    assert!(text(&user.ends(0, &["keep", "retained", "--yes", &to]).await).contains("Retain already"));

    let missing = json!({ "keyId": "alias/keep-refused-missing", "deletionPolicy": "Delete" });
    test.create("unissued", &missing).await;
    test.failed("unissued", "KeyNotFound").await;
    assert!(user.ends(2, &["keep", "unissued", "--yes", &to]).await.err.contains("set deletionPolicy to Retain"));

    // Another Secret has its name.
    let before = test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let mut foreign = test.secret("orders").await;
    foreign.type_ = Some("Opaque".into());
    foreign.metadata = kube::api::ObjectMeta { name: Some("orders".into()), ..<_>::default() };
    let (api, kubeconfig) = through_a_proxy(&test).await;
    eventually(SOON, "a foreign Secret took the name", async || {
        test.secrets().delete("orders", &DeleteParams::default()).await.ok();
        test.secrets().create(&<_>::default(), &foreign).await.is_ok()
    })
    .await;
    assert!(user.ends(2, &["keep", "orders", "--yes", &to]).await.err.contains("is not touched by the operator"));
    test.delete_secret("orders").await;
    test.ready("orders").await;

    // A DataKey that the API server would not create again is not deleted, nor one that changed since it was read.
    let user = User::of(&test).with("KUBECONFIG", &kubeconfig);
    test.patch("orders", &json!({ "spec": { "grantTokens": ["hidden-token"] } })).await;
    api.fail_next(1, "create", "datakeys", Fault::Refuse(422, "Invalid", "a policy refuses hidden-token"));
    let refused = user.ends(1, &["keep", "orders", "--yes", &to]).await.err;
    assert!(refused.contains("a policy refuses [redacted]"), "{refused}");
    test.ready("orders").await;
    api.fail_next(1, "patch", "datakeys", Fault::Refuse(422, "Invalid", "a policy refuses hidden-token"));
    let refused = user.ends(1, &["rotate", "orders"]).await.err;
    assert!(refused.contains("a policy refuses [redacted]"), "{refused}");
    assert!(!file.exists());
    std::fs::write(&file, "kind: Secret\n").unwrap();
    assert!(user.ends(1, &["keep", "orders", "--yes", &to]).await.err.contains("name another file by --to"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kind: Secret\n");
    assert_eq!((test.get("orders").await.uid(), api.count("delete", "*")), (before.uid(), 0));

    // No message repeats a grant token, and a deletion that the API server refuses leaves nothing to finish.
    let (_, to) = keep_file(&test, "refused");
    api.fail_next(1, "delete", "datakeys", Fault::Refuse(403, "Forbidden", "a policy refuses hidden-token"));
    let refused = user.ends(1, &["keep", "orders", "--yes", &to]).await.err;
    assert!(refused.contains("a policy refuses [redacted]") && !refused.contains("to finish"), "{refused}");
    assert_eq!((test.get("orders").await.uid(), api.count("delete", "*")), (before.uid(), 1));
    api.fail_next(1, "patch", "datakeys", Fault::Refuse(422, "Invalid", "a policy refuses hidden-token"));
    let alias = test.alias();
    let refused = user.ends(1, &["create", "orders", "--key-id", &alias, "--key-spec=AES_256", "--apply"]).await.err;
    assert!(refused.contains("a policy refuses [redacted]"), "{refused}");
}
