//! `DataKeyPair`s: the same protocol as for `DataKey`s, with a public key beside the wrapped private one.

mod admission;

use std::{io::Write as _, process::Stdio, time::Duration};

use datakey::{
    api::{self, DataKey, DataKeyPair, KeyKind as _, KeyPairSpec},
    condition,
    public_key::PublicKey,
    secret::sha256,
};
use futures::{StreamExt, stream};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testbed::{
    api_proxy::{Fault, STREAMED_LIST},
    eventually,
    http::Stop,
};

use crate::{
    harness::{Data, SOON, TestNamespace, text},
    plugin::User,
};

pub const PAIR_OPERATION: &str = "GenerateDataKeyPairWithoutPlaintext";

pub fn pairs(test: &TestNamespace) -> Api<DataKeyPair> {
    Api::namespaced(test.client.clone(), &test.namespace)
}

/// Creates a `DataKeyPair`. The defaults are the key ID of the namespace and `ECC_NIST_P256`.
pub async fn create(test: &TestNamespace, name: &str, spec: &Value) -> Result<DataKeyPair, kube::Error> {
    let mut whole = json!({ "keyId": test.alias(), "keyPairSpec": "ECC_NIST_P256" });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let manifest = json!({
        "apiVersion": DataKeyPair::KIND.api_version, "kind": DataKeyPair::KIND.name,
        "metadata": { "name": name }, "spec": whole,
    });
    pairs(test).create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await
}

/// Waits until the condition `Ready` of the current generation has this reason.
pub async fn condition(test: &TestNamespace, name: &str, reason: &str) -> DataKeyPair {
    let mut last = None;
    eventually(SOON, &format!("{name} reads {reason}"), async || {
        let pair = pairs(test).get(name).await.unwrap();
        let ready = condition::find(&pair, api::READY);
        let is_reached =
            ready.is_some_and(|ready| ready.reason == reason && ready.observed_generation == pair.metadata.generation);
        last = Some(pair);
        is_reached
    })
    .await;
    last.unwrap()
}

/// Creates a `DataKeyPair` and waits until it is ready.
pub async fn issue(test: &TestNamespace, name: &str, spec: &Value) -> DataKeyPair {
    create(test, name, spec).await.unwrap();
    condition(test, name, condition::ISSUED).await
}

/// Changes the spec of a `DataKeyPair`; an error where the API server refuses it.
pub async fn patch(test: &TestNamespace, name: &str, spec: &Value) -> Result<DataKeyPair, kube::Error> {
    let patch = json!({ "spec": spec });
    pairs(test).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

pub async fn delete(test: &TestNamespace, name: &str) {
    pairs(test).delete(name, &DeleteParams::default()).await.unwrap();
    eventually(SOON, "it is gone", async || pairs(test).get_opt(name).await.unwrap().is_none()).await;
}

/// The public key that belongs to the private key of a Secret, in PEM, as OpenSSL derives it.
pub async fn public_half(test: &TestNamespace, data: &Data, suffix: &str) -> String {
    let private = test.decrypt(data, suffix).await;
    String::from_utf8(openssl(&["pkey", "-inform", "DER", "-pubout"], &private)).unwrap()
}

/// What OpenSSL makes of this input.
pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = openssl.spawn().unwrap_or_else(|error| missing("openssl", "openssl", &error));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "openssl {arguments:?} fails");
    ended.stdout
}

/// Fails because a program cannot be started, and says which package has it.
pub fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{program} can't be run ({error}): install it (Debian: apt-get install {package})")
}

