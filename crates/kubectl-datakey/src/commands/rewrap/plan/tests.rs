use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::FetchedKey,
    fixtures::{ARN, edited, pair_of, ready},
};

const NEW: &str = "arn:aws:kms:eu-west-1:999999999999:key/99999999-12ab-34cd-56ef-1234567890ab";

fn to(context: Option<&[(&str, &str)]>) -> Destination {
    let context =
        context.map(|pairs| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
    Destination { key_arn: NEW.to_owned(), key_id: NEW.to_owned(), context }
}

fn all() -> Move {
    Move { to: to(None), versions: Versions::All, from: None, rotates: true, includes_adopted: false }
}

/// Numbers of versions, each with another one.
type Numbers = Vec<(i32, i32)>;

/// The plan, by source and new number, what is there, and what becomes current.
fn planned(fetched: &FetchedKey, wanted: &Move) -> (Numbers, Numbers, Next) {
    let plan = Plan::of(fetched.key.object(), wanted).unwrap();
    let rewraps = plan.rewraps.iter().map(|rewrap| (rewrap.source.version, rewrap.number)).collect();
    (rewraps, plan.present.into_iter().collect(), plan.next)
}

fn refusal(fetched: &FetchedKey, wanted: &Move) -> String {
    Plan::of(fetched.key.object(), wanted).unwrap_err().to_string()
}

/// Adds this version to the record: under the new KMS key, as a rewrap of another one if it is given.
fn add(value: &mut Value, number: i32, rewrap_of: Option<i32>) {
    let mut entry = json!(crate::fixtures::issued(number));
    entry["keyId"] = json!(NEW);
    entry["request"]["keyId"] = json!(NEW);
    if let Some(version) = rewrap_of {
        entry["rewrapOf"] = json!({ "version": version });
    }
    value["status"]["versions"].as_array_mut().unwrap().push(entry);
}

/// What a move makes of a DataKey with versions 1 and 2: rewraps 3 and 4, and version 5, issued there.
fn moved(is_issued: bool) -> FetchedKey {
    edited(ready(&[1, 2]), |value| {
        add(value, 3, Some(1));
        add(value, 4, Some(2));
        if is_issued {
            add(value, 5, None);
        }
        value["spec"]["version"] = json!(5);
        value["spec"]["keyId"] = json!(NEW);
    })
}

#[test]
fn each_version_is_rewrapped_and_a_new_one_is_issued() {
    for fetched in [ready(&[1, 2]), pair_of(&ready(&[1, 2]))] {
        assert_eq!(planned(&fetched, &all()), (vec![(1, 3), (2, 4)], vec![], Next::New(5)));
        let stays = Move { rotates: false, ..all() };
        assert_eq!(planned(&fetched, &stays), (vec![(1, 3), (2, 4)], vec![], Next::Existing(4)));
        let only = |versions| Move { versions, ..all() };
        assert_eq!(planned(&fetched, &only(Versions::Current)), (vec![(2, 3)], vec![], Next::New(4)));
        assert_eq!(planned(&fetched, &only(Versions::Only([1].into()))), (vec![(1, 3)], vec![], Next::Unchanged));
        assert!(refusal(&fetched, &only(Versions::Only([1, 7].into()))).ends_with("no version 7: it has 1, 2"));
    }
}

#[test]
fn what_is_moved_is_not_moved_again() {
    for is_issued in [true, false] {
        let (rewraps, present, next) = planned(&moved(is_issued), &all());
        assert_eq!((rewraps, next), (vec![], Next::Unchanged));
        assert_eq!(present[..2], [(1, 3), (2, 4)]);
        assert!(Plan::of(moved(is_issued).key.object(), &all()).unwrap().is_done());
    }
    // The pins are not recorded yet.
    let pinned = edited(ready(&[1, 2]), |value| {
        add(value, 3, Some(1));
        add(value, 4, Some(2));
        let pins: Vec<_> = value["status"]["versions"].as_array_mut().unwrap().drain(2..).collect();
        value["spec"]["wrappedKeys"] = json!(pins);
        value["spec"]["version"] = json!(5);
        value["spec"]["keyId"] = json!(NEW);
    });
    assert_eq!(planned(&pinned, &all()), (vec![], vec![(1, 3), (2, 4)], Next::Unchanged));
}

#[test]
fn spec_that_was_set_back_needs_no_further_version() {
    let back = edited(moved(true), |value| {
        value["spec"]["version"] = json!(2);
        value["spec"]["keyId"] = json!(ARN);
    });
    assert_eq!(planned(&back, &all()), (vec![], vec![(1, 3), (2, 4), (3, 3), (4, 4), (5, 5)], Next::Existing(5)));
    let shorter = edited(back.clone(), |value| value["status"]["versions"][4]["request"]["keySpec"] = json!("AES_128"));
    assert_eq!(planned(&shorter, &all()).2, Next::New(6));
    let by_another = edited(back, |value| value["status"]["versions"][4]["keyId"] = json!(ARN));
    assert_eq!(planned(&by_another, &all()).2, Next::New(7));
}

#[test]
fn way_back_uses_what_is_there() {
    let back =
        Move { to: Destination { key_arn: ARN.to_owned(), key_id: "alias/orders".to_owned(), context: None }, ..all() };
    let (rewraps, present, next) = planned(&moved(true), &back);
    assert_eq!((rewraps, next), (vec![(5, 6)], Next::New(7)));
    assert_eq!(present, [(1, 1), (2, 2), (3, 1), (4, 2)]);
    let stays = Move { rotates: false, ..back };
    assert_eq!(planned(&moved(true), &stays).2, Next::Existing(6));
    let current = edited(moved(true), |value| {
        value["spec"]["version"] = json!(4);
    });
    assert_eq!(
        planned(&current, &Move { versions: Versions::Current, ..stays }),
        (vec![], vec![(4, 2)], Next::Existing(2))
    );
}

#[test]
fn third_kms_key_gets_each_data_key_once() {
    let third = NEW.replace("99999999-", "77777777-");
    let on = Move { to: Destination { key_arn: third.clone(), key_id: third, context: None }, ..all() };
    assert_eq!(planned(&moved(true), &on).0, [(1, 6), (2, 7), (5, 8)]);
    // The first one may be gone.
    let plan = Plan::of(moved(true).key.object(), &on).unwrap();
    let alternatives =
        |rewrap: &Rewrap| rewrap.alternatives.iter().map(|other| other.source.version).collect::<Vec<_>>();
    assert_eq!(plan.rewraps.iter().map(alternatives).collect::<Vec<_>>(), [vec![3], vec![4], vec![]]);
    let from_second = Move { from: Some(NEW.to_owned()), ..on.clone() };
    assert_eq!(planned(&moved(true), &from_second).0, [(3, 6), (4, 7), (5, 8)]);
    let from = Move { from: Some(ARN.to_owned()), ..on };
    assert_eq!(planned(&moved(true), &from), (vec![(1, 6), (2, 7)], vec![], Next::Unchanged));
    let plan = Plan::of(moved(true).key.object(), &from).unwrap();
    assert!(plan.rewraps.iter().all(|rewrap| rewrap.root == rewrap.source.version));
}

#[test]
fn other_context_under_the_same_kms_key_is_a_move() {
    let to = Destination {
        key_arn: ARN.to_owned(),
        key_id: ARN.to_owned(),
        ..to(Some(&[("purpose", "orders"), ("stage", "prod")]))
    };
    let plan = Plan::of(ready(&[1]).key.object(), &Move { to, ..all() }).unwrap();
    assert_eq!(plan.rewraps[0].context.len(), 2);
    assert_eq!(plan.rewraps[0].as_written, None);
    let same = Destination { key_arn: ARN.to_owned(), key_id: ARN.to_owned(), context: None };
    assert!(Plan::of(ready(&[1]).key.object(), &Move { to: same, ..all() }).unwrap().is_done());
}

#[test]
fn pairs_that_a_class_added_stay() {
    let by_class = edited(ready(&[1]), |value| {
        let version = &mut value["status"]["versions"][0];
        version["asWritten"] = json!({ "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" } });
        version["request"]["encryptionContext"] = json!({ "purpose": "orders", "namespace": "shop" });
        version["class"] = json!({ "name": "shop", "uid": "u", "generation": 1 });
    });
    let rewrap = |context| {
        let plan = Plan::of(by_class.key.object(), &Move { to: to(context), ..all() });
        plan.map(|mut plan| plan.rewraps.remove(0)).map_err(|why| why.to_string())
    };
    let kept = rewrap(None).unwrap();
    assert_eq!(json!(kept.context), json!({ "purpose": "orders", "namespace": "shop" }));
    let written = json!({ "keyId": NEW, "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" } });
    assert_eq!(json!(kept.as_written), written);
    let other = rewrap(Some(&[("stage", "prod")])).unwrap();
    assert_eq!(json!(other.context), json!({ "stage": "prod", "namespace": "shop" }));
    assert!(rewrap(Some(&[("namespace", "bank")])).unwrap_err().contains("leave it out of --to-context"));
}

