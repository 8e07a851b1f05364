//! `datakey-unwrap` beside applications that do not call KMS: the samples of deploy/samples/unwrap as they are, each in a namespace
//! of its own that admits restricted pods only. It happens between the steps of the life of the release.

mod account;
mod pod;
mod sample;
mod workload;

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kube::api::PostParams;
use testbed::{eventually, proxy::Fault};
use tokio::time::sleep;

use self::{
    account::Account,
    pod::{Container, Containers},
    workload::{ORDERS, Workload},
};
use crate::{SOON, cluster::Cluster, consumer::DATA, step};

const INIT_CONTAINER: &str = "datakey-e2e-init-container";
const SIDECAR: &str = "datakey-e2e-sidecar";
const EXEC: &str = "datakey-e2e-exec";
const ROLE: &str = "datakey-e2e-role";
const FOREIGN_ROLE: &str = "datakey-e2e-foreign-role";

/// The namespaces of the workloads.
pub const NAMESPACES: [&str; 5] = [INIT_CONTAINER, SIDECAR, EXEC, ROLE, FOREIGN_ROLE];

/// The ARN of the KMS key in samples.
const EXAMPLE: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// What the application does with the key files of the helper.
const SERVE: [&str; 2] = ["serve", "--key-file=/plaintext/current"];

/// The Job of the samples.
const JOB: &str = "orders-export";

/// The workloads.
pub struct Workloads<'a> {
    init_container: Workload<'a>,
    sidecar: Workload<'a>,
    exec: Workload<'a>,
    account: Option<Account<'a>>,
}

// === impl Workloads ===

impl<'a> Workloads<'a> {
    /// Starts those of init-container.yaml, sidecar.yaml and exec.yaml. KMS does not answer the sidecar at first.
    pub async fn start(cluster: &'a Cluster) -> Self {
        step("datakey-unwrap: applications decrypt with an init container, a sidecar that waits for KMS, and exec");
        let issued = cluster.proxy.calls();
        let new = async |namespace| Workload::new(cluster, namespace, &cluster.kms, &cluster.key).await;
        let [mut init_container, mut sidecar, mut exec] =
            [new(INIT_CONTAINER).await, new(SIDECAR).await, new(EXEC).await];
        for workload in [&mut init_container, &mut sidecar, &mut exec] {
            workload.issue().await;
        }
        assert_eq!(cluster.proxy.calls(), issued + 3);
        sidecar.proxy.fail_decrypt_always(Fault::Reset);
        sidecar.start("sidecar.yaml", &SERVE).await;
        init_container.start("init-container.yaml", &SERVE).await;
        // Its arguments are in the sample.
        exec.start("exec.yaml", &[]).await;

        for workload in [&init_container, &exec] {
            workload.decrypts("/", 1).await;
            assert_eq!(workload.calls(), 1, "{}", workload.namespace);
        }
        init_container.decrypts("/v1", 1).await;
        assert_eq!(init_container.containers().await["unwrap"].exit_code, Some(0));

        eventually(SOON, "the sidecar runs and asks KMS", async || {
            let containers = sidecar.containers().await;
            containers.get("unwrap").is_some_and(|unwrap| unwrap.is_running) && sidecar.calls() > 0
        })
        .await;
        let waiting = sidecar.containers().await;
        assert!(!waiting["unwrap"].is_started, "{waiting:?}");
        assert_eq!(waiting[ORDERS].id, None, "the application must not start without its key: {waiting:?}");
        sidecar.proxy.clear_faults();
        sidecar.decrypts("/", 1).await;
        sidecar.never_restarted().await;
        Self { init_container, sidecar, exec, account: None }
    }

    /// Rotates the data key of the sidecar. The kubelet takes its time.
    pub async fn rotate(&mut self) {
        step(
            "datakey-unwrap: the data key of the sidecar is rotated; the kubelet changes the mounted Secret within about a minute",
        );
        self.sidecar.rotate(2).await;
    }

    /// Runs the Job of the samples beside the first workload.
    pub async fn complete_a_job(&self) {
        step("datakey-unwrap: a Job completes, because its sidecar ends with its main container");
        let workload = &self.init_container;
        let (cluster, namespace, calls) = (workload.cluster, workload.namespace, workload.calls());
        let data = BASE64_STANDARD.encode(workload.encrypted(1));
        workload.start("job.yaml", &["decrypt", "/plaintext/current", &data]).await;
        let job = format!("job/{JOB}");
        let complete = ["wait", "--for=condition=Complete", "-n", namespace, &job, "--timeout=2m"];
        cluster.kubectl(&complete).await.unwrap();
        let printed = cluster.kubectl(&["logs", "-n", namespace, &job, "-c", JOB]).await.unwrap();
        assert_eq!(printed, DATA);
        let containers = workload.containers_of(JOB).await;
        assert_eq!(containers.len(), 2, "{containers:?}");
        assert!(containers.values().all(|container| container.exit_code == Some(0) && container.restarts == 0));
        assert_eq!(workload.calls(), calls + 1);
    }

