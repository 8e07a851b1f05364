//! What docs/consume.md shows, as it is in deploy/samples/consumers: workloads that unwrap and use the data keys of a
//! Secret that the operator wrote, through a rotation, and what they refuse.

mod iam;
mod key_pairs;
mod rewraps;
mod samples;

use std::{path::PathBuf, sync::Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testbed::{commands, kms, mount::Mount, repository, tools};
use tokio::process::Command;

use crate::harness::{Operator, TestNamespace};

/// The data key that the samples are written for, and two wrong ones of the same KMS key: with another encryption context, and
/// with another length.
const ORDERS: &str = "orders";
const INVOICES: &str = "invoices";
const SHORT: &str = "short";

/// A workload that mounts a Secret, `orders` unless a test says otherwise.
struct Workload {
    test: TestNamespace,
    _operator: Operator,
    /// The name of the right Secret.
    secret: &'static str,
    /// Where the Secret is mounted.
    keys: Mount,
    /// The output of its programs.
    said: Mutex<String>,
}

// === impl Workload ===

impl Workload {
    /// Issues the data keys, and mounts the right one.
    async fn new(name: &str) -> Self {
        let test = TestNamespace::new(name).await;
        let operator = test.operator();
        for purpose in [ORDERS, INVOICES] {
            test.issue(purpose, &json!({ "encryptionContext": { "purpose": purpose } })).await;
        }
        let short = json!({ "encryptionContext": { "purpose": ORDERS }, "keySpec": "AES_128" });
        test.issue(SHORT, &short).await;
        let keys = Mount::new(&test.plane.workdir().file(&format!("{name}-keys")));
        keys.show(&test.data(ORDERS).await);
        Self { test, _operator: operator, secret: ORDERS, keys, said: Mutex::default() }
    }

    /// Issues version 2 and mounts it as workloads can see it for a moment: new entries have no links yet.
    async fn rotate(&self) {
        self.test.patch(ORDERS, &json!({ "spec": { "version": 2 } })).await;
        self.test.ready(ORDERS).await;
        self.keys.replace(&self.test.data(ORDERS).await);
    }

    /// Replaces the data key in the mounted Secret by another one, as an edit of the Secret would.
    async fn mount_another(&self) {
        self.keys.show(&self.test.data(INVOICES).await);
    }

    /// Replaces it by a data key that the KMS key and the encryption context fit, and that is shorter.
    async fn mount_short(&self) {
        self.keys.show(&self.test.data(SHORT).await);
    }

    async fn mount_right(&self) {
        self.keys.show(&self.test.data(self.secret).await);
    }

    /// A file that the programs write to or read.
    fn file(&self, name: &str) -> PathBuf {
        self.test.plane.workdir().file(&format!("{}-{name}", self.test.namespace))
    }

    /// The environment of a workload that trusts the test's KMS key, and nothing of this process's own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(kms::environment(&self.test.proxy.url())).envs([
            ("PATH", std::env::var("PATH").unwrap()),
            ("KEYS", self.keys.path().display().to_string()),
            ("KMS_KEY_ARNS", self.test.key.arn.clone()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ]);
        command
    }

    /// Python with what the samples require, to run one of them.
    fn python(&self, sample: &str) -> Command {
        let mut command = self.interpreter();
        command.arg(folder("python").join(sample));
        command
    }

    fn interpreter(&self) -> Command {
        let python = tools().join("consumers/bin/python");
        assert!(python.exists(), "the requirements of the samples are missing: run `make tools`");
        self.command(&python.display().to_string())
    }

    /// Runs a program to its end. The error is its output.
    async fn run(&self, command: &mut Command) -> Result<(), String> {
        self.prints(command).await.map(drop)
    }

    /// The same. Returns what it prints.
    async fn prints(&self, command: &mut Command) -> Result<String, String> {
        let ended = commands::run(command).await;
        self.said.lock().unwrap().push_str(ended.as_ref().unwrap_or_else(|error| error));
        ended
    }

    /// How many data keys workloads unwrapped.
    fn unwrappings(&self) -> usize {
        self.test.proxy.calls_of("Decrypt")
    }

    /// The plaintext of a version, as the test itself unwraps it.
    async fn plaintext(&self, version: u32) -> Vec<u8> {
        self.test.decrypt(&self.test.data(self.secret).await, &format!(".v{version}")).await
    }

    /// Decrypts what a sample encrypted: the version and the data.
    async fn open(&self, sealed: &[u8]) -> (u32, Vec<u8>) {
        let (header, rest) = sealed.split_first_chunk::<4>().unwrap();
        let (nonce, ciphertext) = rest.split_first_chunk::<12>().unwrap();
        let version = u32::from_be_bytes(*header);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.plaintext(version).await).unwrap();
        let mut data = ciphertext.to_vec();
        let length = key.open_in_place(Nonce::from(nonce), Aad::from(header), &mut data).unwrap().len();
        data.truncate(length);
        (version, data)
    }

    /// Asserts that no plaintext of a data key, in whatever form, is in what was printed or written.
    async fn wrote_no_plaintext(&self, written: &[&[u8]]) {
        let said = self.said.lock().unwrap().clone();
        for version in [1, 2] {
            let plaintext = self.plaintext(version).await;
            let forms =
                [plaintext.clone(), base16ct::lower::encode_string(&plaintext).into(), base64(&plaintext).into()];
            for text in written.iter().copied().chain([said.as_bytes()]) {
                let contains = |form: &Vec<u8>| text.windows(form.len()).any(|window| window == form);
                assert!(!forms.iter().any(contains), "version {version} is in plaintext in an output");
            }
        }
    }
}

