//! The API server and etcd restart, refuse requests and lose answers; namespaces, tokens and the definition disappear.

use std::time::Duration;

use kube::{Api, api::DeleteParams};
use serde_json::json;
use testbed::{
    api_proxy::Fault,
    control_plane::{ControlPlane, OPERATOR},
    eventually,
};

use super::{patience, scaled};
use crate::harness::{InvariantWatch, SOON, TestNamespace};

#[tokio::test]
async fn issuance_survives_restarts_of_the_api_server_and_etcd() {
    let test = TestNamespace::with_own_control_plane("restarts").await;
    let count = scaled(150, 1000);
    let invariants = InvariantWatch::of(&test);
    test.create_many("k", count, &json!({})).await;
    let rate = if count > 500 { "--kms-rate=100" } else { "--kms-rate=30" };
    let operator = test.operator_with(&[rate], &[]);
    for (part, restart) in [
        (count / 5, ControlPlane::restart_apiserver as fn(&_)),
        (2 * count / 5, ControlPlane::restart_etcd),
        (3 * count / 5, |plane: &ControlPlane| {
            plane.restart_etcd();
            plane.restart_apiserver();
        }),
    ] {
        eventually(patience(count), "so many are issued", async || test.proxy.calls() >= part).await;
        restart(&test.plane);
        test.plane.is_ready().await;
    }
    let keys = test.all_ready(count, patience(count)).await;
    test.secrets_hold_the_record(&keys).await;
    // A data key whose record was in flight when a server was killed is issued again.
    let extra = test.proxy.calls() - count;
    assert!(extra <= 3 * 32, "{extra} calls too many after three restarts with 32 workers");
    assert!(operator.admin("/readyz").await.0 == 200);
    println!("{extra} extra calls, {} states seen", invariants.assert_held());
}

#[tokio::test]
async fn operator_catches_up_after_the_api_server_was_away() {
    let test = TestNamespace::new("partition").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &["--kms-rate=1000"]);
    test.issue("before", &json!({})).await;
    api.close();
    test.delete_secret("before").await;
    test.create_many("k", 50, &json!({})).await;
    operator.logs("a watch was interrupted").await;
    api.clear_faults();
    let begun = std::time::Instant::now();
    test.all_ready(51, SOON).await;
    eventually(SOON, "the Secret is back", async || test.secrets().get_opt("before").await.unwrap().is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(test.proxy.calls(), 51);
}

#[tokio::test]
async fn watch_that_cannot_be_resumed_is_listed_again() {
    let test = TestNamespace::new("gone").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &[]);
    test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    let old = "too old resource version: 1 (2)";
    for (number, fault) in [
        Fault::EndWatch(410, old),
        // The answer of proxies and aggregated servers: the watch does not start.
        Fault::Refuse(410, "Expired", old),
        // The answer of a server whose etcd was restored from an older state.
        Fault::Refuse(504, "Timeout", "Too large resource version: 2, current: 1"),
    ]
    .into_iter()
    .enumerate()
    {
        let lists = (api.lists("datakeys"), api.lists("secrets"));
        api.fail_next(1, "watch", "datakeys", fault.clone());
        api.fail_next(1, "watch", "secrets", fault);
        // What happens while no watch is open is in the next list.
        api.cut();
        test.delete_secret("orders").await;
        test.create(&format!("new{number}"), &json!({})).await;
        test.ready(&format!("new{number}")).await;
        test.secret_becomes("orders", &data).await;
        let are_listed = async || api.lists("datakeys") > lists.0 && api.lists("secrets") > lists.1;
        eventually(SOON, "both are listed again", are_listed).await;
    }
    assert_eq!(test.proxy.calls(), 4);
}

#[tokio::test]
async fn failing_api_server_is_not_overloaded_and_nothing_is_lost() {
    let test = TestNamespace::new("overload").await;
    let invariants = InvariantWatch::of(&test);
    let (api, kubeconfig) = test.api_proxy().await;
    // With the retry delays of production: only then does the number of requests mean anything.
    let operator = test.operator_by(&kubeconfig, &["--retry-min=1s", "--retry-max=10m", "--kms-rate=1000"]);
    operator.is_ready().await;
    for (number, (code, reason)) in
        [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")]
            .into_iter()
            .enumerate()
    {
        for (verb, resource) in [("update", "datakeys/status"), ("create", "secrets"), ("get", "secrets")] {
            let name = format!("k{number}-{verb}");
            api.fail_always(verb, resource, Fault::Refuse(code, reason, "the proxy says so"));
            let (calls, requests) = (test.proxy.calls(), api.count(verb, resource));
            test.create(&name, &json!({})).await;
            eventually(SOON, "it is tried again", async || api.count(verb, resource) >= requests + 2).await;
            // Retries come after one second and two more, with a quarter of jitter either way.
            let (tries, calls) = (api.count(verb, resource) - requests, test.proxy.calls() - calls);
            assert!(tries <= 3 && calls <= tries, "{name}: {tries} tries, {calls} calls");
            api.clear_faults();
            test.ready(&name).await;
        }
    }
    let keys = test.all_ready(12, SOON).await;
    test.secrets_hold_the_record(&keys).await;
    invariants.assert_held();
}

#[tokio::test]
async fn namespace_deleted_during_issuance_stops_no_other() {
    let test = TestNamespace::with_own_control_plane("doomed").await;
    if !test.plane.has_controllers() {
        return;
    }
    test.plane.namespace("survivor").await;
    let operator = test.operator_with(&["--namespace=survivor", "--kms-rate=20"], &[]);
    operator.is_ready().await;
    test.create_many("k", 40, &json!({})).await;
    eventually(SOON, "some are issued", async || test.proxy.calls() >= 10).await;
    test.plane.kubectl(&["delete", "namespace", "doomed", "--wait=false"]).await.unwrap();
    eventually(2 * SOON, "the namespace is gone", async || {
        test.plane.kubectl(&["get", "namespace", "doomed"]).await.is_err()
    })
    .await;
    let calls = test.proxy.calls();
    assert!(calls <= 40);
    let spec = json!({ "keyId": test.key.arn, "keySpec": "AES_256" });
    let manifest = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": { "name": "orders" },
        "spec": spec,
    });
    let file = test.plane.workdir().file("survivor.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    test.plane.kubectl(&["apply", "-n", "survivor", "-f", &file.display().to_string()]).await.unwrap();
    let wait = ["wait", "-n", "survivor", "--for=condition=Ready", "datakey/orders", "--timeout=30s"];
    test.plane.kubectl(&wait).await.unwrap();
    assert_eq!(test.proxy.calls(), calls + 1, "nothing of the deleted namespace is asked for any more");

    // A later namespace of that name is another one.
    test.plane.namespace("doomed").await;
    test.issue("k-1", &json!({})).await;
    test.secrets_hold_the_record(&[test.get("k-1").await]).await;
}

