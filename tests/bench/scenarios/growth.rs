//! From a thousand to a hundred thousand DataKeys: speed, memory, restart, rest.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use testbed::kms;
use tokio::time::sleep;

use crate::{
    bed::{self, Bed, Best, Issuing, Memory, Operator, UNLIMITED},
    observer::{self, Observer},
    report::{Report, Series, mib, ms, plot},
    stats::median,
};

const NAMESPACE: &str = "growth";

/// The plots.
pub const SPEED: &str = "performance-speed.svg";
pub const MEMORY: &str = "performance-memory.svg";

struct Row {
    size: usize,
    limit: [Issuing; 2],
    issued: Issuing,
    /// While they were issued, and after it.
    memory: Memory,
    /// The operator's processor time for each of them.
    cpu: Duration,
    apiserver: Memory,
    etcd: u64,
    restart: Restart,
}

struct Restart {
    /// What a bare client takes to read the same lists.
    lists: Duration,
    ready: Duration,
    working: Duration,
    memory: Memory,
    /// Share of one processor while nothing happens, where it was taken.
    cpu: Option<f64>,
}

/// One cluster, and a settled operator in it.
pub struct Growth {
    bed: Bed,
    sample: usize,
    rows: Vec<Row>,
    /// With its processor time when it had settled, and when that was.
    settled: Option<(Operator, Duration, Instant)>,
}

// === impl Row ===

impl Row {
    fn limit(&self) -> f64 {
        median(&self.limit.map(|limit| limit.speed))
    }
}

// === impl Growth ===

impl Growth {
    /// Starts an empty one. The limit is measured with so many DataKeys.
    pub async fn start(best: Best, sample: usize) -> Self {
        let bed = Bed::new(best).await;
        bed.plane.namespace(NAMESPACE).await;
        Self { bed, sample, rows: Vec::new(), settled: None }
    }

    /// Grows to this size. The bare loop runs before and after, beside what is already there.
    pub async fn to(&mut self, size: usize) {
        self.settled = None;
        let Self { bed, sample, .. } = &*self;
        // One more was created at each restart.
        let count = size - self.rows.last().map_or(0, |row| row.size + 1);
        let sample = count.min(*sample);
        let first = bed.limit(&format!("limit-{size}-a"), sample).await;
        let (issued, operator) = bed.issued(NAMESPACE, &format!("k{size}"), count).await;
        operator.rest().await;
        let memory = operator.memory();
        let cpu = operator.cpu() / count as u32;
        let (apiserver, etcd) = (bed.apiserver_memory(), bed.etcd());
        drop(operator);
        let second = bed.limit(&format!("limit-{size}-b"), sample).await;
        let (restart, operator) = self.restart(size).await;
        println!("{size}: {issued:?}, {first:?}, {second:?}, {memory:?}, {restart:?}");
        let cpu_when_settled = operator.cpu();
        self.settled = Some((operator, cpu_when_settled, Instant::now()));
        self.rows.push(Row { size, limit: [first, second], issued, memory, cpu, apiserver, etcd, restart });
    }

    /// Starts the operator where all DataKeys are ready, but for one that is new.
    async fn restart(&self, size: usize) -> (Restart, Operator) {
        let bed = &self.bed;
        let lists = observer::read_lists(&bed.bare, NAMESPACE).await;
        let mut observer = Observer::keys(&bed.bare, NAMESPACE, 1).await;
        bed::create(&bed.admin, NAMESPACE, &format!("new-{size}"), kms::REGION).await;
        let calls = bed.kms.calls();
        let operator = bed.operator(NAMESPACE, &[UNLIMITED]).await;
        let working = observer.last(1).await - operator.started;
        operator.rest().await;
        assert_eq!(bed.kms.calls(), calls + 1, "what is ready needs no KMS");
        let (ready, memory) = (operator.ready - operator.started, operator.memory());
        (Restart { lists, ready, working, memory, cpu: None }, operator)
    }

    /// Measures the processor time of the settled operator over this time. The time of other processes does not count.
    pub async fn rest(&mut self, window: Duration) {
        let (operator, cpu, since) = self.settled.as_ref().unwrap();
        sleep(window.saturating_sub(since.elapsed())).await;
        let share = (operator.cpu() - *cpu).div_duration_f64(since.elapsed());
        self.rows.last_mut().unwrap().restart.cpu = Some(share);
    }

