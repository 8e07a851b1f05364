//! What is stored does not change within a release: the current operator has nothing to do for objects that an earlier commit
//! left, and restores their Secrets with the same bytes and names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    loaded::{Loaded, Recorded},
    requests_end,
};
use crate::harness::{TestNamespace, restored, to_json};

/// Where the recorded objects are; the README there says how to record them.
pub const FOLDER: &str = "tests/integration/upgrade/9b52e60";

/// The one whose Secret the API server refused. Its reason has another name now.
pub const REFUSED: &str = "write-rejected";

/// The one whose Secret a user edited last, so that the status has an earlier revision of it.
const EDITED: &str = "foreign-metadata";

/// Creates the recorded objects that are wanted.
async fn load(test: &TestNamespace, is_wanted: impl Fn(&Recorded) -> bool) -> Vec<Loaded> {
    let mut loaded = Vec::new();
    for recorded in Recorded::all(FOLDER).iter().filter(|recorded| is_wanted(recorded)) {
        loaded.push(recorded.load(test).await);
    }
    loaded
}

fn is_ready(recorded: &Recorded) -> bool {
    recorded.ready()["status"] == "True"
}

/// The `DataKey`s and Secrets of a namespace as the API server has them, by name.
async fn stored(test: &TestNamespace, loaded: &[Loaded]) -> BTreeMap<String, (Value, Value)> {
    let mut stored = BTreeMap::new();
    for Loaded { name, key, .. } in loaded {
        let objects = (to_json(&test.get(name).await), to_json(&test.secret(key.secret_name()).await));
        stored.insert(name.clone(), objects);
    }
    stored
}

/// Everything of a Secret that the record and the template decide.
fn projected(secret: &Secret) -> Value {
    to_json(&restored(secret))
}

#[tokio::test]
async fn stored_objects_of_an_earlier_commit_stay_unchanged() {
    let test = TestNamespace::with_stub_kms("upgrade-unchanged").await;
    let loaded = load(&test, is_ready).await;
    assert!(loaded.len() >= 18, "{} are recorded", loaded.len());
    let before = stored(&test, &loaded).await;

    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    test.barrier().await;
    requests_end(&api, &loaded.iter().collect::<Vec<_>>()).await;
    assert_eq!(stored(&test, &loaded).await, before);
    let about = |name: &str| loaded.iter().any(|loaded| loaded.name == name || loaded.key.secret_name() == name);
    let requests: Vec<_> = api.requests().into_iter().filter(|request| about(&request.name)).collect();
    let requests: Vec<_> = requests.iter().map(|it| (it.verb, it.resource.as_str(), it.name.as_str())).collect();
    // The DataKey is read, too, where the list of DataKeys came before that of Secrets: it was settled then.
    let mut expected = vec![("get", "datakeys", EDITED), ("get", "secrets", EDITED)];
    expected.retain(|request| request.1 == "secrets" || requests.contains(request));
    assert_eq!(requests, expected);
    assert_eq!(test.proxy.calls(), 1, "the DataKey that shows that all is settled");
}

#[tokio::test]
async fn secrets_of_an_earlier_commit_are_restored_as_stored() {
    let test = TestNamespace::with_stub_kms("upgrade-restored").await;
    let loaded = load(&test, |recorded| is_ready(recorded) && recorded.name != EDITED).await;
    let _operator = test.operator();
    for Loaded { name, secret, .. } in &loaded {
        let secret = secret.as_ref().unwrap();
        test.delete_secret(&secret.name_any()).await;
        test.data(&secret.name_any()).await;
        assert_eq!(projected(&test.secret(&secret.name_any()).await), projected(secret), "{name}");
        test.ready(name).await;
    }
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn refused_write_of_an_earlier_commit_gets_the_new_reason() {
    let test = TestNamespace::with_stub_kms("upgrade-refused").await;
    let loaded = load(&test, |recorded| recorded.name == REFUSED).await;
    let before = &loaded[0].key;
    assert_eq!(to_json(before)["status"]["conditions"][0]["reason"], "Refused");
    test.refuse_secrets().await;
    let _operator = test.operator();
    let key = test.failed(REFUSED, "WriteRejected").await;
    assert_eq!(to_json(&key.record()), to_json(&before.record()));

    test.accept_secrets().await;
    test.patch(REFUSED, &json!({ "metadata": { "labels": { "now": "accepted" } } })).await;
    assert_eq!(to_json(&test.ready(REFUSED).await.record()), to_json(&before.record()));
    assert_eq!(test.proxy.calls(), 0);
}

#[tokio::test]
async fn restored_data_key_of_an_earlier_commit_gets_none() {
    let test = TestNamespace::with_stub_kms("upgrade-without-key").await;
    let loaded = load(&test, |recorded| recorded.name == "restored-without-key").await;
    let _operator = test.operator();
    test.barrier().await;
    let key = test.failed(&loaded[0].name, "RestoredWithoutKey").await;
    assert!(key.record().is_empty());
    assert_eq!(test.proxy.calls(), 1, "the DataKey that shows that all is settled");
}
