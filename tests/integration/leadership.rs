//! Several replicas, one of which works: which one leads, and how long it takes until the next one does.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use testbed::{api_proxy::Fault, eventually, silence::SilentProxy};

use crate::harness::{InvariantWatch, Operator, SOON, TestNamespace, UNSET};

/// A shorter lease than the 15 s of production; the other times are fractions of it.
const SHORT: &str = "--lease-duration=3s";

/// Starts a replica with its Lease in the test's namespace.
fn start_replica(test: &TestNamespace, kubeconfig: Option<&PathBuf>, flags: &[&str]) -> Operator {
    let lease = [&["--leader-elect", "--lease-namespace", &test.namespace][..], flags].concat();
    match kubeconfig {
        Some(kubeconfig) => test.operator_by(kubeconfig, &lease),
        None => test.operator_with(&lease, &[]),
    }
}

/// A leader and a replica that stands by.
async fn start_pair(test: &TestNamespace, kubeconfig: Option<&PathBuf>, flags: &[&str]) -> (Operator, Operator) {
    test.grant_lease_access().await;
    let leader = start_replica(test, kubeconfig, flags);
    becomes_leader(&leader).await;
    let standby = start_replica(test, None, flags);
    standby.logs("standing by").await;
    (leader, standby)
}

async fn becomes_leader(operator: &Operator) {
    operator.logs("this replica leads").await;
    operator.is_ready().await;
}

async fn has_metric(operator: &Operator, line: &str) -> bool {
    operator.admin("/metrics").await.1.lines().any(|shown| shown == line)
}

#[tokio::test]
async fn one_replica_works_and_the_other_stands_by() {
    let test = TestNamespace::new("standby").await;
    let (leader, standby) = start_pair(&test, None, &[SHORT]).await;
    eventually(SOON, "who stands by is ready", async || standby.admin("/readyz").await.0 == 200).await;
    assert!(has_metric(&leader, "datakey_leader 1").await && has_metric(&standby, "datakey_leader 0").await);
    test.issue("orders", &json!({})).await;
    assert!(has_metric(&standby, "datakey_leader 0").await);
    assert!(!standby.process.log().contains("KMS issued"));
    let leases: Api<Lease> = Api::namespaced(test.client.clone(), &test.namespace);
    let spec = leases.get("datakey-operator").await.unwrap().spec.unwrap();
    assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(3), Some(1)));
    // It is renewed.
    eventually(SOON, "it is renewed", async || {
        leases.get("datakey-operator").await.unwrap().spec.unwrap().renew_time > spec.renew_time
    })
    .await;
}

#[tokio::test]
async fn standby_looks_for_key_pairs_when_it_leads() {
    let test = TestNamespace::with_own_control_plane("standby-pairs").await;
    let definition = "datakeypairs.datakey.dev";
    test.plane.kubectl(&["delete", "crd", definition]).await.unwrap();
    let (mut leader, standby) = start_pair(&test, None, &[SHORT]).await;
    leader.logs("DataKeyPairs are not watched until they can be listed").await;
    let definitions = testbed::repository().join("deploy/crd.yaml");
    test.plane.kubectl(&["apply", "-f", &definitions.display().to_string()]).await.unwrap();
    test.plane.kubectl(&["wait", "--for=condition=Established", &format!("crd/{definition}")]).await.unwrap();
    leader.process.signal("TERM");
    assert_eq!(leader.process.ended().await, 0);
    // It is ready once both kinds are listed.
    becomes_leader(&standby).await;
    assert!(!standby.process.log().contains("are not watched"), "{}", standby.process.log());
}

#[tokio::test]
async fn standby_takes_over_at_once_after_a_clean_stop() {
    // As in production.
    let test = TestNamespace::new("handover").await;
    let (mut leader, standby) = start_pair(&test, None, &["--kms-rate=20"]).await;
    test.create_many("k", 40, &json!({})).await;
    eventually(SOON, "it works", async || test.proxy.calls() > 10).await;
    leader.process.signal("TERM");
    assert_eq!(leader.process.ended().await, 0);
    let ended = Instant::now();
    becomes_leader(&standby).await;
    let took = ended.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    test.all_ready(40, SOON).await;
    assert_eq!(test.proxy.calls(), 40);
    println!("clean stop: {took:?} until the next one is ready");
}

#[tokio::test]
async fn standby_takes_over_within_20_seconds_after_a_kill() {
    // As in production.
    let test = TestNamespace::new("failover").await;
    let (leader, standby) = start_pair(&test, None, &[]).await;
    leader.process.signal("KILL");
    let killed = Instant::now();
    drop(leader);
    test.create("orders", &json!({})).await;
    becomes_leader(&standby).await;
    test.ready("orders").await;
    let took = killed.elapsed();
    // Its last renewal was up to a quarter of the lease's 15 seconds ago.
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
    println!("kill: {took:?} until the next one has issued a data key");
}

#[tokio::test]
async fn paused_leader_exits_on_resume_and_duplicates_nothing() {
    let test = TestNamespace::new("paused").await;
    let invariants = InvariantWatch::of(&test);
    let (mut leader, standby) = start_pair(&test, None, &[SHORT]).await;
    leader.process.signal("STOP");
    test.create_many("k", 10, &json!({})).await;
    becomes_leader(&standby).await;
    test.all_ready(10, SOON).await;
    leader.process.signal("CONT");
    assert_eq!(leader.process.ended().await, 1);
    assert!(leader.process.log().contains("leadership is lost"), "{}", leader.process.log());
    let keys = test.all_ready(10, SOON).await;
    test.secrets_hold_the_record(&keys).await;
    invariants.assert_held();
}

