use std::{
    borrow::Borrow,
    time::{Duration, Instant},
};

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};

use super::*;
use crate::{
    api::{DataKey, IssuedVersion, KeyKind as _, SecretTemplate, TemplateMetadata, VerifiedSecret, with_recorded},
    fixtures::{at, data_key, issued, pinned, recorded},
    identity::Revision,
    names::{RESTORED_ANNOTATION, VELERO_RESTORE_LABEL},
    protocol::{Inputs, Record, Rival, SecretState, Source},
    reason::Failure,
    secret::{
        Projection,
        digest::Digest,
        known::Verified,
        known::{KnownSecret, Origin},
        metadata::SecretMetadata,
    },
};

fn next(key: &DataKey, secret: impl Borrow<SecretState>) -> Step {
    plan(&Observed { has_permit: true, ..Observed::new(key, secret.borrow()) }, at(0))
}

fn waiting(key: &DataKey, secret: &SecretState) -> Step {
    plan(
        &Observed {
            inputs: Inputs { retry_after: Some(Duration::from_secs(9)), ..Inputs::default() },
            ..Observed::new(key, secret)
        },
        at(0),
    )
}

fn restored() -> DataKey {
    let mut key = data_key();
    key.metadata.labels = Some([(VELERO_RESTORE_LABEL.to_owned(), "drill".to_owned())].into());
    key
}

fn metadata(resource_version: &str) -> SecretMetadata {
    let revision = Revision { uid: "s".into(), resource_version: resource_version.into() };
    SecretMetadata { revision, belongs_to: Some("orders".into()), is_managed: true }
}

fn foreign() -> SecretState {
    SecretState::Present(SecretMetadata::default())
}

fn managed() -> SecretState {
    SecretState::Present(metadata("8"))
}

fn digest(key: &DataKey, version: i32) -> Digest {
    Projection::of(key, version).unwrap().digest()
}

fn cached(resource_version: &str, verified: Option<Verified>) -> SecretState {
    SecretState::Watched(KnownSecret { metadata: metadata(resource_version), verified })
}

fn intact(key: &DataKey) -> SecretState {
    cached("7", Some(Verified::read(digest(key, key.wanted_version()), Instant::now())))
}

fn changed() -> SecretState {
    cached("8", None)
}

fn saved(key: &DataKey, version: i32) -> VerifiedSecret {
    VerifiedSecret { uid: "s".into(), resource_version: "7".into(), digest: digest(key, version).to_string() }
}

fn read(key: &DataKey) -> SecretState {
    SecretState::Loaded(Box::new(Projection::of(key, key.wanted_version()).unwrap().into_secret(key)))
}

fn failure(step: Step) -> Failure {
    let Step::ReportFailure(failure) = step else { panic!("{step:?}") };
    failure
}

fn published(versions: &[i32]) -> DataKey {
    let mut key = recorded(versions);
    key.status =
        Some(condition::ready(&key, &issued(key.wanted_version()), Some(saved(&key, key.wanted_version())), at(0)));
    key
}

#[test]
fn record_of_a_newer_release_is_only_reported() {
    let mut key = recorded(&[1, 2]);
    key.status.as_mut().unwrap().versions[0].rest.insert("asWritten".into(), true.into());
    let intact = intact(&key);
    for version in [1, 2, 3] {
        key.spec.version = Some(version);
        for secret in [&SecretState::Unwatched, &SecretState::Absent, &intact] {
            let Step::ReportFailure(failure) = next(&key, secret) else { panic!("{:?}", next(&key, secret)) };
            assert_eq!(failure.reason, Reason::RecordNewer);
        }
    }
    key.status = Some(condition::failed(&key, &Reason::RecordNewer.into(), at(1)));
    assert!(matches!(waiting(&key, &intact), Step::RequeueAfter(_)), "reported once");
}

