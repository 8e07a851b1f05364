//! `kubectl datakey rewrap`, run by the real kubectl: data keys and key pairs move to another KMS key with the same plaintexts.

mod applied;
mod claims;
mod drill;
mod files;
mod guard;
mod plan;
mod policies;
mod refusals;
mod regions;
mod roles;

use std::{collections::BTreeMap, process::Stdio};

use datakey::api::{DataKey, IssuedVersion};
use kube::ResourceExt;
use serde_json::json;
use testbed::{
    api_proxy::ApiProxy,
    eventually,
    kms::{self, Key, KmsServer},
    proxy::{DECRYPT, Fault, KmsProxy, REENCRYPT},
};

use crate::{
    harness::{Operator, SOON, TestKind, TestNamespace},
    plugin::User,
};

/// The account that data keys move to.
const OTHER_ACCOUNT: &str = "222200000000";

/// The plaintext of each recorded version.
type Plaintexts = BTreeMap<i32, Vec<u8>>;

/// How often AWS KMS was asked: for data keys and key pairs, for rewraps, and for plaintexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    issues: usize,
    rewraps: usize,
    decrypts: usize,
}

// === impl Asked ===

impl Asked {
    fn of(proxy: &KmsProxy) -> Self {
        Self { issues: proxy.calls(), rewraps: proxy.calls_of(REENCRYPT), decrypts: proxy.calls_of(DECRYPT) }
    }

    /// With so many data keys and rewraps more.
    fn and(self, issues: usize, rewraps: usize) -> Self {
        Self { issues: self.issues + issues, rewraps: self.rewraps + rewraps, ..self }
    }
}

/// A new KMS key of the other account.
async fn key_elsewhere(kms: &KmsServer) -> Key {
    kms::create_key(&kms.client_in(kms::REGION, OTHER_ACCOUNT)).await
}

/// From now on data keys are issued in the other account, as its key policy would allow: the KMS server without IAM looks for a KMS key
/// in the account of the caller only.
fn issue_elsewhere(test: &TestNamespace<impl TestKind>) {
    test.proxy.fail_always(Fault::AsAccount(OTHER_ACCOUNT.to_owned()));
}

/// What KMS unwraps a recorded version to, past the proxy that counts; the code of its refusal.
async fn unwrapped(kms: &KmsServer, issued: &IssuedVersion) -> Result<Vec<u8>, String> {
    let parts: Vec<_> = issued.key_id.split(':').collect();
    let client = kms.client_in(parts[3], parts[4]);
    kms::unwrap_key(&client, &issued.key_id, &issued.ciphertext_blob.0, issued.request.context()).await
}

/// What KMS unwraps each recorded version to.
async fn plaintexts<K: TestKind>(test: &TestNamespace<K>, key: &K) -> Plaintexts {
    let mut plaintexts = Plaintexts::new();
    for issued in key.as_object().record() {
        plaintexts.insert(issued.version, unwrapped(test.kms, issued).await.unwrap());
    }
    plaintexts
}

/// An object of this name as words name it.
fn reference<K: TestKind>(name: &str) -> String {
    format!("{}/{name}", K::KIND.name.to_lowercase())
}

/// A namespace with two versions of `orders`, as a move finds it.
struct Orders<K: TestKind> {
    test: TestNamespace<K>,
    namespace: TestNamespace<DataKey>,
    _operator: Operator,
    /// The object before the move.
    before: K,
    /// What its versions unwrap to.
    old: Plaintexts,
    /// How often AWS KMS was asked before the move.
    asked: Asked,
    /// The object as words name it.
    name: String,
}

// === impl Orders ===

impl<K: TestKind> Orders<K> {
    async fn issue(test: TestNamespace<K>) -> Self {
        let operator = test.operator();
        let before = issue_two_versions(&test, "orders").await;
        let old = plaintexts(&test, &before).await;
        let (asked, name) = (Asked::of(&test.proxy), reference::<K>("orders"));
        Self { namespace: of_data_keys(&test), test, _operator: operator, before, old, asked, name }
    }

    fn user(&self) -> User<'_> {
        User::of(&self.namespace)
    }

    /// A new KMS key of the other account, which can also issue.
    async fn key_elsewhere(&self) -> Key {
        issue_elsewhere(&self.test);
        key_elsewhere(self.test.kms).await
    }

    /// What the versions of the object unwrap to once it is ready.
    async fn plaintexts(&self) -> Plaintexts {
        plaintexts(&self.test, &self.test.ready("orders").await).await
    }
}

/// Issues an object with two versions.
async fn issue_two_versions<K: TestKind>(test: &TestNamespace<K>, name: &str) -> K {
    test.issue(name, &json!({ "encryptionContext": { "purpose": name } })).await;
    test.patch(name, &json!({ "spec": { "version": 2 } })).await;
    test.ready(name).await
}

/// Deletes an object and its Secret.
async fn lose<K: TestKind>(test: &TestNamespace<K>, name: &str) {
    test.delete(name).await;
    test.delete_secret(name).await;
}

/// The resource versions of an object and its Secret: whether they were written.
async fn resource_versions<K: TestKind>(test: &TestNamespace<K>, name: &str) -> [Option<String>; 2] {
    [test.get(name).await.resource_version(), test.secret(name).await.resource_version()]
}

/// A file of the test.
fn path(test: &TestNamespace<impl TestKind>, name: &str) -> String {
    test.plane.workdir().file(&format!("{}-{name}", test.namespace)).display().to_string()
}

/// Kills a run of the plugin once this has happened.
async fn kill_once(user: &User<'_>, words: &[&str], happened: impl Future<Output = ()>) {
    let mut command = tokio::process::Command::new(testbed::plugin());
    command.args(words).envs(user.environment()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut run = command.spawn().unwrap();
    tokio::select! {
        ended = run.wait() => panic!("it ended before: {ended:?}"),
        () = happened => {}
    }
    run.kill().await.unwrap();
}

/// A proxy before the API server, and a kubeconfig of a user who may do everything in the namespace, through it. The proxy passes on
/// tokens, not client certificates.
async fn api_proxy(test: &TestNamespace) -> (ApiProxy, String) {
    let kubeconfig = test.kubeconfig_with_role("cluster-admin").await;
    let api = ApiProxy::start(&kubeconfig).await;
    let through = api.kubeconfig(&kubeconfig).display().to_string();
    let user = User::of(test).with("KUBECONFIG", &through);
    eventually(SOON, "the rights are there", async || user.runs(&["list"]).await.code == 0).await;
    (api, through)
}

/// The namespace for the kind that users of the plugin need.
fn of_data_keys(test: &TestNamespace<impl TestKind>) -> TestNamespace<DataKey> {
    test.of_kind()
}
