//! Moves by users who may change some objects only, and of objects that a tool applies from Git.

use serde_json::json;
use testbed::eventually;

use super::{Asked, issue_two_versions, path};
use crate::{
    harness::{SOON, TestNamespace},
    plugin::{User, text},
};

#[tokio::test]
async fn role_for_one_name_moves_that_object_only() {
    let test = TestNamespace::new("rewrap-one-name").await;
    let _operator = test.operator();
    for name in ["invoices", "orders"] {
        issue_two_versions(&test, name).await;
    }
    let to = test.kms.key().await;
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let name = json!({ "name": "orders-mover", "namespace": test.namespace });
    let rbac = "rbac.authorization.k8s.io";
    test.apply(&[
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "Role",
            "metadata": name,
            "rules": [{
                "apiGroups": ["datakey.dev"], "resources": ["datakeys"], "resourceNames": ["orders"], "verbs": ["patch"],
            }],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"),
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": { "apiGroup": rbac, "kind": "Role", "name": "orders-mover" },
            // The name of the account is that of the namespace.
            "subjects": [{ "kind": "ServiceAccount", "name": test.namespace, "namespace": test.namespace }],
        }),
    ])
    .await;
    let user = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || {
        let may = ["auth", "can-i", "patch", "datakeys/orders", "-n", &test.namespace];
        user.runs(&["list"]).await.code == 0 && user.types(&may).await.code == 0
    })
    .await;
    let asked = Asked::of(&test.proxy);
    let all = ["rewrap", "--from-key-id", &test.key.arn, "--to-key-id", &to.arn, "--no-rotate", "--apply"];
    let ended = user.ends(1, &all).await;
    let said = text(&ended);
    assert!(said.starts_with("2 versions rewrapped by AWS KMS, 1 of 2 DataKeys changed in the cluster\n"), "{said}");
    assert!(said.contains("you may not patch datakeys.datakey.dev") && said.contains("invoices"), "{said}");
    // Of the other one nothing is asked: what AWS KMS answers could not be kept.
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));
    assert_eq!(test.ready("orders").await.record().len(), 4);
    assert_eq!(test.get("invoices").await.record().len(), 2);
}

#[tokio::test]
async fn note_names_the_tools_that_set_the_spec_back() {
    let test = TestNamespace::new("rewrap-from-git").await;
    let user = User::of(&test);
    let _operator = test.operator();
    let marks = [
        ("flux", json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "shop" } })),
        ("argo", json!({ "annotations": { "argocd.argoproj.io/tracking-id": "shop:datakey.dev/DataKey:shop/argo" } })),
        ("plain", json!({})),
    ];
    for (name, metadata) in &marks {
        test.issue(name, &json!({})).await;
        test.patch(name, &json!({ "metadata": metadata })).await;
    }
    let to = test.kms.key().await;
    let moves = async |name: &str, does: &[&str]| {
        let words = [&["rewrap", name, "--to-key-id", &to.arn, "--no-rotate"], does].concat();
        user.ends(0, &words).await.err
    };
    let sets_back = "applies such an object from Git and sets spec back, unless you change it there, too";
    for (name, tool) in [("flux", Some("Flux")), ("argo", Some("Argo CD")), ("plain", None)] {
        // The plan and a file change nothing that a tool could set back.
        let file = path(&test, &format!("{name}.yaml"));
        for does in [&[][..], &["--output", &file]] {
            let said = moves(name, does).await;
            assert!(!said.contains("from Git"), "{name}: {said}");
        }
        let said = moves(name, &["--apply"]).await;
        match tool {
            Some(tool) => assert!(said.contains(&format!("note: {tool} {sets_back}")), "{name}: {said}"),
            None => {
                assert!(said.contains("if you keep manifests of these objects") && !said.contains(sets_back), "{said}");
            }
        }
    }
    // Of several objects, one note names both.
    let further = test.kms.key().await;
    let all = ["rewrap", "--from-key-id", &to.arn, "--to-key-id", &further.arn, "--no-rotate", "--include-adopted"];
    let said = user.ends(0, &[&all[..], &["--apply"]].concat()).await.err;
    assert!(said.contains(&format!("note: Argo CD and Flux {sets_back}")), "{said}");
}
