//! Moves that are refused, and how.

use std::os::unix::fs::PermissionsExt as _;

use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use testbed::{eventually, kms, proxy::Fault};

use super::{
    Asked, OTHER_ACCOUNT, issue_elsewhere, issue_two_versions, key_elsewhere, path, plaintexts, resource_versions,
};
use crate::{
    harness::{NO_RETRY, SOON, TestNamespace, to_json},
    plugin::{User, text},
};

#[tokio::test]
async fn what_cannot_be_moved_is_refused_before_any_call() {
    let test = TestNamespace::new("rewrap-refused").await;
    let user = User::of(&test);
    let _operator = test.operator_with(&NO_RETRY, &[]);
    issue_two_versions(&test, "orders").await;
    test.create("unissued", &json!({ "keyId": "alias/rewrap-refused-missing" })).await;
    test.failed("unissued", "KeyNotFound").await;
    let pins: Vec<_> = (1..=64).map(|version| test.pin(version)).collect();
    test.issue("full", &json!({ "wrappedKeys": pins, "version": 64 })).await;
    let there = kms::create_key(&test.kms.client_in("us-east-1", kms::ACCOUNT)).await;
    let (to, asked) = (key_elsewhere(test.kms).await, Asked::of(&test.proxy));
    let written = resource_versions(&test, "orders").await;
    let file = path(&test, "never.yaml");
    for (name, to, words) in [
        ("orders", &there, "is no multi-Region key and not in us-east-1, the Region of the destination"),
        ("unissued", &to, "no version is issued yet: change spec.keyId instead"),
        ("full", &to, "it has 64 of 64 versions, and 65 more are needed: move fewer by --versions"),
    ] {
        let flags: &[_] = if name == "full" { &["--include-adopted"] } else { &[] };
        for does in [&[][..], &["--apply"], &["--output", &file], &["--output", &file, "--apply"]] {
            let refused = user.ends(2, &[&["rewrap", name, "--to-key-id", &to.arn], flags, does].concat()).await;
            let said = text(&refused) + &refused.err;
            assert!(said.contains(words), "{does:?}: {said}");
            assert!(!std::fs::exists(&file).unwrap());
        }
    }
    let one = ["rewrap", "full", "--to-key-id", &to.arn, "--versions=1", "--include-adopted", "--apply"];
    let one = user.ends(2, &one).await;
    assert!((text(&one) + &one.err).contains("it has 64 of 64 versions, and 1 more are needed"), "{one:?}");
    let unwritable = user.ends(1, &["rewrap", "orders", "--to-key-id", &to.arn, "--output=/proc/orders.yaml"]).await;
    assert!(text(&unwritable).contains("cannot write /proc/orders.yaml"), "{unwritable:?}");
    let missing = user.ends(1, &["rewrap", "missing", "--to-key-id", &to.arn]).await;
    assert!(missing.err.contains("there is no DataKey missing"), "{missing:?}");

    // Of several, the others are moved, and what is not issued has nothing to move.
    let plan = user.ends(2, &["rewrap", "--from-key-id", &test.key.arn, "--to-key-id", &there.arn]).await;
    assert!(text(&plan).contains("cannot be moved: version 1: its KMS key"), "{}", text(&plan));
    assert!(!text(&plan).contains("unissued"), "{plan:?}");

    let alias = to.arn.replace(&format!("key/{}", to.id), "alias/orders");
    for wrong in [&*to.id, "alias/orders", &alias, "arn:aws:kms:eu-west-1:1111:key/x", ""] {
        let usage = user.ends(64, &["rewrap", "orders", "--to-key-id", wrong, "--apply"]).await;
        assert!(usage.err.contains("--to-key-id"), "{usage:?}");
    }
    for (words, says) in [
        (&["rewrap", "--to-key-id", &to.arn][..], "required arguments were not provided"),
        (&["rewrap", "orders", "-A", "--to-key-id", &to.arn], "cannot be used with"),
        (&["rewrap", "orders"], "--to-key-id"),
        (&["rewrap", "orders", "--to-key-id", &to.arn, "--timeout=1s"], "--apply"),
        (&["rewrap", "orders", "--to-key-id", &to.arn, "--to-context", "aws:x=y"], "reserved for AWS services"),
        (&["rewrap", "orders", "--to-key-id", &to.arn, "--versions=none"], "--versions"),
    ] {
        let usage = user.ends(64, words).await;
        assert!(usage.err.contains(says), "{usage:?}");
    }
    assert_eq!((Asked::of(&test.proxy), resource_versions(&test, "orders").await), (asked, written));
}

