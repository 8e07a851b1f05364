//! Moves out of a multi-Region key: what it wrapped in one Region is rewrapped in another one, by the replica there.

use serde_json::json;
use testbed::kms;

use super::{Asked, lose, path, plaintexts};
use crate::{
    harness::{TestNamespace, recorded_version, to_json},
    plugin::{User, text},
};

const OTHER: &str = "us-east-1";

#[tokio::test]
async fn replica_rewraps_what_the_other_region_wrapped() {
    let test = TestNamespace::new("rewrap-replica").await;
    let user = User::of(&test);
    let _operator = test.operator();
    let client = test.kms.client();
    let primary = client.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    let arn = primary.arn.unwrap();
    let spec = json!({ "keyId": arn, "encryptionContext": { "purpose": "orders" } });
    let before = test.issue("orders", &spec).await;
    let old = plaintexts(&test, &before).await;
    let to = kms::create_key(&test.kms.client_in(OTHER, kms::ACCOUNT)).await;
    let file = path(&test, "orders.yaml");
    let words = ["rewrap", "orders", "--to-key-id", &to.arn, "--no-rotate", "--output", &file, "--apply"];

    // Without a replica in the Region of the destination there is nothing to move from.
    let asked = Asked::of(&test.proxy);
    let refused = user.ends(1, &words).await;
    let said = text(&refused) + &refused.err;
    assert!(said.contains("version 1: ") && said.contains("NotFoundException"), "{said}");
    assert!(!std::fs::exists(&file).unwrap());

    client.replicate_key().key_id(&primary.key_id).replica_region(OTHER).send().await.unwrap();
    let replica = arn.replace(kms::REGION, OTHER);
    let plan = text(&user.ends(0, &words[..5]).await);
    assert!(plan.contains(&format!("kms:ReEncryptFrom on\n    {replica}\n")), "{plan}");
    user.ends(0, &words).await;
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));
    let key = test.ready("orders").await;
    let rewrap = recorded_version(&key, 2);
    assert_eq!((&rewrap.key_id, rewrap.rewrap_of.as_ref().unwrap().version), (&to.arn, 1));
    assert_eq!(recorded_version(&key, 1), recorded_version(&before, 1));
    assert_eq!(plaintexts(&test, &key).await[&2], old[&1]);
    let data = test.data("orders").await;
    assert_eq!(test.decrypt(&data, ".v2").await, old[&1]);

    // A lost cluster is built again from the file.
    lose(&test, "orders").await;
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let rebuilt = test.ready("orders").await;
    assert_eq!(to_json(&rebuilt.record().to_vec()), to_json(&key.record().to_vec()));
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));
}
