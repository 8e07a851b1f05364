//! An operator and a definition that are one release apart, and two replicas of different releases.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::{api_proxy::ApiProxy, eventually, repository};

use super::{FOLDER, binary_of_0_1_0};
use crate::harness::{Data, Operator, SOON, TestNamespace, to_json};

/// The record and the data of a `DataKey`, which must never change.
struct Held {
    name: &'static str,
    record: Value,
    data: Data,
}

// === impl Held ===

impl Held {
    async fn of(test: &TestNamespace, name: &'static str) -> Self {
        Self { name, record: to_json(&test.ready(name).await.record()), data: test.data(name).await }
    }

    /// Waits until the `DataKey` is ready with the same record and data.
    async fn is_held(&self, test: &TestNamespace) {
        assert_eq!(to_json(&test.ready(self.name).await.record()), self.record, "{}", self.name);
        test.secret_becomes(self.name, &self.data).await;
    }
}

/// Installs the definition of a release and waits until the API server uses it.
async fn install_definition(test: &TestNamespace, file: &str, has_revision: bool) {
    let file = repository().join(file).display().to_string();
    test.plane.kubectl(&["replace", "-f", &file]).await.unwrap();
    // In a namespace that no operator watches.
    let mut probe = test.manifest("probe", &json!({}));
    probe["metadata"]["namespace"] = json!("default");
    test.apply(&[probe]).await;
    let revision = json!({ "status": { "secret": { "uid": "u", "resourceVersion": "1", "digest": "d" } } }).to_string();
    let patch = ["patch", "datakey", "probe", "-n", "default", "--subresource=status", "--type=merge", "-o", "json"];
    eventually(SOON, "the definition works", async || {
        let patched = test.plane.kubectl(&[&patch[..], &["-p", &revision]].concat()).await.unwrap();
        let patched: Value = serde_json::from_str(&patched).unwrap();
        patched["status"]["secret"].is_object() == has_revision
    })
    .await;
    test.plane.kubectl(&["delete", "datakey", "probe", "-n", "default"]).await.unwrap();
}

/// Waits until the operators write nothing more.
async fn writes_end(api: &ApiProxy) {
    let written =
        || api.count("update", "datakeys/status") + api.count("update", "secrets") + api.count("create", "secrets");
    eventually(SOON, "nothing more is written", async || {
        let before = written();
        tokio::time::sleep(Duration::from_secs(2)).await;
        written() == before
    })
    .await;
}

#[tokio::test]
async fn the_definition_of_0_1_0_is_enough_to_issue_and_to_restore() {
    let test = TestNamespace::with_own_control_plane("skew-definition").await;
    let (api, kubeconfig) = test.api_proxy().await;
    install_definition(&test, &format!("{FOLDER}/crd.yaml"), false).await;
    let operator = test.operator_by(&kubeconfig, &[]);
    for (name, spec) in [("retain", json!({})), ("delete", json!({ "deletionPolicy": "Delete" }))] {
        test.issue(name, &spec).await;
    }
    test.issue("pinned", &json!({ "wrappedKeys": [test.pin(1)] })).await;
    test.patch("retain", &json!({ "spec": { "version": 2 } })).await;
    test.ready("retain").await;
    assert_eq!(test.proxy.calls(), 3);
    operator.logs("the installed CustomResourceDefinition drops status.secret").await;
    writes_end(&api).await;
    let mut held = Vec::new();
    for name in ["retain", "delete", "pinned"] {
        held.push(Held::of(&test, name).await);
    }

    // A Secret that is deleted or edited is restored, an issued version is current again, a Secret is adopted.
    test.delete_secret("retain").await;
    test.edit_secret("delete", &json!({ "data": { "ciphertextBlob": "eA==" } })).await;
    for held in &held {
        held.is_held(&test).await;
    }
    test.patch("retain", &json!({ "spec": { "version": 1 } })).await;
    test.ready("retain").await;
    test.patch("retain", &json!({ "spec": { "version": 2 } })).await;
    test.ready("retain").await;
    test.delete("pinned").await;
    test.create("pinned", &json!({})).await;
    for held in &held {
        held.is_held(&test).await;
    }

    // The current definition is installed while the operator works, replaced, and installed again before a start.
    let older = format!("{FOLDER}/crd.yaml");
    let mut operator = operator;
    for (definition, has_revision, restarts) in
        [("deploy/crd.yaml", true, false), (older.as_str(), false, false), ("deploy/crd.yaml", true, true)]
    {
        install_definition(&test, definition, has_revision).await;
        if restarts {
            drop(operator);
            operator = test.operator_by(&kubeconfig, &[]);
        }
        test.barrier().await;
        for held in &held {
            held.is_held(&test).await;
        }
        writes_end(&api).await;
    }
    drop(operator);
}

