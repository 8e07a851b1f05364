//! Many new DataKeys at once, against the limit, in turn.

use std::time::Duration;

use crate::{
    bed::{Bed, Best},
    report::{Report, ms},
    stats::median,
};

/// Which ways of the bare loop are tried.
const WAYS: [(usize, usize); 6] = [(1, 16), (1, 32), (1, 64), (2, 32), (2, 64), (4, 64)];

/// Finds how the bare loop is fastest: the best of two rounds over all ways.
pub async fn calibrate(bed: &mut Bed, count: usize) -> Vec<(Best, f64)> {
    let mut tried = Vec::new();
    for (connections, concurrency) in WAYS {
        bed.set(Best { connections, concurrency }).await;
        let mut rounds = Vec::new();
        for round in 0..2 {
            rounds.push(bed.limit(&format!("way-{connections}-{concurrency}-{round}"), count).await.speed);
        }
        tried.push((bed.best, median(&rounds)));
    }
    let best = tried.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    bed.set(best).await;
    tried
}

/// Bursts of these sizes, so many pairs of each; the namespace of the last one, with its DataKeys ready.
pub async fn run(bed: &Bed, sizes: &[(usize, usize)], report: &mut Report) -> String {
    let mut rows = Vec::new();
    let mut namespace = String::new();
    for &(size, pairs) in sizes {
        let [mut limits, mut ours, mut ratios] = [const { Vec::new() }; 3];
        let mut cpu = Vec::new();
        for pair in 0..pairs {
            let limit = bed.limit(&format!("limit-{size}-{pair}"), size).await;
            namespace = format!("burst-{size}-{pair}");
            bed.plane.namespace(&namespace).await;
            let (issued, operator) = bed.issued(&namespace, "k", size).await;
            let operator = operator.cpu() / size as u32;
            println!("{size}: limit {limit:?}, operator {issued:?} and {operator:?} itself");
            limits.push(limit.speed);
            ours.push(issued.speed);
            ratios.push(issued.speed / limit.speed);
            cpu.push([operator, issued.apiserver, limit.apiserver]);
        }
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        rows.push(vec![
            size.to_string(),
            format!("{:.0}", median(&limits)),
            format!("{:.0}", median(&ours)),
            format!("**{:.2}**", median(&ratios)),
            each.join(", "),
            times(&cpu, 0),
            times(&cpu, 1),
            times(&cpu, 2),
        ]);
    }
    report.table(
        &[
            "new DataKeys at once",
            "limit, keys/s",
            "operator, keys/s",
            "ratio, median",
            "ratio of each pair",
            "operator, processor time for each",
            "API server, processor time for each",
            "API server under the limit",
        ],
        &rows,
    );
    namespace
}

/// The median of one of the processor times.
fn times(pairs: &[[Duration; 3]], which: usize) -> String {
    let seconds: Vec<_> = pairs.iter().map(|times| times[which].as_secs_f64()).collect();
    ms(Duration::from_secs_f64(median(&seconds)))
}
