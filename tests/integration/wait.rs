//! A client that waits for a DataKey goes on once it is ready for the current spec, and never before: `kubectl wait`, and Helm
//! with `--wait`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::{commands, proxy::Fault};

use crate::harness::{TestNamespace, text};

/// Longer than any of these waits takes.
const LONG: &str = "--timeout=10m";

async fn kubectl_wait(test: &TestNamespace, name: &str, timeout: &str) -> Result<String, String> {
    let target = format!("datakey/{name}");
    let wait = ["wait", &target, "-n", &test.namespace, "--for=condition=Ready", timeout];
    test.plane.kubectl(&wait).await
}

/// Installs or upgrades a release `keys` with one `DataKey`, `orders`, and waits for it.
async fn helm_wait(test: &TestNamespace, spec: &Value, timeout: &str) -> Result<String, String> {
    let chart = test.plane.workdir().file(&format!("{}-chart", test.namespace));
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), "{apiVersion: v2, name: keys, version: 0.1.0}").unwrap();
    std::fs::write(chart.join("templates/orders.yaml"), test.manifest("orders", spec).to_string()).unwrap();
    let chart = chart.display().to_string();
    let helm = ["upgrade", "--install", "keys", &chart, "-n", &test.namespace, "--wait", timeout];
    let home = test.plane.workdir().file("helm");
    commands::helm(&test.plane.admin_kubeconfig(), &home, &helm).await
}

/// The version in the Secret, without waiting.
async fn secret_version(test: &TestNamespace) -> String {
    let data = test.secret("orders").await.data.unwrap();
    text(&data.into_iter().map(|(name, value)| (name, value.0)).collect(), "version")
}

#[tokio::test]
async fn kubectl_wait_ignores_ready_of_an_older_generation() {
    let test = TestNamespace::new("wait-kubectl").await;
    test.create("orders", &json!({})).await;
    let early = kubectl_wait(&test, "orders", "--timeout=1s").await;
    assert!(early.unwrap_err().contains("timed out"), "no operator has seen it");
    {
        let _operator = test.operator();
        kubectl_wait(&test, "orders", LONG).await.unwrap();
        assert_eq!(secret_version(&test).await, "1");
    }
    test.patch("orders", &json!({ "spec": { "version": 2 } })).await;
    let early = kubectl_wait(&test, "orders", "--timeout=1s").await;
    assert!(early.unwrap_err().contains("timed out"), "no operator has seen the new spec");

    test.proxy.fail_next(2, Fault::code("ThrottlingException"));
    let _operator = test.operator();
    kubectl_wait(&test, "orders", LONG).await.unwrap();
    assert_eq!(secret_version(&test).await, "2");

    test.proxy.fail_always(Fault::Delay(Duration::from_millis(500)));
    test.patch("orders", &json!({ "spec": { "version": 3 } })).await;
    kubectl_wait(&test, "orders", LONG).await.unwrap();
    assert_eq!(secret_version(&test).await, "3", "kubectl was there before KMS answered");
}

#[tokio::test]
async fn helm_waits_for_the_data_key_and_for_each_new_version() {
    let test = TestNamespace::new("wait-helm").await;
    let early = helm_wait(&test, &json!({}), "--timeout=2s").await.unwrap_err();
    assert!(early.contains("not ready") && early.contains("InProgress"), "no operator has seen it: {early}");
    {
        let _operator = test.operator();
        test.proxy.fail_next(2, Fault::code("ThrottlingException"));
        helm_wait(&test, &json!({}), LONG).await.unwrap();
        assert_eq!(secret_version(&test).await, "1");
    }
    let second = json!({ "version": 2 });
    let early = helm_wait(&test, &second, "--timeout=2s").await.unwrap_err();
    assert!(early.contains("not ready") && early.contains("InProgress"), "no operator has seen the new spec: {early}");

    let _operator = test.operator();
    test.proxy.fail_next(2, Fault::code("ThrottlingException"));
    helm_wait(&test, &json!({ "version": 3 }), LONG).await.unwrap();
    assert_eq!(secret_version(&test).await, "3");
}

#[tokio::test]
async fn helm_wait_fails_fast_when_stalled() {
    let test = TestNamespace::new("wait-stalled").await;
    let _operator = test.operator();
    test.proxy.fail_always(Fault::code("AccessDeniedException"));
    let begun = Instant::now();
    let failure = helm_wait(&test, &json!({}), LONG).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    assert!(failure.contains("see the message of the Ready condition"), "{failure}");

    // Helm reports a stalled object at once, so it can pass only after the operator's next call has removed the condition.
    test.proxy.clear_faults();
    kubectl_wait(&test, "orders", LONG).await.unwrap();
    helm_wait(&test, &json!({}), LONG).await.unwrap();
    assert_eq!(secret_version(&test).await, "1");
}
