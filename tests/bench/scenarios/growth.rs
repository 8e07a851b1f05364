//! From a thousand to a hundred thousand DataKeys: speed, memory, restart, rest.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use testbed::kms;
use tokio::time::sleep;

use crate::{
    bed::{self, Bed, Memory, UNLIMITED},
    observer::Observer,
    report::{Report, Series, mib, plot},
    stats::median,
};

const NAMESPACE: &str = "growth";

/// The plots.
pub const SPEED: &str = "performance-speed.svg";
pub const MEMORY: &str = "performance-memory.svg";

struct Row {
    size: usize,
    limit: f64,
    speed: f64,
    /// While they were issued, and after it.
    issuing: Memory,
    restart: Restart,
}

struct Restart {
    ready: Duration,
    working: Duration,
    memory: Memory,
    /// Share of one processor while nothing happens.
    cpu: Option<f64>,
}

/// Grows to each size in turn, in one cluster. The bare loop runs before and after, beside what is already there. At the sizes
/// in `idle` the processor time at rest is taken over this time.
pub async fn run(
    bed: &Bed,
    sizes: &[usize],
    sample: usize,
    idle: (&[usize], Duration),
    folder: &Path,
    report: &mut Report,
) {
    bed.plane.namespace(NAMESPACE).await;
    let mut rows: Vec<Row> = Vec::new();
    for &size in sizes {
        let before = rows.last().map_or(0, |row| row.size + 1);
        let first = bed.limit(&format!("limit-{size}-a"), sample).await;
        let (speed, operator) = bed.issued(NAMESPACE, &format!("k{size}"), size - before).await;
        operator.rest().await;
        let issuing = operator.memory();
        drop(operator);
        let second = bed.limit(&format!("limit-{size}-b"), sample).await;
        let idle = idle.0.contains(&size).then_some(idle.1);
        let restart = restart(bed, size, idle).await;
        let limit = median(&[first, second]);
        println!("{size}: {speed:.1} of {first:.1} and {second:.1}, {issuing:?}, {restart:?}");
        rows.push(Row { size, limit, speed, issuing, restart });
    }

    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                row.size.to_string(),
                format!("{:.0}", row.limit),
                format!("{:.0}", row.speed),
                format!("{:.2}", row.speed / row.limit),
                mib(row.issuing.peak),
                mib(row.issuing.now),
            ]
        })
        .collect();
    report.table(
        &[
            "DataKeys",
            "limit, keys/s",
            "operator, keys/s",
            "ratio",
            "peak memory while issuing",
            "memory at rest after it",
        ],
        &table,
    );
    let table: Vec<_> = rows
        .iter()
        .map(|Row { size, restart, .. }| {
            vec![
                size.to_string(),
                format!("{:.2} s", restart.ready.as_secs_f64()),
                format!("{:.2} s", restart.working.as_secs_f64()),
                mib(restart.memory.peak),
                mib(restart.memory.now),
                restart.cpu.map_or_else(|| "not taken".to_owned(), |cpu| format!("{:.3} %", cpu * 100.0)),
            ]
        })
        .collect();
    report.paragraph("Restarted with all of them ready, and one new DataKey that waits:");
    report.table(
        &[
            "DataKeys",
            "start to ready",
            "start to the new one Ready",
            "peak memory",
            "memory at rest",
            "one processor at rest",
        ],
        &table,
    );
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    let each = |memory: fn(&Row) -> u64| (memory(last) - memory(first)) as f64 / (last.size - first.size) as f64;
    report.paragraph(&format!(
        "Between the first and the last row, one more DataKey costs {:.0} bytes of resident memory at rest after a restart, \
         {:.0} bytes at the peak of a restart, and {:.0} bytes at the peak while they are issued.",
        each(|row| row.restart.memory.now),
        each(|row| row.restart.memory.peak),
        each(|row| row.issuing.peak),
    ));

    let points = |value: &dyn Fn(&Row) -> f64| rows.iter().map(|row| (row.size as f64, value(row))).collect();
    let speeds = [
        Series { name: "limit: bare requests", points: points(&|row| row.limit) },
        Series { name: "operator", points: points(&|row| row.speed) },
    ];
    plot(&folder.join(SPEED), "Data keys issued a second", ("DataKeys in the cluster", "data keys a second"), &speeds);
    let bytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let memory = [
        Series { name: "peak while issuing", points: points(&|row| bytes(row.issuing.peak)) },
        Series { name: "at rest after a restart", points: points(&|row| bytes(row.restart.memory.now)) },
    ];
    plot(&folder.join(MEMORY), "Resident memory of the operator", ("DataKeys in the cluster", "MiB"), &memory);
}

/// Starts the operator where all DataKeys are ready, but for one that is new.
async fn restart(bed: &Bed, size: usize, idle: Option<Duration>) -> Restart {
    let mut observer = Observer::keys(&bed.bare, NAMESPACE, 1).await;
    bed::create(&bed.admin, NAMESPACE, &format!("new-{size}"), kms::REGION).await;
    let calls = bed.kms.calls();
    let operator = bed.operator(NAMESPACE, &[UNLIMITED]).await;
    let working = observer.last(1).await - operator.started;
    operator.rest().await;
    assert_eq!(bed.kms.calls(), calls + 1, "what is ready needs no KMS");
    let memory = operator.memory();
    let cpu = match idle {
        None => None,
        Some(window) => {
            let (cpu, begun) = (operator.cpu(), Instant::now());
            sleep(window).await;
            Some((operator.cpu() - cpu).div_duration_f64(begun.elapsed()))
        }
    };
    Restart { ready: operator.ready - operator.started, working, memory, cpu }
}

impl std::fmt::Debug for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ready {:?}, working {:?}, {:?}, cpu {:?}", self.ready, self.working, self.memory, self.cpu)
    }
}