#[test]
fn unknown_spec_field_stops_issuing_but_not_restoring() {
    let mut key = recorded(&[1]);
    key.spec.rest.insert("classTier".into(), "shop".into());
    assert!(matches!(next(&key, SecretState::Absent), Step::CreateSecret(_)), "the recorded version is restored");
    assert!(matches!(next(&key, intact(&key)), Step::PutStatus(_)), "and ready");
    let mut new = data_key();
    new.spec.rest.clone_from(&key.spec.rest);
    key.spec.version = Some(2);
    let mut with_pin = recorded(&[1]);
    with_pin.spec.rest.clone_from(&key.spec.rest);
    with_pin.spec.wrapped_keys = Some(vec![issued(2)]);
    for (key, secret) in [
        (&key, intact(&recorded(&[1]))),
        (&new, SecretState::Absent),
        (&new, SecretState::Loaded(Box::new(Projection::of(&recorded(&[1]), 1).unwrap().into_secret(&new)))),
        (&with_pin, intact(&recorded(&[1]))),
    ] {
        let step = next(key, secret);
        assert!(matches!(&step, Step::ReportFailure(failure) if failure.reason == Reason::SpecNewer), "{step:?}");
    }
}

#[test]
fn secret_metadata_is_read_before_kms_is_called() {
    assert!(matches!(next(&data_key(), SecretState::Unwatched), Step::GetSecretMetadata));
    assert!(matches!(next(&data_key(), SecretState::Absent), Step::CallKms(_)));
}

#[test]
fn changes_of_the_spec_are_not_blamed_on_another_client() {
    let mut key = published(&[1]);
    let before = read(&key);
    let metadata = TemplateMetadata { labels: Some([("team".into(), "shop".into())].into()), ..<_>::default() };
    key.spec.secret_template = Some(SecretTemplate { metadata: Some(metadata), ..<_>::default() });
    let names = |key: &DataKey, view: &SecretState, is_verified: bool| match plan(
        &Observed { is_verified, ..Observed::new(key, view) },
        at(0),
    ) {
        Step::ReplaceSecret(_, changes) => changes,
        step => panic!("{step:?}"),
    };
    assert_eq!(names(&key, &before, false), None, "the status has its digest");
    // The template changed again before the status was written, so the status has no digest of it.
    key.status.as_mut().unwrap().secret = None;
    assert_eq!(names(&key, &before, true), None);
    assert_eq!(
        names(&key, &before, false).unwrap(),
        "label team is missing, annotation datakey.dev/applied is missing"
    );
}

#[test]
fn oversized_versions_are_neither_issued_nor_recorded() {
    let large = |mut issued: IssuedVersion| {
        issued.request.encryption_context = Some([("a".to_owned(), "\u{1}".repeat(8191))].into());
        issued
    };
    let versions: Vec<_> = (1..=21).map(|version| large(issued(version))).collect();
    let mut new = data_key();
    new.spec.encryption_context.clone_from(&versions[0].request.encryption_context);
    let mut full = new.clone();
    full.status = Some(with_recorded(&full, versions[..20].to_vec()));
    full.spec.version = Some(21);
    for view in [SecretState::Unwatched, SecretState::Absent] {
        assert_eq!(failure(next(&full, &view)).reason, Reason::SecretTooLarge);
        assert_eq!(
            failure(plan(&Observed::new(&full, &view), at(0))).reason,
            Reason::SecretTooLarge,
            "no permit is taken"
        );
    }
    let mut pins = new.clone();
    pins.spec.wrapped_keys = Some(versions.clone());
    assert_eq!(failure(next(&pins, SecretState::Absent)).reason, Reason::SecretTooLarge);
    let mut backup = new.clone();
    backup.status = Some(with_recorded(&backup, versions));
    assert_eq!(failure(next(&new, read(&backup))).reason, Reason::SecretTooLarge);
    // A recorded version is published although an earlier release recorded more than the bound.
    full.spec.version = Some(20);
    assert!(matches!(next(&full, SecretState::Absent), Step::CreateSecret(_)));
}

#[test]
fn secret_stays_reserved_by_the_record_of_its_key() {
    let rival = |key: &DataKey, view: &SecretState| {
        plan(
            &Observed {
                inputs: Inputs { rival: Some(Rival { kind: DataKey::KIND, name: "invoices" }), ..Inputs::default() },
                has_permit: true,
                ..Observed::new(key, view)
            },
            at(0),
        )
    };
    for key in [data_key(), pinned(&[1])] {
        // With its label, or with its data keys pinned, too.
        for view in [SecretState::Unwatched, SecretState::Absent, changed(), read(&recorded(&[1]))] {
            let failure = failure(rival(&key, &view));
            assert_eq!(failure.reason, Reason::SecretConflict);
            assert!(failure.detail.unwrap().contains("belongs to DataKey invoices"));
        }
    }
    // What is recorded is published, although another DataKey wants the name.
    assert!(matches!(rival(&recorded(&[1]), &SecretState::Absent), Step::CreateSecret(_)));
}

