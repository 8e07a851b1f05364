//! The servers and the operator that are measured.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use datakey::api::DataKey;
use hyper::{Method, StatusCode, body::Bytes};
use serde_json::json;
use testbed::{control_plane::ControlPlane, free_port, kms, process::Process, proxy::KmsProxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{
    bare::{Bare, JSON},
    limit::{self, Work},
    observer::{self, Drain, Observer},
    stats::per_second,
};

/// How many requests are under way where objects are created.
pub const CREATORS: usize = 16;

/// As the operator is run where KMS is not to be what limits it.
pub const UNLIMITED: &str = "--kms-rate=1000000";

/// A control plane and a KMS that answers by itself.
pub struct Bed {
    pub plane: ControlPlane,
    pub kms: KmsProxy,
    /// With the operator's identity.
    pub bare: Bare,
    /// With an administrator's.
    pub admin: Bare,
    pub kubeconfig: PathBuf,
    /// How the bare loop is fastest.
    pub best: Best,
}

/// How many connections and requests under way the bare loop uses.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    pub connections: usize,
    pub concurrency: usize,
}

/// How DataKeys were brought to Ready.
#[derive(Clone, Copy, Debug)]
pub struct Issuing {
    /// DataKeys a second.
    pub speed: f64,
    /// The API server's processor time for each.
    pub apiserver: Duration,
}

/// A running operator.
pub struct Operator {
    process: Process,
    address: String,
    pub started: Instant,
    /// When it was ready to work.
    pub ready: Instant,
}

// === impl Bed ===

impl Bed {
    /// Starts one.
    pub async fn new(best: Best) -> Self {
        let plane = ControlPlane::start().await;
        let kubeconfig = plane.operator_kubeconfig().await;
        let bare = Bare::connect(&kubeconfig, best.connections).await;
        for command in [
            "create serviceaccount bench --namespace=default",
            "create clusterrolebinding bench --clusterrole=cluster-admin --serviceaccount=default:bench",
        ] {
            plane.kubectl(&command.split(' ').collect::<Vec<_>>()).await.unwrap();
        }
        let admin = Bare::connect(&plane.kubeconfig_of("default", "bench").await, 1).await;
        Self { plane, kms: KmsProxy::stub().await, bare, admin, kubeconfig, best }
    }

    /// Uses the bare loop in another way from now on.
    pub async fn set(&mut self, best: Best) {
        self.bare = Bare::connect(&self.kubeconfig, best.connections).await;
        self.best = best;
    }

    /// Creates so many DataKeys in a namespace, and returns them as the API server answers.
    pub async fn create(&self, namespace: &str, prefix: &str, count: usize) -> Vec<DataKey> {
        let created = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let names = (0..count).map(|number| format!("{prefix}-{number:06}")).collect();
        let (admin, into, namespace) = (self.admin.clone(), Arc::clone(&created), namespace.to_owned());
        limit::each(names, CREATORS, move |name: String| {
            let (admin, into, namespace) = (admin.clone(), Arc::clone(&into), namespace.clone());
            async move {
                let key = create(&admin, &namespace, &name, kms::REGION).await;
                into.lock().unwrap().push(key);
            }
        })
        .await;
        std::mem::take(&mut *created.lock().unwrap())
    }

    /// How the bare loop brings DataKeys to Ready, so many in a namespace of their own, with watches open as the operator's are.
    pub async fn limit(&self, namespace: &str, count: usize) -> Issuing {
        self.plane.namespace(namespace).await;
        let keys = self.create(namespace, "k", count).await;
        let work = keys.iter().map(Work::new).collect();
        let _watches = Drain::open(&self.bare, namespace).await;
        let mut observer = Observer::keys(&self.bare, namespace, 1).await;
        let bare = self.bare.clone();
        self.apiserver_is_idle().await;
        let (begun, cpu) = (Instant::now(), self.apiserver_cpu());
        limit::each(work, self.best.concurrency, move |work: Work| {
            let bare = bare.clone();
            async move { work.done(&bare).await }
        })
        .await;
        let speed = per_second(count, observer.last(count).await - begun);
        Issuing { speed, apiserver: (self.apiserver_cpu() - cpu) / count as u32 }
    }

    /// How many Secrets a second a bare loop of POSTs creates.
    pub async fn posts(&self, namespace: &str, count: usize) -> f64 {
        self.plane.namespace(namespace).await;
        let keys = self.create(namespace, "k", count).await;
        let work = keys.iter().map(Work::new).collect();
        let _watches = Drain::open(&self.bare, namespace).await;
        let bare = self.bare.clone();
        let took = limit::each(work, self.best.concurrency, move |work: Work| {
            let bare = bare.clone();
            async move { work.publish(&bare).await }
        });
        per_second(count, took.await)
    }

