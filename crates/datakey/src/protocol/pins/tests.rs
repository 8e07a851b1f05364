use k8s_openapi::ByteString;

use super::*;
use crate::{
    api::{DataKey, Rest, RewrapOf, flaws::tests::FLAWS},
    fixtures::{ARN, Edit, OTHER_REQUESTS, at, data_key, issued, pinned, recorded},
    secret::Projection,
};

const REPLICATED: &str = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

fn replica(region: &str) -> String {
    REPLICATED.replace("eu-west-1", region)
}

fn secret(versions: &[i32]) -> Secret {
    let key = recorded(versions);
    Projection::of(&key, key.wanted_version()).unwrap().into_secret(&key)
}

fn pins(key: &mut DataKey) -> &mut Vec<IssuedVersion> {
    key.spec.wrapped_keys.as_mut().unwrap()
}

/// A `DataKey` with one pin of a multi-Region key, requested by this key ID and Region.
fn multi_region(key_id: &str, region: Option<&str>) -> DataKey {
    let mut key = pinned(&[1]);
    let pin = &mut pins(&mut key)[0];
    pin.key_id = REPLICATED.to_owned();
    pin.request.key_id = key_id.to_owned();
    pin.request.region = region.map(str::to_owned);
    key.spec.key_id = Some(key_id.to_owned());
    key.spec.region = region.map(str::to_owned);
    key
}

fn names(key: &DataKey, own: Option<&str>) -> String {
    unrecorded(key, own).unwrap()[0].key_id.clone()
}

fn refusal(key: &DataKey) -> String {
    let failure = unrecorded(key, None).unwrap_err();
    assert_eq!(failure.reason, Reason::PinInvalid);
    failure.detail.unwrap()
}

#[test]
fn recorded_pins_need_no_write() {
    assert_eq!(unrecorded(&data_key(), None), Ok(vec![]));
    let mut key = recorded(&[1, 2]);
    key.spec.wrapped_keys = Some(vec![issued(1), issued(2)]);
    assert_eq!(unrecorded(&key, None), Ok(vec![]));
    key.spec.wrapped_keys = Some(vec![]);
    assert_eq!(unrecorded(&key, None), Ok(vec![]));
}

#[test]
fn pins_are_recorded_unchanged_in_order_of_version() {
    assert_eq!(unrecorded(&pinned(&[3, 1, 2]), Some("us-east-1")), Ok(vec![issued(1), issued(2), issued(3)]));
    let mut key = recorded(&[1]);
    key.spec.wrapped_keys = Some(vec![issued(2), issued(1)]);
    assert_eq!(unrecorded(&key, None), Ok(vec![issued(2)]));
}

#[test]
fn pin_that_differs_from_the_record_is_reported() {
    let edits: [(Edit<IssuedVersion>, &str); 5] = [
        (|pin| pin.ciphertext_blob = ByteString(b"another data key".to_vec()), "ciphertextBlob"),
        (|pin| pin.key_id = ARN.replace("1234abcd", "99999999"), "keyId"),
        (|pin| pin.key_id = ARN.replace("eu-west-1", "us-east-1"), "keyId"),
        (|pin| pin.request.key_id = "alias/other".into(), "request.keyId"),
        (|pin| pin.request.encryption_context = None, "request.encryptionContext"),
    ];
    for (edit, field) in edits {
        let mut key = recorded(&[1]);
        let mut pin = issued(1);
        edit(&mut pin);
        key.spec.wrapped_keys = Some(vec![pin, issued(2)]);
        let failure = unrecorded(&key, None).unwrap_err();
        assert_eq!(failure.reason, Reason::PinConflict);
        let detail = failure.detail.unwrap();
        assert!(detail.starts_with(&format!("version 1 differs: {field}")), "{detail}");
    }
}

#[test]
fn time_and_request_id_do_not_make_another_data_key() {
    let mut key = recorded(&[1]);
    let same = IssuedVersion {
        key_material_id: None,
        request_id: None,
        issued_at: crate::api::truncate_to_seconds(at(99)),
        ..issued(1)
    };
    key.spec.wrapped_keys = Some(vec![same]);
    assert_eq!(unrecorded(&key, None), Ok(vec![]));
}

#[test]
fn rewrap_of_does_not_make_another_data_key() {
    let rewrap_of = || Some(RewrapOf { version: 1, request_id: None, rest: Rest::new() });
    let mut key = recorded(&[1, 2]);
    let mut pin = issued(2);
    pin.rewrap_of = rewrap_of();
    key.spec.wrapped_keys = Some(vec![pin]);
    assert_eq!(unrecorded(&key, None), Ok(vec![]));
    key.status.as_mut().unwrap().versions[1].rewrap_of = rewrap_of();
    *pins(&mut key) = vec![issued(2)];
    assert_eq!(unrecorded(&key, None), Ok(vec![]));
}

