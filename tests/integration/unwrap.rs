//! `datakey-unwrap` with Secrets of the operator, as the kubelet mounts them, and a KMS server.

mod exec;
mod failures;
mod files;
mod memory;
mod pairs;
mod rewraps;
mod sources;
mod tampering;
mod watch;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use testbed::{
    commands::{Ended, end_of},
    kms,
    mount::Mount,
    process::{Process, Workdir},
    proxy::DECRYPT,
};
use tokio::process::Command;

use crate::harness::{Operator, TestNamespace};

/// The DataKey that the workload trusts.
const ORDERS: &str = "orders";

/// A workload with a mounted Secret, and a folder in memory for its keys.
struct Workload {
    test: TestNamespace,
    _operator: Operator,
    mount: Mount,
    memory: Workdir,
}

// === impl Workload ===

impl Workload {
    /// Issues the DataKey and mounts its Secret.
    async fn new(name: &str) -> Self {
        let workload = Self::without_key(name).await;
        workload.test.issue(ORDERS, &json!({ "encryptionContext": { "purpose": ORDERS } })).await;
        workload.mount(ORDERS).await;
        workload
    }

    async fn without_key(name: &str) -> Self {
        let test = TestNamespace::new(name).await;
        let operator = test.operator();
        let mount = Mount::new(&test.plane.workdir().file(&format!("{name}-mount")));
        Self { test, _operator: operator, mount, memory: Workdir::in_memory(name) }
    }

    /// Mounts another Secret, or the present content of the same one.
    async fn mount(&self, name: &str) {
        self.mount.show(&self.test.data(name).await);
    }

    /// Issues the next version and mounts it.
    async fn rotate(&self, version: i32) {
        self.test.patch(ORDERS, &json!({ "spec": { "version": version } })).await;
        self.test.ready(ORDERS).await;
        self.mount(ORDERS).await;
    }

    /// What the manifest of the workload says of its data key.
    fn trust(&self) -> [String; 2] {
        [format!("--trust={} purpose={ORDERS}", self.test.key.arn), "--key-spec=AES_256".to_owned()]
    }

    /// A command that unwraps, with the arguments that trust the DataKey, and these.
    fn command(&self, name: &str, more: &[&str]) -> Command {
        let trust = self.trust();
        let arguments: Vec<_> = trust.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.command_with(name, &arguments)
    }

    /// The same without the arguments that trust the DataKey.
    fn command_with(&self, name: &str, more: &[&str]) -> Command {
        self.command_to(name, self.memory.path(), more)
    }

    fn command_to(&self, name: &str, to: &Path, more: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(testbed::unwrap());
        command.env_clear().envs(kms::environment(&self.test.proxy.url()));
        command.arg(name).arg("--from").arg(self.mount.path());
        if matches!(name, "file" | "watch") {
            command.arg("--to").arg(to);
        }
        let is_given = |flag: &str| more.iter().any(|argument| argument.as_ref().to_string_lossy().starts_with(flag));
        // Without them, a fault of the network costs a test many seconds.
        command.args(["--timeout=10s", "--retries=0"].into_iter().filter(|flag| !is_given(&flag[..9])));
        command.args(more);
        command
    }

    /// Runs a command to its end.
    async fn run(&self, name: &str, more: &[&str]) -> Ended {
        end_of(self.command(name, more)).await
    }

    /// Starts `watch`.
    fn watch(&self, more: &[&str]) -> Process {
        self.start("watch", more)
    }

    /// Starts a command that does not end by itself. All of one test share a log.
    fn start(&self, name: &str, more: &[&str]) -> Process {
        let mut command = self.command(name, more);
        command.env("PATH", "/usr/bin:/bin");
        let log = self.test.plane.workdir().file(&format!("{}-{name}.log", self.test.namespace));
        let variables: Vec<_> = variables(&command).collect();
        let command = command.as_std();
        Process::start(Path::new(command.get_program()), command.get_args(), variables, &log)
    }

    /// The path of a key file.
    fn file(&self, name: &str) -> PathBuf {
        self.memory.file(name)
    }

    /// The content of a key file.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.file(name)).ok()
    }

    /// The plaintext of a version, as the test itself unwraps it.
    async fn plaintext(&self, version: i32) -> Vec<u8> {
        self.test.decrypt(&self.test.data(ORDERS).await, &format!(".v{version}")).await
    }

    /// How often KMS was asked to unwrap.
    fn calls(&self) -> usize {
        self.test.proxy.calls_of(DECRYPT)
    }
}

/// The variables that a command sets.
fn variables(command: &Command) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    command.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)))
}

/// Asserts that a command ended with this exit code, and with one line on standard error that has these words.
#[track_caller]
fn assert_ended(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, code, "{ended:?}");
    assert!(ended.err.contains(words) && ended.err.starts_with("datakey-unwrap: "), "{words}: {ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    assert!(ended.out.is_empty(), "{ended:?}");
}

/// Asserts that a key is in none of these texts, in whatever form.
#[track_caller]
fn assert_without(key: &[u8], texts: &[&[u8]]) {
    let forms = [key.to_vec(), base16ct::lower::encode_string(key).into(), BASE64_STANDARD.encode(key).into()];
    for (text, form) in texts.iter().flat_map(|text| forms.iter().map(move |form| (text, form))) {
        assert!(memchr::memmem::find(text, form).is_none(), "a key is in plaintext in one of {} bytes", text.len());
    }
}

/// The wrong answer that a test makes of a right one.
fn answer(key_arn: &str, plaintext: &[u8]) -> Value {
    json!({ "KeyId": key_arn, "Plaintext": BASE64_STANDARD.encode(plaintext), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" })
}