#[test]
fn restored_data_key_is_never_issued() {
    // With a permit and without one: no permit is taken.
    for view in [SecretState::Unwatched, SecretState::Absent] {
        assert_eq!(failure(next(&restored(), &view)).reason, Reason::RestoredWithoutKey);
        assert_eq!(failure(plan(&Observed::new(&restored(), &view), at(0))).reason, Reason::RestoredWithoutKey);
    }
    assert!(matches!(next(&restored(), changed()), Step::GetSecret));
    assert!(matches!(next(&restored(), read(&recorded(&[1]))), Step::Record(Record { source: Source::Secret, .. })));
    let mut key = restored();
    key.status = recorded(&[1]).status;
    assert!(matches!(next(&key, SecretState::Absent), Step::CreateSecret(_)));
    key.spec.version = Some(2);
    assert_eq!(failure(next(&key, SecretState::Absent)).reason, Reason::RestoredWithoutKey);
    key.spec.wrapped_keys = Some(vec![issued(2)]);
    assert!(matches!(next(&key, SecretState::Absent), Step::Record(Record { source: Source::Pins, .. })));
}

#[test]
fn data_key_without_a_restore_mark_is_issued() {
    let mut key = restored();
    key.metadata.generation = Some(2);
    assert!(matches!(next(&key, SecretState::Absent), Step::CallKms(_)), "the spec was changed");
    let mut key = restored();
    key.metadata.labels = None;
    assert!(matches!(next(&key, SecretState::Absent), Step::CallKms(_)));
    key.metadata.annotations = Some([(RESTORED_ANNOTATION.to_owned(), String::new())].into());
    assert_eq!(failure(next(&key, SecretState::Absent)).reason, Reason::RestoredWithoutKey);
}

#[test]
fn existing_data_keys_are_published_while_issuing_is_off() {
    let disabled = |key: &DataKey, view: SecretState| {
        plan(
            &Observed {
                inputs: Inputs { may_issue: false, ..Inputs::default() },
                has_permit: true,
                ..Observed::new(key, &view)
            },
            at(0),
        )
    };
    for view in [SecretState::Unwatched, SecretState::Absent] {
        assert_eq!(failure(disabled(&data_key(), view)).reason, Reason::IssuingDisabled);
    }
    assert!(matches!(
        disabled(&data_key(), read(&recorded(&[1]))),
        Step::Record(Record { source: Source::Secret, .. })
    ));
    assert!(matches!(disabled(&pinned(&[1]), SecretState::Absent), Step::Record(Record { source: Source::Pins, .. })));
    assert!(matches!(disabled(&recorded(&[1]), SecretState::Absent), Step::CreateSecret(_)));
    let mut key = published(&[1]);
    let before = intact(&key);
    key.spec.version = Some(2);
    assert_eq!(failure(disabled(&key, before)).reason, Reason::IssuingDisabled);
}

#[test]
fn foreign_secret_is_neither_read_nor_overwritten() {
    for key in [data_key(), recorded(&[1])] {
        let failure = failure(next(&key, foreign()));
        assert_eq!(failure.reason, Reason::SecretConflict);
    }
}

#[test]
fn secret_without_a_record_is_adopted_without_calling_kms() {
    assert!(matches!(next(&data_key(), changed()), Step::GetSecret));
    assert!(matches!(next(&data_key(), managed()), Step::GetSecret));
    let Step::Record(Record { versions, source: Source::Secret }) = next(&data_key(), read(&recorded(&[1]))) else {
        panic!()
    };
    assert_eq!(versions, vec![issued(1)]);
}

#[test]
fn secret_that_does_not_match_the_spec_is_a_conflict() {
    let mut key = data_key();
    key.spec.key_id = Some("alias/other".into());
    assert_eq!(failure(next(&key, read(&recorded(&[1])))).reason, Reason::SecretConflict);
}

#[test]
fn recorded_version_is_created_and_not_issued_again() {
    for view in [SecretState::Unwatched, SecretState::Absent] {
        let Step::CreateSecret(secret) = next(&recorded(&[1]), view) else { panic!() };
        assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
    }
}

