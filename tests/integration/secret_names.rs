//! The name of a Secret: which of two `DataKey`s gets it, and when it is free again.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use testbed::eventually;

use crate::harness::{SOON, TestNamespace};

/// How soon a conflict ends once its cause is gone.
const CLEARS: Duration = Duration::from_secs(5);

async fn create_foreign_secret(test: &TestNamespace, name: &str) {
    let foreign = json!({ "metadata": { "name": name }, "stringData": { "password": "of an application" } });
    test.create_secret(&serde_json::from_value::<Secret>(foreign).unwrap()).await;
}

async fn ready_within(test: &TestNamespace, limit: Duration, name: &str) {
    let ready = tokio::time::timeout(limit, test.ready(name)).await;
    assert!(ready.is_ok(), "{name} is not ready after {limit:?}: {:?}", test.get(name).await.status);
}

#[tokio::test]
async fn name_of_a_deleted_secret_stays_with_its_data_key() {
    let test = TestNamespace::new("name-reserved").await;
    let mut operator = Some(test.operator());
    test.issue("first", &json!({ "secretName": "shared" })).await;
    let data = test.data("shared").await;
    test.create("second", &json!({ "secretName": "shared" })).await;
    test.create("shared", &json!({})).await;
    for other in ["second", "shared"] {
        let conditions = test.failed(other, "SecretConflict").await.status.unwrap().conditions;
        assert!(conditions[0].message.contains("belongs to DataKey first"), "{}", conditions[0].message);
    }
    for round in 0..6 {
        let is_stopped = round % 4 == 3;
        if is_stopped {
            drop(operator.take());
        }
        test.delete_secret("shared").await;
        // The operator handles each at once, while the name is free.
        for other in ["second", "shared"] {
            test.patch(other, &json!({ "spec": { "encryptionContext": { "round": round.to_string() } } })).await;
        }
        operator = operator.or_else(|| Some(test.operator()));
        test.secret_becomes("shared", &data).await;
        for other in ["second", "shared"] {
            test.failed(other, "SecretConflict").await;
        }
    }
    test.ready("first").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn reserved_name_is_free_once_data_key_and_secret_are_gone() {
    let test = TestNamespace::new("name-freed").await;
    let _operator = test.operator_without_retries();
    test.issue("first", &json!({ "secretName": "shared" })).await;
    test.create("second", &json!({ "secretName": "shared" })).await;
    test.failed("second", "SecretConflict").await;
    test.delete("first").await;
    test.barrier().await;
    test.failed("second", "SecretConflict").await;
    let calls = test.proxy.calls();
    test.delete_secret("shared").await;
    ready_within(&test, CLEARS, "second").await;

    // In the other order: without a Secret, the name is reserved for as long as its DataKey exists.
    create_foreign_secret(&test, "next").await;
    test.create("third", &json!({ "secretName": "next" })).await;
    test.create("fourth", &json!({ "secretName": "next" })).await;
    join_all(["third", "fourth"].map(|name| test.failed(name, "SecretConflict"))).await;
    test.delete("third").await;
    test.delete_secret("next").await;
    ready_within(&test, CLEARS, "fourth").await;
    assert_eq!(test.proxy.calls(), calls + 2);
}

#[tokio::test]
async fn one_of_two_data_keys_created_at_once_gets_the_secret() {
    const PAIRS: usize = 16;
    let test = TestNamespace::new("name-at-once").await;
    for pair in 0..PAIRS {
        for one in ["a", "b"] {
            test.create(&format!("{one}-{pair}"), &json!({ "secretName": format!("shared-{pair}") })).await;
        }
    }
    let _operator = test.operator();
    for pair in 0..PAIRS {
        let decided = async || {
            let states = [test.get(&format!("a-{pair}")).await, test.get(&format!("b-{pair}")).await];
            let mut reasons: Vec<_> =
                states.iter().map(|key| key.status.as_ref().unwrap().conditions[0].reason.clone()).collect();
            reasons.sort_unstable();
            reasons == ["Issued", "SecretConflict"]
        };
        eventually(SOON, "one is issued, and one is a conflict", decided).await;
    }
    assert_eq!(test.proxy.calls(), PAIRS);
}

#[tokio::test]
async fn a_conflict_ends_soon_after_the_foreign_secret_is_gone() {
    let test = TestNamespace::new("name-cleared").await;
    let operator = test.operator_without_retries();
    create_foreign_secret(&test, "new").await;
    test.create("new", &json!({})).await;
    test.failed("new", "SecretConflict").await;
    test.delete_secret("new").await;
    ready_within(&test, CLEARS, "new").await;

    // Recorded DataKeys, with the operator stopped and started in between.
    let data = test.data("new").await;
    drop(operator);
    test.delete_secret("new").await;
    create_foreign_secret(&test, "new").await;
    let operator = test.operator_without_retries();
    test.failed("new", "SecretConflict").await;
    drop(operator);
    let _operator = test.operator_without_retries();
    test.barrier().await;
    let calls = test.proxy.calls();
    test.delete_secret("new").await;
    ready_within(&test, CLEARS, "new").await;
    assert_eq!(test.data("new").await, data);
    assert_eq!(test.proxy.calls(), calls);
}

#[tokio::test]
async fn a_hundred_conflicts_end_soon_and_more_are_retried() {
    let test = TestNamespace::with_stub_kms("name-hundred").await;
    let _operator = test.operator_without_retries();
    let names: Vec<_> = (0..103).map(|number| format!("k-{number}")).collect();
    for name in &names {
        create_foreign_secret(&test, name).await;
    }
    test.create_many("k", names.len(), &json!({})).await;
    for name in &names {
        test.failed(name, "SecretConflict").await;
    }
    for name in &names {
        test.delete_secret(name).await;
    }
    let ready = async || {
        let keys = test.keys().list(&<_>::default()).await.unwrap();
        let is_ready = |key: &&datakey::api::DataKey| {
            key.status.as_ref().is_some_and(|status| status.conditions.iter().any(|ready| ready.reason == "Issued"))
        };
        keys.iter().filter(is_ready).count()
    };
    eventually(SOON, "a hundred are issued", async || ready().await >= 100).await;
    assert!(ready().await <= names.len());
}