    /// What most readers want to know: speed, latency, memory and restart by the number of DataKeys.
    pub fn summary(&self, latency: Option<[Duration; 2]>, report: &mut Report) {
        let rows = self.rows.iter().map(|row| {
            vec![
                row.size.to_string(),
                format!("{:.0} a second", row.issued.speed),
                format!("{:.0} %", 100.0 * row.issued.speed / row.limit()),
                mib(row.memory.peak),
                mib(row.restart.memory.now),
                format!("{:.1} s", row.restart.working.as_secs_f64()),
            ]
        });
        let header = [
            "DataKeys in the cluster",
            "new data keys",
            "of what the API server allows",
            "memory, peak while issuing",
            "memory, settled",
            "restart until a new DataKey is Ready",
        ];
        report.table(&header, &rows.collect::<Vec<_>>());
        if let Some([median, most]) = latency {
            report.paragraph(&format!("One new DataKey is Ready after {}, 99 % within {}.", ms(median), ms(most)));
        }
    }

    /// The tables and the plots.
    pub fn report(&self, folder: &Path, report: &mut Report) {
        tables(&self.rows, report);
        plots(&self.rows, folder);
        report.paragraph(&format!(
            "![Data keys issued a second]({SPEED})\n\n![Resident memory of the operator]({MEMORY})"
        ));
    }
}

fn tables(rows: &[Row], report: &mut Report) {
    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                row.size.to_string(),
                format!("{:.0}", row.limit()),
                format!("{:.0}", row.issued.speed),
                format!("{:.2}", row.issued.speed / row.limit()),
                ms(row.cpu),
                ms(row.issued.apiserver),
                row.limit.map(|limit| ms(limit.apiserver)).join(", "),
            ]
        })
        .collect();
    report.table(
        &[
            "DataKeys",
            "limit, keys/s",
            "operator, keys/s",
            "ratio",
            "operator, processor time for each",
            "API server, processor time for each",
            "API server under the limit, before and after",
        ],
        &table,
    );
    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                row.size.to_string(),
                mib(row.memory.peak),
                mib(row.memory.now),
                mib(row.apiserver.peak),
                mib(row.etcd),
            ]
        })
        .collect();
    report.paragraph("Memory, and what the servers under it take for these objects:");
    report.table(
        &["DataKeys", "operator, peak while issuing", "settled after it", "API server, peak", "etcd's database"],
        &table,
    );
    let table: Vec<_> = rows
        .iter()
        .map(|Row { size, restart, .. }| {
            vec![
                size.to_string(),
                format!("{:.2} s", restart.lists.as_secs_f64()),
                format!("{:.2} s", restart.ready.as_secs_f64()),
                format!("{:.2} s", restart.working.as_secs_f64()),
                format!("{:.2}", restart.working.div_duration_f64(restart.lists)),
                mib(restart.memory.peak),
                mib(restart.memory.now),
                restart.cpu.map_or_else(|| "not measured".to_owned(), |cpu| format!("{:.3} %", cpu * 100.0)),
            ]
        })
        .collect();
    report.paragraph("Restarted with all of them ready, and one new DataKey that waits:");
    report.table(
        &[
            "DataKeys",
            "bare client, the same lists",
            "start to ready",
            "start to the new one Ready",
            "ratio",
            "peak memory",
            "memory, settled",
            "one processor, settled",
        ],
        &table,
    );
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    let each = |memory: fn(&Row) -> u64| (memory(last) - memory(first)) as f64 / (last.size - first.size) as f64;
    report.paragraph(&format!(
        "Between the first and the last row, one more DataKey costs {:.0} bytes of resident memory, settled after a restart, \
         {:.0} bytes at the peak of a restart, and {:.0} bytes at the peak while they are issued.",
        each(|row| row.restart.memory.now),
        each(|row| row.restart.memory.peak),
        each(|row| row.memory.peak),
    ));
}

fn plots(rows: &[Row], folder: &Path) {
    let points = |value: &dyn Fn(&Row) -> f64| rows.iter().map(|row| (row.size as f64, value(row))).collect();
    let speeds = [
        Series { name: "limit: bare requests", points: points(&Row::limit) },
        Series { name: "operator", points: points(&|row| row.issued.speed) },
    ];
    plot(
        &folder.join(SPEED),
        "Data keys issued a second",
        ("DataKeys in the cluster, logarithmic", "data keys a second"),
        &speeds,
    );
    let bytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let memory = [
        Series { name: "peak while issuing", points: points(&|row| bytes(row.memory.peak)) },
        Series { name: "settled after a restart", points: points(&|row| bytes(row.restart.memory.now)) },
    ];
    plot(
        &folder.join(MEMORY),
        "Resident memory of the operator",
        ("DataKeys in the cluster, logarithmic", "MiB"),
        &memory,
    );
}

impl std::fmt::Debug for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "lists {:?}, ready {:?}, working {:?}, {:?}, cpu {:?}",
            self.lists, self.ready, self.working, self.memory, self.cpu
        )
    }
}