#[test]
fn one_invalid_pin_is_reported_and_no_pin_is_recorded() {
    let edits: [(Edit<IssuedVersion>, &str); 4] = [
        (|pin| pin.request.key_id = ARN.replace("1234abcd", "99999999"), "not the ARN of the key that"),
        (|pin| pin.request.region = Some("us-east-1".into()), "not the ARN of the key that"),
        (|pin| pin.version = 2, "it is there twice"),
        (|pin| pin.ciphertext_blob = issued(2).ciphertext_blob, "ciphertextBlob is that of version 1, too"),
    ];
    for (edit, why) in edits.into_iter().chain(FLAWS) {
        let mut key = pinned(&[1, 2]);
        key.spec.version = Some(2);
        edit(&mut pins(&mut key)[0]);
        let refused = refusal(&key);
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn recorded_data_key_cannot_be_pinned_as_another_version() {
    let mut key = recorded(&[1]);
    key.spec.wrapped_keys = Some(vec![issued(1), IssuedVersion { version: 2, ..issued(1) }]);
    assert!(refusal(&key).contains("version 2: ciphertextBlob is that of version 1, too"));
}

#[test]
fn only_the_pin_of_the_wanted_version_must_match_the_spec() {
    for (change, field) in OTHER_REQUESTS {
        let mut key = pinned(&[1]);
        change(&mut key);
        let refused = refusal(&key);
        assert!(refused.starts_with(&format!("version 1: its request differs from the spec: {field} ")), "{refused}");
        key.spec.version = Some(2);
        assert_eq!(unrecorded(&key, None), Ok(vec![issued(1)]));
    }
}

#[test]
fn at_most_64_versions_are_recorded() {
    let all: Vec<_> = (1..=64).collect();
    assert_eq!(unrecorded(&pinned(&all), None).map(|pins| pins.len()), Ok(64));
    let mut key = recorded(&all);
    key.spec.wrapped_keys = Some(vec![issued(65)]);
    assert!(refusal(&key).contains("version 65: with it there would be more than 64"));
}

#[test]
fn record_names_the_replica_in_the_region_of_the_data_key() {
    for key_id in ["alias/orders", "mrk-1234abcd12ab34cd56ef1234567890ab"] {
        let key = multi_region(key_id, None);
        assert_eq!(names(&key, Some("us-east-1")), replica("us-east-1"), "the operator's own Region");
        assert_eq!(names(&key, Some("eu-west-1")), REPLICATED);
        assert_eq!(names(&key, None), REPLICATED, "no Region is known");
        let key = multi_region(key_id, Some("eu-north-1"));
        assert_eq!(names(&key, Some("us-east-1")), replica("eu-north-1"), "the spec's Region goes first");
    }
    let key = multi_region(&replica("eu-north-1"), None);
    assert_eq!(names(&key, Some("us-east-1")), replica("eu-north-1"), "the Region of the ARN that was asked for");
    let key = multi_region(&replica("us-east-1").replace("111122223333", "999999999999"), None);
    assert!(refusal(&key).contains("not the ARN of the key that"), "another account's");
}

#[test]
fn single_region_key_keeps_its_region() {
    assert_eq!(names(&pinned(&[1]), Some("us-east-1")), ARN);
}

#[test]
fn record_of_a_replica_agrees_with_a_pin_of_the_primary() {
    let mut key = multi_region("alias/orders", None);
    let recorded = unrecorded(&key, Some("us-east-1")).unwrap();
    assert_ne!(recorded[0].key_id, key.pinned_versions()[0].key_id);
    key.status = Some(with_recorded(&key, recorded));
    for own in [Some("us-east-1"), Some("eu-west-1"), None] {
        assert_eq!(unrecorded(&key, own), Ok(vec![]));
    }
    pins(&mut key)[0].key_id = REPLICATED.replace("mrk-1234", "mrk-9999");
    assert_eq!(unrecorded(&key, None).unwrap_err().reason, Reason::PinConflict);
}

#[test]
fn versions_in_the_secret_are_recorded_with_the_pins() {
    let taken = |pins: &[i32], held: &[i32], version| {
        let mut key = pinned(pins);
        key.spec.version = Some(version);
        merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), &secret(held))
    };
    assert_eq!(taken(&[1, 2], &[1, 2], 2), Ok(vec![issued(1), issued(2)]), "the same");
    assert_eq!(taken(&[1, 2], &[1], 2), Ok(vec![issued(1), issued(2)]), "less");
    assert_eq!(taken(&[1], &[1, 2], 1), Ok(vec![issued(1), issued(2)]), "more");
    assert_eq!(taken(&[2], &[1, 3], 2), Ok(vec![issued(1), issued(2), issued(3)]), "others");
}

