//! The operator as a process: start, stop, probes, metrics and logs.

use std::{collections::BTreeMap, time::Duration};

use kube::api::ListParams;
use serde_json::json;
use testbed::{
    control_plane::ControlPlane,
    eventually, kms,
    process::Process,
    proxy::{Fault, KmsProxy},
    repository,
    silence::{self, SilentProxy},
};

use crate::harness::{Operator, SOON, TestNamespace};

#[tokio::test]
async fn missing_definition_is_awaited_and_all_namespaces_are_watched() {
    let plane = ControlPlane::bare().await;
    let server = kms::KmsServer::start(plane.workdir()).await;
    server.key_with_alias("datakey-samples").await;
    let proxy = KmsProxy::start(server.address()).await;
    let deploy = |path: &str| repository().join("deploy").join(path).display().to_string();
    plane.kubectl(&["apply", "-f", &deploy("namespace.yaml"), "-f", &deploy("operator.yaml")]).await.unwrap();

    let mut environment: BTreeMap<_, _> = kms::environment(&proxy.url()).into();
    environment.insert("KUBECONFIG", plane.operator_kubeconfig().await.display().to_string());
    let mut operator = Operator::start(&[], environment, &plane.workdir().file("operator.log"));
    operator.logs("the CustomResourceDefinition datakeys.datakey.dev is not installed").await;
    assert_eq!(operator.admin("/livez").await.0, 200);
    assert_eq!(operator.admin("/readyz").await.0, 503);

    plane.kubectl(&["apply", "-f", &deploy("crd.yaml")]).await.unwrap();
    operator.logs("the wait is over").await;
    operator.is_ready().await;
    for namespace in ["shop", "bank"] {
        plane.namespace(namespace).await;
        plane.kubectl(&["apply", "-n", namespace, "-f", &deploy("samples")]).await.unwrap();
        let wait = ["wait", "-n", namespace, "--for=condition=Ready", "datakeys", "--all", "--timeout=30s"];
        plane.kubectl(&wait).await.unwrap();
    }
    let samples = std::fs::read_dir(repository().join("deploy/samples")).unwrap();
    let samples = samples.filter(|sample| sample.as_ref().unwrap().path().is_file());
    assert_eq!(proxy.calls(), 2 * samples.count());
    operator.process.signal("TERM");
    assert_eq!(operator.process.ended().await, 0);
}

/// Waits until the operator logs what it waits for; it is live and not ready.
async fn waits_for(operator: &Operator, words: &str) {
    operator.logs(words).await;
    assert_eq!(operator.admin("/livez").await.0, 200, "a restart would not help");
    assert_eq!(operator.admin("/readyz").await.0, 503);
}

#[tokio::test]
async fn an_api_server_that_refuses_connections_is_waited_for() {
    let test = TestNamespace::new("refused").await;
    let port = testbed::free_port();
    let kubeconfig = silence::redirected(test.operator_kubeconfig(), &format!("127.0.0.1:{port}"));
    let operator = test.operator_by(&kubeconfig, &[]);
    waits_for(&operator, "waiting: the API server can't be reached").await;
    let _way = SilentProxy::start(port, silence::server_of(test.operator_kubeconfig())).await;
    operator.logs("the wait is over").await;
    operator.is_ready().await;
    test.issue("orders", &json!({})).await;
}

