//! Many DataKeys wait for KMS: the quota is kept, and no namespace starves.

use std::{num::NonZeroU32, time::Duration};

use serde_json::json;
use testbed::proxy::{Call, FAILING, KmsProxy};

use super::{patience, scaled};
use crate::harness::TestNamespace;

/// The retry delays of production.
const PATIENT: [&str; 2] = ["--retry-min=1s", "--retry-max=10m"];

/// The most calls within any second.
fn most_in_a_second(calls: &[Call]) -> usize {
    let within = |first: usize| {
        calls[first..].iter().take_while(|call| call.at - calls[first].at < Duration::from_secs(1)).count()
    };
    (0..calls.len()).map(within).max().unwrap_or_default()
}

/// The position, in the order of calls, of the first call with this encryption context.
fn place(proxy: &KmsProxy, purpose: &str) -> Option<usize> {
    proxy.requests().iter().position(|call| call.body["EncryptionContext"]["purpose"] == purpose)
}

#[tokio::test]
async fn waiting_data_keys_do_not_delay_other_namespaces() {
    let flood = TestNamespace::with_stub_kms("flood").await;
    let one = TestNamespace::with_stub_kms("one").await;
    let count = scaled(300, 1000);
    let rate = 50;
    flood.create_many("k", count, &json!({})).await;
    let flags = ["--namespace=one", &format!("--kms-rate={rate}"), "--concurrency=4"];
    let _operator = flood.operator_with(&flags, &[]);
    testbed::eventually(patience(0), "it is busy", async || flood.proxy.calls() > 10).await;
    let before = flood.proxy.calls();
    let spec = json!({ "keyId": flood.key.arn, "encryptionContext": { "purpose": "one" } });
    one.issue("orders", &spec).await;
    let behind = place(&flood.proxy, "one").unwrap() - before;
    // The calls that started before the operator saw the other DataKey, at most half a second's, and its own permit.
    assert!(behind <= rate / 2, "{behind} calls came before it");
    assert!(flood.proxy.calls() < count, "none waited any more");

    let keys = flood.all_ready(count, patience(count)).await;
    flood.secrets_hold_the_record(&keys).await;
    assert_eq!(flood.proxy.calls(), count + 1);
    let most = most_in_a_second(&flood.proxy.requests());
    // The rate, and calls that a busy machine delivers late.
    assert!(most <= rate + rate / 5, "{most} calls in a second");
}

#[tokio::test]
async fn throttling_lowers_the_rate_and_every_data_key_is_issued() {
    let test = TestNamespace::with_stub_kms("throttled").await;
    let count = scaled(300, 1000);
    let quota = 40;
    test.proxy.quota(NonZeroU32::new(quota));
    test.create_many("k", count, &json!({})).await;
    let begun = std::time::Instant::now();
    let _operator = test.operator_with(&[&PATIENT[..], &["--kms-rate=200"]].concat(), &[]);
    let keys = test.all_ready(count, patience(count)).await;
    test.secrets_hold_the_record(&keys).await;
    let calls = test.proxy.requests();
    let throttled = calls.iter().filter(|call| call.is_throttled).count();
    assert_eq!(calls.len(), count + throttled);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{throttled} of {} calls throttled; {:.0} keys a second under a quota of {quota}",
        calls.len(),
        count as f64 / seconds
    );
    // If the rate did not fall, four of five calls would be throttled.
    assert!(throttled * 2 < calls.len(), "{throttled} of {} calls were throttled", calls.len());
}

#[tokio::test]
async fn restart_spreads_the_retries_of_failing_data_keys() {
    let test = TestNamespace::with_stub_kms("restart-failing").await;
    let count = scaled(200, 1000);
    let denied = json!({ "keyId": format!("{FAILING}AccessDeniedException") });
    test.create_many("k", count, &denied).await;
    let operator = test.operator_with(&[&PATIENT[..], &["--kms-rate=1000"]].concat(), &[]);
    let reported = async || {
        let keys = test.keys().list(&kube::api::ListParams::default()).await.unwrap().items;
        let denied = |key| datakey::condition::reported_failure(key).is_some();
        keys.iter().all(denied)
    };
    testbed::eventually(patience(count), "all failures are reported", reported).await;
    drop(operator);
    let before = test.proxy.calls();
    let _operator = test.operator_with(&[&PATIENT[..], &["--kms-rate=1000"]].concat(), &[]);
    test.create("new", &json!({})).await;
    test.ready("new").await;
    let window = Duration::from_secs(5);
    tokio::time::sleep(window).await;
    // Their first tries are spread over four minutes.
    let retried = test.proxy.calls() - before - 1;
    let expected = count as f64 * window.as_secs_f64() / 240.0;
    assert!((retried as f64) < 4.0 * expected + 5.0, "{retried} of {count} were retried within {window:?}");
}