    /// Starts workloads that IAM decides on.
    pub async fn ask_iam(&mut self) {
        let account = Account::start(self.sidecar.cluster).await;
        account.decides().await;
        self.account = Some(account);
    }

    /// Waits until the rotation is there.
    pub async fn follow_rotation(&self) {
        step(
            "datakey-unwrap: the running application has the new data key, and reads what is encrypted under the earlier one",
        );
        self.sidecar.decrypts("/", 2).await;
        self.sidecar.decrypts("/v1", 1).await;
        self.sidecar.never_restarted().await;
        // Nothing looks again where nothing watches.
        assert_eq!((self.init_container.calls(), self.exec.calls()), (2, 1), "the Job has asked once, too");
    }

    /// Rotates while KMS does not answer.
    pub async fn outlast_an_outage(&mut self) {
        step("datakey-unwrap: KMS does not answer during a rotation; the files stay, and follow when it does");
        let sidecar = &mut self.sidecar;
        sidecar.proxy.fail_decrypt_always(Fault::Reset);
        let calls = sidecar.calls();
        sidecar.rotate(3).await;
        sidecar.hurry().await;
        eventually(SOON, "the sidecar asks KMS", async || sidecar.calls() > calls).await;
        sidecar.prints("unwrap", "AWS KMS could not be called").await;
        sidecar.decrypts("/", 2).await;
        assert!(sidecar.answer("/", 3).await.is_err(), "the third data key cannot be there");
        sidecar.proxy.clear_faults();
        sidecar.decrypts("/", 3).await;
        sidecar.decrypts("/v1", 1).await;
        sidecar.never_restarted().await;
    }

    /// How often each workload asked KMS.
    pub fn calls(&self) -> [usize; 4] {
        let allowed = &self.account.as_ref().unwrap().allowed;
        [&self.init_container, &self.sidecar, &self.exec, allowed].map(Workload::calls)
    }

    /// Asserts that all work after a restart of the node, and have unwrapped their data keys again: what was in memory is gone.
    pub async fn come_back(&self, before: [usize; 4]) {
        self.init_container.decrypts("/", 1).await;
        self.exec.decrypts("/", 1).await;
        self.sidecar.decrypts("/", 3).await;
        self.sidecar.decrypts("/v1", 1).await;
        self.account.as_ref().unwrap().allowed.decrypts("/", 1).await;
        let after = self.calls();
        assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
    }

    /// Replaces the Secret of the sidecar by that of another DataKey with the same name, while no operator restores it. Returns the
    /// container of the application.
    pub async fn refuse_another_data_key(&self) -> Container {
        step(
            "datakey-unwrap: another data key takes the place of the Secret; the sidecar refuses it, and the application works on",
        );
        let sidecar = &self.sidecar;
        let (before, calls) = (sidecar.containers().await, sidecar.calls());
        let mut secret = sidecar.secrets().get(ORDERS).await.unwrap();
        secret.data = sidecar.cluster.secrets().await.remove(ORDERS).unwrap().data;
        sidecar.secrets().replace(ORDERS, &PostParams::default(), &secret).await.unwrap();
        sidecar.hurry().await;
        sidecar.ends("unwrap", 2).await;
        sidecar.prints("unwrap", "the Secret was changed").await;
        let after = sidecar.containers().await;
        assert_eq!(after[ORDERS], before[ORDERS], "the application was disturbed");
        sidecar.decrypts("/", 3).await;
        sidecar.decrypts("/v1", 1).await;
        assert_eq!(sidecar.calls(), calls, "KMS is not asked for a data key that is not trusted");
        println!("{}", sidecar.cluster.kubectl(&["get", "pods", "-n", SIDECAR]).await.unwrap().trim_end());
        after[ORDERS].clone()
    }

    /// Asserts that the sidecar takes over the files when the operator has restored the Secret, beside the same container of the
    /// application.
    pub async fn accept_the_restored_one(&self, application: &Container) {
        step("datakey-unwrap: the operator has restored the Secret; the sidecar starts again and asks KMS nothing");
        let (sidecar, calls) = (&self.sidecar, self.sidecar.calls());
        let mut containers = Containers::new();
        eventually(SOON, "the sidecar is started", async || {
            containers = sidecar.containers().await;
            let unwrap = &containers["unwrap"];
            unwrap.is_running && unwrap.is_started
        })
        .await;
        assert_eq!(&containers[ORDERS], application, "the application was disturbed");
        // It looks at the Secret once a second.
        sleep(Duration::from_secs(2)).await;
        assert_eq!(sidecar.containers().await, containers, "it goes on");
        sidecar.decrypts("/", 3).await;
        assert_eq!(sidecar.calls(), calls);
    }
}
