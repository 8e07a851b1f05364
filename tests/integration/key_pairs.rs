//! `DataKeyPair`s: the same protocol as for `DataKey`s, with a public key beside the wrapped private one.

mod admission;

use std::{io::Write as _, process::Stdio, time::Duration};

use datakey::{
    api::{self, DataKey, DataKeyPair, KeyKind as _, KeyPairSpec},
    condition,
    public_key::PublicKey,
    secret::sha256,
};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{
    api_proxy::{Fault, STREAMED_LIST},
    eventually,
    http::Stop,
    proxy::ISSUE_PAIR,
};

use crate::{
    harness::{Data, SOON, TestNamespace, text},
    plugin::User,
};

/// The `DataKeyPair`s of a namespace.
pub fn pairs(test: &TestNamespace) -> TestNamespace<DataKeyPair> {
    test.of_kind()
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
    let pair = pairs(&test).issue("tokens", &json!({ "encryptionContext": { "purpose": "tokens" } })).await;
    assert_eq!(test.proxy.operations(), [ISSUE_PAIR]);
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 1);

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
    pairs(&test).ready("tokens").await;
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 1);
}

#[tokio::test]
async fn every_kind_of_pair_that_the_kms_server_has_is_issued() {
    let test = TestNamespace::new("pair-kinds").await;
    let _operator = test.operator();
    let specs = ["RSA_2048", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"];
    for spec in specs {
        let name = spec.to_lowercase().replace('_', "-");
        pairs(&test).issue(&name, &json!({ "keyPairSpec": spec })).await;
        let data = test.data(&name).await;
        assert_eq!(text(&data, "publicKey"), public_half(&test, &data, ".v1").await, "{spec}");
    }
}

#[tokio::test]
async fn pair_is_rotated_and_goes_back_without_a_call() {
    let test = TestNamespace::new("pair-rotated").await;
    let _operator = test.operator();
    pairs(&test).issue("tokens", &json!({})).await;
    let first = test.data("tokens").await;
    pairs(&test).patch("tokens", &json!({ "spec": { "version": 2 } })).await;
    pairs(&test).ready("tokens").await;
    let second = test.data("tokens").await;
    assert_eq!(second["publicKey.v1"], first["publicKey"]);
    assert_ne!(second["publicKey"], first["publicKey"]);
    pairs(&test).patch("tokens", &json!({ "spec": { "version": 1 } })).await;
    let back = pairs(&test).ready("tokens").await;
    assert_eq!(test.data("tokens").await["publicKey"], first["publicKey"]);
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 2);

    // What is issued is fixed.
    let refused = pairs(&test)
        .try_patch("tokens", &json!({ "spec": { "keyPairSpec": "RSA_2048" } }))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("this version's key pair is issued"), "{refused}");
    let mut versions = serde_json::to_value(back.status.unwrap().versions).unwrap();
    versions[0]["publicKey"] = versions[1]["publicKey"].clone();
    let status = json!({ "status": { "versions": versions } });
    let changed = pairs(&test).keys().patch_status("tokens", &PatchParams::default(), &Patch::Merge(&status)).await;
    let refused = changed.unwrap_err().to_string();
    assert!(refused.contains("status.versions is write-once: an issued key pair"), "{refused}");
}