#[test]
fn intact_secret_makes_the_data_key_ready_and_settled() {
    let key = recorded(&[1]);
    let Step::PutStatus(status) = next(&key, intact(&key)) else { panic!() };
    assert_eq!(status.conditions[0].status, "True");
    let mut key = key;
    key.status = Some(*status);
    assert!(matches!(next(&key, intact(&key)), Step::Settled));
}

#[test]
fn changed_secret_is_read_before_it_is_restored() {
    let key = published(&[1]);
    assert!(matches!(next(&key, changed()), Step::GetSecret));
    let SecretState::Loaded(mut secret) = read(&key) else { panic!() };
    secret.data.as_mut().unwrap().insert("ciphertextBlob".into(), ByteString(b"x".to_vec()));
    let Step::ReplaceSecret(secret, _) = next(&key, SecretState::Loaded(secret)) else { panic!() };
    assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
}

#[test]
fn loaded_secret_that_matches_the_record_is_not_written() {
    let key = published(&[1]);
    let Step::AcceptRevision(_, held) = next(&key, read(&key)) else { panic!() };
    assert_eq!(held, digest(&key, 1));
    assert!(matches!(next(&key, cached("8", Some(Verified::read(held, Instant::now())))), Step::Settled));
}

#[test]
fn saved_revision_is_intact_while_its_digest_is_wanted() {
    let mut key = published(&[1, 2]);
    assert!(matches!(next(&key, cached("7", None)), Step::Settled));
    assert!(matches!(next(&key, cached("8", None)), Step::GetSecret), "another revision");
    let other = SecretMetadata { revision: Revision { uid: "t".into(), ..metadata("7").revision }, ..metadata("7") };
    let view = SecretState::Watched(KnownSecret { metadata: other, verified: None });
    assert!(matches!(next(&key, view), Step::GetSecret), "another Secret with the same resource version");
    key.spec.version = Some(1);
    assert!(matches!(next(&key, cached("7", None)), Step::GetSecret), "other entries are wanted");
    key.status.as_mut().unwrap().secret = None;
    assert!(matches!(next(&key, cached("7", None)), Step::GetSecret), "nothing is saved: recorded by 0.1.0");
}

#[test]
fn digest_that_was_read_overrides_the_saved_one() {
    let key = published(&[1, 2]);
    let view = cached("7", Some(Verified::read(digest(&key, 1), Instant::now())));
    assert!(matches!(next(&key, view), Step::GetSecret));
}

#[test]
fn revision_is_saved_once_written_or_settled() {
    let key = published(&[1]);
    let held = digest(&key, 1);
    let saved_by = |resource_version: &str, verified| match next(&key, cached(resource_version, Some(verified))) {
        Step::PutStatus(status) => status.secret.map(|saved| saved.resource_version),
        Step::Settled => None,
        step => panic!("{step:?}"),
    };
    assert_eq!(
        saved_by("8", Verified::read(held, Instant::now())),
        None,
        "a label was changed: this is kept in memory"
    );
    for origin in [Origin::Written, Origin::Settled] {
        let verified = Verified { digest: held, origin };
        assert_eq!(saved_by("8", verified).as_deref(), Some("8"), "{origin:?}");
        assert_eq!(saved_by("7", verified), None, "{origin:?}, and saved");
    }
}

#[test]
fn changed_uid_or_digest_is_saved_immediately() {
    let old = published(&[1]);
    for forget in [(|saved| saved.uid = "t".into()) as fn(&mut VerifiedSecret), |saved| {
        saved.digest = "of another release".into();
    }] {
        let mut key = old.clone();
        forget(key.status.as_mut().unwrap().secret.as_mut().unwrap());
        let Step::PutStatus(status) = next(&key, intact(&key)) else { panic!() };
        assert_eq!(status.secret, Some(saved(&key, 1)));
    }
}

#[test]
fn definition_that_drops_the_revision_causes_no_loop() {
    let mut key = published(&[1]);
    key.status.as_mut().unwrap().secret = None;
    let view = intact(&key);
    let older = |key: &DataKey| {
        plan(
            &Observed { inputs: Inputs { keeps_revision: false, ..Inputs::default() }, ..Observed::new(key, &view) },
            at(0),
        )
    };
    assert!(matches!(next(&key, &view), Step::PutStatus(_)));
    assert!(matches!(older(&key), Step::Settled));
    key.status.as_mut().unwrap().version = None;
    assert!(matches!(older(&key), Step::PutStatus(_)), "the rest is written as ever");
}

