//! What the API server accepts and refuses of a `DataKeyPair`, and with which message. The rules that both kinds share have one
//! row each here, and all their cases in `tests/integration/admission.rs`.

use datakey::api::KeyPairSpec;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::pairs;

use crate::{
    admission::try_spec,
    harness::{TestNamespace, assert_refused},
};

#[tokio::test]
async fn every_kind_of_pair_is_accepted_and_no_other() {
    let test = pairs(&TestNamespace::new("pair-specs").await);
    for spec in KeyPairSpec::ALL {
        let accepted = try_spec(&test, json!({ "keyPairSpec": spec.as_str() })).await;
        assert!(accepted.is_ok(), "{spec:?}: {accepted:?}");
    }
    for (spec, words) in [
        (json!("RSA_1024"), r#"supported values: "RSA_2048""#),
        (json!("rsa_2048"), "supported values"),
        (json!(""), "supported values"),
        (json!(2048), "must be of type string"),
        (Value::Null, "spec.keyPairSpec: Required value"),
    ] {
        assert_refused(try_spec(&test, json!({ "keyPairSpec": spec })).await, words);
    }
}

#[tokio::test]
async fn pairs_have_the_rules_of_data_keys_and_no_length() {
    let test = pairs(&TestNamespace::new("pair-fields").await);
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    for accepted in [
        json!({ "keyId": arn, "encryptionContext": { "purpose": "tokens" }, "grantTokens": ["t"], "version": 7 }),
        json!({ "region": "eu-west-1", "secretName": "tokens.key-1", "deletionPolicy": "Delete" }),
        json!({ "secretTemplate": { "metadata": { "labels": { "team": "shop" } } } }),
    ] {
        try_spec(&test, accepted).await.unwrap();
    }
    for (changes, words) in [
        (json!({ "keySpec": "AES_256" }), r#"unknown field "spec.keySpec""#),
        (json!({ "numberOfBytes": 32 }), r#"unknown field "spec.numberOfBytes""#),
        (json!({ "keyId": null }), "spec: Invalid value: set keyId, or set className"),
        (json!({ "keyId": "tokens" }), "keyId must be a key ID"),
        (json!({ "keyId": "alias/aws/s3" }), "name a customer managed key"),
        (json!({ "keyId": arn, "region": "eu-west-1" }), "remove region: the ARN in keyId names the Region"),
        (json!({ "region": "europe" }), "region must be the code of an AWS Region"),
        (json!({ "encryptionContext": { "aws:x": "x" } }), "are reserved for AWS services"),
        (json!({ "encryptionContext": { "a": "x", "A": "x" } }), "differ in case only"),
        (json!({ "grantTokens": vec!["t"; 11] }), "must have at most 10 items"),
        (json!({ "version": 0 }), "should be greater than or equal to 1"),
        (json!({ "secretName": "Tokens" }), "secretName must be a DNS subdomain"),
        (json!({ "deletionPolicy": "Keep" }), r#"supported values: "Retain", "Delete""#),
        (
            json!({ "secretTemplate": { "metadata": { "labels": { "datakey.dev/name": "x" } } } }),
            "in secretTemplate.metadata is reserved",
        ),
    ] {
        assert_refused(try_spec(&test, changes).await, words);
    }
    let long = test.try_create(&test.manifest(&"n".repeat(64), &json!({}))).await.unwrap_err().message;
    assert!(long.contains("metadata.name: Too long: may not be more than 63 bytes"), "{long}");
}

#[tokio::test]
async fn a_pin_of_a_pair_has_its_public_key() {
    let test = pairs(&TestNamespace::new("pair-pins").await);
    let pinned = |edit: &dyn Fn(&mut Value)| {
        let mut pin = test.pin(1);
        edit(&mut pin);
        json!({ "keyId": test.alias(), "wrappedKeys": [pin] })
    };
    try_spec(&test, pinned(&|_| {})).await.unwrap();
    for (edit, words) in [
        (&(|pin: &mut Value| pin["publicKey"] = Value::Null) as &dyn Fn(&mut Value), "publicKey"),
        (
            &|pin: &mut Value| pin["request"]["keyPairSpec"] = json!("RSA_2048"),
            "wrappedKeys pins this version's key pair",
        ),
        (&|pin: &mut Value| pin["ciphertextBlob"] = json!(""), "ciphertextBlob"),
    ] {
        assert_refused(try_spec(&test, pinned(edit)).await, words);
    }
}

#[tokio::test]
async fn what_is_recorded_of_a_pair_is_fixed() {
    let test = pairs(&TestNamespace::new("pair-fixed").await);
    test.create("tokens", &json!({ "encryptionContext": { "a": "b" } })).await;
    // Until something is recorded, every field may be corrected.
    test.patch("tokens", &json!({ "spec": { "keyPairSpec": "RSA_2048", "secretName": "wrong" } })).await;
    test.patch("tokens", &json!({ "spec": { "keyPairSpec": "ECC_NIST_P256", "secretName": null } })).await;
    let mut version = test.pin(1);
    version["request"]["encryptionContext"] = json!({ "a": "b" });
    let record = async |versions: &[Value]| {
        let status = Patch::Merge(json!({ "status": { "secretName": "tokens", "versions": versions } }));
        test.keys().patch_status("tokens", &PatchParams::default(), &status).await.map_err(|error| error.to_string())
    };
    record(&[version.clone()]).await.unwrap();
    for (change, words) in [
        (json!({ "keyPairSpec": "ECC_NIST_P384" }), "this version's key pair is issued"),
        (json!({ "keyId": "alias/other" }), "this version's key pair is issued"),
        (json!({ "encryptionContext": { "a": "c" } }), "this version's key pair is issued"),
        (json!({ "region": "eu-west-1" }), "this version's key pair is issued"),
        (json!({ "secretName": "other" }), "secretName is fixed once a version is issued"),
        (json!({ "deletionPolicy": "Delete" }), "deletionPolicy is fixed once a version is issued"),
    ] {
        let refused = test.try_patch("tokens", &json!({ "spec": change })).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{change}: {refused}");
    }
    test.patch("tokens", &json!({ "spec": { "version": 2, "keyPairSpec": "ECC_NIST_P384" } })).await;
    test.patch("tokens", &json!({ "spec": { "version": 1, "keyPairSpec": "ECC_NIST_P256" } })).await;
    for (field, value) in [
        ("publicKey", json!(datakey::fixtures::PUBLIC_KEYS[1])),
        ("ciphertextBlob", json!("AQID0002")),
        ("keyId", json!("arn:aws:kms:eu-west-1:111122223333:key/other")),
    ] {
        let mut other = version.clone();
        other[field] = value;
        let refused = record(&[other]).await.unwrap_err();
        assert!(refused.contains("status.versions is write-once"), "{field}: {refused}");
    }
    let refused = record(&[]).await.unwrap_err();
    assert!(refused.contains("status.versions is write-once"), "{refused}");
}

#[tokio::test]
async fn kubectl_shows_and_explains_pairs() {
    let test = pairs(&TestNamespace::new("pair-columns").await);
    test.create("tokens", &json!({})).await;
    for kind in ["dkp", "datakeypair", "datakeypairs", "datakeypairs.datakey.dev"] {
        let listed = test.plane.kubectl(&["get", kind, "-n", &test.namespace, "-o", "wide"]).await.unwrap();
        let header: Vec<_> = listed.lines().next().unwrap().split_whitespace().collect();
        let columns = ["NAME", "READY", "REASON", "VERSION", "SPEC", "KEY", "SECRET", "PUBLIC-KEY", "ISSUED", "AGE"];
        assert_eq!(header, columns);
        assert!(listed.contains("Pending") && listed.contains("ECC_NIST_P256"), "{listed}");
    }
    for (field, words) in [
        ("", "the private key in its wrapped form only"),
        (".spec.keyPairSpec", "ECC_NIST_EDWARDS25519"),
        (".spec.keyId", "kms:GenerateDataKeyPairWithoutPlaintext"),
        (".status.versions.publicKey", "SubjectPublicKeyInfo"),
    ] {
        let explained = test.plane.kubectl(&["explain", &format!("datakeypairs{field}")]).await.unwrap();
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explained.contains(words), "{field}: {explained}");
    }
}
