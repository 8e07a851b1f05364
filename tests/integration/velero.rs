//! Restores by Velero. `make velero` has Velero's own restore do them, and compares what it sends with the files in `velero/`:
//! `UPDATE=1` writes these, and a backup that is missing is made. Everywhere else what is in the files is sent, so that the
//! operator meets what Velero does, without building Velero.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::ByteString;
use kube::{ResourceExt, api::DeleteParams};
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::{assert_fresh, commands, eventually, repository};
use tokio::process::Command;

use crate::harness::{Data, Operator, SOON, TestNamespace, to_json};

const FOLDER: &str = "tests/integration/velero";

/// The namespace of the backup.
const NAMESPACE: &str = "velero-drill";

/// The `DataKey`s of the backup, each with versions 1 and 2: one under `Retain`, one under `Delete`.
const NAMES: [&str; 2] = ["orders", "sessions"];

const KEYS: &str = "--include-resources=datakeys.datakey.dev";
const SECRETS: &str = "--include-resources=secrets";
const WITH_STATUS: &str = "--status-include-resources=datakeys.datakey.dev";
const UPDATE: &str = "--existing-resource-policy=update";

/// A write that Velero sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    method: String,
    path: String,
    content_type: String,
    body: Value,
    answer: u16,
}

struct Drill {
    test: TestNamespace,
    /// The program that restores as Velero does.
    velero: Option<PathBuf>,
    /// What the backup has, by name: the record and the data of the Secret.
    backup: BTreeMap<&'static str, (Value, Data)>,
}

// === impl Sent ===

impl Sent {
    /// A write without what differs from run to run.
    fn normal(line: &str) -> Value {
        let mut sent: Value = serde_json::from_str(line).unwrap();
        let metadata = sent["body"]["metadata"].as_object_mut().unwrap();
        for (field, value) in [("uid", json!("")), ("resourceVersion", json!("")), ("managedFields", json!([]))] {
            metadata.entry(field).and_modify(|found| *found = value);
        }
        sent
    }

    /// Sends it; a status with the current resource version, again for as long as it conflicts with another write.
    async fn send(mut self, test: &TestNamespace) {
        let is_status = self.method == "PUT";
        loop {
            if is_status {
                let object =
                    request(test, "GET", self.path.trim_end_matches("/status"), "", &Value::Null).await.unwrap();
                self.body["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            }
            let answer = request(test, &self.method, &self.path, &self.content_type, &self.body).await;
            let answer = answer.map_or_else(|code| code, |_| if self.method == "POST" { 201 } else { 200 });
            if !(is_status && answer == 409) {
                assert_eq!(answer, self.answer, "{} {}", self.method, self.path);
                return;
            }
        }
    }
}

async fn request(test: &TestNamespace, method: &str, path: &str, type_: &str, body: &Value) -> Result<Value, u16> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", type_);
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    match test.client.request(request.body(body).unwrap()).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}

// === impl Drill ===

impl Drill {
    async fn new() -> Self {
        let test = TestNamespace::new(NAMESPACE).await;
        let velero = std::env::var_os("DATAKEY_VELERO").map(PathBuf::from);
        if velero.is_some() && !file("backup.json").exists() {
            back_up(&test).await;
        }
        let list: Value = serde_json::from_slice(&std::fs::read(file("backup.json")).unwrap()).unwrap();
        let objects = list["items"].as_array().unwrap();
        let backup = NAMES.map(|name| {
            let of_kind = |kind: &str| {
                objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
            };
            let data = of_kind("Secret")["data"].as_object().unwrap();
            let bytes = |value: &Value| serde_json::from_value::<ByteString>(value.clone()).unwrap().0;
            let data = data.iter().map(|(entry, value)| (entry.clone(), bytes(value))).collect();
            (name, (of_kind("DataKey")["status"]["versions"].clone(), data))
        });
        Self { test, velero, backup: backup.into() }
    }

    /// `velero restore create NAME --from-backup nightly` with these flags.
    async fn restore(&self, name: &str, flags: &[&str]) {
        let recording = format!("{name}.json");
        if let Some(velero) = &self.velero {
            let sent = self.by_velero(velero, name, flags).await;
            assert_fresh(&format!("{FOLDER}/{recording}"), &(serde_json::to_string_pretty(&sent).unwrap() + "\n"));
            return;
        }
        let recorded = std::fs::read(file(&recording)).unwrap();
        for sent in serde_json::from_slice::<Vec<Sent>>(&recorded).unwrap() {
            sent.send(&self.test).await;
        }
    }