#[test]
fn immutable_secret_with_other_entries_is_reported() {
    let key = published(&[1]);
    let SecretState::Loaded(mut secret) = read(&key) else { panic!() };
    secret.immutable = Some(true);
    assert!(matches!(next(&key, SecretState::Loaded(secret.clone())), Step::AcceptRevision(..)));
    let mut unlabelled = secret.clone();
    unlabelled.metadata.labels = None;
    assert!(matches!(next(&key, SecretState::Loaded(unlabelled)), Step::ReplaceSecret(..)), "metadata may be changed");
    secret.data.as_mut().unwrap().insert("keyId".into(), ByteString(b"x".to_vec()));
    let failure = failure(next(&key, SecretState::Loaded(secret)));
    assert_eq!(failure.reason, Reason::SecretImmutable);
    assert!(failure.message(DataKey::KIND).contains("entry keyId was changed"), "{failure:?}");
}

#[test]
fn new_version_is_issued_without_reading_an_intact_secret() {
    let key = published(&[1]);
    let before = intact(&key);
    let mut key = key;
    key.spec.version = Some(2);
    assert!(matches!(next(&key, before), Step::CallKms(_)));
    assert!(matches!(next(&key, changed()), Step::GetSecret));
    assert!(matches!(next(&key, SecretState::Unwatched), Step::GetSecretMetadata));
}

#[test]
fn version_that_the_secret_already_holds_is_not_issued() {
    let mut key = published(&[1]);
    key.spec.version = Some(2);
    assert_eq!(failure(next(&key, read(&recorded(&[1, 2])))).reason, Reason::SecretConflict);
}

#[test]
fn returning_to_an_issued_version_does_not_call_kms() {
    let mut key = published(&[1, 2]);
    key.spec.version = Some(1);
    let Step::ReplaceSecret(secret, _) = next(&key, read(&recorded(&[1, 2]))) else { panic!() };
    let data = secret.data.unwrap();
    assert_eq!(data["ciphertextBlob"], issued(1).ciphertext_blob);
    assert_eq!(data["ciphertextBlob.v2"], issued(2).ciphertext_blob);
}

#[test]
fn pinned_versions_are_recorded_and_never_issued() {
    let key = pinned(&[1, 2]);
    assert!(matches!(next(&key, SecretState::Unwatched), Step::GetSecretMetadata));
    let Step::Record(Record { versions, source: Source::Pins }) = next(&key, SecretState::Absent) else { panic!() };
    assert_eq!(versions, vec![issued(1), issued(2)]);
    let Step::CreateSecret(secret) = next(&recorded(&[1, 2]), SecretState::Absent) else { panic!() };
    assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(2).ciphertext_blob);
}

#[test]
fn pins_need_no_permit_and_wait_after_a_failure() {
    let key = pinned(&[1]);
    let (missing, not_cached) = (SecretState::Absent, SecretState::Unwatched);
    assert!(matches!(plan(&Observed::new(&key, &missing), at(0)), Step::Record(Record { source: Source::Pins, .. })));
    assert!(matches!(plan(&Observed::new(&key, &not_cached), at(0)), Step::GetSecretMetadata));
    assert!(matches!(waiting(&key, &not_cached), Step::RequeueAfter(_)));
    assert!(matches!(waiting(&key, &changed()), Step::RequeueAfter(_)));
}

#[test]
fn secret_is_read_and_recorded_together_with_the_pins() {
    let key = pinned(&[1]);
    assert!(matches!(next(&key, changed()), Step::GetSecret));
    assert!(matches!(next(&key, managed()), Step::GetSecret));
    let Step::Record(Record { versions, source: Source::Pins }) = next(&key, read(&recorded(&[1, 2]))) else {
        panic!()
    };
    assert_eq!(versions, vec![issued(1), issued(2)]);
}

#[test]
fn secret_that_contradicts_a_pin_is_a_conflict() {
    let mut key = pinned(&[1]);
    key.spec.wrapped_keys.as_mut().unwrap()[0].ciphertext_blob = ByteString(b"another data key".to_vec());
    assert_eq!(failure(next(&key, read(&recorded(&[1])))).reason, Reason::SecretConflict);
    assert_eq!(failure(next(&key, foreign())).reason, Reason::SecretConflict);
}