/// Publishes a `DataKey` whose second version is pinned as a rewrap of the first one.
async fn publish_rewrap(test: &TestNamespace) -> Held {
    let mut rewrap = test.pin(2);
    rewrap["rewrapOf"] = json!({ "version": 1, "requestId": "example" });
    test.issue("moved", &json!({ "version": 2, "wrappedKeys": [test.pin(1), rewrap] })).await;
    let held = Held::of(test, "moved").await;
    assert_eq!((&held.record[1]["rewrapOf"]["version"], &*held.data["rewrapOf.v2"]), (&json!(1), &b"1"[..]));
    held
}

/// The definition of 0.1.0 drops `rewrapOf`, which is newer, and keeps no unknown fields of a version. The data keys stay as they are.
#[tokio::test]
async fn the_definition_of_0_1_0_drops_only_what_is_a_rewrap() {
    let test = TestNamespace::with_own_control_plane("skew-rewrap").await;
    let operator = test.operator();
    let before = publish_rewrap(&test).await;
    drop(operator);
    let mut held = Held { name: before.name, record: before.record.clone(), data: before.data.clone() };
    held.record[1].as_object_mut().unwrap().remove("rewrapOf");
    for entry in ["rewrapOf", "rewrapOf.v2"] {
        held.data.remove(entry).unwrap();
    }
    let older = format!("{FOLDER}/crd.yaml");
    for (definition, has_revision) in [(older.as_str(), false), ("deploy/crd.yaml", true)] {
        install_definition(&test, definition, has_revision).await;
        let _operator = test.operator();
        test.barrier().await;
        held.is_held(&test).await;
    }
    // What is recorded stays without it. From the pins it is recorded again.
    let _operator = test.operator();
    test.delete(held.name).await;
    test.delete_secret(held.name).await;
    let again = publish_rewrap(&test).await;
    assert_eq!((again.record, again.data), (before.record, before.data));
    assert_eq!(test.proxy.calls(), 2, "the DataKeys that show that all is settled");
}

/// Ends an operator, which releases its Lease.
async fn stop(mut operator: Operator) {
    operator.process.signal("TERM");
    assert_eq!(operator.process.ended().await, 0);
}

