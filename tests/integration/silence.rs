//! Connections to the API server that die silently: no byte comes through, and no connection ends.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use testbed::{api_proxy::ApiProxy, eventually, silence::SilentProxy};

use crate::harness::{Operator, SOON, TestNamespace};

/// The documented 30 seconds, and some more for a busy machine.
const NOTICED: Duration = Duration::from_secs(35);

/// Issues over a connection that then dies, and waits until the operator notices the change of another client over a new
/// one.
async fn notices_a_change_over_a_dead_connection(test: &TestNamespace, kubeconfig: &Path) -> Operator {
    let (way, kubeconfig) = SilentProxy::before(kubeconfig).await;
    let operator = test.operator_by(&kubeconfig, &[]);
    test.issue("before", &json!({})).await;
    let data = test.data("before").await;
    test.barrier().await;
    way.silence();
    let begun = Instant::now();
    test.delete_secret("before").await;
    test.create("meanwhile", &json!({})).await;
    eventually(NOTICED, "the change is noticed", async || {
        let restored = test.secrets().get_opt("before").await.unwrap().is_some();
        let issued = test.secrets().get_opt("meanwhile").await.unwrap().is_some();
        restored && issued
    })
    .await;
    println!("{}: {:?}", test.namespace, begun.elapsed());
    test.secret_becomes("before", &data).await;
    test.ready("meanwhile").await;
    eventually(SOON, "it is ready again", async || operator.admin("/readyz").await.0 == 200).await;
    operator
}

#[tokio::test]
async fn a_dead_connection_is_noticed_within_30_seconds() {
    let test = TestNamespace::new("silent").await;
    let operator = notices_a_change_over_a_dead_connection(&test, test.operator_kubeconfig()).await;
    // HTTP/2 has no short watches: this one was found dead.
    operator.logs("a watch was interrupted; it is resumed").await;
}

#[tokio::test]
async fn a_dead_http1_connection_is_noticed_within_30_seconds() {
    let test = TestNamespace::new("silent-http1").await;
    let api = ApiProxy::with_http1(test.operator_kubeconfig()).await;
    let kubeconfig = api.kubeconfig(test.operator_kubeconfig());
    let operator = notices_a_change_over_a_dead_connection(&test, &kubeconfig).await;
    // A short watch ends before its silence is an error, and goes on where it was.
    assert!(!operator.process.log().contains("a watch was interrupted"), "{}", operator.process.log());
    assert_eq!((api.lists("datakeys"), api.lists("secrets")), (2, 2));
}

#[tokio::test]
async fn readiness_follows_a_silent_api_server_in_30_seconds() {
    let test = TestNamespace::new("silent-readiness").await;
    let (way, kubeconfig) = SilentProxy::before(test.operator_kubeconfig()).await;
    let operator = test.operator_by(&kubeconfig, &[]);
    operator.is_ready().await;
    way.silence_all();
    eventually(NOTICED, "it is not ready", async || operator.admin("/readyz").await.0 == 503).await;
    operator.logs("the API server can't be reached").await;
    operator.logs("no answer within 5s").await;
    assert_eq!(operator.admin("/livez").await.0, 200, "a restart would not help");
    test.create("orders", &json!({})).await;
    way.open();
    eventually(NOTICED, "it is ready again", async || operator.admin("/readyz").await.0 == 200).await;
    operator.logs("the API server answers again").await;
    eventually(NOTICED, "it works", async || test.secrets().get_opt("orders").await.unwrap().is_some()).await;
}
