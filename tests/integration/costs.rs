//! What one object costs: the requests to the API server by verb and resource, and the calls to KMS, exactly.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use datakey::api::DataKey;
use serde_json::json;
use testbed::{
    api_proxy::{ApiProxy, Fault, STREAMED_LIST},
    eventually,
    proxy::FAILING,
};
use tokio::time::{Instant, sleep};

use crate::harness::{NO_RETRY, Operator, SOON, TestKind, TestNamespace};

for_each_kind! {
    a_new_data_key_costs_one_kms_call_four_requests_an_event: with_stub_kms("costs-new"),
    a_new_data_key_of_a_class_costs_the_same: with_stub_kms("costs-class"),
    a_new_data_key_of_a_role_costs_one_more_read: with_stub_kms("costs-role"),
    a_new_version_costs_one_kms_call_four_requests_an_event: with_stub_kms("costs-version"),
    a_lost_secret_costs_a_read_two_writes_and_an_event: with_stub_kms("costs-lost"),
    a_changed_secret_costs_two_reads_two_writes_and_an_event: with_stub_kms("costs-changed"),
    labels_of_other_clients_on_a_secret_cost_two_reads: with_stub_kms("costs-labels"),
    an_adopted_secret_costs_four_requests: with_stub_kms("costs-adopted"),
    a_failure_costs_one_call_to_kms_and_three_requests: with_stub_kms("costs-failure"),
}

/// How many objects each test measures, so that a request for all of them at once would show.
const COUNT: usize = 10;

struct Costs<K: TestKind = DataKey> {
    test: TestNamespace<K>,
    api: ApiProxy,
    kubeconfig: PathBuf,
    operator: Option<Operator>,
}

// === impl Costs ===

impl Costs {
    /// Starts an operator and waits until it has nothing to do.
    async fn new(name: &str, flags: &[&str]) -> Self {
        Self::of_new(TestNamespace::with_stub_kms(name).await, flags).await
    }

    /// The same with `COUNT` objects that are ready.
    async fn with_ready(name: &str) -> Self {
        Self::of_ready(TestNamespace::with_stub_kms(name).await).await
    }
}

impl<K: TestKind> Costs<K> {
    async fn of_new(test: TestNamespace<K>, flags: &[&str]) -> Self {
        let (api, kubeconfig) = test.api_proxy().await;
        let mut costs = Self { test, api, kubeconfig, operator: None };
        costs.start(flags).await;
        costs
    }

    async fn of_ready(test: TestNamespace<K>) -> Self {
        let costs = Self::of_new(test, &[]).await;
        costs.test.create_many("k", COUNT, &json!({})).await;
        costs.test.all_ready(COUNT, SOON).await;
        costs.is_quiet().await;
        costs
    }

    async fn start(&mut self, flags: &[&str]) {
        let operator = self.test.operator_by(&self.kubeconfig, &[&["--kms-rate=1000"], flags].concat());
        operator.is_ready().await;
        self.operator = Some(operator);
        self.is_quiet().await;
    }

    async fn is_quiet(&self) {
        eventually(SOON, "the operator asks for nothing any more", async || {
            let before = self.api.requests().len();
            sleep(Duration::from_millis(500)).await;
            self.api.requests().len() == before
        })
        .await;
    }

    /// The requests and KMS calls of an action, until the operator has nothing more to do.
    async fn of(&self, done: impl Future<Output = ()>) -> (BTreeMap<String, usize>, usize) {
        self.api.forget();
        let calls = self.test.proxy.calls();
        done.await;
        self.is_quiet().await;
        let mut requests = BTreeMap::new();
        for request in self.api.requests() {
            *requests.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
        }
        (requests, self.test.proxy.calls() - calls)
    }
}

/// The cost of each object. `{}` in a request is the resource of the kind.
fn each<K: TestKind>(requests: &[(&str, usize)]) -> BTreeMap<String, usize> {
    requests.iter().map(|(request, count)| (request.replace("{}", K::KIND.plural), count * COUNT)).collect()
}

async fn a_new_data_key_costs_one_kms_call_four_requests_an_event<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_new(test, &[]).await;
    let (requests, calls) = costs
        .of(async {
            costs.test.create_many("k", COUNT, &json!({})).await;
            costs.test.all_ready(COUNT, SOON).await;
        })
        .await;
    let issued = [("get secrets", 1), ("update {}/status", 2), ("create secrets", 1), ("create events", 1)];
    assert_eq!(requests, each::<K>(&issued));
    assert_eq!(calls, COUNT);
}

