use datakey::selection::Versions;
use serde_json::json;

use super::*;
use crate::fixtures::{at, edited, pair_of, ready};

const NEW: &str = "arn:aws:kms:eu-west-1:999999999999:key/99999999-12ab-34cd-56ef-1234567890ab";

fn wanted(rotates: bool) -> Move {
    let to = Destination { key_arn: NEW.to_owned(), key_id: NEW.to_owned(), context: None };
    Move { to, versions: Versions::All, from: None, rotates, includes_adopted: false }
}

/// The object after the move, with the answers of KMS.
fn moved_by(fetched: &FetchedKey, wanted: &Move) -> FetchedKey {
    let plan = Plan::of(fetched.key.object(), wanted).unwrap();
    let answer = |number: i32| Rewrapped {
        ciphertext_blob: format!("rewrapped data key {number}").into_bytes(),
        key_arn: wanted.to.key_arn.clone(),
        key_material_id: None,
        request_id: Some("request".to_owned()),
    };
    let pins: Vec<_> = plan.rewraps.iter().map(|rewrap| rewrap.pin(answer(rewrap.number), at(99))).collect();
    moved(fetched, &plan, &wanted.to, &pins).unwrap()
}

#[test]
fn pins_are_rewraps_of_the_version_that_kms_issued() {
    for fetched in [ready(&[1, 2]), pair_of(&ready(&[1, 2]))] {
        let moved = moved_by(&fetched, &wanted(true));
        let pins = moved.key.pinned_versions();
        assert_eq!(pins.len(), 2);
        for (pin, version) in pins.iter().zip([1, 2]) {
            let source = fetched.key.recorded_version(version).unwrap();
            let rewrap_of = pin.rewrap_of.as_ref().unwrap();
            assert_eq!((pin.version, rewrap_of.version), (version + 2, version));
            assert_eq!((&*pin.key_id, &*pin.request.key_id, &pin.request_id), (NEW, NEW, &None));
            assert_eq!((pin.request.context(), &pin.public_key), (source.request.context(), &source.public_key));
            assert_eq!(rewrap_of.request_id.as_deref(), Some("request"));
        }
        assert_eq!((&moved.value["spec"]["version"], &moved.value["spec"]["keyId"]), (&json!(5), &json!(NEW)));
    }
}

#[test]
fn spec_without_a_rotation_is_that_of_the_rewrap() {
    let regional = edited(ready(&[1, 2]), |value| {
        value["spec"]["region"] = json!("eu-west-1");
        for version in value["status"]["versions"].as_array_mut().unwrap() {
            version["request"]["region"] = json!("eu-west-1");
        }
    });
    let spec = &moved_by(&regional, &wanted(false)).value["spec"];
    assert_eq!((&spec["version"], &spec["keyId"], spec.get("region")), (&json!(4), &json!(NEW), None));
    assert_eq!(spec["encryptionContext"], json!({ "purpose": "orders" }));
}

#[test]
fn manifest_has_every_version_once() {
    let moved = moved_by(&ready(&[1, 2]), &wanted(true));
    let numbers = |value: &Value| -> Vec<_> {
        value["spec"]["wrappedKeys"].as_array().unwrap().iter().map(|pin| pin["version"].clone()).collect()
    };
    assert_eq!(numbers(&manifest(&moved).unwrap()), [1, 2, 3, 4]);
    let both = edited(ready(&[1, 2]), |value| value["spec"]["wrappedKeys"] = value["status"]["versions"].clone());
    assert_eq!(numbers(&manifest(&moved_by(&both, &wanted(true))).unwrap()), [1, 2, 3, 4]);
}

#[test]
fn patch_is_guarded_and_has_the_changes_alone() {
    let before = ready(&[1, 2]);
    let moved = moved_by(&before, &wanted(true));
    let patch_of = |moved: &FetchedKey| patch(&before, moved).unwrap();
    let made = patch_of(&moved).unwrap();
    assert_eq!(made["metadata"], json!({ "uid": "7c3c8f7e-0001", "resourceVersion": "100" }));
    let spec = made["spec"].as_object().unwrap();
    assert_eq!(spec.keys().collect::<Vec<_>>(), ["keyId", "version", "wrappedKeys"]);
    assert_eq!(spec["wrappedKeys"], moved.value["spec"]["wrappedKeys"]);
    assert_eq!(patch(&moved, &moved).unwrap(), None, "it is there");
    // A manifest of all versions brings only those that the cluster lacks.
    let whole = edited(before.clone(), |value| value["spec"] = manifest(&moved).unwrap()["spec"].clone());
    assert_eq!(patch_of(&whole), Some(made));
}

#[test]
fn fields_that_are_gone_are_removed_by_the_patch() {
    let before = edited(ready(&[1]), |value| value["spec"]["region"] = json!("eu-west-1"));
    let after = edited(before.clone(), |value| _ = value["spec"].as_object_mut().unwrap().remove("region"));
    assert_eq!(patch(&before, &after).unwrap().unwrap()["spec"], json!({ "region": null }));
}

