//! What a record and a Secret say of rewraps: who checks it, and what becomes of it when it is lost or edited.

use aws_sdk_kms::types::DataKeySpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::{Asked, issue_two_versions, key_elsewhere, lose, of_data_keys, reference};
use crate::{
    harness::{TestKind, TestNamespace, restored, text as entry, to_json},
    plugin::{User, text},
};

for_each_kind! {
    restored_secret_brings_the_rewraps_back: new("rewrap-adopted"),
    edited_rewrap_entries_are_restored: new("rewrap-edited"),
}

/// A pin of a new data key.
async fn pin(test: &TestNamespace, version: i32) -> Value {
    let call = test.kms.client().generate_data_key().key_id(&test.key.arn).key_spec(DataKeySpec::Aes256);
    let blob = call.send().await.unwrap().ciphertext_blob.unwrap().into_inner();
    let mut pin = test.pin(version);
    pin["ciphertextBlob"] = BASE64_STANDARD.encode(blob).into();
    pin["keyId"] = json!(test.key.arn);
    pin
}

#[tokio::test]
async fn false_claim_of_a_rewrap_is_found() {
    let test = TestNamespace::new("rewrap-false").await;
    let user = User::of(&test);
    let _operator = test.operator();
    let (one, mut two) = (pin(&test, 1).await, pin(&test, 2).await);
    two["rewrapOf"] = json!({ "version": 1 });
    test.issue("false", &json!({ "wrappedKeys": [one, two], "version": 2 })).await;
    issue_two_versions(&test, "true").await;
    let to = test.kms.key().await;
    user.ends(0, &["rewrap", "true", "--to-key-id", &to.arn, "--apply"]).await;

    let found = text(&user.ends(2, &["verify", "false", "--decrypt"]).await);
    assert!(found.starts_with("false in namespace rewrap-false: NOT as recorded\n"), "{found}");
    assert!(found.contains("a rewrap of version 1. It is NOT: the plaintexts differ"), "{found}");
    let found = user.json(2, &["verify", "false", "--decrypt"]).await;
    assert_eq!(found["versions"][1]["rewrap"], json!({ "of": 1, "plaintext": "Different", "comparedWith": 1 }));
    assert_eq!(found["verified"], json!(false));
    let proved = text(&user.ends(0, &["verify", "true", "--decrypt"]).await);
    for of in [1, 2] {
        assert!(proved.contains(&format!("a rewrap of version {of}: both have the same plaintext")), "{proved}");
    }
    // Without a call it is a claim.
    let claimed = text(&user.ends(0, &["verify", "false"]).await);
    assert!(claimed.contains("a rewrap of version 1; the plaintexts were not compared"), "{claimed}");
}

async fn restored_secret_brings_the_rewraps_back<K: TestKind>(test: TestNamespace<K>) {
    let namespace = of_data_keys(&test);
    let user = User::of(&namespace);
    let _operator = test.operator();
    issue_two_versions(&test, "orders").await;
    let (to, name) = (key_elsewhere(test.kms).await, reference::<K>("orders"));
    user.ends(0, &["rewrap", &name, "--to-key-id", &to.arn, "--no-rotate", "--apply"]).await;
    let old = test.ready("orders").await;
    let (backup, data, asked) =
        (restored(&test.secret("orders").await), test.data("orders").await, Asked::of(&test.proxy));
    assert_eq!((entry(&data, "rewrapOf"), entry(&data, "rewrapOf.v3")), ("2".to_owned(), "1".to_owned()));
    lose(&test, "orders").await;
    test.create_secret(&backup).await;
    let mut spec = to_json(&old)["spec"].take();
    spec.as_object_mut().unwrap().remove("wrappedKeys");
    let new = test.issue("orders", &spec).await;
    assert_eq!(to_json(&new.as_object().record().to_vec()), to_json(&old.as_object().record().to_vec()));
    assert_eq!((test.data("orders").await, Asked::of(&test.proxy)), (data, asked));

    // A Secret that says something else of a rewrap than its own record is not taken over.
    lose(&test, "orders").await;
    let mut other = backup.clone();
    other.data.as_mut().unwrap().get_mut("rewrapOf.v3").unwrap().0 = b"2".to_vec();
    test.create_secret(&other).await;
    test.create("orders", &spec).await;
    let failed = test.failed("orders", "SecretConflict").await;
    let message = crate::harness::message(&failed);
    assert!(message.contains("rewrapOf of version 3 is missing or was changed"), "{message}");
    assert_eq!(Asked::of(&test.proxy), asked);
}

async fn edited_rewrap_entries_are_restored<K: TestKind>(test: TestNamespace<K>) {
    let namespace = of_data_keys(&test);
    let user = User::of(&namespace);
    let operator = test.operator();
    let (to, edits) = (
        key_elsewhere(test.kms).await,
        [
            json!({ "data": { "rewrapOf.v2": "Mg==" } }),
            json!({ "data": { "rewrapOf.v2": null } }),
            json!({ "data": { "rewrapOf": null } }),
            json!({ "data": { "rewrapOf": "Nw==", "rewrapOf.v2": "Nw==" } }),
            json!({ "data": { "rewrapOf.v1": "MQ==" } }),
        ],
    );
    // One object for each: a Secret that keeps changing is restored ever more slowly.
    test.create_many("k", edits.len(), &json!({})).await;
    test.all_ready(edits.len(), crate::harness::SOON).await;
    let moved = ["rewrap", "--from-key-id", &test.key.arn, "--to-key-id", &to.arn, "--no-rotate", "--apply"];
    user.ends(0, &moved).await;
    let keys = test.all_ready(edits.len(), crate::harness::SOON).await;
    test.secrets_hold_the_record(&keys).await;
    for (number, edit) in edits.iter().enumerate() {
        let name = format!("k-{number}");
        let before = test.data(&name).await;
        test.edit_secret(&name, edit).await;
        test.secret_becomes(&name, &before).await;
    }
    // And while no operator runs.
    drop(operator);
    let before = test.data("k-0").await;
    test.edit_secret("k-0", &edits[3]).await;
    assert_ne!(test.data("k-0").await, before);
    let _operator = test.operator();
    test.secret_becomes("k-0", &before).await;
    test.secrets_hold_the_record(&keys).await;
}
