//! `make bench`: the operator at scale, beside the limit of the API server under it, on the same servers in the same run.
//!
//! Machines differ and are noisy: every figure is a ratio or stands beside its limit. KMS is a stub on loopback that answers
//! at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unchecked_time_subtraction,
    missing_docs
)]

mod bare;
mod bed;
mod limit;
mod observer;
mod report;
mod scenarios;
mod stats;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bed::{Bed, Best};
use report::Report;
use scenarios::{
    bursts, classes,
    growth::{self, Growth},
    key_check, latency, quota, repair, restart, rules, unwrap,
};

/// What is run: all, or the scenarios that the arguments name.
fn wanted(scenario: &str) -> bool {
    // Cargo adds --bench.
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == scenario)
}

/// A part of everything, to see that the benchmark itself works: `BENCH_PART=20` is a twentieth.
fn scaled(full: usize) -> usize {
    let part = std::env::var("BENCH_PART").map_or(1, |part| part.parse().expect("BENCH_PART: a number"));
    full.div_ceil(part)
}

#[tokio::main]
async fn main() {
    let begun = Instant::now();
    // The servers inherit these. With GOGC=400, which other tests set, they collect garbage less often.
    for name in ["GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"] {
        assert!(std::env::var_os(name).is_none(), "unset {name}: the servers must run as they do in clusters");
    }
    let folder = PathBuf::from(
        std::env::var_os("BENCH_RESULTS").expect("BENCH_RESULTS, the folder of the results: run make bench"),
    );
    std::fs::create_dir_all(&folder).unwrap();
    let mut measured = None;
    let [
        mut summary,
        mut limit,
        mut bursts,
        mut restart,
        mut latency,
        mut repair,
        mut quota,
        mut cost,
        mut classes,
        mut kms_keys,
        mut growth,
        mut helper,
    ] = std::array::from_fn(|_| Report::default());

    let mut first = Bed::new(Best { connections: 1, concurrency: 32 }).await;
    let tried = bursts::calibrate(&mut first, scaled(500)).await;
    let best = first.best;
    let tried: Vec<_> =
        tried.iter().map(|(way, speed)| format!("{} and {}: {speed:.0}", way.connections, way.concurrency)).collect();
    limit.section(
        "The limit",
        &format!(
            "Connections and requests under way of the bare loop, and the DataKeys a second that it brought to Ready: {}. \
             Below it uses {} and {}.",
            tried.join("; "),
            best.connections,
            best.concurrency,
        ),
    );

    // One cluster at a time: even an idle one takes memory, and some of the processors.
    if wanted("bursts") || wanted("restart") {
        bursts.section(
            "Bursts",
            "New DataKeys at once: the bare loop and the operator in turn, on the same servers. A ratio can exceed 1, because \
             the speed of the machine changes between the two runs of a pair.",
        );
        let namespace = bursts::run(&first, &[(scaled(1000), 5), (scaled(10_000), 2)], &mut bursts).await;
        restart.section("Restarts", "All that is asked for while there is nothing to do.");
        restart::run(first, &namespace, scaled(10_000), &mut restart).await;
    } else {
        drop(first);
    }
    let bed = Bed::new(best).await;
    if wanted("latency") {
        latency.section(
            "Latency",
            "From the creation of a DataKey to Ready, as a client that watches it sees it; beside it the same requests, the \
             creation included, sent one after the other by the bare loop, and the time of KMS.",
        );
        measured = Some(latency::run(&bed, scaled(200), 50, scaled(20).max(3) as u32, &mut latency).await);
    }
    if wanted("repair") {
        repair.section(
            "Rotation and healing",
            "Many at once, against a bare loop that creates Secrets and does nothing else.",
        );
        repair::run(&bed, scaled(1000), 3, &mut repair).await;
    }
    if wanted("quota") {
        quota.section("The quota of KMS", "The calls as they arrive at KMS.");
        quota::run(&bed, 100, scaled(20).max(3) as u32, &mut quota).await;
    }
    drop(bed);
    on_clusters_of_their_own(best, [&mut cost, &mut classes, &mut kms_keys, &mut helper]).await;
    if wanted("growth") {
        let window = std::env::var("BENCH_REST").map_or(scaled(300), |rest| rest.parse().expect("BENCH_REST: seconds"));
        let mut cluster = Growth::start(best, scaled(3000)).await;
        for size in [1000, 5000, 10_000, 50_000, 100_000] {
            cluster.to(scaled(size)).await;
        }
        cluster.rest(Duration::from_secs(window as u64)).await;
        growth.section("Growth", "One cluster that grows; each row is a burst from the row before to this one.");
        cluster.report(&folder, &mut growth);
        summary.section("At a glance", "The operator as it is shipped, with a KMS that answers at once.");
        cluster.summary(measured, &mut summary);
    }

    write(
        &[summary, limit, bursts, latency, growth, restart, repair, quota, cost, classes, kms_keys, helper],
        begun,
        &folder,
    );
}

/// Runs the scenarios that need other clusters than the rest, or none.
async fn on_clusters_of_their_own(best: Best, [cost, classes, kms_keys, helper]: [&mut Report; 4]) {
    if wanted("rules") {
        cost.section(
            "The validation rules",
            "The requests of the bare loop, in turn on an API server with the definition and on another one with the same \
             definition without any x-kubernetes-validations.",
        );
        rules::run(best, scaled(1500), 6, cost).await;
    }
    if wanted("classes") {
        classes.section("Classes", "What a changed DataKeyClass costs the operator.");
        classes::run(&Bed::new(best).await, scaled(10_000), classes).await;
    }
    if wanted("key_check") {
        kms_keys.section(
            "A KMS key turns bad",
            "One KMS key wrapped all data keys of the cluster, and AWS KMS does not use it any more.",
        );
        key_check::run(&Bed::new(best).await, scaled(10_000), scaled(200), kms_keys).await;
    }
    if wanted("unwrap") {
        helper.section(
            "datakey-unwrap",
            "From the start of `datakey-unwrap file` to its end, with all key files written, beside the time of KMS for one call.",
        );
        unwrap::run(scaled(100), helper).await;
    }
}

/// Writes the page.
fn write(parts: &[Report], begun: Instant, folder: &Path) {
    let mut report = Report::default();
    for part in parts {
        report.append(part);
    }
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    report.section(
        "This run",
        &format!(
            "Measured in {} minutes on {processors} processors, version {} of the operator. A run can be of some sections only; the \
             others are of an earlier one.",
            begun.elapsed().as_secs().div_ceil(60),
            env!("CARGO_PKG_VERSION"),
        ),
    );
    std::fs::write(folder.join("results.md"), report.text()).unwrap();
    println!("\n{} has this page and the plots", folder.display());
    if std::env::var_os("BENCH_DOCS").is_some() {
        document(&report, folder);
    }
}

/// Puts the results into the documentation.
fn document(report: &Report, folder: &Path) {
    const MARKS: (&str, &str) = ("<!-- results -->\n", "<!-- end of the results -->\n");
    let docs = testbed::repository().join("docs");
    let page = docs.join("performance.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(MARKS.0).unwrap();
    let (earlier, after) = rest.split_once(MARKS.1).unwrap();
    let results = report.merged_into(earlier);
    std::fs::write(&page, format!("{before}{}\n{results}\n{}{after}", MARKS.0, MARKS.1)).unwrap();
    for plot in [growth::SPEED, growth::MEMORY] {
        // There are none where another scenario was run alone.
        if folder.join(plot).exists() {
            std::fs::copy(folder.join(plot), docs.join(plot)).unwrap();
        }
    }
}