#[tokio::test]
async fn an_api_server_that_is_silent_at_the_start_is_waited_for() {
    let test = TestNamespace::new("silent-start").await;
    let (way, kubeconfig) = SilentProxy::before(test.operator_kubeconfig()).await;
    way.silence_all();
    let operator = test.operator_by(&kubeconfig, &["--kube-timeout=2s"]);
    waits_for(&operator, "waiting: the API server").await;
    way.open();
    operator.logs("the wait is over").await;
    operator.is_ready().await;
    test.issue("orders", &json!({})).await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_waited_for() {
    let test = TestNamespace::new("no-name").await;
    // No name server knows names of this domain (RFC 6761).
    let kubeconfig = silence::redirected(test.operator_kubeconfig(), "api.invalid:6443");
    let mut operator = test.operator_by(&kubeconfig, &[]);
    waits_for(&operator, "waiting: the API server can't be reached").await;
    assert!(operator.process.log().contains("dns error"), "{}", operator.process.log());
    operator.process.signal("TERM");
    assert_eq!(operator.process.ended().await, 0);
}

#[tokio::test]
async fn kms_out_of_reach_at_the_start_is_waited_for() {
    let test = TestNamespace::new("no-kms").await;
    let port = testbed::free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let operator = test.operator_with(&[], &[("AWS_ENDPOINT_URL_KMS", &endpoint)]);
    test.create("orders", &json!({})).await;
    test.failed("orders", "KmsUnreachable").await;
    assert_eq!((operator.admin("/livez").await.0, operator.admin("/readyz").await.0), (200, 200));
    let kms = test.proxy.url().split_once("://").unwrap().1.parse().unwrap();
    let _way = SilentProxy::start(port, kms).await;
    test.ready("orders").await;
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn a_stop_finishes_what_is_running() {
    let test = TestNamespace::new("graceful").await;
    let mut operator = test.operator();
    operator.is_ready().await;
    test.proxy.fail_always(Fault::Delay(Duration::from_secs(2)));
    test.create("orders", &json!({})).await;
    eventually(SOON, "KMS is asked", async || test.proxy.calls() == 1).await;
    operator.process.signal("TERM");
    assert_eq!(operator.process.ended().await, 0);
    let key = test.ready("orders").await;
    assert_eq!(key.record().len(), 1);
    assert_eq!(test.data("orders").await["ciphertextBlob"], key.record()[0].ciphertext_blob.0);
    assert_eq!(test.proxy.calls(), 1);
}

#[tokio::test]
async fn stop_ends_after_the_grace_and_a_second_signal_at_once() {
    let test = TestNamespace::new("grace").await;
    test.proxy.fail_always(Fault::Hang);
    test.create("orders", &json!({})).await;
    for (flags, signals, code) in [(&["--shutdown-grace=300ms"][..], 1, 0), (&["--shutdown-grace=1h"], 2, 1)] {
        let before = test.proxy.calls();
        let mut operator = test.operator_with(&[&["--kms-timeout=1h"], flags].concat(), &[]);
        eventually(SOON, "KMS is asked", async || test.proxy.calls() > before).await;
        operator.process.signal("TERM");
        operator.logs("stopping: finishing what is running").await;
        if signals == 2 {
            operator.process.signal("TERM");
        }
        assert_eq!(operator.process.ended().await, code);
    }
}

#[tokio::test]
async fn a_list_of_namespaces_is_watched_and_no_other() {
    let one = TestNamespace::new("listed-1").await;
    let two = TestNamespace::new("listed-2").await;
    let other = TestNamespace::new("listed-not").await;
    // A blank beside a name and a name that is given twice change nothing.
    let operator = one.operator_with(&["--namespace= listed-2,listed-1"], &[]);
    operator.is_ready().await;
    let spec = json!({ "keyId": one.alias() });
    other.create("orders", &spec).await;
    one.issue("orders", &spec).await;
    two.issue("orders", &spec).await;
    assert_eq!(one.proxy.calls(), 2);
    one.barrier().await;
    let ready = datakey::condition::find(&other.get("orders").await, "Ready").unwrap().reason.clone();
    assert_eq!(ready, "Pending");
}

#[tokio::test]
async fn logs_are_json_with_namespace_and_name_and_the_kms_request_id() {
    let test = TestNamespace::new("logs").await;
    let operator = test.operator();
    let key = test.issue("orders", &json!({})).await;
    operator.logs("the DataKey is ready").await;
    let log = operator.log_lines();
    let line = log.iter().find(|line| line["message"] == "KMS issued a data key").unwrap();
    assert_eq!((line["namespace"].as_str(), line["name"].as_str()), (Some("logs"), Some("orders")));
    assert_eq!(line["request_id"].as_str(), key.record()[0].request_id.as_deref());
    let about = log.iter().filter(|line| line["name"] == "orders" && line["level"] == "INFO").count();
    assert_eq!(about, 3, "one line an outcome: issued, written, ready");
}

#[tokio::test]
async fn metrics_count_calls_reconciles_writes_and_states() {
    let test = TestNamespace::new("metrics").await;
    let operator = test.operator();
    test.issue("orders", &json!({})).await;
    test.create("missing", &json!({ "keyId": "alias/is-not-there-either" })).await;
    test.failed("missing", "KeyNotFound").await;
    eventually(SOON, "the caches have it", async || {
        let (code, shown) = operator.admin("/metrics").await;
        code == 200
            && [
                r#"datakey_kms_requests_total{region="eu-west-1",code="OK"} 1"#,
                r#"datakey_secret_writes_total{operation="Create"} 1"#,
                r#"datakey_datakeys{reason="Issued",kind="DataKey"} 1"#,
                r#"datakey_datakeys{reason="KeyNotFound",kind="DataKey"} 1"#,
                r#"datakey_kms_request_duration_seconds_count{region="eu-west-1"}"#,
                "datakey_reconcile_duration_seconds_bucket",
                "process_resident_memory_bytes ",
            ]
            .iter()
            .all(|line| shown.contains(line))
    })
    .await;
    assert_eq!(operator.admin("/no-such-path").await.0, 404);
}

#[tokio::test]
async fn wrong_flags_and_settings_end_with_a_clear_error() {
    let test = TestNamespace::new("usage").await;
    let cases = [
        (&["--kms-rate=0"][..], 64, "--kms-rate"),
        (&["--namespace=usage,"], 64, "--namespace"),
        (&["--log-level=datakey_operator=loud"], 64, "--log-level"),
        (&["--admin-address=192.0.2.1:1"], 64, "--admin-address"),
    ];
    for (number, (flags, code, words)) in cases.into_iter().enumerate() {
        let log = test.plane.workdir().file(&format!("usage-{number}.log"));
        let flags = [&["run"], flags].concat();
        let none = std::iter::empty::<(&str, &str)>();
        let mut process = Process::start(&testbed::operator(), flags, none, &log);
        assert_eq!(process.ended().await, code, "{}", process.log());
        assert!(process.log().contains(words), "{}", process.log());
    }
    let mut operator = test.operator_with(&[], &[("KUBECONFIG", "/no/such/file")]);
    assert_eq!(operator.process.ended().await, 64);
    assert!(operator.process.log().contains("set KUBECONFIG"), "{}", operator.process.log());
    assert!(test.keys().list(&ListParams::default()).await.unwrap().items.is_empty());
}
