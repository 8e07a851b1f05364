//! The plan, which calls nothing and changes nothing.

use serde_json::json;
use testbed::proxy::REENCRYPT;

use super::{Asked, issue_elsewhere, issue_two_versions, key_elsewhere, of_data_keys, reference, resource_versions};
use crate::{
    harness::{TestKind, TestNamespace},
    plugin::{User, text},
};

for_each_kind! {
    plan_calls_nothing_and_changes_nothing: new("rewrap-plan"),
}

async fn plan_calls_nothing_and_changes_nothing<K: TestKind>(test: TestNamespace<K>) {
    let namespace = of_data_keys(&test);
    let user = User::of(&namespace);
    let _operator = test.operator();
    issue_two_versions(&test, "orders").await;
    let to = key_elsewhere(test.kms).await;
    test.issue("invoices", &json!({})).await;
    issue_elsewhere(&test);
    test.issue("there", &json!({ "keyId": to.arn })).await;
    let (asked, before) = (Asked::of(&test.proxy), resource_versions(&test, "orders").await);
    let (name, from, kind) = (reference::<K>("orders"), &*test.key.arn, K::KIND.name);

    let one = ["rewrap", &name, "--to-key-id", &to.arn];
    let shown = user.ends(0, &one).await;
    let plan = text(&shown);
    for line in [
        format!(
            "version 1 is rewrapped as version 3\n    from {from}\n    encryption context: {{\"purpose\":\"orders\"}}\n"
        ),
        format!("version 2 is rewrapped as version 4\n    from {from}\n"),
        "version 5 is issued under the new KMS key, and becomes current".to_owned(),
        "5 of 64 versions are used then".to_owned(),
    ] {
        assert!(plan.contains(&line), "{line}: {plan}");
    }
    for words in ["kms:ReEncryptFrom on", "kms:ReEncryptTo on", from, &to.arn, K::KIND.operation] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    assert!(shown.err.contains("nothing was done"), "{shown:?}");
    let json = user.prints_json(0, &[&one[..], &["--format=json"]].concat()).await;
    let rewrap = |version, new: i32| {
        let context = json!({ "purpose": "orders" });
        json!({
            "version": version, "keyId": from, "sourceKeyId": from, "newVersion": new, "encryptionContext": context, "newEncryptionContext": context,
        })
    };
    let orders = json!({
        "kind": kind, "namespace": test.namespace, "name": "orders",
        "rewraps": [rewrap(1, 3), rewrap(2, 4)], "done": [],
        "becomesCurrent": { "version": 5, "isNew": true }, "usedVersions": 5,
    });
    assert_eq!(json["items"], json!([orders]));
    assert_eq!(json["census"], json!([{ "keyId": from, "versions": 2, "objects": 1, "namespaces": 1 }]));

    // Of several, those that are there already are counted, and have nothing to do.
    let all = ["rewrap", "--from-key-id", from, "--to-key-id", &to.arn, "--no-rotate", "--format=json"];
    let all = user.prints_json(0, &all).await;
    let names: Vec<_> = all["items"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, [&json!("invoices"), &json!("orders")]);
    assert_eq!(all["items"][1]["becomesCurrent"], json!({ "version": 4, "isNew": false }));
    let mut census = [
        json!({ "keyId": from, "versions": 3, "objects": 2, "namespaces": 1 }),
        json!({ "keyId": to.arn, "versions": 1, "objects": 1, "namespaces": 1 }),
    ];
    census.sort_by_key(|count| count["keyId"].to_string());
    assert_eq!(all["census"], json!(census));
    let there = reference::<K>("there");
    let none = user.ends(0, &["rewrap", &there, "--to-key-id", &to.arn]).await;
    let none_shown = text(&none);
    for line in
        ["version 1 is under the new KMS key already", "the current version stays", "1 of 64 versions are used then"]
    {
        assert!(none_shown.contains(line), "{line}: {none_shown}");
    }
    assert!(!none_shown.contains("Rights:"), "{none_shown}");

    assert_eq!(Asked::of(&test.proxy), asked);
    assert!(!test.proxy.operations().contains(&REENCRYPT.to_owned()));
    assert_eq!(resource_versions(&test, "orders").await, before);
}
