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
    bed::{Bed, Best, Issuing},
    observer,
    report::{Report, ms},
    stats::median,
};

const DEFINITION: &str = "datakeys.datakey.dev";

/// In how many rounds each side of a pair brings its DataKeys to Ready.
const ROUNDS: usize = 5;

/// Brings so many DataKeys to Ready in pairs, on an API server with the rules and on another one without them.
///
/// The two take turns in short rounds, because the speed of a machine changes within seconds. They are two servers, because one
/// that gets another definition builds its OpenAPI documents again, which takes longer than a round.
pub async fn run(best: Best, size: usize, pairs: usize, report: &mut Report) {
    let beds = [Bed::new(best).await, Bed::new(best).await];
    remove_rules_of(&beds[1]).await;
    let [mut with, mut without] = [const { Vec::new() }; 2];
    for pair in 0..pairs {
        let mut rounds = [const { Vec::new() }; 2];
        for round in 0..ROUNDS {
            // Each side is the first in half of the rounds.
            let order = if (pair + round) % 2 == 0 { [0, 1] } else { [1, 0] };
            for side in order {
                let namespace = format!("rules-{pair}-{round}");
                rounds[side].push(beds[side].limit(&namespace, size.div_ceil(ROUNDS)).await);
            }
        }
        let [of_rules, of_none] = rounds.map(|rounds| mean(&rounds));
        println!("{size} with rules {of_rules:?}, without {of_none:?}");
        with.push(of_rules);
        without.push(of_none);
    }
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

/// What rounds of the same size took together.
fn mean(rounds: &[Issuing]) -> Issuing {
    let count = rounds.len() as f64;
    let seconds: f64 = rounds.iter().map(|round| 1.0 / round.speed).sum();
    Issuing {
        speed: count / seconds,
        apiserver: rounds.iter().map(|round| round.apiserver).sum::<Duration>().div_f64(count),
    }
}

/// Replaces the definition by the same one without rules, and waits until the API server uses it.
async fn remove_rules_of(bed: &Bed) {
    let definitions = Api::<CustomResourceDefinition>::all(bed.plane.admin().await);
    let mut versions = json!(definitions.get(DEFINITION).await.unwrap().spec.versions);
    remove_rules(&mut versions);
    let patch = Patch::Merge(json!({ "spec": { "versions": versions } }));
    definitions.patch(DEFINITION, &PatchParams::default(), &patch).await.unwrap();
    let invalid = json!({
        "apiVersion": "datakey.dev/v1alpha1",
        "kind": "DataKey",
        "metadata": { "name": "probe", "namespace": "default" },
        "spec": { "keyId": "not the ID of a key", "keySpec": "AES_256" },
    });
    let watch = format!("{}?watch=1&timeoutSeconds=1", observer::keys("default"));
    let dry_run = format!("{}?dryRun=All", observer::keys("default"));
    eventually(Duration::from_secs(30), "the definition is in use", async || {
        let answer = bed.admin.ask(Method::POST, &dry_run, JSON, invalid.to_string().into()).await;
        // Its new cache refuses watches with 429 until it is filled.
        answer.status == StatusCode::CREATED
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
