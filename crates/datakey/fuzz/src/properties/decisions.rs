//! No decision breaks the protocol, whatever the object and its Secret are.

use std::time::{Duration, Instant};

use datakey::{
    api::{DataKey, IssuedVersion, KeyKind as _, KeyStatus, MAX_VERSIONS, with_recorded},
    arn,
    names::SECRET_TYPE,
    protocol::{Inputs, Observed, Record, Rival, SecretState, Source, Step, newer, pins, plan},
    reason::{Failure, Reason},
    secret::{
        self, Projection,
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{Objects, Reached, decode, holds_the_record, is_deleted, is_whole, next, now, without_record, written};

/// The longest message of a failure, in characters.
const MAX_MESSAGE: usize = 1024;

/// No decision on a `DataKey`, whatever is in it, breaks the protocol.
pub fn data_key(data: &[u8]) -> Reached {
    let Some(Objects { key, secret, .. }) = decode(data) else {
        return Reached::Nothing;
    };
    let wanted = Projection::of(&key, key.wanted_version());
    let created = wanted.clone().map(|wanted| wanted.into_secret(&key)).unwrap_or_default();
    let published = key.status.as_ref().and_then(|status| Projection::of(&key, status.version?));
    let secret = secret.unwrap_or_else(|| created.clone());
    rewraps_are_not_compared(&key);

    let metadata = SecretMetadata::of(&secret.metadata);
    let foreign = SecretMetadata { is_managed: false, ..metadata.clone() };
    let mut views = vec![
        SecretState::Unwatched,
        SecretState::Absent,
        SecretState::Present(metadata.clone()),
        SecretState::Present(foreign),
        SecretState::Watched(KnownSecret { metadata: metadata.clone(), verified: None }),
        SecretState::Loaded(Box::new(secret)),
        SecretState::Loaded(Box::new(created)),
    ];
    for digest in wanted.iter().chain(&published).map(Projection::digest) {
        for verified in [Verified::written(digest), Verified::read(digest, Instant::now())] {
            views.push(SecretState::Watched(KnownSecret { metadata: metadata.clone(), verified: Some(verified) }));
        }
    }
    for view in &views {
        for choice in (0..8).chain([10, 18]) {
            let observed = Observed {
                has_permit: choice & 2 > 0,
                inputs: Inputs {
                    retry_after: (choice & 1 > 0).then_some(Duration::from_secs(9)),
                    restore_limited: (choice & 4 > 0).then_some("it was deleted"),
                    may_issue: choice & 8 == 0,
                    rival: (choice & 16 > 0).then_some(Rival { kind: DataKey::KIND, name: "another" }),
                    ..Inputs::default()
                },
                ..Observed::new(&key, view)
            };
            keeps_the_protocol(&key, &observed, plan(&observed, now(0)));
        }
    }
    let reason = Reason::ALL[data.len() % Reason::ALL.len()];
    for failure in [reason.into(), Failure::new(reason, String::from_utf8_lossy(data))] {
        is_reported_once(&key, &SecretState::Absent, Some(&failure));
    }
    let decided = wanted.is_some() || pins::unrecorded(&key, None).is_ok_and(|pins| !pins.is_empty());
    if decided && !is_deleted(&key) { Reached::All } else { Reached::Checks }
}

fn keeps_the_protocol(key: &DataKey, observed: &Observed<'_>, step: Step) {
    let Observed { secret: view, has_permit, inputs, .. } = *observed;
    let recorded = key.recorded_version(key.wanted_version()).is_some();
    if is_deleted(key) {
        let says_so = |status: &KeyStatus| status.conditions.iter().any(|shown| shown.reason == "Deleting");
        assert!(
            matches!(&step, Step::Settled) || matches!(&step, Step::PutStatus(status) if says_so(status)),
            "{step:?}"
        );
        return;
    }
    let pins = pins::unrecorded(key, inputs.default_region);
    match step {
        Step::Settled => {}
        Step::RequeueAfter(wait) => assert_eq!(Some(wait), inputs.retry_after),
        Step::GetSecretMetadata => {
            assert!(!recorded && matches!(view, SecretState::Unwatched));
            assert!(has_permit || pins.is_ok_and(|pins| !pins.is_empty()), "without a permit");
        }
        Step::GetSecret => assert!(matches!(view, SecretState::Watched(_) | SecretState::Present(_))),
        Step::AcquirePermit(_) => {
            assert!(inputs.may_issue && !key.is_restored() && !recorded && !has_permit && pins == Ok(vec![]));
        }
        Step::DryRunRecord(_) => panic!("no record failed"),
        Step::CallKms(_) => {
            assert!(inputs.may_issue && !key.is_restored(), "issued where nothing may be");
            assert!(!recorded && has_permit, "issued again, or without a permit");
            assert!(inputs.rival.is_none() || !key.record().is_empty(), "issued under another DataKey's name");
            assert_eq!(pins, Ok(vec![]), "issued while a pin is not recorded");
            let SecretState::Loaded(secret) = view else {
                return assert!(
                    matches!(view, SecretState::Absent | SecretState::Watched(_)),
                    "the Secret was not checked: {view:?}"
                );
            };
            assert!(!key.record().is_empty(), "there is a Secret, and no record: {secret:?}");
        }
        Step::Record(Record { versions, source: Source::Pins }) => pins_are_recorded(key, observed, &versions),
        Step::Record(Record { versions, source }) => {
            assert!(source == Source::Secret && key.record().is_empty() && !versions.is_empty());
        }
        Step::CreateSecret(secret) => {
            assert!(recorded && matches!(view, SecretState::Unwatched | SecretState::Absent));
            is_the_projection(key, secret);
        }
        Step::ReplaceSecret(secret, _) => {
            let SecretState::Loaded(read) = view else { panic!("replaced without reading it") };
            assert!(recorded);
            assert_eq!(read.type_.as_deref(), Some(SECRET_TYPE), "a foreign Secret is replaced");
            // Without them the server would not guard the write.
            assert_eq!(secret.metadata.uid, read.metadata.uid);
            assert_eq!(secret.metadata.resource_version, read.metadata.resource_version);
            loses_no_data_key(key, read, &secret);
            is_the_projection(key, secret);
        }
        Step::AcceptRevision(metadata, digest) => {
            assert!(recorded);
            let view = SecretState::Watched(KnownSecret { metadata, verified: Some(Verified::written(digest)) });
            is_reported_once(key, &view, None);
        }
        Step::ReportFailure(failure) => {
            is_reported_once(key, view, Some(&failure));
        }
        Step::PutStatus(_) => is_reported_once(key, view, None),
    }
}

/// What is pinned or recorded as a rewrap is the same data key without that.
fn rewraps_are_not_compared(key: &DataKey) {
    let Ok(unrecorded) = pins::unrecorded(key, None) else { return };
    let without = |issued: &mut IssuedVersion| issued.rewrap_of = None;
    let mut of_pins = key.clone();
    of_pins.spec.wrapped_keys.iter_mut().flatten().for_each(without);
    let mut of_the_record = key.clone();
    of_the_record.status.iter_mut().flat_map(|status| &mut status.versions).for_each(without);
    assert_eq!(pins::unrecorded(&of_the_record, None).as_ref(), Ok(&unrecorded), "the record is compared by rewrapOf");
    let mut wanted = unrecorded;
    wanted.iter_mut().for_each(without);
    assert_eq!(pins::unrecorded(&of_pins, None), Ok(wanted), "pins are compared by rewrapOf");
}

/// Each pin is recorded once and unchanged, and in addition only versions that only the Secret holds. The following steps keep
/// the protocol and lose no data key of the Secret.
fn pins_are_recorded(key: &DataKey, observed: &Observed<'_>, versions: &[IssuedVersion]) {
    assert!(!versions.is_empty());
    for issued in versions {
        assert!(key.recorded_version(issued.version).is_none(), "recorded twice");
        let Some(pin) = key.pinned_versions().iter().find(|pin| pin.version == issued.version) else {
            let SecretState::Loaded(secret) = observed.secret else { panic!("neither pinned nor read") };
            assert!(key.record().is_empty());
            is_whole(issued, secret);
            continue;
        };
        assert!(arn::decrypts_for(&pin.key_id, &issued.key_id));
        assert_eq!(&IssuedVersion { key_id: pin.key_id.clone(), ..issued.clone() }, pin);
    }
    let mut recorded = key.clone();
    recorded.status = Some(with_recorded(key, versions.to_vec()));
    assert!(recorded.record().len() <= MAX_VERSIONS);
    if let Some(recorded) = written(&recorded) {
        assert_eq!(pins::unrecorded(&recorded, observed.inputs.default_region), Ok(vec![]), "pinned again");
        let next = Observed { object: (&recorded).into(), ..*observed };
        let step = plan(&next, now(0));
        assert!(
            !matches!(&step, Step::ReportFailure(why) if why.reason == Reason::SecretConflict),
            "recorded over a Secret"
        );
        keeps_the_protocol(&recorded, &next, step);
    }
}

/// A Secret that the operator writes is the projection of the record, and afterwards only the status is left to write.
fn is_the_projection(key: &DataKey, secret: Box<Secret>) {
    holds_the_record(key, &secret);
    let view = SecretState::Loaded(secret);
    let step = next(key, &view);
    assert!(matches!(step, Step::AcceptRevision(..)), "what was just written: {step:?}");
}

/// Versions that could be adopted are not overwritten.
fn loses_no_data_key(key: &DataKey, before: &Secret, after: &Secret) {
    let blob = |secret: &Secret, issued: &IssuedVersion| -> Option<ByteString> {
        secret.data.as_ref()?.get(&format!("ciphertextBlob.v{}", issued.version)).cloned()
    };
    for issued in secret::adopt(&without_record(key.clone()), before).iter().flatten() {
        assert_eq!(blob(before, issued), blob(after, issued), "data key version {}", issued.version);
    }
}

/// A status that is wanted and then set is not wanted again.
fn is_reported_once(key: &DataKey, secret: &SecretState, failure: Option<&Failure>) {
    let observed = Observed { failure, ..Observed::new(key, secret) };
    let status = match plan(&observed, now(0)) {
        Step::Settled => return,
        Step::PutStatus(status) => status,
        // What is recorded is published; the pins come then.
        Step::Record(Record { source: Source::Pins, .. }) if failure.is_none() => return,
        Step::ReportFailure(of_the_pins)
            if failure.is_none() && pins::unrecorded(key, None).as_ref() == Err(&of_the_pins) =>
        {
            return is_reported_once(key, secret, Some(&of_the_pins));
        }
        Step::ReportFailure(newer)
            if failure.is_none()
                && [newer::in_the_record(key), newer::in_the_spec(key)].contains(&Some(newer.clone())) =>
        {
            return is_reported_once(key, secret, Some(&newer));
        }
        step => panic!("a status is wanted, or nothing: {step:?}"),
    };
    assert_eq!(status.versions, key.record(), "the record is not changed");
    // One that the server gives back as another one would be written again and again.
    assert_eq!(written(&status).as_ref(), Some(&status));
    for condition in &status.conditions {
        let length = condition.message.chars().count();
        // The message of Ready=True has no bound but that of the Secret's name.
        assert!(length <= MAX_MESSAGE + key.secret_name().chars().count(), "{length} characters");
        assert!(failure.is_none() || length <= MAX_MESSAGE, "{length} characters");
    }
    let mut reported = key.clone();
    reported.status = Some(*status);
    let again = plan(&Observed { object: (&reported).into(), ..observed }, now(9));
    assert!(matches!(again, Step::Settled), "reported again: {again:?}");
}
