//! From a `DataKey` to a Secret whose key a workload unwraps: one call to KMS for each version, and never another one.

use std::{collections::BTreeMap, time::Duration};

use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use testbed::{eventually, kms, proxy::Fault};

use crate::harness::{SOON, TestNamespace, recorded_version, text, to_json};

#[tokio::test]
async fn a_workload_unwraps_a_key_of_the_right_length() {
    let test = TestNamespace::new("lengths").await;
    let _operator = test.operator();
    let cases = [
        ("aes-256", json!({ "keySpec": "AES_256" }), 32),
        ("aes-128", json!({ "keySpec": "AES_128" }), 16),
        ("bytes-1", json!({ "numberOfBytes": 1 }), 1),
        ("bytes-7", json!({ "numberOfBytes": 7 }), 7),
        ("bytes-64", json!({ "numberOfBytes": 64 }), 64),
        ("bytes-1024", json!({ "numberOfBytes": 1024 }), 1024),
    ];
    for (name, spec, _) in &cases {
        test.create(name, spec).await;
    }
    let mut keys = std::collections::BTreeSet::new();
    for (name, _, length) in cases {
        test.ready(name).await;
        let plaintext = test.decrypt(&test.data(name).await, "").await;
        assert_eq!(plaintext.len(), length, "{name}");
        keys.insert(plaintext);
    }
    assert_eq!(keys.len(), 6, "each data key is another one");
    assert_eq!(test.proxy.calls(), 6);
    assert_eq!(test.proxy.operations(), ["GenerateDataKeyWithoutPlaintext"]);
}

#[tokio::test]
async fn the_key_is_unwrapped_under_its_own_encryption_context_only() {
    let test = TestNamespace::new("own-context").await;
    let _operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "purpose": "orders", "stage": "prod" } })).await;
    let data = test.data("orders").await;
    assert_eq!(test.decrypt(&data, "").await.len(), 32);
    let context = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    for other in [
        context(&[]),
        context(&[("purpose", "orders")]),
        context(&[("purpose", "Orders"), ("stage", "prod")]),
        context(&[("purpose", "orders"), ("stage", "prod"), ("more", "x")]),
    ] {
        let refusal = test.decrypt_with_context(&data, "", &other).await;
        assert_eq!(refusal, Err("InvalidCiphertextException".to_owned()), "{other:?}");
    }
}

#[tokio::test]
async fn event_names_version_key_and_request_of_an_issue() {
    let test = TestNamespace::new("issued-event").await;
    let _operator = test.operator();
    test.issue("orders", &json!({})).await;
    let issued = json!(test.get("orders").await)["status"]["versions"][0].take();
    let recorded = |field: &str| issued[field].as_str().unwrap().to_owned();
    let note = format!("Issued version 1: KMS key {}, request ID {}", recorded("keyId"), recorded("requestId"));
    test.event_contains("orders", "Issued", &note).await;

    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.event_contains("orders", "Issued", "Issued version 2: ").await;
    // Going back issues nothing.
    test.patch("orders", &json!({ "spec": { "version": 1 } })).await;
    eventually(SOON, "version 1 is current", async || text(&test.data("orders").await, "version") == "1").await;
    assert_eq!(test.events("orders", "Issued").await.len(), 2);
}