#[tokio::test]
async fn pair_is_issued_once_and_both_halves_belong_together() {
    let test = TestNamespace::new("pair-issued").await;
    let operator = test.operator();
    let pair = issue(&test, "tokens", &json!({ "encryptionContext": { "purpose": "tokens" } })).await;
    assert_eq!(test.proxy.operations(), [PAIR_OPERATION]);
    assert_eq!(test.proxy.calls_of(PAIR_OPERATION), 1);

    let (secret, data) = (test.secret("tokens").await, test.data("tokens").await);
    assert_eq!(secret.type_.as_deref(), Some("datakey.dev/wrapped-key-pair"));
    let mut entries: Vec<_> = ["ciphertextBlob", "publicKey", "keyPairSpec", "keyId", "encryptionContext"]
        .iter()
        .flat_map(|entry| [(*entry).to_owned(), format!("{entry}.v1")])
        .chain(["version".to_owned()])
        .collect();
    entries.sort();
    assert_eq!(data.keys().cloned().collect::<Vec<_>>(), entries);
    assert_eq!(text(&data, "publicKey"), public_half(&test, &data, "").await);
    assert_eq!(text(&data, "keyPairSpec"), "ECC_NIST_P256");

    let status = pair.status.unwrap();
    let recorded = &status.versions[0];
    let der = &recorded.public_key.as_ref().unwrap().0;
    assert_eq!(status.public_key_sha256, Some(sha256(der)));
    assert_eq!(PublicKey::parse(der, KeyPairSpec::EccNistP256).unwrap().to_pem(), text(&data, "publicKey"));
    let shown = test.plane.kubectl(&["get", "dkp", "tokens", "-n", &test.namespace, "-o", "wide"]).await.unwrap();
    assert!(shown.contains("ECC_NIST_P256") && shown.contains(&sha256(der)), "{shown}");

    // A deleted or edited Secret is restored, also after a restart, without a call.
    test.delete_secret("tokens").await;
    test.secret_becomes("tokens", &data).await;
    test.edit_secret("tokens", &json!({ "data": { "publicKey": "eA==", "publicKey.v1": null } })).await;
    test.secret_becomes("tokens", &data).await;
    drop(operator);
    test.delete_secret("tokens").await;
    let _operator = test.operator();
    test.secret_becomes("tokens", &data).await;
    condition(&test, "tokens", condition::ISSUED).await;
    assert_eq!(test.proxy.calls_of(PAIR_OPERATION), 1);
}

