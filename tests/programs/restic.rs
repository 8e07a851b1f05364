//! restic: a backup that a data key encrypts, in base64 as the password. restic never asks KMS, and a repository has several keys.

use std::{fs, path::PathBuf};

use serde_json::Value;
use testbed::{commands, tools};
use tokio::process::Command;

use crate::bed::Bed;

const ORDERS: &str = "order 1: one anvil\n";

/// A repository, and what is backed up in it.
struct Repository {
    bed: Bed,
    path: String,
    orders: PathBuf,
}

fn program() -> PathBuf {
    tools().join("bin/restic")
}

// === impl Repository ===

impl Repository {
    /// A KMS server with version 1, and nothing in the repository yet.
    async fn new(purpose: &str) -> Self {
        let bed = Bed::start(purpose, None).await;
        let orders = bed.workdir.file("orders.txt");
        fs::write(&orders, ORDERS).unwrap();
        Self { path: bed.workdir.file("repository").display().to_string(), bed, orders }
    }

    /// The flags of each command, with the file of the password.
    fn flags<'a>(&'a self, password: &'a str) -> [&'a str; 6] {
        ["--repo", &self.path, "--no-cache", "--quiet", "--password-file", password]
    }

    /// Runs restic with a key file.
    async fn run(&self, key: &str, arguments: &[&str]) -> Result<String, String> {
        let key = self.bed.key(key);
        commands::run(Command::new(program()).env_clear().args(self.flags(&key)).args(arguments)).await
    }

    /// Runs restic under `datakey-unwrap exec`, with the variable of a key.
    async fn exec(&self, variable: &str, arguments: &[&str]) -> Result<String, String> {
        let password = format!("{{{variable}}}");
        self.bed.exec("base64", &program(), &[&self.flags(&password), arguments].concat()).await
    }

    fn orders(&self) -> &str {
        self.orders.to_str().unwrap()
    }

    /// The IDs of the keys other than the one that lists them.
    fn other_keys(listed: &str) -> Vec<String> {
        let keys: Vec<Value> = serde_json::from_str(listed).unwrap();
        let others = keys.iter().filter(|key| key["current"] == false);
        others.map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_keeps_a_backup_readable_through_a_rotation() {
    let mut repository = Repository::new("restic").await;
    repository.bed.file(&["--format", "base64"]).await;
    repository.run("current", &["init"]).await.unwrap();
    repository.run("current", &["backup", repository.orders()]).await.unwrap();

    repository.bed.rotate().await;
    repository.bed.file(&["--format", "base64"]).await;
    let refused = repository.run("current", &["ls", "latest"]).await.unwrap_err();
    assert!(refused.contains("wrong password or no key found"), "version 2 is another key: {refused}");
    let new = repository.bed.key("v2");
    repository.run("v1", &["key", "add", "--new-password-file", &new]).await.unwrap();
    let dumped = repository.run("current", &["dump", "latest", repository.orders()]).await.unwrap();
    assert_eq!(dumped, ORDERS, "what was backed up under version 1");

    let listed = repository.run("current", &["key", "list", "--json"]).await.unwrap();
    let old = Repository::other_keys(&listed);
    assert_eq!(old.len(), 1, "{listed}");
    repository.run("current", &["key", "remove", &old[0]]).await.unwrap();
    let refused = repository.run("v1", &["ls", "latest"]).await.unwrap_err();
    assert!(refused.contains("wrong password or no key found"), "{refused}");
    repository.run("current", &["check", "--read-data"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_gets_its_keys_by_exec_without_a_file() {
    let mut repository = Repository::new("restic-exec").await;
    repository.exec("DATAKEY_CURRENT_FILE", &["init"]).await.unwrap();
    repository.exec("DATAKEY_CURRENT_FILE", &["backup", repository.orders()]).await.unwrap();

    repository.bed.rotate().await;
    let add = ["key", "add", "--new-password-file={DATAKEY_V2_FILE}"];
    repository.exec("DATAKEY_V1_FILE", &add).await.unwrap();
    let dumped = repository.exec("DATAKEY_CURRENT_FILE", &["dump", "latest", repository.orders()]).await.unwrap();
    assert_eq!(dumped, ORDERS);
    let files = fs::read_dir(repository.bed.keys()).unwrap().count();
    assert_eq!(files, 0, "no key was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_reads_a_backup_when_the_first_kms_key_is_gone() {
    let mut repository = Repository::new("restic-moved").await;
    repository.bed.file(&["--format", "base64"]).await;
    repository.run("current", &["init"]).await.unwrap();
    repository.run("current", &["backup", repository.orders()]).await.unwrap();

    // Version 2 is the same data key under another KMS key, and the first one is disabled.
    repository.bed.move_away().await;
    repository.bed.file(&["--format", "base64"]).await;
    assert_eq!(fs::read_to_string(repository.bed.key("version")).unwrap().trim(), "2");
    for key in ["v1", "current"] {
        let dumped = repository.run(key, &["dump", "latest", repository.orders()]).await.unwrap();
        assert_eq!(dumped, ORDERS, "{key}");
    }
}
