//! The manifests for Git, and runs that were killed.

use std::fs;

use serde_json::{Value, json};
use testbed::{api_proxy::Fault as ApiFault, http::Stop, proxy::Fault};

use super::{
    Asked, Orders, api_proxy, issue_elsewhere, issue_two_versions, key_elsewhere, kill_once, lose, of_data_keys, path,
    plaintexts, reference, resource_versions,
};
use crate::{
    harness::{TestKind, TestNamespace, to_json},
    plugin::{User, text},
};

for_each_kind! {
    written_manifest_is_all_that_a_lost_cluster_needs: new("rewrap-output"),
    killed_run_is_resumed_where_it_was: new("rewrap-killed"),
}

fn manifest(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

async fn written_manifest_is_all_that_a_lost_cluster_needs<K: TestKind>(test: TestNamespace<K>) {
    let orders = Orders::issue(test).await;
    let (Orders { test, old, asked, name, .. }, user) = (&orders, orders.user());
    let (to, file) = (orders.key_elsewhere().await, path(test, "orders.yaml"));
    let written = resource_versions(test, "orders").await;
    let words = ["rewrap", name, "--to-key-id", &to.arn, "--output", &file];
    let output = user.ends(0, &words).await;
    assert_eq!(text(&output), format!("2 versions rewrapped by AWS KMS, 1 manifest written to {file}\n"));
    let made = manifest(&file);
    let numbers: Vec<_> =
        made["spec"]["wrappedKeys"].as_array().unwrap().iter().map(|pin| pin["version"].as_i64().unwrap()).collect();
    assert_eq!((numbers, &made["spec"]["version"]), (vec![1, 2, 3, 4], &json!(5)));
    assert_eq!(made["spec"]["keyId"], json!(to.arn));

    // Another run uses the file. The cluster is as it was.
    let again = user.ends(0, &words).await;
    assert_eq!(text(&again), format!("0 versions rewrapped by AWS KMS, every manifest is in {file} already\n"));
    assert_eq!(Asked::of(&test.proxy), asked.and(0, 2));
    assert_eq!((resource_versions(test, "orders").await, manifest(&file)), (written, made.clone()));

    // The cluster is lost, and Git is applied: only the new version is issued.
    lose(test, "orders").await;
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let key = test.ready("orders").await;
    let record = to_json(&key.as_object().record().to_vec());
    assert_eq!(record.as_array().unwrap()[..4], made["spec"]["wrappedKeys"].as_array().unwrap()[..]);
    let new = plaintexts(test, &key).await;
    assert_eq!([&new[&1], &new[&2], &new[&3], &new[&4]], [&old[&1], &old[&2], &old[&1], &old[&2]]);
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 2));

    // With the file and the cluster as they are, a third run does nothing.
    let apply = [&words[..], &["--apply"]].concat();
    let third = user.ends(0, &apply).await;
    assert!(text(&third).contains("already, 0 of 1 "), "{third:?}");
    assert_eq!(Asked::of(&test.proxy), asked.and(1, 2));

    // And without a new version, nothing at all is asked when the cluster is lost.
    let (back, file) = (&test.key.arn, path(test, "back.yaml"));
    let words = ["rewrap", name, "--to-key-id", back, "--no-rotate", "--output", &file, "--apply"];
    user.ends(0, &[&words[..], &["--include-adopted"]].concat()).await;
    let key = test.ready("orders").await;
    let (asked, data) = (Asked::of(&test.proxy), test.data("orders").await);
    lose(test, "orders").await;
    test.plane.kubectl(&["apply", "-f", &file]).await.unwrap();
    let rebuilt = test.ready("orders").await;
    assert_eq!(to_json(&rebuilt.as_object().record().to_vec()), to_json(&key.as_object().record().to_vec()));
    assert_eq!((Asked::of(&test.proxy), test.data("orders").await), (asked, data));
}

