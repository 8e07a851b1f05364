//! Moves that change the cluster.

use datakey::rewraps::Rewraps;
use serde_json::json;
use testbed::kms;

use super::{
    Asked, OTHER_ACCOUNT, Orders, issue_elsewhere, issue_two_versions, key_elsewhere, plaintexts, resource_versions,
};
use crate::{
    harness::{InvariantWatch, TestKind, TestNamespace, recorded_version, text as entry, to_json},
    plugin::{User, text},
};

for_each_kind! {
    every_version_is_moved_and_a_new_one_is_current: new("rewrap-apply"),
    current_version_is_moved_without_a_new_one: new("rewrap-no-rotate"),
    context_alone_is_moved_under_the_same_key: new("rewrap-context"),
    one_version_is_moved_and_the_current_one_stays: new("rewrap-versions"),
}

async fn every_version_is_moved_and_a_new_one_is_current<K: TestKind>(test: TestNamespace<K>) {
    let watch = InvariantWatch::of(&test);
    let orders = Orders::issue(test).await;
    let (Orders { test, before, old, asked, name, .. }, user) = (&orders, orders.user());
    let (to, kind) = (orders.key_elsewhere().await, K::KIND.name);
    let words = ["rewrap", name, "--to-key-id", &to.arn, "--apply"];
    let moved = user.ends(0, &words).await;
    let done =
        format!("2 versions rewrapped by AWS KMS, 1 of 1 {kind}s changed in the cluster\n1 of 1 {kind}s is Ready\n");
    assert_eq!(text(&moved), done);
    assert!(moved.err.contains("if you keep manifests of these objects, change them, too"), "{moved:?}");
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 2));

    let key = test.ready("orders").await;
    let record = key.as_object().record();
    assert_eq!(record.len(), 5);
    assert_eq!(to_json(&record[..2].to_vec()), to_json(&before.as_object().record().to_vec()));
    for of in [1, 2] {
        let (source, rewrap) = (recorded_version(&key, of), recorded_version(&key, of + 2));
        let rewrap_of = rewrap.rewrap_of.as_ref().unwrap();
        assert!(rewrap_of.version == of && rewrap_of.request_id.is_some(), "{rewrap_of:?}");
        assert_eq!((&rewrap.key_id, rewrap.request_id.as_deref()), (&to.arn, None));
        assert_eq!(rewrap.request.key_id, to.arn);
        assert_eq!(rewrap.request.context(), source.request.context());
        assert_eq!(rewrap.public_key, source.public_key);
        assert_ne!(rewrap.ciphertext_blob, source.ciphertext_blob);
        assert_ne!(rewrap.key_material_id, source.key_material_id);
    }
    let fresh = recorded_version(&key, 5);
    assert_eq!((&fresh.rewrap_of, &fresh.key_id), (&None, &to.arn));
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&1], &new[&2], &new[&3], &new[&4]], [&old[&1], &old[&2], &old[&1], &old[&2]]);
    assert!(!old.values().any(|plaintext| *plaintext == new[&5]));

    let data = test.data("orders").await;
    assert_eq!(
        (entry(&data, "version"), entry(&data, "rewrapOf.v3"), entry(&data, "rewrapOf.v4")),
        ("5".to_owned(), "1".to_owned(), "2".to_owned())
    );
    assert!(["rewrapOf", "rewrapOf.v1", "rewrapOf.v2", "rewrapOf.v5"].iter().all(|absent| !data.contains_key(*absent)));
    for (version, plaintext) in &new {
        assert_eq!(test.decrypt(&data, &format!(".v{version}")).await, *plaintext);
    }
    assert_eq!(test.decrypt(&data, "").await, new[&5]);
    test.secrets_hold_the_record(&[key]).await;

    let written = resource_versions(test, "orders").await;
    let again = user.ends(0, &words).await;
    assert!(text(&again).starts_with("0 versions rewrapped by AWS KMS, 0 of 1 "), "{again:?}");
    assert_eq!((Asked::of(&test.proxy), resource_versions(test, "orders").await), (asked.and(1, 2), written));
    assert!(new.values().all(|plaintext| !user.saw(plaintext)));
    watch.assert_held();
}

async fn current_version_is_moved_without_a_new_one<K: TestKind>(test: TestNamespace<K>) {
    let orders = Orders::issue(test).await;
    let (Orders { test, old, asked, name, .. }, user) = (&orders, orders.user());
    let to = orders.key_elsewhere().await;
    // In two steps: the first one moves what is current, and the second one the rest.
    let words = ["rewrap", name, "--to-key-id", &to.arn, "--no-rotate", "--apply"];
    user.ends(0, &[&words[..], &["--versions=current"]].concat()).await;
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 1));
    let key = test.ready("orders").await;
    assert_eq!((key.as_object().wanted_version(), key.as_object().record().len()), (3, 3));
    assert_eq!(key.as_object().spec.request.key_id, Some(&*to.arn));
    let data = test.data("orders").await;
    assert_eq!((entry(&data, "rewrapOf"), entry(&data, "rewrapOf.v3")), ("2".to_owned(), "2".to_owned()));
    assert_eq!(test.decrypt(&data, "").await, old[&2]);

    // A rewrap is a pin, so the user is asked whose data key the others are.
    let asks = user.ends(2, &words).await;
    assert!((text(&asks) + &asks.err).contains("add --include-adopted"), "{asks:?}");
    let words = [&words[..], &["--include-adopted"]].concat();
    let rest = user.ends(0, &words).await;
    assert!(text(&rest).starts_with("1 version rewrapped by AWS KMS, 1 of 1 "), "{rest:?}");
    let key = test.ready("orders").await;
    assert_eq!(key.as_object().wanted_version(), 3);
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&3], &new[&4]], [&old[&2], &old[&1]]);
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));

    // What a rewrap of a rewrap has is the data key of the first one.
    let further = key_elsewhere(test.kms).await;
    user.ends(0, &["rewrap", name, "--to-key-id", &further.arn, "--no-rotate", "--apply", "--include-adopted"]).await;
    let key = test.ready("orders").await;
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&5], &new[&6]], [&old[&1], &old[&2]]);
    let rewraps = Rewraps::of(key.as_object().record());
    assert_eq!((rewraps.root(5), rewraps.root(6), key.as_object().wanted_version()), (1, 2, 6));
    // The way back finds both there, so nothing is rewrapped and nothing asked.
    user.ends(0, &["rewrap", name, "--to-key-id", &test.key.arn, "--no-rotate", "--apply"]).await;
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 4));
    let key = test.ready("orders").await;
    assert_eq!((key.as_object().wanted_version(), key.as_object().record().len()), (2, 6));
}

