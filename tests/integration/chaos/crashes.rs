//! The operator is killed right before and right after each of its effects, and started again. The proxies hold the
//! request while it is killed: before the server has it, or when the server has done it and the answer is on its way.
//! Between these points nothing outside the process changes, so no other moment differs from them, and it is the
//! unchanged binary that dies.

use std::time::Duration;

use serde_json::json;
use testbed::{api_proxy, eventually, http::Stop, proxy};
use tokio::time::timeout;

use super::{patience, scaled};
use crate::harness::{Data, InvariantWatch, SOON, TestKind, TestNamespace, restored, to_json};

/// A request of the operator that changes something outside its process.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Kms,
    Record,
    CreateSecret,
    UpdateSecret,
    Ready,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    Before,
    After,
}

use Effect::{CreateSecret, Kms, Ready, Record, UpdateSecret};
use Moment::{After, Before};

for_each_kind! {
    crash_during_first_issue_costs_at_most_one_call: new("crash-issue"),
    crash_during_a_new_version_keeps_both_data_keys: new("crash-version"),
    crash_during_restore_or_adoption_costs_no_call: new("crash-secret"),
    crash_while_pins_are_recorded_costs_no_call: new("crash-pins"),
}

/// Every point of an issuance, and how many calls to KMS it takes if the operator is killed there: two until the record is
/// written, one afterwards.
fn points(publish: Effect) -> [(Effect, Moment, usize); 8] {
    [
        (Kms, Before, 2),
        (Kms, After, 2),
        (Record, Before, 2),
        (Record, After, 1),
        (publish, Before, 1),
        (publish, After, 1),
        (Ready, Before, 1),
        (Ready, After, 1),
    ]
}

/// Kills the operator at this effect of what `act` does, and starts another one, which completes it with the bytes that
/// were recorded and published before. Returns how many KMS calls it took.
async fn survives_kill<K: TestKind>(
    test: &TestNamespace<K>,
    name: &str,
    effect: Effect,
    moment: Moment,
    act: impl AsyncFnOnce(),
) -> usize {
    let case = format!("{name}: {moment:?} {effect:?}");
    let (api, kubeconfig) = test.api_proxy().await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    let calls = test.proxy.calls();

    let stop = Stop::default();
    let (at_api, at_kms) = match moment {
        Before => (api_proxy::Fault::StopBefore(stop.clone()), proxy::Fault::StopBefore(stop.clone())),
        After => (api_proxy::Fault::StopAfter(stop.clone()), proxy::Fault::StopAfter(stop.clone())),
    };
    match effect {
        Kms => test.proxy.fail_next(1, at_kms),
        Record => api.fail_next(1, "update", K::STATUS, at_api),
        // The record is the first write of the status.
        Ready => api.fail_after(1, "update", K::STATUS, at_api),
        CreateSecret => api.fail_next(1, "create", "secrets", at_api),
        UpdateSecret => api.fail_next(1, "update", "secrets", at_api),
    }
    act().await;
    timeout(SOON, stop.reached()).await.unwrap_or_else(|_| panic!("{case}: it did not come to that"));
    operator.process.signal("KILL");
    drop(operator);

    let record = test.get(name).await.as_object().record().to_vec();
    let published = test.secrets().get_opt(name).await.unwrap().and_then(|secret| secret.data);
    let _operator = test.operator();
    let key = test.ready(name).await;
    assert_eq!(key.as_object().record()[..record.len()], record, "{case}");
    test.secrets_hold_the_record(std::slice::from_ref(&key)).await;
    let data = test.data(name).await;
    for (entry, value) in published.into_iter().flatten().filter(|(entry, _)| entry.starts_with("ciphertextBlob.v")) {
        assert_eq!(data[&entry], value.0, "{case}");
    }
    test.proxy.calls() - calls
}

async fn crash_during_first_issue_costs_at_most_one_call<K: TestKind>(test: TestNamespace<K>) {
    let invariants = InvariantWatch::of(&test);
    for (number, (effect, moment, calls)) in points(CreateSecret).into_iter().enumerate() {
        let name = format!("k{number}");
        let made =
            survives_kill(&test, &name, effect, moment, async || drop(test.create(&name, &json!({})).await)).await;
        assert_eq!(made, calls, "{moment:?} {effect:?}");
    }
    invariants.assert_held();
}

