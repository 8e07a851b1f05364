//! A KMS key that wrapped many data keys is scheduled for deletion: how new data keys fare while the condition of each object is written.

use std::time::{Duration, Instant};

use datakey::api::{DataKey, KeyKind as _};
use kube::{Api, api::ListParams};
use testbed::{eventually, proxy::Fault};

use super::latency::one_by_one;
use crate::{
    bed::{Bed, UNLIMITED},
    report::{Report, ms},
    stats::percentile,
};

/// Each KMS key is asked about every ten seconds. A refused one is asked about again five seconds later.
const OFTEN: &str = "--key-check-interval=10s";

/// So many DataKeys of one KMS key, and so many new ones, one after the other, before and after it turns bad.
pub async fn run(bed: &Bed, settled: usize, count: usize, report: &mut Report) {
    let (namespace, new) = ("key-check", "key-check-new");
    for namespace in [namespace, new] {
        bed.plane.namespace(namespace).await;
    }
    let (_, operator) = bed.issued(namespace, "k", settled).await;
    drop(operator);
    let _operator = bed.operator(namespace, &[UNLIMITED, OFTEN, "--namespace", new]).await;
    let before = one_by_one(bed, new, "before", count).await;
    bed.kms.fail_dry_runs_always(Fault::code("KMSInvalidStateException"));
    eventually(Duration::from_mins(1), "the first condition", async || reported(bed, namespace).await > 0).await;
    let (begun, written) = (Instant::now(), reported(bed, namespace).await);
    let during = one_by_one(bed, new, "during", count).await;
    let (took, written) = (begun.elapsed(), reported(bed, namespace).await - written);
    bed.kms.clear_faults();
    let row =
        |what: &str, took: &[Duration]| vec![what.to_owned(), ms(percentile(took, 0.5)), ms(percentile(took, 0.99))];
    report.table(
        &["creation to Ready, one at a time", "p50", "p99"],
        &[row("all KMS keys are usable", &before), row("conditions are written", &during)],
    );
    report.paragraph(&format!(
        "{written} of {settled} conditions were written meanwhile: {:.1} a second.",
        written as f64 / took.as_secs_f64()
    ));
}

/// How many objects have the condition.
async fn reported(bed: &Bed, namespace: &str) -> usize {
    let keys: Api<DataKey> = Api::namespaced(bed.plane.admin().await, namespace);
    let all = keys.list(&ListParams::default()).await.unwrap();
    let has = |key: &&DataKey| key.status().is_some_and(|status| status.conditions.key_usable().is_some());
    all.items.iter().filter(has).count()
}
