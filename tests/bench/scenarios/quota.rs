//! The rate of KMS: used, never exceeded, of each Region its own, and lowered where KMS throttles.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use testbed::{kms, proxy::Call};
use tokio::time::sleep;

use crate::{
    bed::{self, Bed, CREATORS},
    limit,
    observer::Observer,
    report::Report,
    stats::most_in_a_second,
};

const OTHER_REGION: &str = "eu-north-1";

/// One Region at a rate, two at half of it, and one that throttles at half of it.
pub async fn run(bed: &Bed, rate: u32, seconds: u32, report: &mut Report) {
    let half = rate / 2;
    let mut rows = Vec::new();
    for (namespace, rate, regions) in
        [("one-region", rate, &[kms::REGION][..]), ("two-regions", half, &[kms::REGION, OTHER_REGION])]
    {
        let calls = steady(bed, namespace, rate, seconds, regions).await;
        for region in regions {
            let times = times(&calls, |call| call.region == *region);
            let took = *times.last().unwrap() - times[0];
            let used = (times.len() - 1) as f64 / took.as_secs_f64() / f64::from(rate);
            rows.push(vec![
                format!(
                    "{}, {region}",
                    if regions.len() == 1 { "1 Region".to_owned() } else { format!("{} Regions", regions.len()) }
                ),
                format!("{rate}/s"),
                format!("{:.1} %", used * 100.0),
                most_in_a_second(&times).to_string(),
            ]);
        }
    }
    report.table(&["KMS calls", "--kms-rate", "used", "most in any second"], &rows);
    throttled(bed, rate, half, seconds, report).await;
}

/// All calls of so many seconds' work in each Region.
async fn steady(bed: &Bed, namespace: &str, rate: u32, seconds: u32, regions: &[&str]) -> Vec<Call> {
    bed.plane.namespace(namespace).await;
    let each = (rate * seconds) as usize;
    let count = each * regions.len();
    create(bed, namespace, count, regions).await;
    let before = bed.kms.calls();
    let mut ready = Observer::keys(&bed.bare, namespace, 1).await;
    let _operator = bed.operator(namespace, &[&format!("--kms-rate={rate}")]).await;
    ready.seen(count).await;
    let calls = bed.kms.requests().split_off(before);
    assert_eq!(calls.len(), count, "one call a DataKey");
    calls
}

async fn create(bed: &Bed, namespace: &str, count: usize, regions: &[&str]) {
    let keys =
        (0..count).map(|number| (format!("k-{number:06}"), regions[number % regions.len()].to_owned())).collect();
    let (admin, namespace) = (bed.admin.clone(), namespace.to_owned());
    limit::each(keys, CREATORS, move |(name, region): (String, String)| {
        let (admin, namespace) = (admin.clone(), namespace.clone());
        async move {
            bed::create(&admin, &namespace, &name, &region).await;
        }
    })
    .await;
}

/// KMS throttles at a quota for a time, and then no more.
async fn throttled(bed: &Bed, rate: u32, quota: u32, seconds: u32, report: &mut Report) {
    let namespace = "throttled";
    bed.plane.namespace(namespace).await;
    // Enough for the whole time at the full rate; what is left over is not waited for.
    let recovery = Duration::from_mins(1);
    create(bed, namespace, (rate * (seconds + 60)) as usize, &[kms::REGION]).await;
    let before = bed.kms.calls();
    bed.kms.quota(NonZeroU32::new(quota));
    let operator = bed.operator(namespace, &[&format!("--kms-rate={rate}")]).await;
    sleep(Duration::from_secs(seconds.into())).await;
    let lifted = Instant::now();
    bed.kms.quota(None);
    sleep(recovery).await;
    let end = Instant::now();
    drop(operator);

    let calls = bed.kms.requests().split_off(before);
    let (during, after): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.at.into_std() < lifted);
    let refused = times(&during, |call| call.is_throttled).len();
    let taken = (during.len() - refused) as f64 / f64::from(seconds);
    let at_the_end = times(&after, |call| call.at.into_std() >= end - Duration::from_secs(10)).len() as f64 / 10.0;
    report.paragraph(&format!(
        "With `--kms-rate={rate}` while KMS throttles at {quota}/s for {seconds} s: {taken:.1} data keys a second, \
         {:.1} % of the calls throttled. Once KMS no longer throttles, the rate recovers by itself: {at_the_end:.1} calls a \
         second in the last 10 s of the following minute.",
        refused as f64 / during.len() as f64 * 100.0,
    ));
}

fn times(calls: &[Call], counts: impl Fn(&Call) -> bool) -> Vec<Instant> {
    let mut times: Vec<_> = calls.iter().filter(|call| counts(call)).map(|call| call.at.into_std()).collect();
    times.sort_unstable();
    times
}