#[tokio::test]
async fn secret_is_adopted_and_pins_are_published() {
    let test = TestNamespace::new("pair-adopted").await;
    let _operator = test.operator();
    let pair = pairs(&test).issue("tokens", &json!({})).await;
    let data = test.data("tokens").await;
    pairs(&test).delete("tokens").await;
    let adopted = pairs(&test).issue("tokens", &json!({})).await;
    assert_eq!(adopted.as_object().record(), pair.as_object().record());
    assert_eq!((test.data("tokens").await, test.proxy.calls_of(ISSUE_PAIR)), (data.clone(), 1));

    let pins = serde_json::to_value(pair.as_object().record()).unwrap();
    pairs(&test).issue("copy", &json!({ "wrappedKeys": pins })).await;
    let copy = test.data("copy").await;
    assert_eq!(
        (copy["ciphertextBlob"].clone(), copy["publicKey"].clone()),
        (data["ciphertextBlob"].clone(), data["publicKey"].clone())
    );
    let mut other = pins.clone();
    other[0]["request"]["keyPairSpec"] = json!("RSA_2048");
    pairs(&test).create("wrong", &json!({ "keyPairSpec": "RSA_2048", "wrappedKeys": other })).await;
    let failed = pairs(&test).failed("wrong", "PinInvalid").await;
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
    assert_eq!(test.proxy.calls_of(ISSUE_PAIR), 1);
}

#[tokio::test]
async fn one_secret_name_is_that_of_one_kind() {
    let test = TestNamespace::new("pair-conflict").await;
    let mut operator = test.operator_without_retries();
    // The DataKey first, and the DataKeyPair first.
    test.issue("first", &json!({})).await;
    pairs(&test).issue("second", &json!({})).await;
    pairs(&test).create("first", &json!({})).await;
    test.create("second", &json!({})).await;
    for round in 0..2 {
        let pair = pairs(&test).failed("first", "SecretConflict").await;
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
    assert_eq!((test.proxy.calls(), test.proxy.calls_of(ISSUE_PAIR)), (2, 1));

    // Once the object and its Secret are gone, the name is free.
    pairs(&test).delete("second").await;
    test.delete_secret("second").await;
    test.ready("second").await;
    test.delete("first").await;
    test.delete_secret("first").await;
    pairs(&test).ready("first").await;
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
    pairs(&test).issue("tokens", &json!({})).await;
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
    let created = async || {
        let pairs = pairs(&test);
        pairs.try_create(&pairs.manifest("tokens", &json!({ "wrappedKeys": [pairs.pin(1)] }))).await.is_ok()
    };
    eventually(SOON, "the definition works", created).await;
    let limit = SOON + Duration::from_secs(15);
    let issued = async || {
        let pair = pairs(&test).get("tokens").await;
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
    pairs(&test).create_many("rsa", MANY, &json!({ "keyPairSpec": "RSA_4096" })).await;
    let waiting = async || {
        let metrics = operator.admin("/metrics").await.1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("datakey_kms_queue_length ").map(str::to_owned));
        line.unwrap().parse::<usize>().unwrap()
    };
    eventually(SOON, "nearly all wait for KMS", async || waiting().await > MANY - 50).await;
    // Others of the same namespace, and of another one.
    test.issue("orders", &json!({})).await;
    pairs(&test).issue("tokens", &json!({})).await;
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
    pairs(&test).create("tokens", &json!({})).await;
    stop.reached().await;
    test.create("tokens", &json!({})).await;
    let waits = r#"datakey_datakeys{reason="Pending",kind="DataKey"} 1"#;
    eventually(SOON, "the DataKey waits", async || operator.admin("/metrics").await.1.contains(waits)).await;
    // The record is written, and the operator learns it neither from the answer nor soon from the watch.
    api.lag(Duration::from_secs(3));
    stop.release();
    pairs(&test).ready("tokens").await;
    let key = test.failed("tokens", "SecretConflict").await;
    assert_eq!(key.record(), []);
    assert_eq!((test.proxy.calls(), test.proxy.calls_of(ISSUE_PAIR)), (1, 1));
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
    pairs(&test).issue("tokens", &json!({})).await;
}

/// kubectl takes the name of a category before that of a resource: with the category `datakeys`, `kubectl delete datakeys --all`
/// deleted key pairs, too.
#[tokio::test]
async fn plural_of_data_keys_means_no_key_pairs() {
    let test = TestNamespace::new("pair-category").await;
    test.create("orders", &json!({})).await;
    pairs(&test).create("tokens", &json!({})).await;
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
