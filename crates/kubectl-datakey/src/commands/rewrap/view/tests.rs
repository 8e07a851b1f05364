use serde_json::json;

use super::*;
use crate::{
    commands::rewrap::plan::{Destination, Versions},
    fixtures::{ARN, edited, pair_of, ready, recorded},
    output::json as to_json,
};

const NEW: &str = "arn:aws:kms:eu-west-1:999999999999:key/99999999-12ab-34cd-56ef-1234567890ab";

fn wanted(rotates: bool) -> Move {
    let to = Destination { key_arn: NEW.to_owned(), key_id: NEW.to_owned(), context: None };
    Move { to, versions: Versions::All, from: None, rotates, includes_adopted: false }
}

fn plan_of(listed: &[FetchedKey], wanted: &Move) -> MovePlan {
    let plans: Vec<_> = listed.iter().map(|fetched| Plan::of(fetched.key.object(), wanted)).collect();
    MovePlan::of(wanted, listed, listed.iter().zip(&plans))
}

/// A DataKey that is partly moved, one that is not, a pair, and one that is not issued.
fn listed() -> Vec<FetchedKey> {
    let partly = edited(ready(&[1, 2]), |value| {
        value["metadata"]["name"] = json!("payments");
        value["status"]["versions"][1]["keyId"] = json!(NEW);
        value["status"]["versions"][1]["rewrapOf"] = json!({ "version": 1 });
    });
    let elsewhere = edited(ready(&[1]), |value| value["metadata"]["namespace"] = json!("bank"));
    vec![ready(&[1, 2]), partly, pair_of(&elsewhere), recorded(&[])]
}

#[test]
fn plan_is_printed_as_recorded() {
    let plan = plan_of(&listed(), &wanted(true));
    insta::assert_snapshot!("rewrap-plan", plan.text());
    insta::assert_snapshot!("rewrap-plan-json", to_json(&plan).unwrap());
}

#[test]
fn census_counts_versions_objects_and_namespaces() {
    let plan = plan_of(&listed(), &wanted(true));
    let count = |key_id: &str, versions, objects, namespaces| KmsKeyCount {
        key_id: key_id.to_owned(),
        versions,
        objects,
        namespaces,
    };
    assert_eq!(plan.census, [count(ARN, 4, 3, 2), count(NEW, 1, 1, 1)]);
}

#[test]
fn rights_are_those_that_the_plan_needs() {
    let rights = plan_of(&[ready(&[1])], &wanted(false)).rights().unwrap();
    assert!(rights.contains("kms:ReEncryptFrom") && !rights.contains("GenerateDataKey"), "{rights}");
    let there = edited(ready(&[1]), |value| value["status"]["versions"][0]["keyId"] = json!(NEW));
    assert_eq!(plan_of(&[there], &wanted(true)).rights(), None);
}
