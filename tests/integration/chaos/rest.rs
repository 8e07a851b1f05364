//! The requests that the operator sends while nothing changes.

use std::time::Duration;

use datakey::{
    api::DataKeyPair,
    reason::{Reason, RetryPolicy},
};
use serde_json::json;
use testbed::{
    eventually,
    proxy::{FAILING, ISSUE_PAIR},
};
use tokio::time::{Instant, sleep};

use super::{patience, scaled};
use crate::harness::TestNamespace;

/// How many key pairs are beside the DataKeys: few, because their quotas are small.
const PAIRS: usize = 10;

/// A name, an error code of KMS and its retry policy, for each policy.
const CLASSES: [(&str, &str, RetryPolicy); 3] = [
    ("soon", "KMSInternalException", RetryPolicy::RetrySoon),
    ("slowly", "ExpiredTokenException", RetryPolicy::RetrySlowly),
    ("person", "AccessDeniedException", RetryPolicy::RetryRarely),
];

#[tokio::test]
async fn ready_data_keys_cause_no_requests_even_after_a_restart() {
    let test = TestNamespace::with_stub_kms("settled").await;
    let count = scaled(100, 1000);
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &["--kms-rate=1000"]);
    test.create_many("k", count, &json!({})).await;
    test.all_ready(count, patience(count)).await;
    let pairs = test.of_kind::<DataKeyPair>();
    pairs.create_many("p", PAIRS, &json!({})).await;
    pairs.all_ready(PAIRS, patience(PAIRS)).await;
    let window = Duration::from_secs(scaled(5, 60).try_into().unwrap());
    // Events of what was issued are written one a second, long after everything else.
    let without_events =
        || api.requests().into_iter().filter(|request| !request.is("create", "events")).collect::<Vec<_>>();
    let is_quiet = async || {
        let before = without_events().len();
        sleep(Duration::from_secs(1)).await;
        without_events().len() == before
    };
    eventually(patience(0), "its own writes have come back to it", is_quiet).await;
    api.forget();
    let all_calls = || test.proxy.calls() + test.proxy.calls_of(ISSUE_PAIR);
    let calls = all_calls();
    sleep(window).await;
    // Watches end after five minutes and are resumed.
    let (watches, others): (Vec<_>, Vec<_>) = without_events().into_iter().partition(|request| request.verb == "watch");
    assert_eq!(others, [], "within {window:?}");
    assert!(watches.len() <= 4, "{watches:?}");
    assert_eq!(all_calls(), calls);

    drop(operator);
    api.forget();
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    eventually(patience(0), "nothing more is requested", is_quiet).await;
    // For each kind, one list to see whether there is a definition; then one for each of its two watches.
    let lists = ["datakeys", "datakeypairs", "secrets"].map(|resource| api.lists(resource));
    assert_eq!(lists, [2, 2, 2], "{:?}", api.requests());
    let watches = api.count("watch", "*");
    assert_eq!(api.lists("*") + watches, api.requests().len(), "{:?}", api.requests());
    assert_eq!(all_calls(), calls);
}

#[tokio::test]
async fn retries_keep_to_their_retry_policy_and_write_nothing() {
    let test = TestNamespace::with_stub_kms("failing").await;
    let count = scaled(20, 1000);
    // The short form has a hundredth of the delays: the bounds are the same multiples.
    let (flags, longest, window) = if count > 20 {
        (["--retry-min=1s", "--retry-max=10m"], 600.0, 600.0)
    } else {
        (["--retry-min=10ms", "--retry-max=6s"], 6.0, 6.0)
    };
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &[&flags[..], &["--kms-rate=1000"]].concat());
    for (name, code, _) in CLASSES {
        test.create_many(name, count, &json!({ "keyId": format!("{FAILING}{code}") })).await;
    }
    let keys = async || test.keys().list(&kube::api::ListParams::default()).await.unwrap().items;
    eventually(patience(3 * count), "all failures are reported", async || {
        keys().await.iter().all(|key| datakey::condition::reported_failure(key).is_some())
    })
    .await;
    for key in keys().await {
        let shown = datakey::condition::reported_failure(&key).map(Reason::retry_policy);
        let name = key.metadata.name.unwrap();
        let expected = CLASSES.iter().find(|(class, ..)| name.starts_with(class)).map(|(.., class)| *class);
        assert_eq!(shown, expected, "{name}");
    }
    // Until every delay is the longest one: the sum of the shorter ones, with their jitter.
    sleep(Duration::from_secs_f64(1.6 * longest)).await;
    api.forget();
    let (begun, calls) = (Instant::now(), test.proxy.requests().len());
    sleep(Duration::from_secs_f64(window)).await;
    let seconds = begun.elapsed().as_secs_f64();
    let asked = test.proxy.requests().split_off(calls);
    for (name, code, class) in CLASSES {
        let wait = if class == RetryPolicy::RetrySoon { longest / 5.0 } else { longest };
        let made = asked.iter().filter(|call| call.body["KeyId"] == format!("{FAILING}{code}")).count();
        let most = count as f64 * (seconds / (0.75 * wait) + 1.0);
        // In the short form a busy machine takes longer than the delays.
        let least = if count > 20 { count as f64 * (seconds / (1.25 * wait) - 1.0) } else { 1.0 };
        println!("{count} {name}: {:.1} KMS calls a minute", made as f64 * 60.0 / seconds);
        assert!(
            (least..=most).contains(&(made as f64)),
            "{name}: {made} calls in {seconds:.1} s, not {least:.0} to {most:.0}"
        );
    }
    // Watches end after five minutes and are resumed.
    let requests: Vec<_> = api.requests().into_iter().filter(|request| request.verb != "watch").collect();
    println!("{:.1} API requests a minute", requests.len() as f64 * 60.0 / seconds);
    // One GET of the Secret's metadata before each call, and nothing else.
    assert!(requests.iter().all(|request| request.is("get", "secrets")), "{requests:?}");
    assert!(requests.len().abs_diff(asked.len()) <= 32, "{} GETs for {} calls", requests.len(), asked.len());
}
