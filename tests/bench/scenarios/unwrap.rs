//! The helper of workloads: from its start to the key files, and its memory.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use datakey::{
    fixtures::{ARN, recorded},
    secret::Projection,
};
use testbed::{
    http::Stop,
    kms,
    mount::Mount,
    process::Workdir,
    proxy::{DECRYPT, Fault, KmsProxy},
};
use tokio::process::Command;

use crate::{bed::Memory, report::Report, stats::percentile};

/// The time that KMS takes for a call.
const KMS: Duration = Duration::from_millis(10);

/// Measures this many starts with one version, and with ten.
pub async fn run(rounds: usize, report: &mut Report) {
    let bed = Helper::new().await;
    let mut rows = Vec::new();
    for versions in [1, 10] {
        bed.mount(versions);
        let mut took = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let calls = bed.kms.calls_of(DECRYPT);
            took.push(bed.start().await);
            assert_eq!(bed.kms.calls_of(DECRYPT) - calls, versions as usize, "one call for each version");
        }
        let milliseconds = |share: f64| format!("{:.1} ms", percentile(&took, share).as_secs_f64() * 1e3);
        rows.push(vec![
            versions.to_string(),
            format!("{} ms", KMS.as_millis()),
            milliseconds(0.5),
            milliseconds(0.99),
            format!("{:.1} MiB", bed.memory().await),
        ]);
    }
    report.table(&["versions", "KMS", "start to files, p50", "p99", "memory, peak"], &rows);
}

struct Helper {
    kms: KmsProxy,
    program: PathBuf,
    files: Workdir,
    mount: Mount,
    memory: Workdir,
}

// === impl Helper ===

impl Helper {
    async fn new() -> Self {
        // Beside the operator that is measured.
        let operator = PathBuf::from(std::env::var_os("BENCH_OPERATOR").expect("BENCH_OPERATOR: run make bench"));
        let files = Workdir::new("bench-unwrap");
        let mount = Mount::new(&files.file("mount"));
        Self {
            kms: KmsProxy::stub().await,
            program: operator.with_file_name("datakey-unwrap"),
            mount,
            memory: Workdir::in_memory("bench-unwrap"),
            files,
        }
    }

    /// Mounts the Secret of a DataKey with these versions.
    fn mount(&self, versions: i32) {
        let key = recorded(&(1..=versions).collect::<Vec<_>>());
        let data = Projection::of(&key, versions).expect("a projection").data;
        self.mount.show(&data.into_iter().map(|(name, value)| (name, value.0)).collect::<BTreeMap<_, _>>());
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(kms::environment(&self.kms.url())).env("HOME", self.files.path());
        command.args(["file", "--key-spec=AES_256", "--trust", &format!("{ARN} purpose=orders")]);
        command.arg("--from").arg(self.mount.path()).arg("--to").arg(self.memory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }

    /// One start, to its end.
    async fn start(&self) -> Duration {
        self.kms.fail_decrypt_always(Fault::Delay(KMS));
        let begun = Instant::now();
        let status = self.command().status().await.expect("datakey-unwrap is beside the operator");
        let took = begun.elapsed();
        assert!(status.success(), "{status}");
        took
    }

    /// The most memory that was resident until KMS answered the last call, in MiB.
    async fn memory(&self) -> f64 {
        let stop = Stop::default();
        self.kms.fail_decrypt_always(Fault::StopBefore(stop.clone()));
        let mut child = self.command().spawn().expect("datakey-unwrap is beside the operator");
        stop.reached().await;
        // All calls have been sent, or are about to be.
        tokio::time::sleep(KMS).await;
        let memory = Memory::of(child.id().expect("it runs"));
        child.kill().await.expect("end it");
        self.kms.clear_faults();
        memory.peak as f64 / f64::from(1 << 20)
    }
}