/// The folder of a sample.
fn folder(sample: &str) -> PathBuf {
    repository().join("deploy/samples/consumers").join(sample)
}

fn base64(bytes: &[u8]) -> String {
    json!(k8s_openapi::ByteString(bytes.to_vec())).as_str().unwrap().to_owned()
}

fn from_base64(text: &str) -> Vec<u8> {
    serde_json::from_value::<k8s_openapi::ByteString>(text.into()).unwrap().0
}

/// Asserts that a program failed with this text in its output.
fn assert_failed<T: std::fmt::Debug>(ended: Result<T, String>, words: &str) {
    let said = ended.expect_err(words);
    assert!(said.contains(words), "expected: {words}\nbut it says: {said}");
}

#[tokio::test]
async fn init_container_is_admitted_under_the_restricted_standard() {
    let test = TestNamespace::new("consume-restricted").await;
    let enforce = ["label", "namespace", &test.namespace, "pod-security.kubernetes.io/enforce=restricted"];
    test.plane.kubectl(&enforce).await.unwrap();
    let sample = folder("aws-cli").display().to_string();
    let applied = ["apply", "-k", &sample, "-n", &test.namespace, "--validate=strict", "-o", "json"];
    let applied = test.plane.kubectl(&applied).await.unwrap();
    let applied: Value = serde_json::from_str(&applied).unwrap();
    let items = applied["items"].as_array().unwrap();
    let mut pod = items.iter().find(|item| item["kind"] == "Deployment").unwrap()["spec"]["template"].clone();
    // A Deployment is admitted with a warning, its pods are not.
    pod["metadata"]["name"] = "orders".into();
    let pods: Api<Pod> = Api::namespaced(test.client.clone(), &test.namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mut created: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&dry_run, &created).await.unwrap();
    created.spec.as_mut().unwrap().security_context = None;
    let refused = pods.create(&dry_run, &created).await.map_err(|error| error.to_string());
    assert_failed(refused, "violates PodSecurity");

    // In the cluster the script is the file that runs in the test above.
    let script = items.iter().find(|item| item["kind"] == "ConfigMap").unwrap()["data"]["unwrap.sh"].clone();
    assert_eq!(script, std::fs::read_to_string(folder("aws-cli").join("unwrap.sh")).unwrap());
}
