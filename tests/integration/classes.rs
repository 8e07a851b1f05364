//! `DataKeyClass`: what a namespace may have, and what is filled in for it.

use datakey::api::DataKeyPair;
use serde_json::{Value, json};
use testbed::{
    api_proxy::{Fault, STREAMED_LIST},
    eventually,
};

use crate::harness::{NO_RETRY, SOON, TestKind, TestNamespace, message, recorded_version, text, to_json};

mod account;
mod attack;
mod identity;
mod tenants;

for_each_kind! {
    class_fills_in_what_an_object_leaves_out: new("class-fills"),
    refused_object_asks_nothing_and_is_woken_by_its_class: new("class-wakes"),
    what_is_recorded_outlives_its_class: new("class-outlived"),
    changed_class_binds_the_next_version: new("class-next"),
    pins_are_judged_by_the_class: new("class-pins"),
    adopted_secret_is_judged_by_the_class: new("class-adopts"),
    answer_of_another_key_is_not_recorded: new("class-answer"),
    definition_compares_the_spec_with_what_was_written: new("class-written"),
}

/// A spec with the class of the namespace, and without a key.
fn of_class<K: TestKind>(test: &TestNamespace<K>) -> Value {
    json!({ "className": test.namespace, "keyId": null })
}

async fn class_fills_in_what_an_object_leaves_out<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let pairs = json!([
        { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
        { "key": "cluster", "value": "prod-eu", "mode": "Inject" },
    ]);
    let class = test
        .class(&json!({
            "defaults": { "keyId": test.alias(), "region": "eu-west-1" },
            "encryptionContext": { "pairs": pairs },
        }))
        .await;
    let mut spec = of_class(&test);
    spec["encryptionContext"] = json!({ "purpose": "orders" });
    let key = test.issue("orders", &spec).await;

    let context = json!({ "cluster": "prod-eu", "namespace": test.namespace, "purpose": "orders" });
    let calls = [test.proxy.requests(), test.proxy.pair_requests()].concat();
    assert_eq!((calls.len(), &calls[0].body["EncryptionContext"]), (1, &context));
    assert_eq!((&calls[0].body["KeyId"], &*calls[0].region), (&json!(test.alias()), "eu-west-1"));
    let recorded = to_json(&recorded_version(&key, 1));
    assert_eq!(recorded["request"]["encryptionContext"], context);
    assert_eq!(recorded["asWritten"]["encryptionContext"], spec["encryptionContext"]);
    assert_eq!(recorded["asWritten"].get("keyId"), None);
    let uid = class.metadata.uid.unwrap();
    assert_eq!(recorded["class"], json!({ "name": test.namespace, "uid": uid, "generation": 1 }));
    assert_eq!(to_json(&key)["spec"].get("keyId"), None, "the spec is never changed");

    // A workload needs to know nothing of the class.
    let data = test.data("orders").await;
    assert_eq!(text(&data, "encryptionContext"), context.to_string());
    assert!(!test.decrypt(&data, "").await.is_empty());

    // It is adopted exactly as it was.
    test.delete("orders").await;
    let adopted = test.issue("orders", &spec).await;
    assert_eq!(to_json(&recorded_version(&adopted, 1)), recorded);
    assert_eq!(test.data("orders").await, data);
}

async fn refused_object_asks_nothing_and_is_woken_by_its_class<K: TestKind>(test: TestNamespace<K>) {
    let (api, kubeconfig) = test.api_proxy().await;
    let _operator = test.operator_by(&kubeconfig, &NO_RETRY);
    let other = format!("{}-other", test.namespace);
    test.class(&json!({ "namespaces": [] })).await;
    test.class_of_name(&other, &json!({ "namespaces": [] })).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    test.create("waits", &json!({ "className": other })).await;
    test.create("lost", &json!({ "className": format!("{}-none", test.namespace) })).await;
    let refused = test.failed("orders", "ClassRefused").await;
    let why = format!("class {0}, check namespaces: the class does not admit namespace {0}", test.namespace);
    assert!(message(&refused).contains(&why), "{}", message(&refused));
    test.failed("waits", "ClassRefused").await;
    test.failed("lost", "ClassNotFound").await;
    assert_eq!(test.proxy.calls(), 0);
    assert!(test.secrets().list(&<_>::default()).await.unwrap().items.is_empty());

    api.forget();
    test.class(&json!({})).await;
    test.ready("orders").await;
    let others = api.requests().into_iter().filter(|request| ["waits", "lost"].contains(&request.name.as_str()));
    assert_eq!(others.count(), 0, "the class wakes no others");
    test.class_of_name(&format!("{}-none", test.namespace), &json!({})).await;
    test.ready("lost").await;
    test.failed("waits", "ClassRefused").await;
}

