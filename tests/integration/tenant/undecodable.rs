//! Metadata that no Rust type can hold: only that one object is affected, and it is restored all the same.

use k8s_openapi::ByteString;
use serde_json::json;
use testbed::eventually;

use super::Tenant;
use crate::harness::{SOON, TestNamespace};

/// The API server accepts this time; no Rust type for times goes as far.
const FAR: &str = "9999-12-31T23:59:59Z";

#[tokio::test]
async fn a_secret_with_a_far_time_stops_nothing() {
    let test = TestNamespace::new("far-time").await;
    let Some(tenant) = Tenant::of(&test).await else { return };
    let patch = json!([
        { "op": "replace", "path": "/metadata/managedFields/0/time", "value": FAR },
        { "op": "add", "path": "/metadata/labels/seen", "value": "x" },
        { "op": "add", "path": "/data/ciphertextBlob", "value": "Y2hhbmdlZA==" },
    ])
    .to_string();
    for stopped in [false, true] {
        let mut operator = Some(test.operator());
        let name = if stopped { "stopped" } else { "running" };
        let key = test.issue(name, &json!({})).await;
        if stopped {
            operator = None;
        }
        tenant.kubectl(&["patch", "secret", name, "-n", "far-time", "--type=json", "-p", &patch]).await.unwrap();
        let operator = operator.take().unwrap_or_else(|| test.operator());
        operator.is_ready().await;
        let blob = &key.record()[0].ciphertext_blob;
        eventually(SOON, "it is restored", async || blob_of(&test, name).await == *blob).await;
        let other = format!("other-of-{name}");
        test.issue(&other, &json!({})).await;
        test.ready(name).await;
        assert_eq!(test.proxy.calls(), if stopped { 4 } else { 2 });
    }
}

/// The blob of a Secret, read without the typed client, which cannot decode the Secret.
async fn blob_of(test: &TestNamespace, name: &str) -> ByteString {
    let read = ["get", "secret", name, "-n", &test.namespace, "-o", "jsonpath={.data.ciphertextBlob}"];
    serde_json::from_value(json!(test.plane.kubectl(&read).await.unwrap())).unwrap()
}