#[tokio::test]
async fn refusals_of_kms_name_the_version_and_change_nothing() {
    let test = TestNamespace::new("rewrap-kms").await;
    let user = User::of(&test);
    let _operator = test.operator();
    let token = format!("grant-token-{}", "x9Q".repeat(20));
    issue_two_versions(&test, "orders").await;
    test.patch("orders", &json!({ "spec": { "grantTokens": [token] } })).await;
    test.ready("orders").await;
    let elsewhere = test.kms.client_in(kms::REGION, OTHER_ACCOUNT);
    let (to, own) = (kms::create_key(&elsewhere).await, test.kms.client());
    let (written, file) = (resource_versions(&test, "orders").await, path(&test, "orders.yaml"));
    let words = ["rewrap", "orders", "--to-key-id", &to.arn, "--output", &file, "--apply"];
    let refused = async |says: &[&str]| {
        let asked = Asked::of(&test.proxy);
        let ended = user.ends(1, &words).await;
        assert_eq!(Asked::of(&test.proxy), asked.and(0, 1), "version 2 is not tried");
        let said = text(&ended) + &ended.err;
        for words in says {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(resource_versions(&test, "orders").await, written);
        assert!(!std::fs::exists(&file).unwrap());
    };
    let denial = format!("User is not authorized to perform: kms:ReEncryptFrom with {token}");
    test.proxy.fail_rewraps_always(Fault::Error(400, "AccessDeniedException".to_owned(), denial));
    refused(&["version 1: ", "AccessDeniedException", "kms:ReEncryptFrom on the KMS key", "policy --rewrap"]).await;
    test.proxy.clear_faults();
    own.disable_key().key_id(&test.key.id).send().await.unwrap();
    refused(&["version 1: ", "DisabledException"]).await;
    own.enable_key().key_id(&test.key.id).send().await.unwrap();
    elsewhere.disable_key().key_id(&to.id).send().await.unwrap();
    refused(&["version 1: ", "DisabledException"]).await;
    elsewhere.enable_key().key_id(&to.id).send().await.unwrap();
    let nowhere = user
        .ends(
            1,
            &[
                "rewrap",
                "orders",
                "--to-key-id",
                &to.arn.replace(&to.id, "1234abcd-12ab-34cd-56ef-1234567890ab"),
                "--apply",
            ],
        )
        .await;
    assert!(text(&nowhere).contains("NotFoundException"), "{nowhere:?}");
    // An answer about other KMS keys is no rewrap.
    let answer = json!({
        "CiphertextBlob": "AQIDAHjVb3sDcpB5bPmIS2kq0XyTnQ==", "KeyId": test.key.arn, "SourceKeyId": test.key.arn,
    });
    test.proxy.fail_next_rewraps(1, Fault::Answer(answer));
    refused(&["version 1: ", "AWS KMS answers with other KMS keys"]).await;

    issue_elsewhere(&test);
    // Now it is allowed. The token is in the file, which only the user may read, and nowhere else.
    user.ends(0, &words).await;
    let made = std::fs::read_to_string(&file).unwrap();
    assert!(made.contains(&token) && std::fs::metadata(&file).unwrap().permissions().mode() & 0o777 == 0o600);
    user.ends(0, &["rewrap", "orders", "--to-key-id", &to.arn, "--format=json"]).await;
    assert!(!user.saw(token.as_bytes()));
}

/// Version 2 is wrapped by another KMS key, which is disabled: AWS KMS rewraps version 1, and refuses version 2.
#[tokio::test]
async fn object_is_moved_whole_or_not_at_all() {
    let test = TestNamespace::new("rewrap-whole").await;
    let user = User::of(&test);
    let _operator = test.operator();
    let (second, to) = (test.kms.key().await, test.kms.key().await);
    for name in ["orders", "invoices"] {
        test.issue(name, &json!({})).await;
    }
    test.patch("orders", &json!({ "spec": { "keyId": second.arn, "version": 2 } })).await;
    let before = test.ready("orders").await;
    let old = plaintexts(&test, &before).await;
    let client = test.kms.client();
    client.disable_key().key_id(&second.id).send().await.unwrap();
    let (asked, written) = (Asked::of(&test.proxy), resource_versions(&test, "orders").await);
    let (file, folder) = (path(&test, "orders.yaml"), path(&test, "moved"));
    let one = ["rewrap", "orders", "--to-key-id", &to.arn, "--no-rotate"];
    let mut calls = 0;
    for does in [&["--apply"][..], &["--output", &file], &["--output", &file, "--apply"]] {
        let refused = user.ends(1, &[&one[..], does].concat()).await;
        let said = text(&refused) + &refused.err;
        assert!(said.contains("version 2: ") && said.contains("DisabledException"), "{does:?}: {said}");
        assert!(said.contains("0 versions rewrapped by AWS KMS"), "{does:?}: {said}");
        calls += 2;
        assert_eq!(Asked::of(&test.proxy), asked.and(0, calls), "{does:?}");
        assert_eq!(resource_versions(&test, "orders").await, written, "{does:?}");
        assert!(!std::fs::exists(&file).unwrap(), "{does:?}");
    }

    // What each KMS key wrapped can be moved alone, here of two objects at once.
    client.enable_key().key_id(&second.id).send().await.unwrap();
    client.disable_key().key_id(&test.key.id).send().await.unwrap();
    test.issue("receipts", &json!({ "keyId": second.arn })).await;
    let all = ["rewrap", "--from-key-id", &second.arn, "--to-key-id", &to.arn, "--no-rotate"];
    let all = [&all[..], &["--output", &folder, "--apply"]].concat();
    let moved = text(&user.ends(0, &all).await);
    assert!(moved.starts_with("2 versions rewrapped by AWS KMS, 2 manifests written to "), "{moved}");
    assert_eq!(Asked::of(&test.proxy), asked.and(1, calls + 2));
    client.enable_key().key_id(&test.key.id).send().await.unwrap();
    let all = ["rewrap", "--from-key-id", &test.key.arn, "--to-key-id", &to.arn, "--no-rotate", "--include-adopted"];
    let moved = text(&user.ends(0, &[&all[..], &["--apply"]].concat()).await);
    assert!(moved.starts_with("2 versions rewrapped by AWS KMS, 2 of 2 DataKeys changed"), "{moved}");
    let key = test.ready("orders").await;
    let new = plaintexts(&test, &key).await;
    assert_eq!([&new[&1], &new[&2], &new[&3], &new[&4]], [&old[&1], &old[&2], &old[&2], &old[&1]]);
    assert_eq!(Asked::of(&test.proxy), asked.and(1, calls + 4));
}

#[tokio::test]
async fn missing_right_is_said_once_and_kms_is_not_asked() {
    let test = TestNamespace::new("rewrap-view").await;
    let user = User::of(&test);
    let _operator = test.operator();
    test.create_many("k", 24, &json!({})).await;
    test.all_ready(24, SOON).await;
    let to = key_elsewhere(test.kms).await;
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["list"]).await.code == 0).await;
    let all = ["rewrap", "--from-key-id", &test.key.arn, "--to-key-id", &to.arn];
    // The plan and files need no more than that.
    viewer.ends(0, &all).await;
    let asked = Asked::of(&test.proxy);
    let refused = text(&viewer.ends(1, &[&all[..], &["--apply"]].concat()).await);
    assert!(refused.contains("  24 DataKeys: ") && refused.matches("you may not").count() == 1, "{refused}");
    assert!(
        refused.starts_with("0 versions rewrapped by AWS KMS, 0 of 24 DataKeys changed in the cluster\n"),
        "{refused}"
    );
    assert_eq!(Asked::of(&test.proxy), asked);
    let folder = path(&test, "moved");
    let written = text(&viewer.ends(0, &[&all[..], &["--output", &folder]].concat()).await);
    assert_eq!(written, format!("24 versions rewrapped by AWS KMS, 24 manifests written to {folder}\n"));

    issue_elsewhere(&test);
    // One who may change them goes on with these files.
    let done = text(&user.ends(0, &[&all[..], &["--output", &folder, "--apply"]].concat()).await);
    assert!(done.starts_with("0 versions rewrapped by AWS KMS, every manifest is in "), "{done}");
    assert!(done.contains("24 of 24 DataKeys changed in the cluster"), "{done}");
    assert_eq!(Asked::of(&test.proxy), asked.and(24, 24));
}