async fn a_new_data_key_of_a_class_costs_the_same<K: TestKind>(test: TestNamespace<K>) {
    let pairs = json!([{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }]);
    test.class(&json!({ "allow": [{ "keyIds": [test.alias()] }], "encryptionContext": { "pairs": pairs } })).await;
    let costs = Costs::of_new(test, &[]).await;
    let (requests, calls) = costs
        .of(async {
            costs.test.create_many("k", COUNT, &json!({ "className": costs.test.namespace })).await;
            costs.test.all_ready(COUNT, SOON).await;
        })
        .await;
    let issued = [("get secrets", 1), ("update {}/status", 2), ("create secrets", 1), ("create events", 1)];
    assert_eq!(requests, each::<K>(&issued));
    assert_eq!(calls, COUNT);
}

/// The namespace is read for each call. STS is called once for all of them; objects that wait for that read again.
async fn a_new_data_key_of_a_role_costs_one_more_read<K: TestKind>(test: TestNamespace<K>) {
    let aws = json!({
        "roleArn": "arn:aws:iam::222233334444:role/shop",
        "sessionTags": [{ "key": "datakey-namespace", "valueFrom": "Namespace" }],
    });
    test.class(&json!({ "allow": [{ "keyIds": [test.alias()] }], "aws": aws })).await;
    let costs = Costs::of_new(test, &[]).await;
    costs.test.issue("first", &json!({ "className": costs.test.namespace })).await;
    costs.is_quiet().await;
    let (requests, calls) = costs
        .of(async {
            costs.test.create_many("k", COUNT, &json!({ "className": costs.test.namespace })).await;
            costs.test.all_ready(COUNT + 1, SOON).await;
        })
        .await;
    let issued = [
        ("get namespaces", 1),
        ("get secrets", 1),
        ("update {}/status", 2),
        ("create secrets", 1),
        ("create events", 1),
    ];
    assert_eq!(requests, each::<K>(&issued));
    assert_eq!((calls, costs.test.proxy.sessions().len()), (COUNT, 1));
}

async fn a_new_version_costs_one_kms_call_four_requests_an_event<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_ready(test).await;
    let raise = async |version: i32| {
        for number in 0..COUNT {
            costs.test.patch(&format!("k-{number}"), &json!({ "spec": { "version": version } })).await;
        }
        costs.test.all_ready(COUNT, SOON).await;
    };
    let (requests, calls) = costs.of(raise(2)).await;
    let issued = [("update {}/status", 2), ("get secrets", 1), ("update secrets", 1), ("create events", 1)];
    assert_eq!(requests, each::<K>(&issued));
    assert_eq!(calls, COUNT);
    let (requests, calls) = costs.of(raise(1)).await;
    assert_eq!(
        requests,
        each::<K>(&[("get secrets", 1), ("update secrets", 1), ("update {}/status", 1)]),
        "back again"
    );
    assert_eq!(calls, 0);
}

async fn a_lost_secret_costs_a_read_two_writes_and_an_event<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_ready(test).await;
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                costs.test.delete_secret(&format!("k-{number}")).await;
            }
        })
        .await;
    let restored = [("get {}", 1), ("create secrets", 1), ("update {}/status", 1), ("create events", 1)];
    assert_eq!(requests, each::<K>(&restored));
    assert_eq!(calls, 0);
}

async fn a_changed_secret_costs_two_reads_two_writes_and_an_event<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_ready(test).await;
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                costs.test.edit_secret(&format!("k-{number}"), &json!({ "data": { "version": "OQ==" } })).await;
            }
        })
        .await;
    let writes = [("update secrets", 1), ("update {}/status", 1), ("create events", 1)];
    let restored = each::<K>(&[("get {}", 1), ("get secrets", 1)]).into_iter().chain(each::<K>(&writes)).collect();
    assert_eq!(requests, restored);
    assert_eq!(calls, 0);
}

async fn labels_of_other_clients_on_a_secret_cost_two_reads<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_ready(test).await;
    let labels = json!({ "metadata": { "labels": { "team": "shop" } } });
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                costs.test.patch(&format!("k-{number}"), &labels).await;
            }
        })
        .await;
    assert_eq!((requests, calls), (BTreeMap::new(), 0), "on a DataKey they cost nothing");
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                costs.test.edit_secret(&format!("k-{number}"), &labels).await;
            }
        })
        .await;
    assert_eq!((requests, calls), (each::<K>(&[("get {}", 1), ("get secrets", 1)]), 0));
}

