//! A Region that is slow, unreachable or unknown delays its own DataKeys and no others.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use datakey::{
    api::{READY, STALLED},
    condition::find,
};
use serde_json::{Value, json};
use testbed::{assert_fresh, eventually, kms, proxy::Fault};

use crate::harness::{Operator, SOON, TestNamespace, restored, text};

/// How soon a DataKey of another namespace is ready, whatever a Region does.
const BOUND: Duration = Duration::from_secs(5);

/// The retry delays of production.
const PATIENT: [&str; 2] = ["--retry-min=1s", "--retry-max=10m"];

/// The Region of the operator.
const HEALTHY: &str = kms::REGION;

/// A well-formed code that no Region of AWS has.
const UNKNOWN: &str = "xx-nowhere-1";

fn regions() -> impl Iterator<Item = &'static str> {
    include_str!("../../src/kms/regions.txt").lines()
}

fn arn(region: &str) -> String {
    format!("arn:aws:kms:{region}:{}:key/1234abcd-12ab-34cd-56ef-1234567890ab", kms::ACCOUNT)
}

/// How long a new `DataKey` takes. Where a busy machine exceeds the bound, the next ones may do better: the writes of the
/// others end meanwhile.
async fn time_to_ready(test: &TestNamespace, name: &str) -> Duration {
    let mut best = Duration::MAX;
    for number in 0..6 {
        let name = format!("{name}-{number}");
        let begun = Instant::now();
        test.create(&name, &json!({ "region": HEALTHY })).await;
        let is_ready = async || find(&test.get(&name).await, READY).is_some_and(|ready| ready.status == "True");
        eventually(4 * SOON, "it is ready", is_ready).await;
        best = best.min(begun.elapsed());
        if best < BOUND {
            break;
        }
    }
    best
}