    async fn by_velero(&self, velero: &Path, name: &str, flags: &[&str]) -> Vec<Value> {
        let mut command = Command::new(velero);
        command.arg(name).arg(file("backup.json")).args(flags);
        let printed = commands::run(command.env("KUBECONFIG", self.test.plane.admin_kubeconfig())).await.unwrap();
        // A status that met another write is sent again, with the resource version that is there then.
        printed.lines().map(Sent::normal).filter(|sent| !(sent["method"] == "PUT" && sent["answer"] == 409)).collect()
    }

    /// Asserts that each `DataKey` is ready with the Secret and the record of the backup.
    async fn is_restored(&self) {
        for (name, (record, data)) in &self.backup {
            let key = self.test.ready(name).await;
            assert_eq!(&to_json(&key.record()), record, "{name}");
            assert_eq!(&self.test.data(name).await, data, "{name}");
        }
    }

    /// Asserts that a version younger than the backup survives a restore over it.
    async fn is_newer_than_the_backup(&self) {
        let (test, name) = (&self.test, NAMES[0]);
        test.patch(name, &json!({ "spec": { "version": 3 } })).await;
        let (newer, data) = (test.ready(name).await, test.data(name).await);
        self.restore("older", &[UPDATE]).await;
        let key = test.ready(name).await;
        assert_eq!((key.wanted_version(), key.record()), (2, newer.record()));
        let mut expected = self.backup[name].1.clone();
        expected.extend(data.into_iter().filter(|(entry, _)| entry.contains(".v3")));
        test.secret_becomes(name, &expected).await;
    }

    /// Deletes everything that was restored.
    async fn clear(&self, operator: &Operator) {
        for name in NAMES {
            self.test.delete(name).await;
        }
        // Until the operator sees that the DataKeys are gone, it restores their Secrets.
        let no_keys = async || !operator.admin("/metrics").await.1.contains("datakey_datakeys{");
        eventually(SOON, "the operator has no DataKeys", no_keys).await;
        for name in NAMES {
            // That of the policy Delete may be gone.
            let _ = self.test.secrets().delete(name, &DeleteParams::default()).await;
        }
        eventually(SOON, "the Secrets are gone", async || {
            self.test.secrets().list(&<_>::default()).await.unwrap().items.is_empty()
        })
        .await;
    }
}

fn file(name: &str) -> PathBuf {
    repository().join(FOLDER).join(name)
}

/// Writes the backup of `DataKey`s that the operator issues, and deletes them.
async fn back_up(test: &TestNamespace) {
    let operator = test.operator();
    for (name, policy) in NAMES.into_iter().zip(["Retain", "Delete"]) {
        let spec = json!({ "encryptionContext": { "purpose": name }, "deletionPolicy": policy });
        test.issue(name, &spec).await;
        test.patch(name, &json!({ "spec": { "version": 2 } })).await;
        test.ready(name).await;
    }
    drop(operator);
    let get = ["get", "datakeys,secrets", "-n", NAMESPACE, "--show-managed-fields", "-o", "json"];
    std::fs::write(file("backup.json"), test.plane.kubectl(&get).await.unwrap()).unwrap();
    for name in NAMES {
        test.delete(name).await;
        test.delete_secret(name).await;
    }
}

/// In one test, because the objects of the backup are all in one namespace.
#[tokio::test]
async fn a_restore_by_velero_brings_the_same_bytes_and_costs_no_call() {
    let drill = Drill::new().await;
    let test = &drill.test;
    let before = test.proxy.calls();
    let operator = test.operator();

    drill.restore("all", &[]).await;
    drill.is_restored().await;
    for name in NAMES {
        assert!(test.secret(name).await.owner_references().is_empty(), "{name}: what was adopted is kept");
    }
    // Objects that exist are skipped or get the labels of the restore: they stay ready.
    drill.restore("again", &[]).await;
    drill.is_restored().await;
    drill.restore("update", &[UPDATE]).await;
    drill.is_restored().await;
    assert_eq!(test.proxy.calls(), before);
    drill.is_newer_than_the_backup().await;
    drill.clear(&operator).await;

    let before = test.proxy.calls();
    drill.restore("keys", &[KEYS]).await;
    for name in NAMES {
        test.failed(name, "RestoredWithoutKey").await;
    }
    drill.restore("secrets", &[SECRETS]).await;
    drill.is_restored().await;
    drill.clear(&operator).await;

    drill.restore("keys-with-status", &[KEYS, WITH_STATUS]).await;
    drill.is_restored().await;
    drill.clear(&operator).await;

    drill.restore("all-with-status", &[WITH_STATUS]).await;
    drill.is_restored().await;
    assert_eq!(test.proxy.calls(), before);
}
