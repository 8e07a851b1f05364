//! What the validation rules of the definition cost: the same requests with the rules and without them, in turn.

use std::time::Duration;

use hyper::{Method, StatusCode, body::Bytes};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    bare::JSON,
    bed::{Bed, Issuing},
    observer,
    report::{Report, ms},
    stats::median,
};

const DEFINITION: &str = "datakeys.datakey.dev";

/// Brings so many DataKeys to Ready in pairs of rounds, with the rules and without them.
pub async fn run(bed: &Bed, size: usize, pairs: usize, report: &mut Report) {
    let definition = definitions(bed).await.get(DEFINITION).await.unwrap();
    let [mut with, mut without] = [const { Vec::new() }; 2];
    for pair in 0..pairs {
        // The second of two rounds has a larger database and a longer heap, so each side is the first in half of the pairs.
        for is_first in [true, false] {
            let has_rules = is_first == (pair % 2 == 0);
            install(bed, &definition, has_rules).await;
            let issuing = bed.limit(&format!("rules-{pair}-{has_rules}"), size).await;
            println!("{size} with rules {has_rules}: {issuing:?}");
            if has_rules { &mut with } else { &mut without }.push(issuing);
        }
    }
    install(bed, &definition, true).await;
    let cpu = |of: &[Issuing]| median(&of.iter().map(|issuing| issuing.apiserver.as_secs_f64()).collect::<Vec<_>>());
    let speed = |of: &[Issuing]| median(&of.iter().map(|issuing| issuing.speed).collect::<Vec<_>>());
    let share: Vec<_> = with
        .iter()
        .zip(&without)
        .map(|(with, without)| 1.0 - without.apiserver.as_secs_f64() / with.apiserver.as_secs_f64())
        .collect();
    let row = |what: &str, of: &[Issuing]| {
        vec![what.to_owned(), ms(Duration::from_secs_f64(cpu(of))), format!("{:.0}", speed(of))]
    };
    report.table(
        &["definition", "API server, processor time for each", "keys/s"],
        &[row("with its rules", &with), row("without rules", &without)],
    );
    let each: Vec<_> = share.iter().map(|share| format!("{:.1} %", 100.0 * share)).collect();
    report.paragraph(&format!(
        "Share of the rules in the API server's time, median of {pairs} pairs: **{:.1} %** ({}).",
        100.0 * median(&share),
        each.join(", ")
    ));
}

async fn definitions(bed: &Bed) -> Api<CustomResourceDefinition> {
    Api::all(bed.plane.admin().await)
}

/// Installs the definition with or without its rules, and waits until the API server uses it.
async fn install(bed: &Bed, definition: &CustomResourceDefinition, has_rules: bool) {
    let mut versions = json!(definition.spec.versions);
    if !has_rules {
        remove_rules(&mut versions);
    }
    let patch = Patch::Merge(json!({ "spec": { "versions": versions } }));
    definitions(bed).await.patch(DEFINITION, &PatchParams::default(), &patch).await.unwrap();
    let invalid = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": { "name": "probe", "namespace": "default" },
        "spec": { "keyId": "not the ID of a key", "keySpec": "AES_256" },
    });
    let expected = if has_rules { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CREATED };
    let watch = format!("{}?watch=1&timeoutSeconds=1", observer::keys("default"));
    let dry_run = format!("{}?dryRun=All", observer::keys("default"));
    eventually(Duration::from_secs(30), "the definition is in use", async || {
        let answer = bed.admin.ask(Method::POST, &dry_run, JSON, invalid.to_string().into()).await;
        // Its new cache refuses watches with 429 until it is filled.
        answer.status == expected
            && bed.admin.ask(Method::GET, &watch, JSON, Bytes::new()).await.status == StatusCode::OK
    })
    .await;
}

fn remove_rules(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(remove_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_rules),
        _ => {}
    }
}
