//! Objects that another client changes while they are moved.

use serde_json::json;
use testbed::{
    api_proxy::{ApiProxy, Fault},
    http::Stop,
};

use super::{Asked, api_proxy, issue_elsewhere, issue_two_versions, key_elsewhere, path, plaintexts};
use crate::{
    harness::{SOON, TestNamespace, to_json},
    plugin::{User, text},
};

/// A namespace with two issued versions of `orders`, and a proxy before the API server for the plugin.
struct Guarded {
    test: TestNamespace,
    api: ApiProxy,
    kubeconfig: String,
}

// === impl Guarded ===

impl Guarded {
    async fn new(name: &str) -> Self {
        let test = TestNamespace::new(name).await;
        let (api, kubeconfig) = api_proxy(&test).await;
        Self { test, api, kubeconfig }
    }

    fn user(&self) -> User<'_> {
        User::of(&self.test).with("KUBECONFIG", &self.kubeconfig)
    }

    /// Changes the cluster after the plugin read it, and before its patch comes.
    async fn before_the_patch(&self, change: impl Future<Output = ()>) -> Stop {
        let stop = Stop::default();
        self.api.fail_next(1, "patch", "datakeys", Fault::StopBefore(stop.clone()));
        tokio::time::timeout(SOON, stop.reached()).await.expect("a patch");
        change.await;
        stop.release();
        stop
    }
}

#[tokio::test]
async fn changed_status_and_labels_do_not_stop_a_move() {
    let guarded = Guarded::new("rewrap-status").await;
    let (test, user) = (&guarded.test, guarded.user());
    let _operator = test.operator();
    let before = issue_two_versions(test, "orders").await;
    let old = plaintexts(test, &before).await;
    let (to, asked) = (key_elsewhere(test.kms).await, Asked::of(&test.proxy));
    issue_elsewhere(test);
    let foreign = json!({
        "type": "BackedUp", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let change = async {
        let mut conditions = to_json(&before.status.as_ref().unwrap().conditions);
        conditions.as_array_mut().unwrap().push(foreign.clone());
        test.try_patch_status("orders", &json!({ "conditions": conditions })).await.unwrap();
        test.patch("orders", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    };
    let words = ["rewrap", "orders", "--to-key-id", &to.arn, "--apply"];
    let (ended, _) = tokio::join!(user.ends(0, &words), guarded.before_the_patch(change));
    assert!(text(&ended).starts_with("2 versions rewrapped by AWS KMS, 1 of 1 DataKeys changed"), "{ended:?}");
    assert_eq!(guarded.api.count("patch", "datakeys"), 2, "the first patch is refused");
    let key = test.ready("orders").await;
    assert_eq!(key.metadata.labels.as_ref().unwrap()["team"], "shop");
    assert!(to_json(&key.status)["conditions"].as_array().unwrap().contains(&foreign));
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&3], &new[&4]], [&old[&1], &old[&2]]);
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 2));
}

#[tokio::test]
async fn rotation_during_a_move_loses_nothing() {
    let guarded = Guarded::new("rewrap-rotated").await;
    let (test, user) = (&guarded.test, guarded.user());
    let _operator = test.operator();
    // Both with a file and without one.
    for name in ["orders", "invoices"] {
        test.proxy.clear_faults();
        let before = issue_two_versions(test, name).await;
        let old = plaintexts(test, &before).await;
        let to = key_elsewhere(test.kms).await;
        let file = path(test, "invoices.yaml");
        let output = if name == "orders" { vec![] } else { vec!["--output", &*file] };
        let words = [&["rewrap", name, "--to-key-id", &to.arn, "--apply"], &output[..]].concat();
        let rotate = async {
            test.patch(name, &json!({ "spec": { "version": 3 } })).await;
            test.ready(name).await;
        };
        let (ended, _) = tokio::join!(user.ends(1, &words), guarded.before_the_patch(rotate));
        let said = text(&ended) + &ended.err;
        let why = format!(
            "DataKey {name} in namespace {} was changed by another client meanwhile, and stays as it is now: run the command again",
            test.namespace
        );
        assert!(said.contains(&why), "{said}");
        let rotated = test.ready(name).await;
        assert_eq!((rotated.record().len(), rotated.wanted_version()), (3, 3));
        assert_eq!(rotated.pinned_versions().len(), 0);

        issue_elsewhere(test);
        // The file of the first run has another version 3.
        if !output.is_empty() {
            let refused = user.ends(1, &words).await;
            let said = text(&refused) + &refused.err;
            assert!(said.contains(&file) && said.contains("remove it, or name another one by --output"), "{said}");
            std::fs::remove_file(&file).unwrap();
        }
        user.ends(0, &words).await;
        let key = test.ready(name).await;
        let new = plaintexts(test, &key).await;
        assert_eq!([&new[&4], &new[&5], &new[&6]], [&old[&1], &old[&2], &new[&3]]);
        assert_eq!(new.len(), 7, "and a new one");
        assert_eq!(to_json(&key.record()[..3].to_vec()), to_json(&rotated.record().to_vec()));
    }
}

#[tokio::test]
async fn object_that_is_gone_or_another_one_is_not_changed() {
    let guarded = Guarded::new("rewrap-replaced").await;
    let (test, user) = (&guarded.test, guarded.user());
    let operator = test.operator();
    for name in ["orders", "invoices"] {
        issue_two_versions(test, name).await;
    }
    drop(operator);
    let to = key_elsewhere(test.kms).await;
    let spec = json!({ "encryptionContext": { "purpose": "orders" }, "version": 2 });
    let replace = async {
        test.delete("orders").await;
        test.create("orders", &spec).await;
    };
    let words = ["rewrap", "orders", "--to-key-id", &to.arn, "--apply"];
    let (ended, _) = tokio::join!(user.ends(1, &words), guarded.before_the_patch(replace));
    let said = text(&ended) + &ended.err;
    assert!(said.contains("was changed by another client meanwhile"), "{said}");
    let key = test.get("orders").await;
    assert_eq!((key.pinned_versions().len(), key.wanted_version()), (0, 2));

    let delete = async { test.delete("invoices").await };
    let words = ["rewrap", "invoices", "--to-key-id", &to.arn, "--apply"];
    let (ended, _) = tokio::join!(user.ends(1, &words), guarded.before_the_patch(delete));
    let said = text(&ended) + &ended.err;
    assert!(said.contains("there is no DataKey invoices"), "{said}");
}
