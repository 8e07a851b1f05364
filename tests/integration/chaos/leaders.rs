//! Two operators that both act as the leader.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;
use testbed::api_proxy::Fault;

use super::{patience, scaled};
use crate::harness::{InvariantWatch, TestKind, TestNamespace};

for_each_kind! {
    two_leaders_with_stale_caches_record_one_data_key_each: with_stub_kms("two-leaders"),
}

async fn two_leaders_with_stale_caches_record_one_data_key_each<K: TestKind>(test: TestNamespace<K>) {
    let count = scaled(100, 500);
    let invariants = InvariantWatch::of(&test);
    let mut operators = Vec::new();
    let mut proxies = Vec::new();
    for _ in 0..2 {
        let (api, kubeconfig) = test.api_proxy().await;
        api.lag(Duration::from_millis(30));
        api.fail_always("*", "*", Fault::Delay(Duration::from_millis(40)));
        for (verb, resource) in [("update", K::STATUS), ("create", "secrets"), ("update", "secrets")] {
            api.fail_often(0.05, verb, resource, Fault::LoseAnswer);
            api.fail_often(0.05, verb, resource, Fault::Lose);
            api.fail_often(0.03, verb, resource, Fault::Refuse(409, "Conflict", "the proxy says so"));
            api.fail_often(0.03, verb, resource, Fault::Refuse(500, "InternalError", "the proxy says so"));
        }
        operators.push(test.operator_by(&kubeconfig, &["--kms-rate=1000"]));
        proxies.push(api);
    }
    test.create_many("k", count, &json!({ "version": 1 })).await;
    let keys = test.all_ready(count, patience(count)).await;
    assert!(keys.iter().all(|key| key.as_object().record().len() == 1));
    test.secrets_hold_the_record(&keys).await;
    let calls = test.proxy.calls();
    assert!(calls > count, "the two never met: {calls} calls");

    // Every DataKey gets a new version while both operators work.
    for key in &keys {
        test.patch(&key.name_any(), &json!({ "spec": { "version": 2 } })).await;
    }
    let keys = test.all_ready(count, patience(count)).await;
    assert!(keys.iter().all(|key| key.as_object().record().len() == 2));
    for api in &proxies {
        api.clear_faults();
    }
    test.secrets_hold_the_record(&keys).await;
    println!(
        "{} calls for {count} data keys of two versions, {} states seen",
        test.proxy.calls(),
        invariants.assert_held()
    );
}
