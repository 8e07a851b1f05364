//! Many DataKeys rotated at once, and many Secrets gone at once.

use std::time::Instant;

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::json;

use crate::{
    bed::{Bed, CREATORS, UNLIMITED},
    limit,
    observer::{self, Observer},
    report::Report,
    stats::{median, per_second},
};

/// So many rounds of both; the operator is started when everything is changed, and the clock runs from when it is ready.
pub async fn run(bed: &Bed, count: usize, rounds: usize, report: &mut Report) {
    let (mut posts, mut rotations, mut healings) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let namespace = format!("repair-{round}");
        bed.plane.namespace(&namespace).await;
        drop(bed.issued(&namespace, "k", count).await);
        posts.push(bed.posts(&format!("posts-{round}"), count).await);
        rotations.push(rotation(bed, &namespace, count).await);
        posts.push(bed.posts(&format!("posts-{round}-again"), count).await);
        healings.push(healing(bed, &namespace, count).await);
    }
    let limit = median(&posts);
    let row = |what: &str, requests: &str, speeds: &[f64]| {
        let speed = median(speeds);
        vec![what.to_owned(), format!("{speed:.0}"), format!("{:.2}", speed / limit), requests.to_owned()]
    };
    let rows = [
        row("a bare loop of POSTs", "POST Secret", &posts),
        row(
            &format!("{count} DataKeys raised to version 2"),
            "PUT record, GET Secret, PUT Secret, PUT Ready",
            &rotations,
        ),
        row(&format!("{count} Secrets deleted"), "GET DataKey, POST Secret, PUT Ready, POST Event", &healings),
    ];
    report.table(&["what", "Secrets/s", "against bare POSTs", "requests of each"], &rows);
}

async fn rotation(bed: &Bed, namespace: &str, count: usize) -> f64 {
    let (admin, keys) = (bed.admin.clone(), observer::keys(namespace));
    let names = (0..count).map(|number| format!("k-{number:06}")).collect();
    limit::each(names, CREATORS, move |name: String| {
        let (admin, one) = (admin.clone(), format!("{keys}/{name}"));
        let patch = Bytes::from(json!({ "spec": { "version": 2 } }).to_string());
        async move {
            admin.write(Method::PATCH, &one, patch, StatusCode::OK).await;
        }
    })
    .await;
    let mut ready = Observer::keys(&bed.bare, namespace, 2).await;
    let operator = bed.operator(namespace, &[UNLIMITED]).await;
    per_second(count, ready.last(count).await - operator.ready)
}

async fn healing(bed: &Bed, namespace: &str, count: usize) -> f64 {
    bed.admin.write(Method::DELETE, &observer::secrets(namespace), Bytes::new(), StatusCode::OK).await;
    let mut created = Observer::secrets(&bed.bare, namespace).await;
    let calls = bed.kms.calls();
    let operator = bed.operator(namespace, &[UNLIMITED]).await;
    let last: Instant = created.last(count).await;
    assert_eq!(bed.kms.calls(), calls, "a deleted Secret comes back from the record");
    per_second(count, last - operator.ready)
}