#[tokio::test]
async fn every_kind_of_pair_that_the_kms_server_has_is_issued() {
    let test = TestNamespace::new("pair-kinds").await;
    let _operator = test.operator();
    let specs = ["RSA_2048", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"];
    for spec in specs {
        let name = spec.to_lowercase().replace('_', "-");
        issue(&test, &name, &json!({ "keyPairSpec": spec })).await;
        let data = test.data(&name).await;
        assert_eq!(text(&data, "publicKey"), public_half(&test, &data, ".v1").await, "{spec}");
    }
}

#[tokio::test]
async fn pair_is_rotated_and_goes_back_without_a_call() {
    let test = TestNamespace::new("pair-rotated").await;
    let _operator = test.operator();
    issue(&test, "tokens", &json!({})).await;
    let first = test.data("tokens").await;
    patch(&test, "tokens", &json!({ "version": 2 })).await.unwrap();
    condition(&test, "tokens", condition::ISSUED).await;
    let second = test.data("tokens").await;
    assert_eq!(second["publicKey.v1"], first["publicKey"]);
    assert_ne!(second["publicKey"], first["publicKey"]);
    patch(&test, "tokens", &json!({ "version": 1 })).await.unwrap();
    let back = condition(&test, "tokens", condition::ISSUED).await;
    assert_eq!(test.data("tokens").await["publicKey"], first["publicKey"]);
    assert_eq!(test.proxy.calls_of(PAIR_OPERATION), 2);

    // What is issued is fixed.
    let refused = patch(&test, "tokens", &json!({ "keyPairSpec": "RSA_2048" })).await.unwrap_err().to_string();
    assert!(refused.contains("this version's key pair is issued"), "{refused}");
    let mut versions = serde_json::to_value(back.status.unwrap().versions).unwrap();
    versions[0]["publicKey"] = versions[1]["publicKey"].clone();
    let status = json!({ "status": { "versions": versions } });
    let changed = pairs(&test).patch_status("tokens", &PatchParams::default(), &Patch::Merge(&status)).await;
    let refused = changed.unwrap_err().to_string();
    assert!(refused.contains("status.versions is write-once: an issued key pair"), "{refused}");
}

#[tokio::test]
async fn secret_is_adopted_and_pins_are_published() {
    let test = TestNamespace::new("pair-adopted").await;
    let _operator = test.operator();
    let pair = issue(&test, "tokens", &json!({})).await;
    let data = test.data("tokens").await;
    delete(&test, "tokens").await;
    let adopted = issue(&test, "tokens", &json!({})).await;
    assert_eq!(adopted.as_object().record(), pair.as_object().record());
    assert_eq!((test.data("tokens").await, test.proxy.calls_of(PAIR_OPERATION)), (data.clone(), 1));

    let pins = serde_json::to_value(pair.as_object().record()).unwrap();
    issue(&test, "copy", &json!({ "wrappedKeys": pins })).await;
    let copy = test.data("copy").await;
    assert_eq!(
        (copy["ciphertextBlob"].clone(), copy["publicKey"].clone()),
        (data["ciphertextBlob"].clone(), data["publicKey"].clone())
    );
    let mut other = pins.clone();
    other[0]["request"]["keyPairSpec"] = json!("RSA_2048");
    create(&test, "wrong", &json!({ "keyPairSpec": "RSA_2048", "wrappedKeys": other })).await.unwrap();
    let failed = condition(&test, "wrong", "PinInvalid").await;
    let message = &condition::find(&failed, api::READY).unwrap().message;
    assert!(message.contains("publicKey is not a public key of the kind"), "{message}");
    let mut manifest = json!({
        "apiVersion": "datakey.dev/v1alpha1", "kind": "DataKeyPair",
        "metadata": { "name": "plain", "namespace": test.namespace },
        "spec": { "keyId": test.alias(), "keyPairSpec": "ECC_NIST_P256", "wrappedKeys": pins },
    });
    manifest["spec"]["wrappedKeys"][0]["privateKeyPlaintext"] = json!("eA==");
    let path = test.plane.workdir().file("plain-pair.json");
    std::fs::write(&path, manifest.to_string()).unwrap();
    let refused = test.plane.kubectl(&["create", "-f", &path.display().to_string()]).await;
    assert!(refused.is_err());
    assert_eq!(test.proxy.calls_of(PAIR_OPERATION), 1);
}

#[tokio::test]
async fn one_secret_name_is_that_of_one_kind() {
    let test = TestNamespace::new("pair-conflict").await;
    let mut operator = test.operator_without_retries();
    // The DataKey first, and the DataKeyPair first.
    test.issue("first", &json!({})).await;
    issue(&test, "second", &json!({})).await;
    create(&test, "first", &json!({})).await.unwrap();
    test.create("second", &json!({})).await;
    for round in 0..2 {
        let pair = condition(&test, "first", "SecretConflict").await;
        let message = condition::find(&pair, api::READY).unwrap().message.clone();
        assert!(message.contains("it belongs to DataKey first"), "{message}");
        let key = test.failed("second", "SecretConflict").await;
        let message = condition::find(&key, api::READY).unwrap().message.clone();
        assert!(message.contains("it belongs to DataKeyPair second"), "{message}");
        if round == 0 {
            drop(operator);
            operator = test.operator_without_retries();
        }
    }
    // The name stays reserved while the Secret is deleted.
    let data = [test.data("first").await, test.data("second").await];
    for name in ["first", "second"] {
        test.delete_secret(name).await;
    }
    test.secret_becomes("first", &data[0]).await;
    test.secret_becomes("second", &data[1]).await;
    assert_eq!((test.proxy.calls(), test.proxy.calls_of(PAIR_OPERATION)), (2, 1));

    // Once the object and its Secret are gone, the name is free.
    delete(&test, "second").await;
    test.delete_secret("second").await;
    test.ready("second").await;
    test.delete("first").await;
    test.delete_secret("first").await;
    condition(&test, "first", condition::ISSUED).await;
    drop(operator);
}

#[tokio::test]
async fn one_refusal_leaves_no_pairs_out() {
    let test = TestNamespace::new("pair-refused-once").await;
    let (api, kubeconfig) = test.api_proxy().await;
    // An API server that has just started does not know all roles yet.
    api.fail_next(1, "list", "datakeypairs", Fault::Refuse(403, "Forbidden", "datakeypairs is forbidden"));
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    issue(&test, "tokens", &json!({})).await;
    assert!(!operator.process.log().contains("are not watched"), "{}", operator.process.log());
    assert_eq!(api.count("list", "datakeypairs"), 2);
}

#[tokio::test]
async fn another_reason_why_pairs_are_not_watched_is_logged() {
    let test = TestNamespace::new("pair-reasons").await;
    let (api, kubeconfig) = test.api_proxy().await;
    api.fail_always("list", "datakeypairs", Fault::Refuse(404, "", "404 page not found"));
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.logs("CustomResourceDefinition datakeypairs.datakey.dev is not installed").await;
    api.clear_faults();
    api.fail_always("list", "datakeypairs", Fault::Refuse(403, "Forbidden", "datakeypairs is forbidden"));
    operator.logs("DataKeyPairs are still not watched: the API server refuses to list DataKeyPairs").await;
    api.clear_faults();
    operator.logs("DataKeyPairs can be listed now, and are watched").await;
}

#[tokio::test]
async fn missing_definition_of_pairs_stops_no_data_keys() {
    let test = TestNamespace::with_own_control_plane("pair-missing").await;
    test.plane.kubectl(&["delete", "crd", "datakeypairs.datakey.dev"]).await.unwrap();
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    operator.is_ready().await;
    operator.logs("DataKeyPairs are not watched until they can be listed").await;
    let user = User::of(&test);
    let unknown = user.ends(1, &["public-key", "tokens"]).await.err;
    assert!(unknown.contains("the API server does not know this kind; install the definitions"), "{unknown}");
    let checked = user.runs(&["check", "-o", "json"]).await;
    let checked = String::from_utf8(checked.out).unwrap();
    assert!(checked.contains("get datakeys") && !checked.contains("get datakeypairs"), "{checked}");
    // The operator that is deployed watches them.
    assert!(checked.contains("datakeypairs.datakey.dev is not installed"), "{checked}");
    let definitions = testbed::repository().join("deploy/crd.yaml");
    test.plane.kubectl(&["apply", "-f", &definitions.display().to_string()]).await.unwrap();
    test.plane.kubectl(&["wait", "--for=condition=Established", "crd/datakeypairs.datakey.dev"]).await.unwrap();
    let created = async || create(&test, "tokens", &json!({ "wrappedKeys": [pin(&test)] })).await.is_ok();
    eventually(SOON, "the definition works", created).await;
    let limit = SOON + Duration::from_secs(15);
    let issued = async || {
        let pair = pairs(&test).get("tokens").await.unwrap();
        condition::find(&pair, api::READY).is_some_and(|ready| ready.status == "True")
    };
    eventually(limit, "the pair is published", issued).await;
    let key: DataKey = test.ready("orders").await;
    assert_eq!(key.record().len(), 1);
}

#[tokio::test]
async fn waiting_rsa_pairs_delay_nothing_else() {
    const MANY: usize = 1000;
    let test = TestNamespace::with_stub_kms("pair-waits").await;
    let other = test.another_namespace("pair-waits-not").await;
    let operator = test.operator_with(&["--namespace=pair-waits-not"], &[]);
    let rsa = json!({ "keyPairSpec": "RSA_4096" });
    let created = stream::iter(0..MANY).map(|number| {
        let (name, test, rsa) = (format!("rsa-{number}"), &test, &rsa);
        async move { create(test, &name, rsa).await.map(drop) }
    });
    let created: Vec<_> = created.buffer_unordered(16).collect().await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let waiting = async || {
        let metrics = operator.admin("/metrics").await.1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("datakey_kms_queue_length ").map(str::to_owned));
        line.unwrap().parse::<usize>().unwrap()
    };
    eventually(SOON, "nearly all wait for KMS", async || waiting().await > MANY - 50).await;
    // Others of the same namespace, and of another one.
    test.issue("orders", &json!({})).await;
    issue(&test, "tokens", &json!({})).await;
    other.issue("orders", &json!({})).await;
    assert!(waiting().await > MANY - 50, "the others still wait");
}

