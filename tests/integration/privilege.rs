//! The role of the operator allows what it needs, and nothing else.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use testbed::{
    api_proxy::{ApiProxy, Fault, STREAMED_LIST},
    control_plane::OPERATOR,
    eventually, proxy, repository,
};

use crate::harness::{SOON, TestNamespace};

/// The status of classes, which only an operator of all namespaces writes.
const CLASS_STATUS: &str = "datakeyclasses/status";

/// The rules of the installed role: group, resource, verb.
fn rules() -> Vec<(String, String, String)> {
    let manifests = std::fs::read_to_string(repository().join("deploy/operator.yaml")).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    let bound: Vec<_> = documents
        .iter()
        .filter(|document| document["kind"] == "ClusterRoleBinding")
        .map(|binding| &binding["roleRef"]["name"])
        .collect();
    let roles = documents
        .iter()
        .filter(|document| document["kind"] == "ClusterRole" && bound.contains(&&document["metadata"]["name"]));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |rule: &Value, field: &str| rule[field].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let mut all = Vec::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                all.extend(list(rule, "verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    all
}

#[tokio::test]
async fn each_verb_of_the_role_is_needed() {
    let test = TestNamespace::with_own_control_plane("verbs").await;
    let mut all = rules();
    // Operators of some namespaces, as those of this test, do not write it.
    all.retain(|(_, resource, _)| resource != CLASS_STATUS);
    assert_eq!(all.len(), 17);
    let assuming = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKeyClass",
        "metadata": { "name": "assuming" },
        "spec": {
            "namespaces": ["*"],
            "allow": [{ "keyIds": [test.key.arn] }],
            "aws": { "roleArn": "arn:aws:iam::111122223333:role/shop" },
        },
    });
    test.apply(&[assuming]).await;
    // Slow enough that a DataKey can change during the call.
    test.proxy.fail_always(proxy::Fault::Delay(Duration::from_secs(1)));
    let mut watched = Vec::new();
    for (number, without) in all.iter().enumerate() {
        let name = format!("without-{number}");
        test.plane.namespace(&name).await;
        let rest: Vec<_> = all
            .iter()
            .filter(|rule| *rule != without)
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let account = json!({ "kind": "ServiceAccount", "name": name, "namespace": OPERATOR.0 });
        let rbac = "rbac.authorization.k8s.io";
        test.apply(&[
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": OPERATOR.0 } }),
            json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": { "name": name }, "rules": rest }),
            json!({
                "apiVersion": format!("{rbac}/v1"),
                "kind": "ClusterRoleBinding",
                "metadata": { "name": name },
                "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": name },
                "subjects": [account],
            }),
        ])
        .await;
        let kubeconfig = test.plane.kubeconfig_of(OPERATOR.0, &name).await;
        // Lists are asked for only where the API server does not stream them.
        let api = ApiProxy::start(&kubeconfig).await;
        api.fail_always(STREAMED_LIST, "*", Fault::Refuse(422, "Invalid", "sendInitialEvents is forbidden"));
        let kubeconfig = if without.2 == "list" { api.kubeconfig(&kubeconfig) } else { kubeconfig };
        let operator = test.operator_by(&kubeconfig, &[&format!("--namespace={name}")]);
        watched.push((name, without, operator, api));
    }
    for (name, (group, resource, verb), operator, _api) in watched {
        // The Secret is changed twice, because a repeated event is a patch. The object changes during the KMS call.
        let (kind, field, value) = match resource.split('/').next() {
            Some("datakeypairs") => ("DataKeyPair", "keyPairSpec", "ECC_NIST_P256"),
            _ => ("DataKey", "keySpec", "AES_256"),
        };
        // A namespace is read for the role of a class.
        let class = (resource == "namespaces").then_some("assuming");
        let spec = json!({ "keyId": test.key.arn, field: value, "className": class });
        let manifest = json!({
            "apiVersion": "datakey.dev/v1alpha1",
            "kind": kind,
            "metadata": { "name": "orders", "namespace": name },
            "spec": spec,
        });
        test.apply(&[manifest]).await;
        let refused = async || {
            let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let words = [format!("cannot {verb} resource"), plural.to_owned(), subresource.to_owned(), group.clone()];
            operator.process.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        let mut changes = 0;
        eventually(SOON, &format!("without {verb} on {resource} something is refused"), async || {
            changes += 1;
            let label = format!("changes={changes}");
            test.plane.kubectl(&["label", kind, "orders", "-n", &name, "--overwrite", &label]).await.unwrap();
            let edit =
                ["patch", "secret", "orders", "-n", &name, "--type=merge", "-p", r#"{"data":{"version":"eA=="}}"#];
            // The Secret does not exist before it is issued, and without some of the rules it never does.
            let _ = test.plane.kubectl(&edit).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            refused().await
        })
        .await;
    }
}

#[tokio::test]
async fn status_of_a_class_needs_its_verb() {
    let test = TestNamespace::with_own_control_plane("class-status").await;
    let role = ["clusterrole", "datakey-system:datakey-operator"];
    let read: Value =
        serde_json::from_str(&test.plane.kubectl(&[&["get", "-o", "json"], &role[..]].concat()).await.unwrap())
            .unwrap();
    let rules = read["rules"].as_array().unwrap();
    let number = rules.iter().position(|rule| rule["resources"] == json!([CLASS_STATUS])).unwrap();
    let patch = json!([{ "op": "remove", "path": format!("/rules/{number}") }]).to_string();
    test.plane.kubectl(&[&["patch", "--type=json", "-p", &patch], &role[..]].concat()).await.unwrap();
    let class = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKeyClass",
        "metadata": { "name": "shop" },
        "spec": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/shop"] }] },
    });
    test.apply(&[class]).await;
    let operator = test.operator_of_all(&[]);
    operator.logs("cannot patch resource").await;
    let line = operator.process.log().lines().find(|line| line.contains("cannot patch resource")).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains(CLASS_STATUS)));
}