async fn an_adopted_secret_costs_four_requests<K: TestKind>(test: TestNamespace<K>) {
    let costs = Costs::of_ready(test).await;
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                costs.test.delete(&format!("k-{number}")).await;
            }
            costs.test.create_many("k", COUNT, &json!({})).await;
            costs.test.all_ready(COUNT, SOON).await;
        })
        .await;
    assert_eq!(requests, each::<K>(&[("get secrets", 1), ("update {}/status", 2), ("create events", 1)]));
    assert_eq!(calls, 0);
}

async fn a_failure_costs_one_call_to_kms_and_three_requests<K: TestKind>(test: TestNamespace<K>) {
    // The first try only.
    let costs = Costs::of_new(test, &NO_RETRY).await;
    let key = json!({ "keyId": format!("{FAILING}AccessDeniedException") });
    let (requests, calls) = costs
        .of(async {
            for number in 0..COUNT {
                let name = format!("k-{number}");
                costs.test.create(&name, &key).await;
                costs.test.failed(&name, "AccessDenied").await;
            }
        })
        .await;
    assert_eq!(requests, each::<K>(&[("get secrets", 1), ("update {}/status", 1), ("create events", 1)]));
    assert_eq!(calls, COUNT);
}

/// Asks for a retry of each object.
async fn request_retries(costs: &Costs, retry_at: &str) {
    let request = json!({ "metadata": { "annotations": { "datakey.dev/retry-at": retry_at } } });
    for number in 0..COUNT {
        costs.test.patch(&format!("k-{number}"), &request).await;
    }
}

#[tokio::test]
async fn a_requested_retry_costs_one_call_to_kms_and_one_read() {
    let costs = Costs::new("costs-retry", &NO_RETRY).await;
    let key = json!({ "keyId": format!("{FAILING}AccessDeniedException") });
    costs.test.create_many("k", COUNT, &key).await;
    for number in 0..COUNT {
        costs.test.failed(&format!("k-{number}"), "AccessDenied").await;
    }
    costs.is_quiet().await;
    let (requests, calls) = costs.of(request_retries(&costs, "2026-11-27T08:00:00Z")).await;
    assert_eq!((requests, calls), (each::<DataKey>(&[("get secrets", 1)]), COUNT));
    // Within the minute, whatever the value is.
    for retry_at in ["2999-01-01T00:00:00Z", "garbage", ""] {
        let (requests, calls) = costs.of(request_retries(&costs, retry_at)).await;
        assert_eq!((requests, calls), (BTreeMap::new(), 0), "{retry_at}");
    }
}

#[tokio::test]
async fn a_requested_retry_of_a_ready_data_key_costs_nothing() {
    let costs = Costs::with_ready("costs-retry-ready").await;
    let (requests, calls) = costs.of(request_retries(&costs, "2026-11-27T08:00:00Z")).await;
    assert_eq!((requests, calls), (BTreeMap::new(), 0));
}

#[tokio::test]
async fn a_restart_does_not_act_on_earlier_requests() {
    let mut costs = Costs::new("costs-retry-restart", &NO_RETRY).await;
    let key = json!({ "keyId": format!("{FAILING}AccessDeniedException") });
    costs.test.create_many("k", COUNT, &key).await;
    for number in 0..COUNT {
        costs.test.failed(&format!("k-{number}"), "AccessDenied").await;
    }
    drop(costs.operator.take());
    request_retries(&costs, "2026-11-27T08:00:00Z").await;
    let calls = costs.test.proxy.calls();
    costs.start(&NO_RETRY).await;
    assert_eq!(costs.test.proxy.calls(), calls);
    request_retries(&costs, "2026-11-27T08:00:01Z").await;
    eventually(SOON, "each is tried", async || costs.test.proxy.calls() == calls + COUNT).await;
}

/// The requests of a start, sorted.
fn requests_of_a_start(costs: &Costs) -> Vec<String> {
    let requests = costs.api.requests().into_iter().map(|request| format!("{} {}", request.verb, request.resource));
    let mut requests: Vec<_> = requests.collect();
    requests.sort();
    requests
}