#[test]
fn secret_that_differs_from_a_pin_is_not_overwritten() {
    let edits: [(Edit<IssuedVersion>, &str); 3] = [
        (|pin| pin.ciphertext_blob = ByteString(b"another data key".to_vec()), "ciphertextBlob"),
        (|pin| pin.key_id = ARN.replace("1234abcd", "99999999"), "keyId"),
        (|pin| pin.request.encryption_context = None, "request.encryptionContext"),
    ];
    for (edit, field) in edits {
        let mut key = pinned(&[1]);
        key.spec.version = Some(2);
        edit(&mut pins(&mut key)[0]);
        let why = merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), &secret(&[1])).unwrap_err().why;
        assert!(why.contains(&format!("spec.wrappedKeys pins: {field}")), "{why}");
    }
}

#[test]
fn pins_restore_a_damaged_secret_without_unknown_data_keys() {
    let key = pinned(&[1]);
    let merge = |secret: &Secret| merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), secret);
    let damages: [(&str, Edit<Secret>); 5] = [
        ("data removed", |secret| secret.data = None),
        ("labels removed", |secret| secret.metadata.labels = None),
        ("annotations removed", |secret| secret.metadata.annotations = None),
        ("keyId.v1 removed", |secret| _ = secret.data.as_mut().unwrap().remove("keyId.v1")),
        // The checksum of its annotation is that of the pinned data key.
        ("ciphertextBlob.v1 changed", |secret| {
            _ = secret.data.as_mut().unwrap().insert("ciphertextBlob.v1".into(), ByteString(b"x".to_vec()));
        }),
    ];
    for (name, damage) in damages {
        let mut secret = secret(&[1]);
        damage(&mut secret);
        assert_eq!(merge(&secret), Ok(vec![issued(1)]), "{name}");
    }

    let mut without_checksum = secret(&[1]);
    without_checksum.metadata.annotations = None;
    let data = without_checksum.data.as_mut().unwrap();
    data.insert("ciphertextBlob.v1".into(), ByteString(b"another data key".to_vec()));
    let why = merge(&without_checksum).unwrap_err().why;
    assert!(why.contains("may be another one than is pinned"), "{why}");

    let mut grown = secret(&[1, 2]);
    grown.data.as_mut().unwrap().remove("keyId.v2");
    let why = merge(&grown).unwrap_err().why;
    assert!(why.contains("version 2, which is neither") && why.contains("keyId of version 2 is missing"), "{why}");
}

#[test]
fn secret_of_another_owner_is_left_alone() {
    let mut foreign = secret(&[1]);
    foreign.type_ = Some("Opaque".into());
    let key = pinned(&[1]);
    assert!(
        merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), &foreign)
            .unwrap_err()
            .why
            .contains("and not datakey.dev/wrapped-key")
    );

    let mut invoices = pinned(&[1]);
    invoices.metadata.name = Some("invoices".into());
    pins(&mut invoices)[0].ciphertext_blob = ByteString(b"invoices' data key".to_vec());
    assert!(merge_with_secret((&invoices).into(), unrecorded(&invoices, None).unwrap(), &secret(&[1])).is_err());
}

#[test]
fn secret_from_another_region_agrees_with_the_pin() {
    let mut there = recorded(&[1]);
    there.status.as_mut().unwrap().versions[0].key_id = REPLICATED.to_owned();
    let secret = Projection::of(&there, 1).unwrap().into_secret(&there);
    let key = multi_region("alias/orders", None);
    let taken = merge_with_secret((&key).into(), unrecorded(&key, Some("us-east-1")).unwrap(), &secret).unwrap();
    assert_eq!(taken[0].key_id, replica("us-east-1"));
}

#[test]
fn unrecorded_version_in_the_secret_can_be_pinned() {
    let mut key = recorded(&[1]);
    key.spec.wrapped_keys = Some(vec![issued(2)]);
    assert_eq!(
        merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), &secret(&[1, 2])),
        Ok(vec![issued(2)])
    );
    let why = merge_with_secret((&key).into(), unrecorded(&key, None).unwrap(), &secret(&[1, 2, 3])).unwrap_err().why;
    assert!(why.contains("version 3, which is neither"), "{why}");
}
