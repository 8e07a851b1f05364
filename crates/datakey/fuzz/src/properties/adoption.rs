//! The record is rebuilt from a Secret exactly, or not at all.

use datakey::{
    api::{DataKey, EncryptionContext, IssuedVersion, MAX_VERSIONS, with_recorded},
    names::{CURRENT_VERSION_ANNOTATION, SECRET_TYPE},
    protocol::{Record, SecretState, Source, Step, newer},
    reason::Reason,
    secret::{
        self, Projection,
        compare::{self, Comparison},
        digest::Digest,
        known::KnownSecret,
        metadata::SecretMetadata,
    },
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::de::DeserializeOwned;

use super::{Objects, Reached, decode, holds_the_record, is_deleted, is_whole, next, without_record, written};

/// Adoption rebuilds the record exactly, or fails.
pub fn adoption(data: &[u8]) -> Reached {
    let Some(Objects { key, secret: Some(secret), .. }) = decode(data) else {
        return Reached::Nothing;
    };
    if let Some(wanted) = Projection::of(&key, key.wanted_version()) {
        digest_agrees_with_comparison(&key, &wanted, &secret);
    }
    let mut key = without_record(key);
    key.spec.wrapped_keys = None;
    if newer::in_the_spec(&key).is_some() {
        let step = next(&key, &SecretState::Loaded(Box::new(secret.clone())));
        assert!(is_deleted(&key) || is_newer(&step, Reason::SpecNewer), "a newer spec: {step:?}");
        key.spec.rest.clear();
    }
    let Ok(versions) = secret::adopt(&key, &secret) else {
        let step = next(&key, &SecretState::Loaded(Box::new(secret)));
        assert!(is_deleted(&key) || matches!(step, Step::ReportFailure(_)), "a Secret that is not adopted: {step:?}");
        return Reached::Checks;
    };
    assert!(versions.is_sorted_by(|one, next| one.version < next.version), "versions are not in order");
    for issued in &versions {
        is_whole(issued, &secret);
    }

    let mut recorded = key.clone();
    recorded.status = Some(with_recorded(&key, versions.clone()));
    let Some(recorded) = written(&recorded) else {
        return Reached::Checks;
    };
    let held = current(&secret);
    let projection = Projection::of(&recorded, held).expect("the plain entries hold a version that is adopted");
    for (name, value) in &projection.data {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        assert!(found.is_some_and(|found| means_the_same(name, found, value)), "entry {name}: {found:?}, {value:?}");
    }
    let again = secret::adopt(&key, &projection.into_secret(&recorded));
    assert_eq!(again.as_deref(), Ok(recorded.record()), "adopted once more");

    if newer::in_the_record(&recorded).is_some() {
        let step = next(&recorded, &SecretState::Loaded(Box::new(secret)));
        assert!(is_deleted(&key) || is_newer(&step, Reason::RecordNewer), "a newer record: {step:?}");
        return Reached::All;
    }
    if !is_deleted(&key) {
        pins_agree(&key, &versions, &secret);
    }
    plan_adopts(&key, &recorded, &versions, secret);
    Reached::All
}

fn is_newer(step: &Step, reason: Reason) -> bool {
    matches!(step, Step::ReportFailure(failure) if failure.reason == reason)
}

/// Whether two values of an entry have the same meaning. Only numbers and the encryption context have several spellings.
fn means_the_same(name: &str, one: &ByteString, other: &ByteString) -> bool {
    fn parsed<T: DeserializeOwned>(value: &ByteString) -> T {
        serde_json::from_slice(&value.0).unwrap()
    }
    let number = |value: &ByteString| std::str::from_utf8(&value.0).unwrap().parse::<i32>().unwrap();
    match name.split('.').next() {
        Some("encryptionContext") => parsed::<EncryptionContext>(one) == parsed(other),
        Some("numberOfBytes" | "version") => number(one) == number(other),
        _ => one == other,
    }
}

/// The number of the version in the plain entries.
fn current(secret: &Secret) -> i32 {
    secret.metadata.annotations.as_ref().unwrap()[CURRENT_VERSION_ANNOTATION].parse().unwrap()
}

/// A Secret is adopted with pins that agree with it, and not with one that contradicts it.
fn pins_agree(key: &DataKey, versions: &[IssuedVersion], secret: &Secret) {
    let view = SecretState::Loaded(Box::new(secret.clone()));
    let some = versions.len().div_ceil(2);
    let mut pinned = key.clone();
    pinned.spec.wrapped_keys = Some(versions[..some].to_vec());
    match next(&pinned, &view) {
        Step::Record(Record { versions: found, source: Source::Pins }) => assert_eq!(found, versions),
        // There are more versions than a record can have.
        Step::ReportFailure(failure) => assert!(versions.len() > MAX_VERSIONS, "{failure:?}"),
        step => panic!("{step:?}"),
    }
    let mut other = pinned;
    other.spec.wrapped_keys.iter_mut().flatten().for_each(|pin| pin.ciphertext_blob.0.push(0));
    let Step::ReportFailure(failure) = next(&other, &view) else { panic!("another data key is pinned, and recorded") };
    let reasons = [Reason::SecretConflict, Reason::PinInvalid];
    assert!(reasons.contains(&failure.reason), "{failure:?}");
}

/// A Secret that can be adopted is read and recorded without a call to KMS, and the following steps keep its data keys.
fn plan_adopts(key: &DataKey, recorded: &DataKey, versions: &[IssuedVersion], secret: Secret) {
    if is_deleted(key) {
        return;
    }
    let metadata = SecretMetadata::of(&secret.metadata);
    assert!(matches!(next(key, &SecretState::Unwatched), Step::GetSecretMetadata));
    assert!(matches!(next(key, &SecretState::Present(metadata.clone())), Step::GetSecret));
    assert!(matches!(next(key, &SecretState::Watched(KnownSecret { metadata, verified: None })), Step::GetSecret));
    let view = SecretState::Loaded(Box::new(secret));
    let step = next(key, &view);
    assert!(
        matches!(&step, Step::Record(Record { versions: found, source: Source::Secret }) if found == versions),
        "{step:?}"
    );
    match next(recorded, &view) {
        Step::AcceptRevision(..) => {}
        Step::ReplaceSecret(secret, _) => holds_the_record(recorded, &secret),
        Step::ReportFailure(failure) if failure.reason == Reason::SecretImmutable => {}
        Step::CallKms(_) => assert!(recorded.recorded_version(recorded.wanted_version()).is_none()),
        Step::ReportFailure(failure) => {
            assert!(matches!(failure.reason, Reason::TooManyVersions | Reason::SecretTooLarge), "{failure:?}");
        }
        step => panic!("{step:?}"),
    }
}

/// A Secret is intact exactly when its digest is the projection's, and then nothing of it differs.
fn digest_agrees_with_comparison(key: &DataKey, wanted: &Projection, secret: &Secret) {
    let same = Digest::of(secret) == wanted.digest();
    assert_eq!(same, secret.type_.as_deref() == Some(SECRET_TYPE) && compare::changes(wanted, secret).is_empty());
    let verdict = compare::compare(key, wanted, secret);
    assert!(same || verdict != Comparison::InSync);
}