#[tokio::test]
async fn a_restart_costs_five_streamed_lists_or_ten_requests_more() {
    // Classes are of the whole cluster, and those of all tests fill more than one page.
    let mut costs = Costs::of_ready(TestNamespace::with_own_control_plane("costs-restart").await).await;
    drop(costs.operator.take());
    let calls = costs.test.proxy.calls();
    costs.api.forget();
    costs.start(&[]).await;
    // For each kind and for classes, a list asks whether there is a definition. A streamed list goes on as a watch.
    let probes = ["list datakeyclasses", "list datakeypairs", "list datakeys"];
    let watched = ["datakeyclasses", "datakeypairs", "datakeys", "secrets", "secrets"];
    let each = |verb: &str| watched.map(|resource| format!("{verb} {resource}")).to_vec();
    let streamed = [probes.map(str::to_owned).to_vec(), each("watchlist")].concat();
    let mut refused = [streamed.clone(), each("list"), each("watch")].concat();
    refused.sort();
    let streams = costs.test.plane.release().streams_lists();
    assert_eq!(requests_of_a_start(&costs), if streams { streamed } else { refused.clone() });

    drop(costs.operator.take());
    costs.api.forget();
    // The answer of an API server without the feature gate.
    costs.api.fail_always(STREAMED_LIST, "*", Fault::Refuse(422, "Invalid", "sendInitialEvents is forbidden"));
    costs.start(&[]).await;
    assert_eq!(requests_of_a_start(&costs), refused);
    assert_eq!(costs.test.proxy.calls(), calls);
}

#[tokio::test]
async fn a_streamed_list_that_ends_early_is_read_in_pages() {
    let mut costs = Costs::with_ready("costs-early-end").await;
    drop(costs.operator.take());
    costs.test.delete_secret("k-3").await;
    costs.test.create("new", &json!({})).await;
    costs.api.forget();
    costs.api.fail_always(STREAMED_LIST, "*", Fault::EndAfterOne);
    costs.start(&[]).await;
    costs.test.all_ready(COUNT + 1, SOON).await;
    eventually(SOON, "it is restored", async || costs.test.secrets().get_opt("k-3").await.unwrap().is_some()).await;
    for (resource, watches) in [("datakeys", 1), ("datakeypairs", 1), ("secrets", 2)] {
        assert_eq!(costs.api.count("watch", resource), watches, "{:?}", costs.api.requests());
    }
}

#[tokio::test]
async fn a_restart_reads_only_secrets_that_changed_meanwhile() {
    let mut costs = Costs::with_ready("costs-restart-changed").await;
    drop(costs.operator.take());
    costs.test.edit_secret("k-0", &json!({ "metadata": { "labels": { "team": "shop" } } })).await;
    costs.api.forget();
    costs.start(&[]).await;
    assert_eq!((costs.api.count("get", "secrets"), costs.api.count("update", "*")), (1, 0));
}

#[tokio::test]
async fn data_keys_beyond_the_working_set_cost_two_reads_at_most() {
    const MANY: usize = 200;
    // Some 8 KB each, so that a MiB is too small for all of them while they wait for KMS.
    let large = json!({ "encryptionContext": { "purpose": "x".repeat(8000) } });
    let costs = Costs::new("costs-working-set", &["--working-set=1", "--kms-rate=50"]).await;
    let (requests, calls) = costs
        .of(async {
            costs.test.create_many("k", MANY, &large).await;
            costs.test.all_ready(MANY, 4 * SOON).await;
        })
        .await;
    let count = |request: &str| requests.get(request).copied().unwrap_or_default();
    assert_eq!(calls, MANY);
    assert_eq!((count("update datakeys/status"), count("create secrets")), (2 * MANY, MANY));
    assert!((1..=2 * MANY).contains(&count("get datakeys")), "{requests:?}");
}

/// How many reconciles the operator has finished.
async fn reconciles(costs: &Costs) -> u64 {
    let metrics = costs.operator.as_ref().unwrap().admin("/metrics").await.1;
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("datakey_reconciles_total{")?.split(' ').nth(1));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_secret_that_changes_all_the_time_is_read_rarely() {
    let costs = Costs::with_ready("costs-changing").await;
    let begun = Instant::now();
    let change = async || {
        let labels = json!({ "metadata": { "labels": { "team": fastrand::u64(..).to_string() } } });
        costs.test.edit_secret("k-0", &labels).await;
    };
    let (requests, calls) = costs
        .of(async {
            // One after the other: a change during a reconcile would find the DataKey in the working set.
            for read in 1..=20 {
                let before = reconciles(&costs).await;
                change().await;
                eventually(SOON, "the change is reconciled", async || {
                    costs.api.count("get", "secrets") >= read && reconciles(&costs).await > before
                })
                .await;
            }
            for _ in 0..20 {
                change().await;
            }
        })
        .await;
    let count = |request: &str| requests.get(request).copied().unwrap_or_default();
    assert_eq!((count("update secrets"), calls), (0, 0));
    // Twenty at once, and one in ten seconds after that.
    let most = 21 + usize::try_from(begun.elapsed().as_secs()).unwrap() / 10;
    assert!((20..=most).contains(&count("get secrets")), "{requests:?}, {most} at most");
    assert!((20..=most).contains(&count("get datakeys")), "{requests:?}, {most} at most");
}