#[tokio::test]
async fn leader_without_api_server_stops_before_the_next_starts() {
    let test = TestNamespace::new("cut-off").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let (mut leader, standby) = start_pair(&test, Some(&kubeconfig), &[SHORT]).await;
    api.close();
    assert_eq!(leader.process.ended().await, 1);
    assert!(!standby.process.log().contains("this replica leads"), "both led");
    becomes_leader(&standby).await;
    test.issue("orders", &json!({})).await;
    // And it stands by after the next start.
    api.clear_faults();
    let again = start_replica(&test, Some(&kubeconfig), &[SHORT]);
    again.logs("standing by").await;
}

#[tokio::test]
async fn a_renewal_that_is_never_answered_costs_no_leadership() {
    let test = TestNamespace::new("renewal").await;
    let (api, kubeconfig) = test.api_proxy().await;
    let (mut leader, standby) = start_pair(&test, Some(&kubeconfig), &["--lease-duration=8s"]).await;
    api.fail_next(1, "update", "leases", Fault::Hang);
    let before = api.count("update", "leases");
    eventually(SOON, "it renews again and again", async || {
        assert!(leader.process.is_running(), "{}", leader.process.log());
        api.count("update", "leases") >= before + 4
    })
    .await;
    assert!(!standby.process.log().contains("this replica leads"));
    test.issue("orders", &json!({})).await;
}

#[tokio::test]
async fn a_dead_connection_costs_no_leadership() {
    // As in production.
    let test = TestNamespace::new("silent-lease").await;
    let (way, kubeconfig) = SilentProxy::before(test.operator_kubeconfig()).await;
    let (mut leader, standby) = start_pair(&test, Some(&kubeconfig), &[]).await;
    let leases: Api<Lease> = Api::namespaced(test.client.clone(), &test.namespace);
    let renewed = async || leases.get("datakey-operator").await.unwrap().spec.unwrap().renew_time;
    way.silence();
    let silent = renewed().await;
    eventually(SOON, "it renews over a new connection", async || renewed().await > silent).await;
    test.create("orders", &json!({})).await;
    eventually(2 * SOON, "it works", async || test.secrets().get_opt("orders").await.unwrap().is_some()).await;
    assert!(leader.process.is_running() && !standby.process.log().contains("this replica leads"));
    assert_eq!(leases.get("datakey-operator").await.unwrap().spec.unwrap().lease_transitions, Some(1));
}

#[tokio::test]
async fn silent_instance_metadata_cost_no_leadership() {
    let test = TestNamespace::new("silent-metadata").await;
    test.grant_lease_access().await;
    let metadata = SilentProxy::start(0, ([127, 0, 0, 1], 1).into()).await;
    metadata.silence_all();
    let endpoint = format!("http://{}", metadata.address());
    let silent = [
        ("AWS_REGION", UNSET),
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
    ];
    let flags = ["--leader-elect", "--lease-namespace", &test.namespace, SHORT];
    let mut leader = test.operator_with(&flags, &silent);
    becomes_leader(&leader).await;
    test.issue("orders", &json!({ "region": "eu-west-1" })).await;
    assert!(leader.process.is_running());
}

#[tokio::test]
async fn a_leader_in_a_silent_network_gives_up_in_time() {
    // As in production.
    let test = TestNamespace::new("silent-leader").await;
    let (way, kubeconfig) = SilentProxy::before(test.operator_kubeconfig()).await;
    let (mut leader, standby) = start_pair(&test, Some(&kubeconfig), &[]).await;
    way.silence_all();
    let silent = Instant::now();
    assert_eq!(leader.process.ended().await, 1);
    assert!(leader.process.log().contains("the lease could not be renewed in time"), "{}", leader.process.log());
    assert!(!standby.process.log().contains("this replica leads"), "both led");
    becomes_leader(&standby).await;
    let took = silent.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    test.issue("orders", &json!({})).await;
}

#[tokio::test]
async fn a_stop_in_a_silent_network_ends_in_time() {
    let test = TestNamespace::new("silent-stop").await;
    let (way, kubeconfig) = SilentProxy::before(test.operator_kubeconfig()).await;
    let (mut leader, _standby) = start_pair(&test, Some(&kubeconfig), &[]).await;
    way.silence_all();
    leader.process.signal("TERM");
    let begun = Instant::now();
    assert_eq!(leader.process.ended().await, 0);
    // As long as one request for the Lease may take, and not until the pod is killed.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(leader.process.log().contains("the lease was not released"), "{}", leader.process.log());
}

#[tokio::test]
async fn three_replicas_are_replaced_under_load_and_no_issuance_fails() {
    let test = TestNamespace::new("rollout").await;
    test.grant_lease_access().await;
    let replicas: Vec<_> = (0..3).map(|_| start_replica(&test, None, &[])).collect();
    let mut replaced = Vec::new();
    for (number, mut old) in replicas.into_iter().enumerate() {
        let new = start_replica(&test, None, &[]);
        new.is_ready().await;
        test.create_many(&format!("k{number}"), 10, &json!({})).await;
        old.process.signal("TERM");
        assert_eq!(old.process.ended().await, 0);
        test.create_many(&format!("l{number}"), 10, &json!({})).await;
        test.all_ready(20 * (number + 1), SOON).await;
        replaced.push(new);
    }
    assert_eq!(test.proxy.calls(), 60);
    let events =
        test.plane.kubectl(&["get", "events", "-n", "rollout", "-o", "name", "--field-selector", "reason!=Issued"]);
    let events = events.await.unwrap();
    assert_eq!(events, "", "nothing failed on the way");
}
