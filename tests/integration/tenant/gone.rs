//! Many `DataKey`s that are deleted while they wait for KMS: they delay no other one.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use testbed::{api_proxy::Fault, eventually};
use tokio::time::Instant;

use super::Tenant;
use crate::harness::{SOON, TestNamespace};

#[tokio::test]
async fn deleted_data_keys_hold_no_permit_to_call_kms() {
    let test = TestNamespace::with_stub_kms("turns-gone").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let (api, kubeconfig) = test.api_proxy().await;
    // The only slot is free at most twice a second, so the others wait for it.
    api.fail_always("get", "secrets", Fault::Delay(Duration::from_millis(500)));
    let operator = test.operator_by(&kubeconfig, &["--concurrency=1", "--kms-rate=2"]);
    operator.is_ready().await;
    test.create_many("k", 200, &json!({})).await;
    eventually(SOON, "the first have a permit", async || api.count("get", "secrets") > 3).await;
    tenant.keys.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    api.clear_faults();
    eventually(SOON, "none waits any more", async || waiting(&operator.admin("/metrics").await.1) == 0).await;
    // A permit that a deleted DataKey kept would go to another one only after a minute.
    let begun = Instant::now();
    test.create_many("next", 5, &json!({})).await;
    test.all_ready(5, SOON).await;
    assert!(begun.elapsed() < SOON);
}

/// How many `DataKey`s wait to call KMS.
fn waiting(metrics: &str) -> usize {
    let waiting = metrics.lines().find_map(|line| line.strip_prefix("datakey_kms_queue_length "));
    waiting.map_or(0, |count| count.parse().unwrap())
}