async fn what_is_recorded_outlives_its_class<K: TestKind>(test: TestNamespace<K>) {
    let mut operator = Some(test.operator());
    test.class(&json!({})).await;
    test.issue("orders", &json!({ "className": test.namespace })).await;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    test.ready("orders").await;
    let (data, calls) = (test.data("orders").await, test.proxy.calls());

    test.class(&json!({ "namespaces": [], "allow": [{ "keyIds": ["alias/none"] }] })).await;
    for stage in ["narrowed", "deleted", "restarted"] {
        match stage {
            "deleted" => test.delete_class().await,
            "restarted" => {
                drop(operator.take());
                operator = Some(test.operator_with(&["--classes=required"], &[]));
            }
            _ => {}
        }
        test.delete_secret("orders").await;
        test.secret_becomes("orders", &data).await;
        test.ready("orders").await;
    }
    // Going back to an issued version stays free, also under another class.
    test.patch("orders", &json!({ "spec": { "version": 1, "className": "another" } })).await;
    test.ready("orders").await;
    assert_eq!(text(&test.data("orders").await, "version"), "1");
    assert_eq!(test.proxy.calls(), calls);
    test.patch("orders", &json!({ "spec": { "version": 3 } })).await;
    let refused = test.failed("orders", "ClassNotFound").await;
    assert!(message(&refused).contains("another"), "{}", message(&refused));
    assert_eq!(test.proxy.calls(), calls);
}

async fn changed_class_binds_the_next_version<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let pairs = |value: &str| json!({ "pairs": [{ "key": "stage", "value": value, "mode": "Inject" }] });
    test.class(&json!({ "encryptionContext": pairs("test") })).await;
    let first = test.issue("orders", &json!({ "className": test.namespace })).await;
    test.class(&json!({ "encryptionContext": pairs("prod") })).await;
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let second = eventually_recorded(&test, "orders", 2).await;
    let stage =
        |key: &K, version| to_json(&recorded_version(key, version))["request"]["encryptionContext"]["stage"].take();
    assert_eq!((stage(&second, 1), stage(&second, 2)), (json!("test"), json!("prod")));
    assert_eq!(recorded_version(&first, 1), recorded_version(&second, 1));
    assert_eq!(to_json(&recorded_version(&second, 2))["class"]["generation"], 2);
}

async fn eventually_recorded<K: TestKind>(test: &TestNamespace<K>, name: &str, version: i32) -> K {
    eventually(SOON, "the version is recorded", async || {
        test.get(name).await.as_object().recorded_version(version).is_some()
    })
    .await;
    test.ready(name).await
}