/// What the API server makes of a merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (field, value) in patch {
        if value.is_null() {
            target.remove(field);
        } else {
            merge(target.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

#[test]
fn patched_object_has_the_spec_that_was_planned() {
    let before = ready(&[1, 2]);
    let contexts = [
        None,
        Some(json!({})),
        Some(json!({ "stage": "prod" })),
        Some(json!({ "purpose": "bank" })),
        Some(json!({ "purpose": "orders", "stage": "prod" })),
    ];
    for context in contexts {
        for rotates in [true, false] {
            let mut wanted = wanted(rotates);
            wanted.to.context = context.clone().map(|context| serde_json::from_value(context).unwrap());
            let moved = moved_by(&before, &wanted);
            let mut patched = before.value.clone();
            merge(&mut patched, &patch(&before, &moved).unwrap().unwrap());
            assert_eq!(patched["spec"], moved.value["spec"], "{context:?}");
        }
    }
}

#[test]
fn file_of_an_earlier_run_must_fit_the_object() {
    let before = ready(&[1, 2]);
    let saved = manifest(&moved_by(&before, &wanted(true))).unwrap();
    assert_eq!(with_spec_of(&before, &saved).unwrap().key.wanted_version(), 5);
    let why = |fetched: &FetchedKey, manifest: &Value| with_spec_of(fetched, manifest).unwrap_err();
    let mut other = saved.clone();
    other["metadata"]["name"] = json!("payments");
    assert!(why(&before, &other).contains("is not about DataKey orders in namespace shop"));
    assert!(why(&pair_of(&before), &saved).contains("is not about DataKeyPair"));
    // The object went on: version 3 is another data key now.
    assert!(why(&ready(&[1, 2, 3]), &saved).contains("does not fit"), "{}", why(&ready(&[1, 2, 3]), &saved));
    let later = edited(before.clone(), |value| value["spec"]["version"] = json!(6));
    assert!(why(&later, &saved).contains("makes version 5 current, and in the cluster it is version 6"));
    let mut spoiled = saved;
    spoiled["spec"]["wrappedKeys"][2]["rewrapOf"]["version"] = json!(9);
    assert!(why(&before, &spoiled).contains("rewrapOf.version"));
}

/// What is said of a file of an earlier run.
fn judged(fetched: &FetchedKey, saved: &FetchedKey, wanted: &Move) -> Result<(), String> {
    check_saved(fetched, &Plan::of(fetched.key.object(), wanted).unwrap(), saved, wanted)
}

#[test]
fn file_of_a_run_with_other_flags_is_refused() {
    let before = ready(&[1, 2]);
    let under = |context: Option<Value>, rotates| {
        let mut wanted = wanted(rotates);
        wanted.to.context = context.map(|context| serde_json::from_value(context).unwrap());
        wanted
    };
    let saved = |wanted: &Move| with_spec_of(&before, &manifest(&moved_by(&before, wanted)).unwrap()).unwrap();
    let (plain, moved) = (|rotates| under(None, rotates), under(Some(json!({ "stage": "prod" })), true));
    for same in [plain(true), plain(false), moved.clone()] {
        assert_eq!(judged(&before, &saved(&same), &same), Ok(()));
    }
    let why = |saved: &FetchedKey, wanted: &Move| judged(&before, saved, wanted).unwrap_err();
    assert!(why(&saved(&moved), &plain(true)).contains("has a version 3 that this move does not make"));
    assert!(why(&saved(&plain(true)), &moved).contains("has a version 3 that this move does not make"));
    assert!(why(&saved(&plain(true)), &plain(false)).contains("has another spec.version than this move makes"));
    let changed = |change: fn(&mut Value)| {
        let mut file = manifest(&moved_by(&before, &wanted(true))).unwrap();
        change(&mut file["spec"]["wrappedKeys"][2]);
        with_spec_of(&before, &file).unwrap()
    };
    let no_rewrap = changed(|pin| _ = pin.as_object_mut().unwrap().remove("rewrapOf"));
    let by_another = changed(|pin| {
        pin["keyId"] = json!(NEW.replace("9999-", "8888-"));
        pin["request"]["keyId"] = pin["keyId"].clone();
    });
    let by_alias = changed(|pin| pin["request"]["keyId"] = json!("alias/other"));
    for other in [no_rewrap, by_another, by_alias] {
        assert!(why(&other, &plain(true)).contains("has a version 3 that this move does not make"));
    }
    for (field, value) in [
        ("keyId", json!("alias/other")),
        ("region", json!("us-east-1")),
        ("encryptionContext", json!({ "purpose": "other" })),
        ("version", json!(i32::MAX)),
    ] {
        let mut file = manifest(&moved_by(&before, &wanted(true))).unwrap();
        if field == "region" {
            file["spec"]["keyId"] = json!("alias/other");
        }
        file["spec"][field] = value;
        let why = why(&with_spec_of(&before, &file).unwrap(), &plain(true));
        assert!(why.starts_with("has another spec."), "{field}: {why}");
    }
    // What the cluster has already is not judged.
    let done = edited(before.clone(), |value| value["spec"] = saved(&moved).value["spec"].clone());
    assert_eq!(judged(&done, &saved(&moved), &plain(false)), Ok(()));
}

#[test]
fn alias_is_looked_up_in_the_region_of_the_destination() {
    let elsewhere = edited(ready(&[1]), |value| value["spec"]["region"] = json!("us-east-1"));
    for rotates in [true, false] {
        let mut wanted = wanted(rotates);
        wanted.to.key_id = "alias/new".to_owned();
        let moved = moved_by(&elsewhere, &wanted);
        assert_eq!(
            (&moved.value["spec"]["keyId"], &moved.value["spec"]["region"]),
            (&json!("alias/new"), &json!("eu-west-1"))
        );
        assert_eq!(moved.key.pinned_versions()[0].request.region.as_deref(), Some("eu-west-1"));
    }
}
