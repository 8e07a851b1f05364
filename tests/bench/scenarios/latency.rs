//! How long one DataKey takes from its creation to Ready.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use testbed::{eventually, kms, proxy::Fault};
use tokio::task::JoinSet;

use crate::{
    bed::{self, Bed, UNLIMITED},
    limit::Work,
    observer::{Drain, Observer},
    report::{Report, ms},
    stats::percentile,
};

/// How many DataKeys wait for KMS while others are issued.
const WAITING: usize = 400;

/// One DataKey after the other, with a fast and a slower KMS; then so many a second for a time; then one after the other while
/// other Regions hang. Returns the median and the 99th percentile of the first.
pub async fn run(bed: &Bed, count: usize, rate: u32, seconds: u32, report: &mut Report) -> [Duration; 2] {
    let mut rows = Vec::new();
    let mut first = None;
    let bare = one_by_one_bare(bed, count).await;
    let namespace = "latency";
    bed.plane.namespace(namespace).await;
    let dead = "latency-dead";
    bed.plane.namespace(dead).await;
    let operator = bed.operator(namespace, &[UNLIMITED, "--namespace", dead]).await;
    for delay in [0, 10].map(Duration::from_millis) {
        bed.kms.fail_always(Fault::Delay(delay));
        let ours = one_by_one(bed, namespace, &format!("idle-{}", delay.as_millis()), count).await;
        first.get_or_insert_with(|| [0.5, 0.99].map(|share| percentile(&ours, share)));
        let sum = |share| percentile(&bare, share) + delay;
        rows.push(vec![
            format!("one at a time, KMS {}", ms(delay)),
            ms(percentile(&ours, 0.5)),
            ms(percentile(&ours, 0.99)),
            ms(sum(0.5)),
            ms(sum(0.99)),
        ]);
        bed.kms.clear_faults();
    }
    let busy = at_a_rate(bed, namespace, rate, seconds).await;
    rows.push(vec![
        format!("{rate} created a second for {seconds} s, KMS 0.0 ms"),
        ms(percentile(&busy, 0.5)),
        ms(percentile(&busy, 0.99)),
        "not measured".to_owned(),
        "not measured".to_owned(),
    ]);
    let regions = let_regions_hang(bed, dead).await;
    let ours = one_by_one(bed, namespace, "beside", count).await;
    rows.push(vec![
        format!("one at a time, KMS 0.0 ms, while {WAITING} of another namespace wait for {regions} Regions that hang"),
        ms(percentile(&ours, 0.5)),
        ms(percentile(&ours, 0.99)),
        ms(percentile(&bare, 0.5)),
        ms(percentile(&bare, 0.99)),
    ]);
    drop(operator);
    bed.kms.clear_faults();
    report.table(&["creation to Ready", "p50", "p99", "bare requests, p50", "bare requests, p99"], &rows);
    first.unwrap()
}

/// Every Region but the operator's hangs, and DataKeys wait for each; how many Regions.
async fn let_regions_hang(bed: &Bed, namespace: &str) -> usize {
    let regions: Vec<_> =
        include_str!("../../../src/kms/regions.txt").lines().filter(|of| *of != kms::REGION).collect();
    bed.kms.fail_in_regions(regions.iter().copied(), &Fault::Hang);
    for number in 0..WAITING {
        bed::create(&bed.admin, namespace, &format!("k-{number}"), regions[number % regions.len()]).await;
    }
    let called = async || {
        let called: BTreeSet<_> = bed.kms.requests().into_iter().map(|call| call.region).collect();
        regions.iter().all(|region| called.contains(*region))
    };
    eventually(Duration::from_secs(30), "each Region is called", called).await;
    regions.len()
}

/// How long each of so many DataKeys takes, one after the other.
pub async fn one_by_one(bed: &Bed, namespace: &str, prefix: &str, count: usize) -> Vec<Duration> {
    let mut observer = Observer::keys(&bed.bare, namespace, 1).await;
    let mut took = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        bed::create(&bed.admin, namespace, &format!("{prefix}-{number}"), kms::REGION).await;
        took.push(observer.last(1).await - begun);
    }
    took
}

/// The same requests, creation included, without any operator.
async fn one_by_one_bare(bed: &Bed, count: usize) -> Vec<Duration> {
    let namespace = "latency-bare";
    bed.plane.namespace(namespace).await;
    let _watches = Drain::open(&bed.bare, namespace).await;
    let mut took = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        let key = bed::create(&bed.admin, namespace, &format!("k-{number}"), kms::REGION).await;
        let created = begun.elapsed();
        let work = Work::new(&key);
        let begun = Instant::now();
        work.done(&bed.bare).await;
        took.push(created + begun.elapsed());
    }
    took
}

/// The clock of each runs from when it was due, so that a late creation counts too.
async fn at_a_rate(bed: &Bed, namespace: &str, rate: u32, seconds: u32) -> Vec<Duration> {
    let mut observer = Observer::keys(&bed.bare, namespace, 1).await;
    let due = Arc::new(Mutex::new(HashMap::new()));
    let mut creations = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let count = rate * seconds;
    for number in 0..count {
        let at = tick.tick().await.into_std();
        let name = format!("busy-{number}");
        due.lock().unwrap().insert(name.clone(), at);
        let admin = bed.admin.clone();
        let namespace = namespace.to_owned();
        creations.spawn(async move {
            bed::create(&admin, &namespace, &name, kms::REGION).await;
        });
    }
    let seen = observer.seen(count as usize).await;
    let due = due.lock().unwrap();
    seen.into_iter().map(|(name, at)| at - due[&name]).collect()
}