async fn crash_during_a_new_version_keeps_both_data_keys<K: TestKind>(test: TestNamespace<K>) {
    let invariants = InvariantWatch::of(&test);
    for (number, (effect, moment, calls)) in points(UpdateSecret).into_iter().enumerate() {
        let name = format!("k{number}");
        {
            let _operator = test.operator();
            test.issue(&name, &json!({})).await;
        }
        let raise = json!({ "spec": { "version": 2 } });
        let made = survives_kill(&test, &name, effect, moment, async || drop(test.patch(&name, &raise).await)).await;
        assert_eq!(made, calls, "{moment:?} {effect:?}");
    }
    invariants.assert_held();
}

async fn crash_during_restore_or_adoption_costs_no_call<K: TestKind>(test: TestNamespace<K>) {
    let issued = async |name: &str| -> Data {
        let _operator = test.operator();
        test.issue(name, &json!({})).await;
        test.data(name).await
    };
    for (number, moment) in [Before, After].into_iter().enumerate() {
        let name = format!("deleted{number}");
        let data = issued(&name).await;
        let made = survives_kill(&test, &name, CreateSecret, moment, async || test.delete_secret(&name).await).await;
        assert_eq!((made, test.data(&name).await), (0, data));

        let name = format!("edited{number}");
        let data = issued(&name).await;
        let edit = json!({ "data": { "ciphertextBlob": "eA==", "version": null } });
        let edited = async || drop(test.edit_secret(&name, &edit).await);
        assert_eq!(
            (survives_kill(&test, &name, UpdateSecret, moment, edited).await, test.data(&name).await),
            (0, data)
        );

        let name = format!("adopted{number}");
        let data = issued(&name).await;
        let backup = restored(&test.secret(&name).await);
        test.delete(&name).await;
        test.delete_secret(&name).await;
        test.create_secret(&backup).await;
        let again = async || drop(test.create(&name, &json!({})).await);
        assert_eq!((survives_kill(&test, &name, Record, moment, again).await, test.data(&name).await), (0, data));
    }
}

async fn crash_while_pins_are_recorded_costs_no_call<K: TestKind>(test: TestNamespace<K>) {
    let invariants = InvariantWatch::of(&test);
    let pins = json!({ "wrappedKeys": [test.pin(1), test.pin(2)], "version": 2 });
    for (number, (effect, moment, _)) in points(CreateSecret).into_iter().enumerate().skip(2) {
        let name = format!("k{number}");
        let made = survives_kill(&test, &name, effect, moment, async || drop(test.create(&name, &pins).await)).await;
        assert_eq!(made, 0, "{moment:?} {effect:?}");
        assert_eq!(to_json(&test.get(&name).await.as_object().record()), pins["wrappedKeys"]);
    }
    invariants.assert_held();
}

#[tokio::test]
async fn repeated_crashes_lose_and_duplicate_no_data_key() {
    let test = TestNamespace::with_stub_kms("crash-loop").await;
    let count = scaled(100, 1000);
    let invariants = InvariantWatch::of(&test);
    test.create_many("k", count, &json!({})).await;
    let mut kills = 0;
    let is_ready = async |number: usize| {
        let key = test.get(&format!("k-{number}")).await;
        datakey::condition::find(&key, "Ready").is_some_and(|ready| ready.status == "True")
    };
    while !is_ready(count - 1).await || kills < 5 {
        let operator = test.operator_with(&["--concurrency=8", "--kms-rate=1000"], &[]);
        // Kill it at any moment after it has issued at least one data key.
        eventually(SOON, "it works", async || operator.process.log().contains("KMS issued a data key")).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..300))).await;
        operator.process.signal("KILL");
        kills += 1;
        if test.proxy.calls() >= count {
            break;
        }
    }
    let _operator = test.operator_with(&["--kms-rate=1000"], &[]);
    let keys = test.all_ready(count, patience(count)).await;
    test.secrets_hold_the_record(&keys).await;
    let extra = test.proxy.calls() - count;
    assert!(extra <= 8 * kills, "{extra} calls too many after {kills} kills of 8 workers");
    println!("{kills} kills, {extra} extra calls, {} states seen", invariants.assert_held());
}
