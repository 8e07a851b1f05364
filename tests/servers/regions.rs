//! Which Regions the operator calls, and what it holds for them.

use std::collections::BTreeSet;

use datakey_operator::status::{READY, STALLED, find};
use serde_json::{Value, json};
use testbed::{assert_fresh, kms};

use crate::test::{Operator, SOON, Test, restored, text};

/// Where the operator is.
const HEALTHY: &str = kms::REGION;

/// A Region that is none of AWS.
const UNKNOWN: &str = "xx-nowhere-1";

fn regions() -> impl Iterator<Item = &'static str> {
    include_str!("../../src/kms/regions.txt").lines()
}

fn arn(region: &str) -> String {
    format!("arn:aws:kms:{region}:{}:key/1234abcd-12ab-34cd-56ef-1234567890ab", kms::ACCOUNT)
}

/// The Regions that have label values.
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
    // aws-global and the like are no Regions.
    let regions: BTreeSet<_> = regions.filter(|region| !region.ends_with("-global")).collect();
    let lines: Vec<_> = regions.into_iter().map(String::as_str).collect();
    assert_fresh("src/kms/regions.txt", &(lines.join("\n") + "\n"));
}

#[tokio::test]
async fn an_unknown_region_is_reported_and_never_called() {
    let test = Test::with_many("region-unknown").await;
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
        // Any name.
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
    assert_eq!(key.issued(1).unwrap().key_id, arn(UNKNOWN));
    assert_eq!(test.proxy.calls(), calls + 1);
}

#[tokio::test]
async fn what_is_issued_pinned_or_adopted_needs_no_known_region() {
    let test = Test::with_many("region-forgotten").await;
    let spec = json!({ "region": UNKNOWN });
    let pin;
    {
        let _operator = test.operator_with(&[&format!("--extra-regions={UNKNOWN}")], &[]);
        test.issue("issued", &spec).await;
        pin = serde_json::to_value(test.issue("adopted", &spec).await.issued(1)).unwrap();
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
    test.holds("issued", &before).await;
    test.ready("issued").await;
    assert_eq!(test.proxy.calls(), calls);

    test.patch("issued", &json!({ "spec": { "version": 2 } })).await;
    test.failed("issued", "RegionUnknown").await;
    test.holds("issued", &before).await;
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn at_most_64_regions_have_label_values_of_their_own() {
    let test = Test::with_many("region-labels").await;
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