async fn killed_run_is_resumed_where_it_was<K: TestKind>(test: TestNamespace<K>) {
    let namespace = of_data_keys(&test);
    let _operator = test.operator();
    let (api, through) = api_proxy(&namespace).await;
    let user = User::of(&namespace);
    let watched = User::of(&namespace).with("KUBECONFIG", &through);
    let objects: &'static str = K::KIND.plural;

    // Before KMS has the second call, after it, before the patch, and after the patch.
    for (point, is_written, is_changed) in [
        ("before-call", false, false),
        ("after-call", false, false),
        ("before-patch", true, false),
        ("after-patch", true, true),
    ] {
        test.proxy.clear_faults();
        let before = issue_two_versions(&test, point).await;
        issue_elsewhere(&test);
        let old = plaintexts(&test, &before).await;
        let to = key_elsewhere(test.kms).await;
        let (name, file) = (reference::<K>(point), path(&test, &format!("{point}.yaml")));
        let words = ["rewrap", &name, "--to-key-id", &to.arn, "--output", &file, "--apply"];
        let stop = Stop::default();
        match point {
            "before-call" => test.proxy.fail_next_rewraps(1, Fault::StopBefore(stop.clone())),
            "after-call" => test.proxy.fail_next_rewraps(1, Fault::StopAfter(stop.clone())),
            "before-patch" => api.fail_next(1, "patch", objects, ApiFault::StopBefore(stop.clone())),
            _ => api.fail_next(1, "patch", objects, ApiFault::StopAfter(stop.clone())),
        }
        let typed = [&words[..], &["-n", &test.namespace]].concat();
        kill_once(&watched, &typed, stop.reached()).await;
        assert_eq!(fs::exists(&file).unwrap(), is_written, "{point}");
        let version = test.get(point).await.as_object().wanted_version();
        assert_eq!(version, if is_changed { 5 } else { 2 }, "{point}");

        let rewraps = Asked::of(&test.proxy).rewraps;
        let resumed = text(&user.ends(0, &words).await);
        let (count, changed) = (if is_written { 0 } else { 2 }, i32::from(!is_changed));
        assert!(resumed.starts_with(&format!("{count} versions rewrapped by AWS KMS, ")), "{point}: {resumed}");
        assert!(resumed.contains(&format!(", {changed} of 1 {}s changed", K::KIND.name)), "{point}: {resumed}");
        assert_eq!(Asked::of(&test.proxy).rewraps, rewraps + count, "{point}");
        let key = test.ready(point).await;
        let new = plaintexts(&test, &key).await;
        assert_eq!([&new[&3], &new[&4], &new[&1], &new[&2]], [&old[&1], &old[&2], &old[&1], &old[&2]], "{point}");
        let record = to_json(&key.as_object().record()[..4].to_vec());
        assert_eq!(record, manifest(&file)["spec"]["wrappedKeys"], "{point}");
        assert_eq!(new.len(), 5, "{point}");
    }
    assert_eq!(test.proxy.calls(), 4 * 3, "each has two versions and one new one");
}

#[tokio::test]
async fn file_about_something_else_is_left_alone() {
    let test = TestNamespace::new("rewrap-other-file").await;
    let user = User::of(&test);
    let _operator = test.operator();
    issue_two_versions(&test, "orders").await;
    test.issue("invoices", &json!({})).await;
    let (to, further) = (key_elsewhere(test.kms).await, key_elsewhere(test.kms).await);
    let file = path(&test, "orders.yaml");
    user.ends(0, &["rewrap", "orders", "--to-key-id", &to.arn, "--output", &file]).await;
    let made = fs::read_to_string(&file).unwrap();
    let (asked, written) = (Asked::of(&test.proxy), resource_versions(&test, "orders").await);
    let other_context = made.replace("purpose: orders", "purpose: invoices");
    let other_key = made.replacen("ciphertextBlob: ", "ciphertextBlob: AAAA", 1);
    assert!(other_context != made && other_key != made);
    for (name, to, content, words) in [
        ("invoices", &to, &made, "is not about DataKey invoices in namespace rewrap-other-file"),
        ("orders", &further, &made, "has a version 3 that this move does not make"),
        ("orders", &to, &made.replace("kind: DataKey", "kind: DataKeyPair"), "is not about DataKey orders"),
        (
            "orders",
            &to,
            &made.replace("version: 5", "version: 1"),
            "makes version 1 current, and in the cluster it is version 2",
        ),
        ("orders", &to, &other_key, "does not fit DataKey orders as it is now"),
        ("orders", &to, &"kind: [".to_owned(), "is not valid YAML"),
        ("orders", &to, &String::new(), "is not about DataKey orders"),
    ] {
        fs::write(&file, content).unwrap();
        let refused = user.ends(1, &["rewrap", name, "--to-key-id", &to.arn, "--output", &file, "--apply"]).await;
        let said = text(&refused) + &refused.err;
        assert!(said.contains(words) && said.contains("name another one by --output"), "{words}: {said}");
        assert_eq!(&fs::read_to_string(&file).unwrap(), content, "{words}");
    }
    assert_eq!((Asked::of(&test.proxy), resource_versions(&test, "orders").await), (asked, written));
}