#[test]
fn version_with_an_invalid_pin_is_not_issued() {
    let mut key = pinned(&[1]);
    key.spec.wrapped_keys.as_mut().unwrap()[0].key_id = "alias/orders".into();
    for view in [SecretState::Unwatched, SecretState::Absent, changed(), read(&recorded(&[1]))] {
        assert_eq!(failure(next(&key, view)).reason, Reason::PinInvalid);
    }
    // No other version is issued while a pin is invalid.
    key.spec.version = Some(2);
    assert_eq!(failure(next(&key, SecretState::Absent)).reason, Reason::PinInvalid);
}

#[test]
fn unpinned_version_is_issued_once_the_pins_are_recorded() {
    let mut key = pinned(&[1]);
    key.spec.version = Some(2);
    assert!(matches!(next(&key, SecretState::Absent), Step::Record(Record { source: Source::Pins, .. })));
    key.status = Some(with_recorded(&key, vec![issued(1)]));
    assert!(matches!(next(&key, SecretState::Absent), Step::CallKms(_)));
}

#[test]
fn later_pin_is_recorded_without_reading_an_intact_secret() {
    let mut key = published(&[1]);
    key.spec.wrapped_keys = Some(vec![issued(1), issued(2)]);
    let Step::Record(Record { versions, source: Source::Pins }) = next(&key, intact(&key)) else { panic!() };
    assert_eq!(versions, vec![issued(2)]);
    // The recorded versions are published first.
    assert!(matches!(next(&key, changed()), Step::GetSecret));
    assert!(matches!(next(&key, SecretState::Unwatched), Step::CreateSecret(_)));
    // Then the Secret gets the new one.
    let held = intact(&key);
    let Step::Record(Record { versions, source: Source::Pins }) = next(&key, &held) else { panic!() };
    key.status = Some(with_recorded(&key, versions));
    assert!(matches!(next(&key, &held), Step::GetSecret));
    let Step::ReplaceSecret(secret, _) = next(&key, read(&recorded(&[1]))) else { panic!() };
    assert_eq!(secret.data.unwrap()["ciphertextBlob.v2"], issued(2).ciphertext_blob);
}

#[test]
fn unrecorded_version_in_the_secret_is_recorded_once_pinned() {
    let mut key = published(&[1]);
    let view = read(&recorded(&[1, 2]));
    assert_eq!(failure(next(&key, &view)).reason, Reason::SecretConflict);
    key.spec.wrapped_keys = Some(vec![issued(2)]);
    let Step::Record(Record { versions, source: Source::Pins }) = next(&key, &view) else { panic!() };
    assert_eq!(versions, vec![issued(2)]);
}

#[test]
fn removing_recorded_pins_changes_nothing() {
    let mut key = published(&[1, 2]);
    key.spec.wrapped_keys = Some(vec![issued(1), issued(2)]);
    assert!(matches!(next(&key, intact(&key)), Step::Settled));
    key.spec.wrapped_keys = None;
    assert!(matches!(next(&key, intact(&key)), Step::Settled));
}

#[test]
fn secret_follows_the_record_when_a_pin_contradicts_it() {
    let mut key = published(&[1]);
    let pin = IssuedVersion { ciphertext_blob: ByteString(b"another data key".to_vec()), ..issued(1) };
    key.spec.wrapped_keys = Some(vec![pin]);
    let conflict = failure(next(&key, intact(&key)));
    assert_eq!(conflict.reason, Reason::PinConflict);
    let Step::CreateSecret(secret) = next(&key, SecretState::Unwatched) else { panic!() };
    assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
    assert!(matches!(next(&key, changed()), Step::GetSecret));
    // The failure is reported once.
    let Step::PutStatus(reported) =
        plan(&Observed { failure: Some(&conflict), ..Observed::new(&key, &intact(&key)) }, at(0))
    else {
        panic!()
    };
    key.status = Some(*reported);
    assert!(matches!(waiting(&key, &intact(&key)), Step::RequeueAfter(_)));
    // Meanwhile a version without a pin is not issued.
    key.spec.version = Some(2);
    assert_eq!(failure(next(&key, SecretState::Absent)).reason, Reason::PinConflict);
}