#[tokio::test]
async fn kms_request_matches_the_spec_exactly() {
    let test = TestNamespace::new("as-written").await;
    let _operator = test.operator();
    let long: BTreeMap<_, _> = (0..32).map(|n| (format!("key-{n:02}"), "v".repeat(240))).collect();
    let contexts = [
        None,
        Some(json!({})),
        Some(json!({ "purpose": "" })),
        Some(json!({ "Zweck": "Aufträge", "目的": "注文 🔑", " spaces ": "\"quoted\"\n\ttab" })),
        Some(to_json(&long)),
    ];
    for (number, context) in contexts.into_iter().enumerate() {
        let mut spec = json!({ "numberOfBytes": 48, "grantTokens": ["token-a", "token-b"] });
        let mut expected = json!({ "KeyId": test.alias(), "NumberOfBytes": 48, "GrantTokens": ["token-a", "token-b"] });
        if let Some(context) = context {
            spec["encryptionContext"] = context.clone();
            expected["EncryptionContext"] = context;
        }
        let name = format!("k{number}");
        test.issue(&name, &spec).await;
        assert_eq!(test.proxy.requests().last().unwrap().body, expected);
        assert_eq!(test.decrypt(&test.data(&name).await, "").await.len(), 48);
    }
    test.issue("spec", &json!({ "keySpec": "AES_128" })).await;
    let last = test.proxy.requests().last().unwrap().body.clone();
    assert_eq!(last, json!({ "KeyId": test.alias(), "KeySpec": "AES_128" }));
}

#[tokio::test]
async fn each_form_of_a_key_id_is_issued_for() {
    let test = TestNamespace::new("forms-issue").await;
    let _operator = test.operator();
    let alias_arn = test.key.arn.replace(&format!("key/{}", test.key.id), &test.alias());
    for (name, key_id) in
        [("id", &test.key.id), ("arn", &test.key.arn), ("alias", &test.alias()), ("alias-arn", &alias_arn)]
    {
        let key = test.issue(name, &json!({ "keyId": key_id })).await;
        assert_eq!(recorded_version(&key, 1).key_id, test.key.arn, "{name}");
        assert_eq!(key.status.unwrap().key_id.as_ref(), Some(&test.key.arn));
        assert_eq!(test.decrypt(&test.data(name).await, "").await.len(), 32);
    }
}

#[tokio::test]
async fn key_of_another_region_is_called_in_that_region() {
    let test = TestNamespace::new("other-region").await;
    let _operator = test.operator();
    let far = kms::create_key(&test.kms.client_in("us-west-2", kms::ACCOUNT)).await;
    test.issue("by-arn", &json!({ "keyId": far.arn })).await;
    test.issue("by-region", &json!({ "keyId": far.id, "region": "us-west-2" })).await;
    test.issue("at-home", &json!({})).await;
    let regions: Vec<_> = test.proxy.requests().into_iter().map(|call| call.region).collect();
    assert_eq!(regions, ["us-west-2", "us-west-2", "eu-west-1"]);
    assert_eq!(test.decrypt(&test.data("by-arn").await, "").await.len(), 32);
}

#[tokio::test]
async fn key_of_another_account_is_called_by_its_arn() {
    let test = TestNamespace::new("other-account").await;
    let _operator = test.operator();
    let other = "444455556666";
    let theirs = kms::create_key(&test.kms.client_in(kms::REGION, other)).await;
    assert!(theirs.arn.contains(other));
    // The KMS server has no policies across accounts: the proxy sends the call as the other account.
    test.proxy.fail_always(Fault::AsAccount(other.to_owned()));
    let key = test.issue("orders", &json!({ "keyId": theirs.arn })).await;
    assert_eq!(recorded_version(&key, 1).key_id, theirs.arn);
    assert_eq!(test.decrypt(&test.data("orders").await, "").await.len(), 32);
}

