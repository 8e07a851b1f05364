//! Private keys of DataKeyPairs.

use serde_json::{Value, json};
use testbed::commands::{Ended, end_of};

use super::{Workload, assert_ended};
use crate::{
    harness::text,
    key_pairs::{openssl, pairs},
};

// === impl Workload ===

impl Workload {
    /// Issues and mounts a key pair.
    async fn of_pair(name: &str, spec: &str) -> Self {
        let workload = Self::without_key(name).await;
        workload.pair("tokens", spec).await;
        workload.mount("tokens").await;
        workload
    }

    async fn pair(&self, name: &str, spec: &str) {
        let spec = json!({ "keyPairSpec": spec, "encryptionContext": { "purpose": "tokens" } });
        pairs(&self.test).issue(name, &spec).await;
    }

    async fn run_pair(&self, name: &str, spec: &str, more: &[&str]) -> Ended {
        let trust = format!("--trust={} purpose=tokens", self.test.key.arn);
        let spec = format!("--key-pair-spec={spec}");
        end_of(self.command_with(name, &[&[trust.as_str(), &spec], more].concat())).await
    }
}

#[tokio::test]
async fn private_key_is_written_for_openssl() {
    for spec in ["ECC_NIST_P256", "RSA_2048", "ECC_NIST_EDWARDS25519"] {
        let workload = Workload::of_pair(&format!("unwrap-{}", spec.to_lowercase().replace('_', "-")), spec).await;
        let public = text(&workload.test.data("tokens").await, "publicKey.v1");
        assert_ended(&workload.run_pair("file", spec, &[]).await, 0, "wrote");
        let pem = workload.read("v1").unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"), "{spec}");
        assert_eq!(String::from_utf8(openssl(&["pkey", "-pubout"], &pem)).unwrap(), public, "{spec}");
        assert_ended(&workload.run_pair("file", spec, &["--format=der"]).await, 0, "wrote");
        let der = workload.read("current").unwrap();
        let derived = openssl(&["pkey", "-inform", "DER", "-pubout"], &der);
        assert_eq!(String::from_utf8(derived).unwrap(), public, "{spec}");
        assert_ended(&workload.run_pair("file", spec, &["--format=jwk"]).await, 0, "wrote");
        let jwk: Value = serde_json::from_slice(&workload.read("current").unwrap()).unwrap();
        assert!(jwk["kid"].is_string() && jwk["d"].is_string(), "{spec}");
    }
}

#[tokio::test]
async fn halves_of_two_key_pairs_are_refused() {
    let workload = Workload::of_pair("unwrap-halves", "ECC_NIST_P256").await;
    workload.pair("twin", "ECC_NIST_P256").await;
    let mut halves = workload.test.data("tokens").await;
    halves.insert("publicKey.v1".into(), workload.test.data("twin").await["publicKey.v1"].clone());
    workload.mount.show(&halves);
    let ended = workload.run_pair("file", "ECC_NIST_P256", &[]).await;
    assert_ended(&ended, 2, "does not belong to the recorded public key");
    halves.remove("publicKey.v1");
    workload.mount.show(&halves);
    assert_ended(&workload.run_pair("file", "ECC_NIST_P256", &[]).await, 2, "public key");
    assert_eq!(workload.read("v1"), None);
}

#[tokio::test]
async fn key_pair_and_data_key_are_not_taken_for_each_other() {
    let workload = Workload::of_pair("unwrap-kinds", "ECC_NIST_P256").await;
    let ended = workload.run_pair("file", "ECC_NIST_P384", &[]).await;
    assert_ended(&ended, 2, "ECC_NIST_P384");
    let trust = format!("--trust={} purpose=tokens", workload.test.key.arn);
    let ended = end_of(workload.command_with("file", &[&trust, "--key-spec=AES_256"])).await;
    assert_ended(&ended, 2, "and 32 were asked for");
    assert_eq!(workload.read("v1"), None);
}
