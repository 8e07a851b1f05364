//! What a changed class costs the operator, in a cluster with many objects, namespaces and classes.

use std::time::Duration;

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    bed::{Bed, CREATORS, Operator},
    limit, observer,
    report::{Report, ms},
};

/// How many classes, and how many namespaces use each.
const CLASSES: usize = 100;
const NAMESPACES_OF_EACH: usize = 10;

/// How many changes are measured together: the kernel counts processor time in hundredths of a second.
const CHANGES: usize = 20;

/// So many DataKeys in all: first each is refused by its class, then each is Ready.
pub async fn run(bed: &Bed, count: usize, report: &mut Report) {
    for class in 0..CLASSES {
        write(bed, class, &json!([]), 0).await;
    }
    let namespaces: Vec<_> = (0..CLASSES * NAMESPACES_OF_EACH).map(|number| format!("classes-{number}")).collect();
    let each = count.div_ceil(namespaces.len());
    for namespace in &namespaces {
        bed.plane.namespace(namespace).await;
    }
    let work = namespaces.iter().enumerate().flat_map(|(number, namespace)| {
        (0..each).map(move |key| (number % CLASSES, namespace.clone(), format!("k-{key}")))
    });
    let admin = bed.admin.clone();
    limit::each(work.collect(), CREATORS, move |(class, namespace, name): (usize, String, String)| {
        let admin = admin.clone();
        async move { create(&admin, &namespace, &name, class).await }
    })
    .await;

    // Refused DataKeys are retried after half a minute by default, which would count for the changes.
    let operator = bed.operator_of_all(&[crate::bed::UNLIMITED, "--retry-min=10m", "--retry-max=24h"]).await;
    operator.rest().await;
    let refused = measure(bed, &operator, &json!([])).await;
    for class in 0..CLASSES {
        write(bed, class, &json!(["classes-*"]), 1000).await;
    }
    operator.rest().await;
    let ready = measure(bed, &operator, &json!(["classes-*"])).await;
    let row = |what: &str, cost: Duration| vec![what.to_owned(), ms(cost)];
    report.table(
        &[
            &format!("one of {CLASSES} classes changes; {count} DataKeys in {} namespaces", namespaces.len()),
            "operator, processor time",
        ],
        &[
            row(&format!("it refuses its {} DataKeys, before and after", each * NAMESPACES_OF_EACH), refused),
            row("all are Ready", ready),
        ],
    );
}

/// The operator's processor time for one change.
async fn measure(bed: &Bed, operator: &Operator, namespaces: &serde_json::Value) -> Duration {
    let before = operator.cpu();
    for change in 0..CHANGES {
        write(bed, change % CLASSES, namespaces, 2000 + change).await;
        sleep(Duration::from_millis(500)).await;
    }
    operator.rest().await;
    (operator.cpu() - before) / CHANGES as u32
}

/// Creates a class, under number 0, or changes it. Another number is another state of it.
async fn write(bed: &Bed, class: usize, namespaces: &serde_json::Value, number: usize) {
    let name = format!("class-{class}");
    let body = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKeyClass",
        "metadata": { "name": name },
        "spec": {
            "namespaces": namespaces,
            "allow": [{ "keyIds": ["alias/orders", format!("alias/number-{number}")] }],
        },
    });
    let body = Bytes::from(body.to_string());
    let classes = "/apis/datakey.dev/v1alpha1/datakeyclasses";
    if number == 0 {
        bed.admin.write(Method::POST, classes, body, StatusCode::CREATED).await;
    } else {
        bed.admin.write(Method::PATCH, &format!("{classes}/{name}"), body, StatusCode::OK).await;
    }
}

async fn create(admin: &crate::bare::Bare, namespace: &str, name: &str, class: usize) {
    let manifest = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "className": format!("class-{class}"), "keyId": "alias/orders", "keySpec": "AES_256" },
    });
    admin.write(Method::POST, &observer::keys(namespace), Bytes::from(manifest.to_string()), StatusCode::CREATED).await;
}