#[test]
fn version_of_a_newer_release_is_not_rewrapped() {
    let newer = edited(ready(&[1]), |value| value["status"]["versions"][0]["request"]["recipient"] = json!("x"));
    assert!(refusal(&newer, &all()).contains("version 1 has request.recipient, which this release does not know"));
}

#[test]
fn version_that_is_not_issued_is_issued_there() {
    let waiting = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
    assert_eq!(planned(&waiting, &all()), (vec![(1, 3)], vec![], Next::New(2)));
    let plan = Plan::of(waiting.key.object(), &all()).unwrap();
    assert_eq!(plan.used, 3);
    // The alias of the spec was this KMS key when version 1 was issued.
    let from = |arn: &str| Move { from: Some(arn.to_owned()), ..all() };
    assert_eq!(planned(&waiting, &from(ARN)).2, Next::New(2));
    let elsewhere = edited(waiting, |value| value["spec"]["keyId"] = json!("alias/elsewhere"));
    assert_eq!(planned(&elsewhere, &from(ARN)).2, Next::Unchanged);
}

#[test]
fn numbers_are_counted_against_the_64() {
    let plan = |count, wanted: &Move| Plan::of(ready(&(1..=count).collect::<Vec<_>>()).key.object(), wanted);
    assert_eq!(plan(31, &all()).unwrap().used, 63);
    let why = plan(32, &all()).unwrap_err().to_string();
    assert!(why.contains("32 of 64 versions, and 33 more are needed") && why.contains("--no-rotate"), "{why}");
    let stays = Move { rotates: false, ..all() };
    assert_eq!(plan(32, &stays).unwrap().used, 64);
    assert!(plan(33, &stays).is_err());
    let highest = edited(ready(&[1]), |value| value["spec"]["version"] = json!(i32::MAX));
    assert!(refusal(&highest, &all()).contains("the highest number"));
}

