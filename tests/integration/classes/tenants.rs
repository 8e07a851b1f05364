//! What a tenant tries against a class: other spellings of a key, other keys of the context, pins, forged Secrets, races with a
//! changing class, and names that are used again.

use std::collections::BTreeSet;

use datakey::api::KeyKind as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::{eventually, kms};

use crate::harness::{SOON, TestNamespace, message, recorded_version, to_json};

/// A class that allows one alias in one Region, and adds the namespace.
async fn strict(test: &TestNamespace) {
    let limits = json!([{
        "keyIds": [test.alias()],
        "keyArns": [test.key.arn],
        "regions": ["eu-west-1"],
        "keySpecs": ["AES_256"],
    }]);
    let pairs = json!([
        { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
        { "key": "purpose", "mode": "Require" },
    ]);
    test.class(&json!({ "allow": limits, "encryptionContext": { "pairs": pairs, "others": "Deny" } })).await;
}

fn spec(test: &TestNamespace, fields: &Value) -> Value {
    let mut spec = json!({ "className": test.namespace, "encryptionContext": { "purpose": "orders" } });
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn no_spelling_gets_around_a_class() {
    let test = TestNamespace::new("class-spelling").await;
    let _operator = test.operator();
    strict(&test).await;
    let arn = &test.key.arn;
    let alias_arn = arn.replace(&format!("key/{}", test.key.id), &test.alias());
    let far = kms::create_key(&test.kms.client_in("eu-north-1", kms::ACCOUNT)).await;
    let context = |pairs: Value| json!({ "encryptionContext": pairs });
    let tries = [
        ("alias-arn", json!({ "keyId": alias_arn }), "keyIds"),
        ("key-arn", json!({ "keyId": arn }), "keyIds"),
        ("key-id", json!({ "keyId": test.key.id }), "keyIds"),
        ("far-arn", json!({ "keyId": far.arn }), "keyIds"),
        ("upper", json!({ "keyId": test.alias().replace("class", "CLASS") }), "keyIds"),
        ("longer", json!({ "keyId": format!("{}-2", test.alias()) }), "keyIds"),
        ("region", json!({ "region": "eu-north-1" }), "regions"),
        ("aes-128", json!({ "keySpec": "AES_128" }), "keySpecs and numberOfBytes"),
        ("bytes", json!({ "numberOfBytes": 32 }), "keySpecs and numberOfBytes"),
        ("no-purpose", context(json!({})), "encryptionContext.pairs"),
        ("other-namespace", context(json!({ "purpose": "a", "namespace": "bank" })), "encryptionContext.pairs"),
        ("case", context(json!({ "purpose": "a", "Namespace": "bank" })), "encryptionContext.pairs"),
        ("full-width", context(json!({ "purpose": "a", "\u{ff2e}amespace": "bank" })), "encryptionContext.pairs"),
        ("kelvin", context(json!({ "purpose": "a", "\u{212a}": "bank" })), "encryptionContext.others"),
        ("more", context(json!({ "purpose": "a", "stage": "prod" })), "encryptionContext.others"),
    ];
    for (name, fields, _) in &tries {
        test.create(name, &spec(&test, fields)).await;
    }
    for (name, _, check) in &tries {
        let refused = test.failed(name, "ClassRefused").await;
        assert!(message(&refused).contains(&format!("check {check}: ")), "{name}: {}", message(&refused));
        assert!(!message(&refused).contains("arn:aws:kms:eu-west-1") || name.contains("arn"), "{}", message(&refused));
    }
    assert_eq!(test.proxy.calls(), 0);
    test.issue("orders", &spec(&test, &json!({}))).await;
    assert_eq!(test.proxy.requests()[0].body["EncryptionContext"]["namespace"], test.namespace);
}

#[tokio::test]
async fn forged_secret_is_not_let_in_by_its_own_word() {
    let test = TestNamespace::new("class-forged").await;
    let _operator = test.operator();
    // The record of another key, made without a class.
    let other = kms::create_key(&test.kms.client_in(kms::REGION, kms::ACCOUNT)).await;
    test.issue("orders", &json!({ "keyId": other.arn, "encryptionContext": { "purpose": "orders" } })).await;
    let mut forged = to_json(&test.secret("orders").await);
    test.delete("orders").await;
    test.delete_secret("orders").await;
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        forged["metadata"].as_object_mut().unwrap().remove(field);
    }
    // It says that the class of the namespace allowed it, and that the spec asked for what it asks for.
    let annotation = "datakey.dev/issued.v1";
    let mut says: Value =
        serde_json::from_str(forged["metadata"]["annotations"][annotation].as_str().unwrap()).unwrap();
    let uid = test.classes().get_opt(&test.namespace).await.unwrap().map(|class| class.uid());
    says["class"] = json!({ "name": test.namespace, "uid": uid.flatten().unwrap_or_default(), "generation": 1 });
    says["asWritten"] = json!({
        "keyId": test.alias(), "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" },
    });
    forged["metadata"]["annotations"][annotation] = json!(says.to_string());
    strict(&test).await;
    let forged: Secret = serde_json::from_value(forged).unwrap();
    let created = test.create_secret(&forged).await;
    test.create("orders", &spec(&test, &json!({}))).await;
    let refused = test.failed("orders", "ClassRefused").await;
    assert!(message(&refused).contains("version 1 of the pins or the Secret"), "{}", message(&refused));
    assert_eq!(refused.as_object().record().len(), 0);
    let kept = test.secret("orders").await;
    assert_eq!(kept.metadata.resource_version, created.metadata.resource_version);
}

