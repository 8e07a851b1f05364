//! A tenant who requests retries all the time: each `DataKey` gets one a minute, and others are not delayed.

use std::time::Duration;

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use testbed::proxy::Fault;
use tokio::time::{Instant, sleep};

use super::Tenant;
use crate::harness::{NO_RETRY, TestNamespace};

/// Sets, changes and removes the annotation of a `DataKey`, without end.
async fn flood(keys: Api<datakey::api::DataKey>, name: &str) {
    for number in 0_u64.. {
        let value = match number % 4 {
            0 => json!(null),
            1 => json!("2999-01-01T00:00:00Z"),
            2 => json!(number.to_string()),
            _ => json!("x".repeat(100_000)),
        };
        let request = json!({ "metadata": { "annotations": { "datakey.dev/retry-at": value } } });
        // The API server may refuse one while the operator writes.
        let _ = keys.patch_metadata(name, &PatchParams::default(), &Patch::Merge(request)).await;
    }
}

#[tokio::test]
async fn retries_requested_all_the_time_cost_one_call_a_minute() {
    let test = TestNamespace::new("retry-flood").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let operator = test.operator_with(&NO_RETRY, &[]);
    operator.is_ready().await;
    let names = ["a", "b", "c"];
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    for name in names {
        test.create(name, &json!({})).await;
        test.failed(name, "AccessDenied").await;
    }
    assert_eq!(test.proxy.calls(), names.len());
    let begun = Instant::now();
    let flooded = futures::future::join_all(names.map(|name| flood(tenant.keys.clone(), name)));
    let attacked = async {
        sleep(Duration::from_secs(10)).await;
        test.proxy.clear_faults();
        // A DataKey that nothing is requested for does not wait for the others.
        test.issue("other", &json!({})).await;
    };
    tokio::select! {
        _ = flooded => unreachable!("it goes on"),
        () = attacked => {}
    }
    let allowed = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap() / 60;
    let calls = test.proxy.calls();
    assert!((2 * names.len() + 1..=(1 + allowed) * names.len() + 1).contains(&calls), "{calls}, {allowed} allowed");
}