#[tokio::test]
async fn unclear_record_keeps_the_name_for_its_pair() {
    let test = TestNamespace::new("pair-unclear").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    let stop = Stop::default();
    for fault in [Fault::StopBefore(stop.clone()), Fault::LoseAnswer] {
        api.fail_next(1, "update", "datakeypairs/status", fault);
    }
    create(&test, "tokens", &json!({})).await.unwrap();
    stop.reached().await;
    test.create("tokens", &json!({})).await;
    let waits = r#"datakey_datakeys{reason="Pending",kind="DataKey"} 1"#;
    eventually(SOON, "the DataKey waits", async || operator.admin("/metrics").await.1.contains(waits)).await;
    // The record is written, and the operator learns it neither from the answer nor soon from the watch.
    api.lag(Duration::from_secs(3));
    stop.release();
    condition(&test, "tokens", condition::ISSUED).await;
    let key = test.failed("tokens", "SecretConflict").await;
    assert_eq!(key.record(), []);
    assert_eq!((test.proxy.calls(), test.proxy.calls_of(PAIR_OPERATION)), (1, 1));
}

#[tokio::test]
async fn namespace_without_rights_on_pairs_serves_data_keys() {
    let test = TestNamespace::with_own_control_plane("pair-rights").await;
    test.plane.namespace("second").await;
    let (api, kubeconfig) = test.api_proxy().await;
    test.plane.namespace("third").await;
    let refused = "datakeypairs is forbidden";
    for verb in ["list", "watch", STREAMED_LIST] {
        api.fail_in("second", verb, "datakeypairs", Fault::Refuse(403, "Forbidden", refused));
    }
    // A role with list, and without watch.
    for verb in ["watch", STREAMED_LIST] {
        api.fail_in("third", verb, "datakeypairs", Fault::Refuse(403, "Forbidden", refused));
    }
    let operator = test.operator_by(&kubeconfig, &["--namespace=second", "--namespace=third"]);
    operator.is_ready().await;
    let log = operator.process.log();
    for namespace in ["second", "third"] {
        let file = test.plane.workdir().file(&format!("{namespace}.json"));
        let manifest = test.manifest("orders", &json!({})).to_string();
        std::fs::write(&file, manifest.replace(r#""pair-rights""#, &format!("{namespace:?}"))).unwrap();
        test.plane.kubectl(&["create", "-f", &file.display().to_string()]).await.unwrap();
        let wait = ["wait", "-n", namespace, "--for=condition=Ready", "datakey/orders", "--timeout=30s"];
        test.plane.kubectl(&wait).await.unwrap();
        let says = |line: &&str| {
            line.contains("DataKeyPairs are not watched until they can be listed")
                && line.contains(&format!(r#""namespace":"{namespace}""#))
        };
        assert_eq!(log.lines().filter(says).count(), 1, "{log}");
    }
    issue(&test, "tokens", &json!({})).await;
}

/// A pinned key pair as another cluster exports it.
fn pin(test: &TestNamespace) -> Value {
    json!({
        "version": 1,
        "request": { "keyId": test.alias(), "keyPairSpec": "ECC_NIST_P256" },
        "ciphertextBlob": "AQID0001",
        "publicKey": datakey::fixtures::PUBLIC_KEYS[0],
        "keyId": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "issuedAt": "2026-11-23T00:00:00Z",
    })
}

/// kubectl takes the name of a category before that of a resource: with the category `datakeys`, `kubectl delete datakeys --all`
/// deleted key pairs, too.
#[tokio::test]
async fn plural_of_data_keys_means_no_key_pairs() {
    let test = TestNamespace::new("pair-category").await;
    test.create("orders", &json!({})).await;
    create(&test, "tokens", &json!({})).await.unwrap();
    let kubectl = async |words: &[&str]| {
        let printed = test.plane.kubectl(&[words, &["-n", &test.namespace, "-o", "name"]].concat()).await.unwrap();
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (key, pair) = ("datakey.datakey.dev/orders", "datakeypair.datakey.dev/tokens");
    // kubectl keeps what the API server serves. The first command may be the one that asks.
    for _ in 0..2 {
        assert_eq!(kubectl(&["get", "datakeys"]).await, [key]);
        assert_eq!(kubectl(&["get", "datakeys", "orders"]).await, [key]);
        assert_eq!(kubectl(&["get", "datakeypairs", "tokens"]).await, [pair]);
        assert_eq!(kubectl(&["delete", "datakeys", "--all", "--dry-run=server"]).await, [key]);
        assert_eq!(kubectl(&["delete", "datakeypairs", "--all", "--dry-run=server"]).await, [pair]);
        let mut all = kubectl(&["get", "datakey-operator"]).await;
        all.sort();
        assert_eq!(all, [key, pair]);
    }
}