async fn pins_are_judged_by_the_class<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let pinned = test.pin(1)["keyId"].as_str().unwrap().to_owned();
    test.class(&json!({})).await;
    let spec = json!({ "className": test.namespace, "wrappedKeys": [test.pin(1)] });
    test.create("orders", &spec).await;
    let refused = test.failed("orders", "ClassRefused").await;
    assert!(message(&refused).contains("check keyArns: version 1 of the pins or the Secret"), "{}", message(&refused));
    assert!(!message(&refused).contains("arn:aws"), "{}", message(&refused));
    test.class(&json!({ "allow": [{ "keyIds": ["alias/none"], "keyArns": [pinned] }] })).await;
    let key = test.ready("orders").await;
    let mut recorded = to_json(&recorded_version(&key, 1));
    assert_eq!(recorded.as_object_mut().unwrap().remove("class").unwrap()["name"], test.namespace);
    assert_eq!(recorded, test.pin(1));
    assert_eq!(test.proxy.calls(), 0);

    // What was recorded is a pin elsewhere, and there another class decides.
    let pairs = json!([{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }]);
    let limits = json!([{ "keyIds": ["alias/none"], "keyArns": [test.pin(1)["keyId"]] }]);
    test.class(&json!({ "allow": limits, "encryptionContext": { "pairs": pairs } })).await;
    let spec = json!({ "className": test.namespace, "wrappedKeys": [to_json(&recorded_version(&key, 1))] });
    test.create("copy", &spec).await;
    let refused = test.failed("copy", "ClassRefused").await;
    let why = format!("needs the pair namespace={}", test.namespace);
    assert!(message(&refused).contains(&why), "{}", message(&refused));
    test.ready("orders").await;
}

async fn adopted_secret_is_judged_by_the_class<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let key = test.issue("orders", &json!({})).await;
    let (secret, data) = (test.secret("orders").await, test.data("orders").await);
    test.delete("orders").await;
    let elsewhere = test.key.arn.replace("eu-west-1", "eu-north-1");
    test.class(&json!({ "allow": [{ "keyIds": [test.alias()], "keyArns": [elsewhere] }] })).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    let refused = test.failed("orders", "ClassRefused").await;
    assert!(message(&refused).contains("check keyArns"), "{}", message(&refused));
    assert_eq!(test.secret("orders").await.metadata.resource_version, secret.metadata.resource_version);
    test.class(&json!({})).await;
    let adopted = test.ready("orders").await;
    let without_class = |key: &K| {
        let mut version = to_json(&recorded_version(key, 1));
        version.as_object_mut().unwrap().remove("class");
        version
    };
    assert_eq!(without_class(&adopted), without_class(&key));
    assert_eq!(test.data("orders").await, data);
    assert_eq!(test.proxy.calls(), 1);
}

async fn answer_of_another_key_is_not_recorded<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    let elsewhere = test.key.arn.replace(&test.key.id, "99999999-12ab-34cd-56ef-1234567890ab");
    test.class(&json!({ "allow": [{ "keyIds": [test.alias()], "keyArns": [elsewhere] }] })).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    let refused = test.failed("orders", "ClassRefused").await;
    assert!(message(&refused).contains("not among keyArns"), "{}", message(&refused));
    assert!(
        !message(&refused).contains(&test.key.id) && !message(&refused).contains("99999999"),
        "{}",
        message(&refused)
    );
    assert_eq!((test.proxy.calls(), refused.as_object().record().len()), (1, 0));
    test.class(&json!({})).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);
}