#[test]
fn regions_and_partitions_must_fit() {
    let mrk = |region: &str| format!("arn:aws:kms:{region}:111122223333:key/mrk-{}", "0a".repeat(16));
    let under = |arn: &str| edited(ready(&[1]), |value| value["status"]["versions"][0]["keyId"] = json!(arn));
    let to = |arn: &str| Move {
        to: Destination { key_arn: arn.to_owned(), key_id: arn.to_owned(), context: None },
        ..all()
    };
    let why = refusal(&ready(&[1]), &to(&mrk("us-east-1")));
    assert!(why.starts_with("version 1: ") && why.contains("name a multi-Region key in eu-west-1"), "{why}");
    assert!(refusal(&ready(&[1]), &to(&NEW.replace("aws:", "aws-cn:"))).contains("within one partition only"));
    let plan = Plan::of(under(&mrk("eu-west-1")).key.object(), &to(&NEW.replace("eu-west-1", "us-east-1"))).unwrap();
    assert_eq!(plan.rewraps[0].source_key, mrk("us-east-1"));
    // A replica has what the other one wrapped.
    assert_eq!(planned(&under(&mrk("eu-west-1")), &to(&mrk("us-east-1"))), (vec![], vec![(1, 1)], Next::Unchanged));
}

#[test]
fn region_of_the_spec_is_that_of_the_destination() {
    let mrk = format!("mrk-{}", "0a".repeat(16));
    for (key_id, present, expected) in [
        (NEW, Some("us-east-1"), None),
        ("alias/new", None, Some("eu-west-1")),
        ("alias/new", Some("us-east-1"), Some("eu-west-1")),
        (&mrk, None, None),
        (&mrk, Some("us-east-1"), Some("us-east-1")),
    ] {
        let to = Destination { key_id: key_id.to_owned(), ..to(None) };
        assert_eq!(to.region_of_spec(present), expected, "{key_id}");
    }
    let to = Destination { key_id: "alias/new".to_owned(), ..to(None) };
    let plan = Plan::of(ready(&[1]).key.object(), &Move { to, ..all() }).unwrap();
    assert_eq!(plan.rewraps[0].request.region.as_deref(), Some("eu-west-1"));
}

#[test]
fn only_an_issued_object_that_stays_is_moved() {
    let obstacle = |fetched: FetchedKey| Plan::of(fetched.key.object(), &all()).unwrap_err();
    assert_eq!(obstacle(crate::fixtures::recorded(&[])), Obstacle::NotIssued);
    let deleted = edited(ready(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
    assert_eq!(obstacle(deleted), Obstacle::Deleting);
}

#[test]
fn adopted_versions_are_moved_only_if_that_is_asked_for() {
    let adopted = edited(ready(&[1]), |value| value["status"]["adopted"] = json!(true));
    let why = refusal(&adopted, &all());
    assert!(why.contains("wrapped data key of another team") && why.ends_with("add --include-adopted"), "{why}");
    let asked = Move { includes_adopted: true, ..all() };
    assert_eq!(planned(&adopted, &asked).0, [(1, 2)]);
    // Nothing is rewrapped.
    let moved = edited(moved(true), |value| value["status"]["adopted"] = json!(true));
    assert!(Plan::of(moved.key.object(), &all()).unwrap().is_done());
}

/// What a pin says of the encryption context in the spec decides on no call of KMS.
#[test]
fn context_is_kept_whatever_a_pin_says_of_it() {
    let forged = edited(ready(&[1]), |value| {
        value["status"]["versions"][0]["asWritten"] =
            json!({ "keySpec": "AES_256", "encryptionContext": { "team": "bank" } });
    });
    let plan = |context| Plan::of(forged.key.object(), &Move { to: to(context), ..all() });
    assert_eq!(json!(plan(None).unwrap().rewraps[0].context), json!({ "purpose": "orders" }));
    let why = plan(Some(&[("stage", "prod")])).unwrap_err().to_string();
    assert!(why.contains("asWritten of its record has pairs that its encryption context does not have"), "{why}");
}