/// The Regions that metrics have as label values.
async fn labels(operator: &Operator) -> BTreeSet<String> {
    let (_, metrics) = operator.admin("/metrics").await;
    let regions = metrics.split("region=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    regions.map(|(region, _)| region.to_owned()).collect()
}

#[test]
fn the_known_regions_are_those_of_botocore() {
    let library = testbed::tools().join("consumers/lib");
    let python = std::fs::read_dir(library).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read(python.join("site-packages/botocore/data/partitions.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let partitions = file["partitions"].as_array().unwrap().iter();
    let regions = partitions.flat_map(|partition| partition["regions"].as_object().unwrap().keys());
    // aws-global and similar entries are no Regions.
    let regions: BTreeSet<_> = regions.filter(|region| !region.ends_with("-global")).collect();
    let lines: Vec<_> = regions.into_iter().map(String::as_str).collect();
    assert_fresh("src/kms/regions.txt", &(lines.join("\n") + "\n"));
}

/// Measures a new `DataKey` beside others in all other Regions: first alone, then during each fault of those Regions.
async fn beside_failing_regions(name: &str, each: usize, faults: &[(&'static str, Fault)]) {
    // One operator for all namespaces: with a list, each namespace has a queue of its own.
    let failing = TestNamespace::with_own_control_plane(&format!("{name}-failing")).await;
    let live = failing.another_namespace(&format!("{name}-live")).await;
    let _operator = failing.operator_of_all(&PATIENT);
    let alone = time_to_ready(&live, "alone").await;

    let regions: Vec<_> = regions().filter(|region| *region != HEALTHY).collect();
    let [(_, first), ..] = faults else { panic!("no fault") };
    failing.proxy.fail_in_regions(regions.iter().copied(), first);
    for region in &regions {
        failing.create_many(region, each, &json!({ "region": region })).await;
    }
    let mut took = vec![("alone", alone)];
    for (name, fault) in faults {
        failing.proxy.fail_in_regions(regions.iter().copied(), fault);
        let before = failing.proxy.requests().len();
        let called = async || {
            let calls = failing.proxy.requests().split_off(before);
            calls.into_iter().map(|call| call.region).collect::<BTreeSet<_>>().len() >= regions.len()
        };
        eventually(4 * SOON, "each Region is called", called).await;
        took.push((name, time_to_ready(&live, name).await));
    }
    println!("{} DataKeys in {} Regions beside it; to Ready: {took:?}", each * regions.len(), regions.len());
    // A machine that takes more than a second for a single DataKey is too busy to measure.
    let bound = BOUND.max(5 * alone);
    assert!(took.iter().all(|(_, took)| *took < bound), "{took:?}");
}

#[tokio::test]
async fn regions_that_hang_delay_their_own_data_keys_only() {
    beside_failing_regions("regions-hang", 9, &[("hang", Fault::Hang)]).await;
}

// One DataKey in each Region: a call that fails is soon made again, and many of them are work for a debug build.
#[tokio::test]
async fn regions_that_fail_or_crawl_delay_their_own_data_keys_only() {
    let faults = [
        ("throttle", Fault::code("ThrottlingException")),
        ("refuse", Fault::Reset),
        ("crawl", Fault::Delay(Duration::from_secs(9))),
    ];
    beside_failing_regions("regions-fail", 1, &faults).await;
}

#[tokio::test]
async fn when_a_region_recovers_no_namespace_waits_for_another() {
    let flood = TestNamespace::with_stub_kms("recovery-flood").await;
    let one = TestNamespace::with_stub_kms("recovery-one").await;
    let (count, rate) = (300, 50);
    let region = "eu-north-1";
    flood.proxy.fail_in_regions([region], &Fault::Hang);
    let flags = ["--namespace=recovery-one", "--kms-timeout=2s", &format!("--kms-rate={rate}")];
    let _operator = flood.operator_with(&flags, &[]);
    flood.create_many("k", count, &json!({ "region": region })).await;
    one.create("orders", &json!({ "region": region, "encryptionContext": { "purpose": "one" } })).await;
    eventually(SOON, "it is called", async || flood.proxy.calls() > 0).await;

    flood.proxy.clear_faults();
    let before = flood.proxy.calls();
    one.ready("orders").await;
    let calls = flood.proxy.requests();
    let place = |call: &testbed::proxy::Call| call.body["EncryptionContext"]["purpose"] == "one";
    let behind = calls.iter().rposition(place).unwrap().saturating_sub(before);
    assert!(behind <= rate, "{behind} calls came before it");
    assert!(flood.proxy.calls() < before + count, "no DataKey waited any more");
    flood.all_ready(count, 4 * SOON).await;
}

#[tokio::test]
async fn an_unknown_region_is_reported_and_never_called() {
    let test = TestNamespace::with_stub_kms("region-unknown").await;
    let specs = [("by-region", json!({ "region": UNKNOWN })), ("by-arn", json!({ "keyId": arn(UNKNOWN) }))];
    {
        let operator = test.operator();
        for (name, spec) in &specs {
            test.create(name, spec).await;
            let key = test.failed(name, "RegionUnknown").await;
            let message = &find(&key, READY).unwrap().message;
            assert!(message.contains(UNKNOWN) && message.contains("--extra-regions"), "{message}");
            assert_eq!(find(&key, STALLED).unwrap().status, "True");
        }
        // Any host name.
        for number in 0..100 {
            let name = format!("{}-{}", char::from(b'a' + number / 10), char::from(b'a' + number % 10));
            test.create(&name, &json!({ "region": format!("zz-{name}-1") })).await;
        }
        test.failed("j-j", "RegionUnknown").await;
        assert_eq!((test.proxy.calls(), labels(&operator).await.len()), (0, 0));
        test.patch("by-region", &json!({ "spec": { "region": HEALTHY } })).await;
        test.ready("by-region").await;
        assert_eq!(labels(&operator).await.into_iter().collect::<Vec<_>>(), [HEALTHY]);
    }
    let calls = test.proxy.calls();
    let _operator = test.operator_with(&[&format!("--extra-regions={UNKNOWN}")], &[]);
    let key = test.ready("by-arn").await;
    assert_eq!(key.recorded_version(1).unwrap().key_id, arn(UNKNOWN));
    assert_eq!(test.proxy.calls(), calls + 1);
}

#[tokio::test]
async fn what_is_issued_pinned_or_adopted_needs_no_known_region() {
    let test = TestNamespace::with_stub_kms("region-forgotten").await;
    let spec = json!({ "region": UNKNOWN });
    let pin;
    {
        let _operator = test.operator_with(&[&format!("--extra-regions={UNKNOWN}")], &[]);
        test.issue("issued", &spec).await;
        pin = serde_json::to_value(test.issue("adopted", &spec).await.recorded_version(1)).unwrap();
    }
    let before = test.data("issued").await;
    assert_eq!(text(&before, "keyId"), arn(UNKNOWN));
    let secret = restored(&test.secret("adopted").await);
    test.delete("adopted").await;
    test.delete_secret("adopted").await;
    test.create_secret(&secret).await;
    let calls = test.proxy.calls();

    let _operator = test.operator();
    test.create("adopted", &spec).await;
    test.ready("adopted").await;
    test.issue("pinned", &json!({ "region": UNKNOWN, "wrappedKeys": [pin] })).await;
    test.delete_secret("issued").await;
    test.secret_becomes("issued", &before).await;
    test.ready("issued").await;
    assert_eq!(test.proxy.calls(), calls);

    test.patch("issued", &json!({ "spec": { "version": 2 } })).await;
    test.failed("issued", "RegionUnknown").await;
    test.secret_becomes("issued", &before).await;
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn at_most_64_regions_have_label_values_of_their_own() {
    let test = TestNamespace::with_stub_kms("region-labels").await;
    let extra: Vec<_> = ('a'..='z').map(|letter| format!("xx-{letter}-1")).collect();
    let operator = test.operator_with(&[&format!("--extra-regions={}", extra.join(","))], &[]);
    let all: Vec<_> = regions().map(str::to_owned).chain(extra).collect();
    for region in &all {
        test.create(region, &json!({ "region": region })).await;
    }
    test.all_ready(all.len(), 2 * SOON).await;
    let labels = labels(&operator).await;
    assert!(labels.contains("other") && labels.len() == 65, "{labels:?}");
}