async fn definition_compares_the_spec_with_what_was_written<K: TestKind>(test: TestNamespace<K>) {
    let _operator = test.operator();
    test.class(&json!({ "defaults": { "keyId": test.alias() } })).await;
    test.issue("orders", &of_class(&test)).await;
    let refuses = async |patch: Value, words: &str| {
        let refusal = test.try_patch("orders", &json!({ "spec": patch })).await.unwrap_err();
        assert!(refusal.message.contains(words), "{patch}: {}", refusal.message);
    };
    refuses(json!({ "keyId": test.alias() }), "are fixed").await;
    refuses(json!({ "encryptionContext": { "a": "b" } }), "are fixed").await;
    refuses(json!({ "className": null }), "set keyId, or set className").await;
    refuses(json!({ "className": "Shop" }), "className must be the name of a DataKeyClass").await;
    test.patch("orders", &json!({ "spec": { "className": "another" } })).await;
    test.ready("orders").await;

    // The parts of the record that a class adds are write-once, too.
    let version = to_json(&recorded_version(&test.get("orders").await, 1));
    for (field, value) in [
        ("asWritten", json!(null)),
        ("asWritten", json!({ "keyId": "alias/other" })),
        ("class", json!(null)),
        ("class", json!({ "generation": 9 })),
    ] {
        let mut changed = version.clone();
        match value.as_object() {
            None => _ = changed.as_object_mut().unwrap().remove(field),
            Some(value) => changed[field].as_object_mut().unwrap().extend(value.clone()),
        }
        let refusal = test.try_patch_status("orders", &json!({ "versions": [changed] })).await.unwrap_err();
        assert!(refusal.message.contains("write-once"), "{field} {value}: {}", refusal.message);
    }
    let mut bare = test.manifest("bare", &json!({ "keyId": null }));
    let refusal = test.try_create(&bare).await.unwrap_err();
    assert!(refusal.message.contains("set keyId, or set className"), "{}", refusal.message);
    // A pin compares in the same way.
    bare["metadata"]["name"] = json!("pinned");
    bare["spec"] = to_json(&test.get("orders").await)["spec"].take();
    bare["spec"]["wrappedKeys"] = json!([version]);
    test.try_create(&bare).await.unwrap();
    bare["metadata"]["name"] = json!("other");
    bare["spec"]["encryptionContext"] = json!({ "a": "b" });
    let refusal = test.try_create(&bare).await.unwrap_err();
    assert!(refusal.message.contains("must be those of the pin's request"), "{}", refusal.message);
}

#[tokio::test]
async fn required_classes_leave_nothing_open() {
    let test = TestNamespace::with_own_control_plane("class-required").await;
    let pairs = test.of_kind::<DataKeyPair>();
    let _operator = test.operator_of_all(&["--classes=required"]);
    test.create("orders", &json!({})).await;
    pairs.create("tokens", &json!({})).await;
    let refused = test.failed("orders", "ClassMissing").await;
    assert!(message(&refused).contains("there is no class default"), "{}", message(&refused));
    pairs.failed("tokens", "ClassMissing").await;

    let limits = json!([{ "keyIds": [test.alias()] }]);
    test.class_of_name("default", &json!({ "allow": limits, "namespaces": ["none", "class-required*"] })).await;
    test.ready("orders").await;
    pairs.ready("tokens").await;
    assert_eq!(test.class_is("default", "True", 2).await, "the class can be used");

    // A class that is not accepted allows nothing, and neither does one that is gone.
    let impossible = json!({ "allow": limits, "defaults": { "keyId": "alias/other" } });
    test.class_of_name("default", &impossible).await;
    let why = test.class_is("default", "False", 2).await;
    assert!(why.contains("spec.defaults.keyId"), "{why}");
    test.create("second", &json!({})).await;
    let refused = test.failed("second", "ClassRefused").await;
    assert!(message(&refused).contains("check Accepted"), "{}", message(&refused));
    test.classes().delete("default", &<_>::default()).await.unwrap();
    test.failed("second", "ClassMissing").await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 2);

    // Another one of the same name decides.
    test.class_of_name("default", &json!({ "allow": limits })).await;
    test.ready("second").await;
    test.class_is("default", "True", 3).await;
    test.delete("second").await;
    test.class_is("default", "True", 2).await;
}

#[tokio::test]
async fn classes_that_cannot_be_read_stop_only_who_needs_them() {
    let test = TestNamespace::new("class-unread").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let refused = Fault::Refuse(403, "Forbidden", "datakeyclasses is forbidden");
    api.fail_always("list", "datakeyclasses", refused.clone());
    api.fail_always(STREAMED_LIST, "datakeyclasses", refused);
    let _operator = test.operator_by(&kubeconfig, &[]);
    test.class(&json!({})).await;
    test.issue("plain", &json!({})).await;
    test.create("orders", &json!({ "className": test.namespace })).await;
    let waits = test.failed("orders", "ClassesUnavailable").await;
    assert!(message(&waits).contains("datakeyclasses is forbidden"), "{}", message(&waits));
    assert_eq!(test.proxy.calls(), 1);
    api.clear_faults();
    test.ready("orders").await;
}