#[tokio::test]
async fn wrapped_data_key_of_another_team_is_not_moved() {
    let test = TestNamespace::new("rewrap-theft").await;
    let thief = test.another_namespace("rewrap-theft-thief").await;
    let user = User::of(&test);
    let _operator = test.operator_with(&["--namespace", &thief.namespace], &[]);
    let victim = test.issue("orders", &json!({ "encryptionContext": { "team": "shop" } })).await;
    let mut spec = to_json(&victim)["spec"].take();
    spec["wrappedKeys"] = to_json(&victim.record().to_vec());
    thief.issue("copy", &spec).await;
    for test in [&test, &thief] {
        let label = json!({ "metadata": { "labels": { "theft": "rewrap" } } });
        for key in test.keys().list(&ListParams::default()).await.unwrap().items {
            test.patch(&key.name_any(), &label).await;
        }
    }
    let (to, asked) = (key_elsewhere(test.kms).await, Asked::of(&test.proxy));
    let types = async |code: i32, words: &[&str]| {
        let from = ["--from-key-id", &test.key.arn];
        let all = [&["datakey", "rewrap", "--to-key-id", &to.arn, "--no-rotate", "--apply"], &from[..]].concat();
        let ended = user.types(&[&all[..], words].concat()).await;
        assert_eq!(ended.code, code, "{}{}", text(&ended), ended.err);
        text(&ended) + &ended.err
    };
    // Alone it is one whose record came from a pin; beside its owner, not even the flag moves it.
    let alone = types(2, &["copy", "-n", &thief.namespace]).await;
    assert!(alone.contains("it has versions that came from spec.wrappedKeys or from a Secret"), "{alone}");
    assert_eq!(Asked::of(&test.proxy), asked);
    let both = types(2, &["-A", "-l", "theft=rewrap", "--include-adopted"]).await;
    assert!(both.contains("find out who pinned it here"), "{both}");
    assert_eq!((Asked::of(&test.proxy), thief.get("copy").await.record().len()), (asked.and(0, 1), 1));
    assert_eq!(test.ready("orders").await.record().len(), 2, "the owner is moved");
    let all = ["datakey", "rewrap", "-A", "--to-key-id", &to.arn, "--to-context", "team=any"];
    let all = user.types(&all).await;
    assert!(all.code == 64 && all.err.contains("--to-context"), "{all:?}");
}