/// First by mistake, where both work; then as in a rolling upgrade, where one works and the other stands by.
#[tokio::test]
#[ignore = "needs a 0.1.0 binary: make upgrade"]
async fn replicas_of_two_releases_record_one_data_key_per_version() {
    const COUNT: usize = 20;

    let test = TestNamespace::with_stub_kms("skew-replicas").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let kubeconfig = kubeconfig.display().to_string();
    let environment = [("KUBECONFIG", kubeconfig.as_str())];
    let old = |flags: &[&str]| test.operator_of(&binary_of_0_1_0(), flags, &environment);
    let new = |flags: &[&str]| test.operator_with(flags, &environment);

    {
        let both = [old(&[]), new(&[])];
        for operator in &both {
            operator.is_ready().await;
        }
        test.create_many("k", COUNT, &json!({})).await;
        let first = test.all_ready(COUNT, SOON).await;
        test.secrets_hold_the_record(&first).await;
        for number in 0..COUNT {
            let name = format!("k-{number}");
            match number % 3 {
                0 => drop(test.patch(&name, &json!({ "spec": { "version": 2 } })).await),
                1 => drop(test.edit_secret(&name, &json!({ "data": { "ciphertextBlob": "eA==" } })).await),
                _ => test.delete_secret(&name).await,
            }
        }
        let second = test.all_ready(COUNT, SOON).await;
        test.secrets_hold_the_record(&second).await;
        writes_end(&api).await;
        let second = test.all_ready(COUNT, SOON).await;
        for (before, after) in first.iter().zip(&second) {
            assert_eq!(before.record(), &after.record()[..1], "{:?}", before.metadata.name);
        }
        let (calls, versions) = (test.proxy.calls(), COUNT + COUNT.div_ceil(3));
        // Both may ask for one version, and the later one once more before it sees the record.
        assert!((versions..=3 * versions).contains(&calls), "{calls} calls for {versions} versions");

        // 0.1.0 wants a controller reference on what this release creates under Delete, and may not set it where the API
        // server requires the right to delete: it reports Refused, and the other one Ready. There is still one data key.
        test.create_many("delete", COUNT, &json!({ "deletionPolicy": "Delete" })).await;
        eventually(SOON, "all are recorded", async || {
            let keys = test.keys().list(&ListParams::default()).await.unwrap().items;
            keys.len() == 2 * COUNT && keys.iter().all(|key| !key.record().is_empty())
        })
        .await;
        let keys = test.keys().list(&ListParams::default()).await.unwrap().items;
        test.secrets_hold_the_record(&keys).await;
    }

    {
        let _new = new(&[]);
        let keys = test.all_ready(2 * COUNT, SOON).await;
        test.secrets_hold_the_record(&keys).await;
        writes_end(&api).await;
    }
    let before = test.all_ready(2 * COUNT, SOON).await;
    let calls = test.proxy.calls();
    test.grant_lease_access().await;
    let lease = ["--leader-elect", "--lease-namespace", &test.namespace];
    let mut works = old(&lease);
    works.is_ready().await;
    for (number, next) in [new(&lease), old(&lease), new(&lease)].into_iter().enumerate() {
        stop(works).await;
        works = next;
        test.issue(&format!("next-{number}"), &json!({})).await;
        assert_eq!(test.proxy.calls(), calls + number + 1);
    }
    let after = test.all_ready(2 * COUNT + 3, SOON).await;
    test.secrets_hold_the_record(&after).await;
    for key in before {
        let same = after.iter().find(|it| it.metadata.name == key.metadata.name).unwrap();
        assert_eq!(key.record(), same.record());
    }
}

/// 0.1.0 does not know `rewrapOf`: it takes the entries out of the Secret, and cannot change what is recorded.
#[tokio::test]
#[ignore = "needs a 0.1.0 binary: make upgrade"]
async fn rewrap_is_back_in_the_secret_after_0_1_0() {
    let test = TestNamespace::with_stub_kms("skew-rewrap-back").await;
    let operator = test.operator();
    let held = publish_rewrap(&test).await;
    drop(operator);
    let kubeconfig = test.plane.admin_kubeconfig().display().to_string();
    let old = test.operator_of(&binary_of_0_1_0(), &[], &[("KUBECONFIG", &kubeconfig)]);
    let mut without = held.data.clone();
    without.retain(|entry, _| !entry.starts_with("rewrapOf"));
    test.secret_becomes("moved", &without).await;
    test.issue("orders", &json!({})).await;
    assert_eq!(to_json(&test.get("moved").await.record()), held.record);
    drop(old);
    let _operator = test.operator();
    held.is_held(&test).await;
    assert_eq!(test.proxy.calls(), 1, "the DataKey that 0.1.0 issued meanwhile");
}