#[tokio::test]
async fn record_and_secret_describe_the_data_key_completely() {
    let test = TestNamespace::new("description").await;
    let _operator = test.operator();
    let context = json!({ "purpose": "orders", "a": "first" });
    let key = test.issue("orders", &json!({ "encryptionContext": context, "secretName": "other-name" })).await;
    let issued = recorded_version(&key, 1);
    assert_eq!(to_json(&issued.request), to_json(&key.spec.request()));
    assert!(issued.request_id.is_some() && issued.key_material_id.is_some());
    let status = key.status.clone().unwrap();
    assert_eq!((status.version, status.secret_name.as_deref()), (Some(1), Some("other-name")));
    assert_eq!(status.issued_at.as_ref(), Some(&issued.issued_at));

    let secret = test.secret("other-name").await;
    assert_eq!(secret.type_.as_deref(), Some("datakey.dev/wrapped-key"));
    assert_eq!(secret.metadata.owner_references, None);
    let labels = secret.metadata.labels.unwrap();
    assert_eq!(labels["app.kubernetes.io/managed-by"], "datakey-operator");
    assert_eq!(labels["datakey.dev/name"], "orders");
    let data = test.data("other-name").await;
    assert_eq!(text(&data, "encryptionContext"), r#"{"a":"first","purpose":"orders"}"#);
    assert_eq!((text(&data, "keySpec"), text(&data, "version")), ("AES_256".to_owned(), "1".to_owned()));
    assert_eq!(data["ciphertextBlob"], issued.ciphertext_blob.0);
    assert_eq!(data["ciphertextBlob.v1"], issued.ciphertext_blob.0);
}

#[tokio::test]
async fn version_2_is_added_and_going_back_issues_nothing() {
    let test = TestNamespace::new("versions").await;
    let _operator = test.operator();
    test.issue("orders", &json!({ "encryptionContext": { "v": "1" } })).await;
    let first = test.data("orders").await;

    let second_key = test.kms.key().await;
    let v2 = json!({ "keyId": second_key.arn, "encryptionContext": { "v": "2" }, "version": 2 });
    test.patch("orders", &json!({ "spec": v2 })).await;
    let key = test.ready("orders").await;
    assert_eq!(key.status.unwrap().version, Some(2));
    let second = test.data("orders").await;
    assert_eq!(second["ciphertextBlob.v1"], first["ciphertextBlob"]);
    assert_eq!(second["ciphertextBlob.v2"], second["ciphertextBlob"]);
    assert_ne!(second["ciphertextBlob"], first["ciphertextBlob"]);
    assert_eq!((text(&second, "version"), text(&second, "keyId")), ("2".to_owned(), second_key.arn));
    assert_eq!(test.decrypt(&second, "").await, test.decrypt(&second, ".v2").await);
    assert_eq!(test.decrypt(&second, ".v1").await, test.decrypt(&first, "").await);

    let v1 = json!({ "keyId": test.alias(), "encryptionContext": { "v": "1" }, "version": null });
    test.patch("orders", &json!({ "spec": v1 })).await;
    assert_eq!(test.ready("orders").await.status.unwrap().version, Some(1));
    let back = test.data("orders").await;
    assert_eq!(back["ciphertextBlob"], first["ciphertextBlob"]);
    assert_eq!(back["ciphertextBlob.v2"], second["ciphertextBlob.v2"]);

    test.patch("orders", &json!({ "spec": v2 })).await;
    assert_eq!(test.ready("orders").await.status.unwrap().version, Some(2));
    test.secret_becomes("orders", &second).await;
    assert_eq!(test.proxy.calls(), 2);
}

#[tokio::test]
async fn restarts_and_resyncs_call_no_kms_and_write_nothing() {
    let test = TestNamespace::new("restart").await;
    let operator = test.operator();
    for number in 0..5 {
        test.issue(&format!("k{number}"), &json!({ "deletionPolicy": "Delete" })).await;
    }
    drop(operator);
    let states = async || {
        let keys = test.keys().list(&ListParams::default()).await.unwrap().items;
        let secrets = test.secrets().list(&ListParams::default()).await.unwrap().items;
        let version = |metadata: &kube::core::ObjectMeta| metadata.resource_version.clone().unwrap();
        let keys: Vec<_> = keys.iter().map(|key| version(&key.metadata)).collect();
        let secrets: Vec<_> = secrets.iter().map(|secret| version(&secret.metadata)).collect();
        (keys, secrets)
    };
    let before = states().await;
    let operator = test.operator_with(&["--resync=100ms"], &[]);
    operator.is_ready().await;
    eventually(SOON, "ten resyncs are done", async || {
        let (_, metrics) = operator.admin("/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("datakey_resyncs_total "));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<u32>().ok()).is_some_and(|count| count >= 10)
    })
    .await;
    assert_eq!(states().await, before);
    assert_eq!(test.proxy.calls(), 5);
}

#[tokio::test]
async fn second_data_key_for_a_secret_name_is_a_conflict() {
    let test = TestNamespace::new("one-name").await;
    let _operator = test.operator();
    test.issue("first", &json!({ "secretName": "shared" })).await;
    let data = test.data("shared").await;
    test.create("second", &json!({ "secretName": "shared" })).await;
    let second = test.failed("second", "SecretConflict").await;
    let conditions = second.status.unwrap().conditions;
    assert!(conditions[0].message.contains("belongs to DataKey first"), "{}", conditions[0].message);
    assert_eq!(test.proxy.calls(), 1, "KMS is not asked in vain");
    test.barrier().await;
    assert_eq!(test.data("shared").await, data);

    // The name can still be changed, because nothing is issued yet.
    test.patch("second", &json!({ "spec": { "secretName": "own" } })).await;
    test.ready("second").await;
}

#[tokio::test]
async fn under_retain_the_secret_stays_and_a_new_data_key_adopts_it() {
    let test = TestNamespace::new("retain").await;
    let _operator = test.operator();
    let old = test.issue("orders", &json!({})).await;
    let data = test.data("orders").await;
    test.delete("orders").await;
    test.barrier().await;
    assert_eq!(test.data("orders").await, data);
    let calls = test.proxy.calls();

    let new = test.issue("orders", &json!({})).await;
    assert_ne!(new.metadata.uid, old.metadata.uid);
    assert_eq!(recorded_version(&new, 1), recorded_version(&old, 1));
    assert_eq!(test.data("orders").await, data);
    assert_eq!(test.proxy.calls(), calls);
    eventually(SOON, "an event reports the adoption", async || !test.events("orders", "Adopted").await.is_empty())
        .await;
}

#[tokio::test]
async fn under_delete_the_secret_goes_with_the_data_key() {
    let test = TestNamespace::new("delete").await;
    let _operator = test.operator();
    let key = test.issue("orders", &json!({ "deletionPolicy": "Delete" })).await;
    let owners = test.secret("orders").await.metadata.owner_references.unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!((Some(&owners[0].uid), owners[0].controller), (key.metadata.uid.as_ref(), None));
    assert_eq!(key.metadata.finalizers, None);
    test.delete("orders").await;
    if test.plane.has_controllers() {
        // The garbage collector discovers a new kind of objects within 30 seconds.
        let limit = Duration::from_secs(90);
        eventually(limit, "the Secret is gone", async || test.secrets().get_opt("orders").await.unwrap().is_none())
            .await;
    }
}

#[tokio::test]
async fn data_key_under_deletion_is_not_issued() {
    let test = TestNamespace::new("way-out").await;
    let mut manifest = test.manifest("orders", &json!({}));
    manifest["metadata"]["finalizers"] = json!(["example.com/hold"]);
    test.try_create(&manifest).await.unwrap();
    test.keys().delete("orders", &DeleteParams::default()).await.unwrap();
    let _operator = test.operator();
    test.barrier().await;
    assert_eq!(test.get("orders").await.record(), []);
    assert!(test.secrets().get_opt("orders").await.unwrap().is_none());
    test.patch("orders", &json!({ "metadata": { "finalizers": null } })).await;
}

#[tokio::test]
async fn a_namespace_can_be_deleted_with_everything_in_it() {
    let test = TestNamespace::new("namespace-goes").await;
    let operator = test.operator();
    for number in 0..10 {
        test.issue(&format!("k{number}"), &json!({})).await;
    }
    if !test.plane.has_controllers() {
        return;
    }
    test.plane.kubectl(&["delete", "namespace", "namespace-goes", "--timeout=90s"]).await.unwrap();
    assert_eq!(test.proxy.calls(), 10);
    drop(operator);
}