#[tokio::test]
async fn namespace_or_class_of_an_earlier_name_opens_nothing() {
    let test = TestNamespace::new("class-again").await;
    let _operator = test.operator();
    strict(&test).await;
    let key = test.issue("orders", &spec(&test, &json!({}))).await;
    let first = recorded_version(&key, 1).class.unwrap();
    test.delete_class().await;
    test.create("waits", &spec(&test, &json!({}))).await;
    test.failed("waits", "ClassNotFound").await;
    // Another class of the same name: what it allows counts, whatever the earlier one allowed.
    test.class(&json!({ "allow": [{ "keyIds": ["alias/none"] }] })).await;
    test.failed("waits", "ClassRefused").await;
    strict(&test).await;
    let second = recorded_version(&test.ready("waits").await, 1).class.unwrap();
    assert_eq!((&first.name, first.uid == second.uid), (&second.name, false));
    assert_eq!(recorded_version(&test.ready("orders").await, 1).class.unwrap(), first, "the record stays");

    // A namespace has no rights but those of its name.
    let namespaces: Api<Namespace> = Api::all(test.client.clone());
    if test.plane.has_controllers() {
        namespaces.delete(&test.namespace, &<_>::default()).await.unwrap();
        eventually(SOON, "the namespace is gone", async || {
            namespaces.get_opt(&test.namespace).await.unwrap().is_none()
        })
        .await;
        test.plane.namespace(&test.namespace).await;
        test.class(&json!({ "namespaces": ["class-again-none"] })).await;
        test.create("orders", &spec(&test, &json!({}))).await;
        let refused = test.failed("orders", "ClassRefused").await;
        assert!(message(&refused).contains("check namespaces"), "{}", message(&refused));
    }
}

#[tokio::test]
async fn class_that_keeps_changing_allows_only_what_it_allows() {
    const KEYS: usize = 60;
    let test = TestNamespace::with_stub_kms("class-races").await;
    let _operator = test.operator_with(&["--kms-rate=1000"], &[]);
    let stage = |value: &str| {
        let pairs = json!([{ "key": "stage", "value": value, "mode": "Inject" }]);
        json!({ "allow": [{ "keyIds": [test.alias()] }], "encryptionContext": { "pairs": pairs } })
    };
    let mut stages = BTreeSet::new();
    test.class(&stage("0")).await;
    stages.insert("0".to_owned());
    let of_the_class = json!({ "className": test.namespace });
    let created = test.create_many("k", KEYS, &of_the_class);
    let changes = async {
        for number in 1..20 {
            test.class(&json!({ "namespaces": [] })).await;
            let name = number.to_string();
            test.class(&stage(&name)).await;
            stages.insert(name);
        }
    };
    tokio::join!(created, changes);
    let keys = test.all_ready(KEYS, SOON).await;
    for key in &keys {
        let version = recorded_version(key, 1);
        let stage = &version.request.context()["stage"];
        assert!(stages.contains(stage), "{stage}");
        // Each state of the class that allows anything has an odd generation, and adds the half of it.
        let generation = version.class.unwrap().generation;
        assert_eq!((generation % 2, stage), (1, &((generation - 1) / 2).to_string()), "{}", key.name_any());
    }
    // Each call has the pair of a state of the class.
    for call in test.proxy.requests() {
        assert!(stages.contains(call.body["EncryptionContext"]["stage"].as_str().unwrap()), "{:?}", call.body);
    }
}