#[tokio::test]
async fn secrets_are_adopted_once_the_definition_is_reinstalled() {
    let test = TestNamespace::with_own_control_plane("definition").await;
    let operator = test.operator_with(&[], &[]);
    let names: Vec<_> = (0..5).map(|number| format!("k{number}")).collect();
    let mut held = Vec::new();
    for name in &names {
        test.issue(name, &json!({})).await;
        held.push(test.data(name).await);
    }
    let crd = test.plane.kubectl(&["get", "crd", "datakeys.datakey.dev", "-o", "json"]).await.unwrap();
    test.plane.kubectl(&["delete", "crd", "datakeys.datakey.dev"]).await.unwrap();
    operator.logs("a watch was interrupted").await;
    let file = test.plane.workdir().file("crd.json");
    let mut crd: serde_json::Value = serde_json::from_str(&crd).unwrap();
    crd["metadata"] = json!({ "name": "datakeys.datakey.dev" });
    crd.as_object_mut().unwrap().remove("status");
    std::fs::write(&file, crd.to_string()).unwrap();
    test.plane.kubectl(&["create", "-f", &file.display().to_string()]).await.unwrap();
    test.plane.kubectl(&["wait", "--for=condition=Established", "crd/datakeys.datakey.dev"]).await.unwrap();
    for (name, data) in names.iter().zip(&held) {
        eventually(SOON, "it can be created", async || test.try_create(&test.manifest(name, &json!({}))).await.is_ok())
            .await;
        test.ready(name).await;
        assert_eq!(&test.data(name).await, data);
    }
    assert_eq!(test.proxy.calls(), names.len(), "the Secrets stayed, and were adopted");
}

#[tokio::test]
async fn temporarily_refused_token_ends_nothing() {
    let test = TestNamespace::new("unauthorized").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    api.fail_always("*", "*", Fault::Refuse(401, "Unauthorized", "Unauthorized"));
    api.cut();
    test.create("orders", &json!({})).await;
    operator.logs("Unauthorized").await;
    api.clear_faults();
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn a_refused_token_is_read_again_from_its_file() {
    let test = TestNamespace::with_own_control_plane("token").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let token_file = test.plane.workdir().file("token");
    let config = std::fs::read_to_string(&kubeconfig).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let user = &mut config["users"][0]["user"];
    let token = user["token"].as_str().unwrap().to_owned();
    std::fs::write(&token_file, &token).unwrap();
    *user = json!({ "tokenFile": token_file });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let operator = test.operator_by(&kubeconfig, &[]);
    test.issue("before", &json!({})).await;

    // A token is bound to its service account's uid: with another account of that name it is refused at once, as an
    // expired one is.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(test.client.clone(), OPERATOR.0);
    accounts.delete(OPERATOR.1, &DeleteParams::default()).await.unwrap();
    let account = serde_json::from_value(json!({ "metadata": { "name": OPERATOR.1 } })).unwrap();
    eventually(SOON, "there is a new account", async || accounts.create(&<_>::default(), &account).await.is_ok()).await;
    // The server remembers for some seconds that the token was valid.
    eventually(SOON, "the token is refused", async || {
        api.cut();
        tokio::time::sleep(Duration::from_millis(200)).await;
        operator.process.log().contains("Unauthorized")
    })
    .await;
    test.create("meanwhile", &json!({})).await;
    api.forget();
    let begun = std::time::Instant::now();
    let operator_kubeconfig = test.plane.operator_kubeconfig().await;
    let fresh: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(operator_kubeconfig).unwrap()).unwrap();
    std::fs::write(&token_file, fresh["users"][0]["user"]["token"].as_str().unwrap()).unwrap();
    // At once, not only when kube reads the file again by itself, 50 seconds after the last time.
    test.all_ready(2, SOON).await;
    let (requests, seconds) = (api.requests().len(), begun.elapsed().as_secs_f64());
    assert!((requests as f64) < 20.0 + 6.0 * seconds, "{requests} requests in {seconds:.0} s");
    assert_eq!(test.proxy.calls(), 2);
}
