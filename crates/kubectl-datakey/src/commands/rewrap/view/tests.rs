use datakey::selection::Versions;
use serde_json::json;

use super::*;
use crate::{
    commands::rewrap::plan::Destination,
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
fn census_names_the_kms_keys_that_the_move_uses() {
    let third = NEW.replace("99999999-", "77777777-");
    let fetched = edited(ready(&[1, 2, 3]), |value| {
        value["status"]["versions"][1]["keyId"] = json!(NEW);
        value["status"]["versions"][2]["keyId"] = json!(third);
    });
    let text = plan_of(&[fetched], &Move { from: Some(ARN.to_owned()), ..wanted(true) }).text();
    let side = |arn: &str| {
        let line = text.lines().find(|line| line.starts_with(arn)).unwrap();
        line.split_whitespace().nth(1).unwrap()
    };
    assert_eq!([side(ARN), side(NEW), side(&third)], ["from", "to", "<none>"], "{text}");
}

#[test]
fn pinned_rewrap_is_not_said_to_be_recorded() {
    let pinned = edited(ready(&[1, 2]), |value| {
        let pin = &mut value["status"]["versions"].as_array_mut().unwrap().pop().unwrap();
        pin["keyId"] = json!(NEW);
        pin["rewrapOf"] = json!({ "version": 1 });
        value["spec"]["wrappedKeys"] = json!([pin]);
        value["spec"]["version"] = json!(1);
    });
    let text = plan_of(&[pinned], &wanted(false)).text();
    let line = "version 1 is under the new KMS key already, as version 2 (pinned, not recorded yet)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn rights_are_those_that_the_plan_needs() {
    let rights = plan_of(&[ready(&[1])], &wanted(false)).rights().unwrap();
    assert!(rights.contains("kms:ReEncryptFrom") && !rights.contains("GenerateDataKey"), "{rights}");
    let there = edited(ready(&[1]), |value| value["status"]["versions"][0]["keyId"] = json!(NEW));
    assert_eq!(plan_of(&[there], &wanted(true)).rights(), None);
}