#[test]
fn record_names_the_replica_in_the_operators_region() {
    let mut key = pinned(&[1]);
    let arn = |region| format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab");
    key.spec.wrapped_keys.as_mut().unwrap()[0].key_id = arn("eu-west-1");
    let there = Observed {
        inputs: Inputs { default_region: Some("us-east-1"), ..Inputs::default() },
        ..Observed::new(&key, &SecretState::Absent)
    };
    let Step::Record(Record { versions, source: Source::Pins }) = plan(&there, at(0)) else { panic!() };
    assert_eq!(versions[0].key_id, arn("us-east-1"));
}

#[test]
fn data_key_under_deletion_only_reports_it() {
    for key in [data_key(), recorded(&[1]), published(&[1])] {
        for view in [SecretState::Unwatched, SecretState::Absent, changed()] {
            let mut key = key.clone();
            key.metadata.deletion_timestamp = Some(Time(at(0)));
            let Step::PutStatus(status) = next(&key, view) else { panic!() };
            assert_eq!(status.conditions[0].reason, "Deleting");
            assert!(status.conditions.len() == 1 && status.versions == key.record());
            key.status = Some(*status);
            assert!(matches!(next(&key, SecretState::Absent), Step::Settled), "once");
        }
    }
}

#[test]
fn failure_is_reported_once() {
    let mut key = data_key();
    let failure = Failure::from(Reason::KeyDisabled);
    let secret = SecretState::Absent;
    let step = plan(&Observed { failure: Some(&failure), ..Observed::new(&key, &secret) }, at(0));
    let Step::PutStatus(status) = step else { panic!() };
    key.status = Some(*status);
    let again = plan(&Observed { failure: Some(&failure), ..Observed::new(&key, &secret) }, at(9));
    assert!(matches!(again, Step::Settled));
}

#[test]
fn no_request_is_sent_while_a_failure_backs_off() {
    let mut bumped = published(&[1]);
    let before = intact(&bumped);
    bumped.spec.version = Some(2);
    for (key, view) in [
        (data_key(), SecretState::Unwatched),
        (data_key(), changed()),
        (recorded(&[1]), SecretState::Unwatched),
        (published(&[1]), changed()),
        (bumped, before),
    ] {
        assert!(matches!(waiting(&key, &view), Step::RequeueAfter(_)));
    }
}

#[test]
fn no_request_is_sent_without_a_permit() {
    let mut bumped = published(&[1]);
    let before = intact(&bumped);
    bumped.spec.version = Some(2);
    for (key, view) in [
        (data_key(), SecretState::Unwatched),
        (data_key(), SecretState::Absent),
        (bumped.clone(), before),
        (bumped, read(&recorded(&[1]))),
    ] {
        assert!(matches!(plan(&Observed::new(&key, &view), at(0)), Step::AcquirePermit(_)));
    }
    let adoptable = (data_key(), read(&recorded(&[1])));
    assert!(
        matches!(
            plan(&Observed::new(&adoptable.0, &adoptable.1), at(0)),
            Step::Record(Record { source: Source::Secret, .. })
        ),
        "needs no call"
    );
}

#[test]
fn contested_secret_is_reported_and_not_restored() {
    let key = published(&[1]);
    let changes = Some("entry keyId was changed");
    let contested = |view: &SecretState| {
        plan(
            &Observed { inputs: Inputs { restore_limited: changes, ..Inputs::default() }, ..Observed::new(&key, view) },
            at(0),
        )
    };
    for view in [changed(), SecretState::Unwatched] {
        let failure = failure(contested(&view));
        assert_eq!(failure.reason, Reason::SecretContested);
        assert!(failure.message(DataKey::KIND).contains("entry keyId was changed"), "{failure:?}");
    }
    assert!(matches!(contested(&intact(&key)), Step::Settled), "only while it is changed");
}

#[test]
fn failed_record_is_dry_run_before_the_next_call_to_kms() {
    let step_with = |has_permit| {
        let (key, secret) = (data_key(), SecretState::Absent);
        plan(
            &Observed {
                has_permit,
                inputs: Inputs { record_failed: true, ..Inputs::default() },
                ..Observed::new(&key, &secret)
            },
            at(0),
        )
    };
    assert!(matches!(step_with(true), Step::DryRunRecord(_)));
    assert!(matches!(step_with(false), Step::AcquirePermit(_)));
}

#[test]
fn sixty_fifth_version_is_not_issued() {
    let versions: Vec<i32> = (1..=64).collect();
    let mut key = recorded(&versions);
    key.spec.version = Some(65);
    assert_eq!(failure(next(&key, SecretState::Absent)).reason, Reason::TooManyVersions);
}