async fn context_alone_is_moved_under_the_same_key<K: TestKind>(test: TestNamespace<K>) {
    let orders = Orders::issue(test).await;
    let (Orders { test, old, asked, name, .. }, user) = (&orders, orders.user());
    let words = ["rewrap", name, "--to-key-id", &test.key.arn, "--to-context", "stage=prod,purpose=moved"];
    let alias = test.alias();
    let words = [&words[..], &["--spec-key-id", &alias, "--no-rotate", "--apply"]].concat();
    for _ in 0..2 {
        user.ends(0, &words).await;
        assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));
    }
    let key = test.ready("orders").await;
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&3], &new[&4]], [&old[&1], &old[&2]]);
    let spec = to_json(&key)["spec"].take();
    assert_eq!(spec["encryptionContext"], json!({ "stage": "prod", "purpose": "moved" }));
    assert_eq!((&spec["keyId"], &spec["version"]), (&json!(alias), &json!(4)));
    assert_eq!(recorded_version(&key, 4).request.key_id, alias);

    // No context at all, with a new version under it.
    let none = ["rewrap", name, "--to-key-id", &test.key.arn, "--to-context={}", "--apply", "--include-adopted"];
    user.ends(0, &none).await;
    let key = test.ready("orders").await;
    let record = key.as_object().record();
    assert!(record[4..].iter().all(|issued| issued.request.context().is_empty()) && record.len() == 7, "{record:?}");
    assert_eq!(to_json(&key)["spec"].get("encryptionContext"), None);
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 4));
}

async fn one_version_is_moved_and_the_current_one_stays<K: TestKind>(test: TestNamespace<K>) {
    let orders = Orders::issue(test).await;
    let (Orders { test, before, old, asked, name, .. }, user) = (&orders, orders.user());
    let to = orders.key_elsewhere().await;
    let one = ["rewrap", name, "--to-key-id", &to.arn, "--versions=1", "--apply"];
    user.ends(0, &one).await;
    let key = test.ready("orders").await;
    let (spec, spec_before) = (to_json(&key)["spec"].take(), to_json(before)["spec"].take());
    for field in ["keyId", "version", "encryptionContext"] {
        assert_eq!(spec[field], spec_before[field], "{field}");
    }
    assert_eq!(plaintexts(test, &key).await[&3], old[&1]);
    assert_eq!((Asked::of(&test.proxy), key.as_object().record().len()), (asked.and(0, 1), 3));
    let missing = user.ends(2, &["rewrap", name, "--to-key-id", &to.arn, "--versions=1,9"]).await;
    assert!(missing.err.contains("it has no version 9: it has 1, 2, 3"), "{missing:?}");

    // What is missing comes by a later move of all, and a new version as well.
    user.ends(0, &["rewrap", name, "--to-key-id", &to.arn, "--include-adopted", "--apply"]).await;
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 2));
    assert_eq!(orders.plaintexts().await[&4], old[&2]);
}

#[tokio::test]
async fn spec_names_the_key_by_an_alias_where_asked() {
    let test = TestNamespace::new("rewrap-alias").await;
    let user = User::of(&test);
    let _operator = test.operator();
    issue_two_versions(&test, "orders").await;
    let to = test.kms.key_with_alias("rewrap-alias-new").await;
    let words = ["rewrap", "orders", "--to-key-id", &to.arn, "--spec-key-id=alias/rewrap-alias-new", "--apply"];
    user.ends(0, &words).await;
    let key = test.ready("orders").await;
    assert_eq!(key.spec.key_id.as_deref(), Some("alias/rewrap-alias-new"));
    for version in 3..=5 {
        let issued = recorded_version(&key, version);
        let request = &*issued.request.key_id;
        assert_eq!((request, &issued.key_id), ("alias/rewrap-alias-new", &to.arn), "{version}");
    }
    let wrong = user.ends(64, &["rewrap", "orders", "--to-key-id", &to.arn, "--spec-key-id", &test.key.id]).await;
    assert!(wrong.err.contains("does not name the KMS key of --to-key-id"), "{wrong:?}");

    // An alias ARN of the other account.
    issue_elsewhere(&test);
    let elsewhere = test.kms.client_in(kms::REGION, OTHER_ACCOUNT);
    let further = kms::create_key(&elsewhere).await;
    elsewhere.create_alias().alias_name("alias/rewrap-alias").target_key_id(&further.id).send().await.unwrap();
    let alias = further.arn.replace(&format!("key/{}", further.id), "alias/rewrap-alias");
    let words = ["rewrap", "orders", "--to-key-id", &further.arn, "--spec-key-id", &alias];
    user.ends(0, &[&words[..], &["--include-adopted", "--apply"]].concat()).await;
    let key = test.ready("orders").await;
    assert_eq!((key.spec.key_id.as_ref(), key.record().len()), (Some(&alias), 9));
}