    /// How an operator that has just become ready brings so many new DataKeys to Ready, and the operator.
    pub async fn issued(&self, namespace: &str, prefix: &str, count: usize) -> (Issuing, Operator) {
        self.create(namespace, prefix, count).await;
        let mut observer = Observer::keys(&self.bare, namespace, 1).await;
        let operator = self.operator(namespace, &[UNLIMITED]).await;
        let cpu = self.apiserver_cpu();
        let speed = per_second(count, observer.last(count).await - operator.ready);
        (Issuing { speed, apiserver: (self.apiserver_cpu() - cpu) / count as u32 }, operator)
    }

    /// What kube-apiserver takes.
    pub fn apiserver_memory(&self) -> Memory {
        Memory::of(self.plane.apiserver_pid())
    }

    fn apiserver_cpu(&self) -> Duration {
        processor_time(self.plane.apiserver_pid())
    }

    /// Waits until the API server has nothing left of what was done before: a definition that changes makes it build its
    /// OpenAPI documents again, after it has answered, and objects that were created leave it garbage.
    async fn apiserver_is_idle(&self) {
        // Its profiler collects the garbage before it answers (Go, net/http/pprof).
        let answer = self.admin.ask(Method::GET, "/debug/pprof/heap?gc=1", JSON, Bytes::new()).await;
        answer.must_be(StatusCode::OK);
        let second = Duration::from_secs(1);
        loop {
            let before = self.apiserver_cpu();
            sleep(second).await;
            if self.apiserver_cpu() - before <= second / 20 {
                return;
            }
        }
    }

    /// The size of etcd's database, in bytes.
    pub fn etcd(&self) -> u64 {
        std::fs::metadata(self.plane.workdir().file("etcd/member/snap/db")).unwrap().len()
    }

    /// Starts the operator on a namespace, and waits until it is ready.
    pub async fn operator(&self, namespace: &str, flags: &[&str]) -> Operator {
        self.operator_by(&self.kubeconfig, namespace, flags).await
    }

    /// Starts one with another way to the API server.
    pub async fn operator_by(&self, kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Operator {
        self.start(kubeconfig, &[&["--namespace", namespace], flags].concat()).await
    }

    /// Starts one that watches every namespace, and waits until it is ready.
    pub async fn operator_of_all(&self, flags: &[&str]) -> Operator {
        self.start(&self.kubeconfig, flags).await
    }

    async fn start(&self, kubeconfig: &Path, flags: &[&str]) -> Operator {
        let program = std::env::var_os("BENCH_OPERATOR").map_or_else(testbed::operator, PathBuf::from);
        let address = format!("127.0.0.1:{}", free_port());
        let mut arguments = vec!["run", "--log-format=json", "--admin-address", &address];
        arguments.extend(flags);
        let mut environment: Vec<_> = kms::environment(&self.kms.url()).into();
        environment.push(("KUBECONFIG", kubeconfig.display().to_string()));
        let log = self.plane.workdir().file("operator.log");
        // Those of a hundred thousand DataKeys are long.
        let _ = std::fs::remove_file(&log);
        let started = Instant::now();
        let process = Process::start(&program, arguments, environment, &log);
        let mut operator = Operator { process, address, started, ready: started };
        while !operator.is_ready().await {
            assert!(operator.process.is_running(), "the operator ended:\n{}", operator.process.log());
            sleep(Duration::from_millis(2)).await;
        }
        operator.ready = Instant::now();
        operator
    }
}

/// Creates a DataKey.
pub async fn create(admin: &Bare, namespace: &str, name: &str, region: &str) -> DataKey {
    let manifest = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "keyId": "alias/orders",
            "keySpec": "AES_256",
            "encryptionContext": { "purpose": name },
            "region": region,
        },
    });
    let body = serde_json::to_vec(&manifest).unwrap().into();
    let answer = admin.write(Method::POST, &observer::keys(namespace), body, StatusCode::CREATED).await;
    serde_json::from_slice(&answer).unwrap()
}

// === impl Operator ===

impl Operator {
    async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.address).await else { return false };
        let request = format!("GET /readyz HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        let mut answer = String::new();
        let sent = stream.write_all(request.as_bytes()).await.is_ok();
        sent && stream.read_to_string(&mut answer).await.is_ok() && answer.split(' ').nth(1) == Some("200")
    }

    pub fn memory(&self) -> Memory {
        Memory::of(self.process.pid())
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Duration {
        processor_time(self.process.pid())
    }

    /// Waits until it has had nothing to do for three seconds.
    pub async fn rest(&self) {
        loop {
            let before = self.cpu();
            sleep(Duration::from_secs(3)).await;
            if self.cpu() - before <= Duration::from_millis(20) {
                return;
            }
        }
    }
}

/// Processor time of a process so far, of user and system (Linux, `/proc/PID/stat`, in hundredths of a second).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let hundredths = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(hundredths * 10)
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

// === impl Memory ===

impl Memory {
    /// Of a process: now, and at its peak (Linux, `/proc/PID/status`).
    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Self { now: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}