#[tokio::test]
async fn the_operators_identity_may_do_nothing_else() {
    let test = TestNamespace::new("rbac").await;
    let may = async |within: &str, account: &str| -> BTreeSet<String> {
        let user = format!("--as=system:serviceaccount:{}:{account}", OPERATOR.0);
        let listed = test.plane.kubectl(&["auth", "can-i", "--list", "-n", within, &user]).await.unwrap();
        listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let everywhere = [
        "datakeyclasses.datakey.dev [] [] [list watch]",
        "datakeyclasses.datakey.dev/status [] [] [patch]",
        "datakeypairs.datakey.dev [] [] [get list watch]",
        "datakeypairs.datakey.dev/status [] [] [update]",
        "datakeys.datakey.dev [] [] [get list watch]",
        "datakeys.datakey.dev/status [] [] [update]",
        "events.events.k8s.io [] [] [create]",
        "namespaces [] [] [get]",
        "secrets [] [] [get list watch create update]",
    ];
    let at_home = [
        "datakeyclasses.datakey.dev [] [] [list watch]",
        "datakeyclasses.datakey.dev/status [] [] [patch]",
        "datakeypairs.datakey.dev [] [] [get list watch]",
        "datakeypairs.datakey.dev/status [] [] [update]",
        "datakeys.datakey.dev [] [] [get list watch]",
        "datakeys.datakey.dev/status [] [] [update]",
        "events.events.k8s.io [] [] [create]",
        "leases.coordination.k8s.io [] [] [create]",
        "leases.coordination.k8s.io [] [datakey-operator] [get update]",
        "namespaces [] [] [get]",
        "secrets [] [] [get list watch create update]",
    ];
    for (within, expected) in [("rbac", &everywhere[..]), (OPERATOR.0, &at_home)] {
        // Except what any identity may do: review itself, and read the description of the API.
        let anyone = may(within, "another-user").await;
        let rules: Vec<String> = may(within, OPERATOR.1).await.difference(&anyone).cloned().collect();
        assert_eq!(rules, expected, "{within}");
    }
}
