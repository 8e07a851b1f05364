//! Properties that hold for any input from the API server, KMS and users. Each takes an input as bytes, panics if the property
//! does not hold, and returns how far the input got: a corpus that never passes the checks tests nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use datakey::{
    api::{DataKey, EncryptionContext, IssuedVersion, KeyStatus, MAX_BLOB, MAX_VERSIONS, with_recorded},
    arn::{self, KmsArn},
    names::{CURRENT_VERSION_ANNOTATION, SECRET_TYPE},
    protocol::{Inputs, Observed, Record, SecretState, Source, Step, newer, pins, plan},
    reason::{Failure, Reason},
    secret::{
        self, Projection, VersionAnnotation,
        compare::{self, Comparison},
        digest::Digest,
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
        sha256,
    },
};
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Prefix of the annotation about one version.
pub const ISSUED: &str = "datakey.dev/issued.v";

/// The longest message of a failure, in characters.
const MAX_MESSAGE: usize = 1024;

/// How far an input got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It could not be decoded.
    Nothing,
    /// It was refused, or there was nothing to decide.
    Checks,
    /// It was adopted, published or taken as the answer.
    All,
}

/// A `DataKey` and the Secret of its name as the API server sends them.
#[derive(Serialize, Deserialize)]
pub struct Objects {
    /// The `DataKey`.
    pub key: DataKey,
    /// The Secret, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

fn decode(data: &[u8]) -> Option<Objects> {
    let Objects { key, secret } = serde_json::from_slice(data).ok()?;
    let mut key = written(&key)?;
    // Every object at the API server has a name.
    key.metadata.name.as_ref()?;
    // The API server keeps the record and the pins as maps by version.
    let once = |versions: &mut Vec<IssuedVersion>| {
        let mut seen = BTreeSet::new();
        versions.retain(|issued| seen.insert(issued.version));
    };
    key.status.iter_mut().for_each(|status| once(&mut status.versions));
    key.spec.wrapped_keys.iter_mut().for_each(once);
    Some(Objects { key, secret })
}

/// The object after a write and a read. Times have whole seconds then; an object with a time before the year 0 is lost.
fn written<T: Serialize + DeserializeOwned>(object: &T) -> Option<T> {
    serde_json::from_slice(&serde_json::to_vec(object).ok()?).ok()
}

fn now(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn is_deleted(key: &DataKey) -> bool {
    key.metadata.deletion_timestamp.is_some()
}

fn without_record(mut key: DataKey) -> DataKey {
    if let Some(status) = &mut key.status {
        status.versions.clear();
    }
    key
}

// === adoption ===

/// Adoption rebuilds the record exactly, or fails.
pub fn adoption(data: &[u8]) -> Reached {
    let Some(Objects { key, secret: Some(secret) }) = decode(data) else {
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

fn is_whole(issued: &IssuedVersion, secret: &Secret) {
    assert!(issued.version >= 1);
    assert!((1..=MAX_BLOB).contains(&issued.ciphertext_blob.0.len()), "{} bytes", issued.ciphertext_blob.0.len());
    let annotation = &secret.metadata.annotations.as_ref().unwrap()[&format!("{ISSUED}{}", issued.version)];
    let provenance: VersionAnnotation = serde_json::from_str(annotation).unwrap();
    assert_eq!(provenance.sha256, sha256(&issued.ciphertext_blob.0));
    assert_eq!(provenance.key_id, issued.request.key_id);
    let arn = KmsArn::parse(&issued.key_id).expect("an ARN");
    let region = arn::resolve_region(&issued.request.key_id, issued.request.region.as_deref(), Some(arn.region));
    assert!(arn::may_answer(&issued.request.key_id, region.unwrap(), &issued.key_id));
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
        Step::ReportFailure(failure) => assert!(versions.len() > MAX_VERSIONS, "{failure}"),
        step => panic!("{step:?}"),
    }
    let mut other = pinned;
    other.spec.wrapped_keys.iter_mut().flatten().for_each(|pin| pin.ciphertext_blob.0.push(0));
    let Step::ReportFailure(failure) = next(&other, &view) else { panic!("another data key is pinned, and recorded") };
    let reasons = [Reason::SecretConflict, Reason::PinInvalid];
    assert!(reasons.contains(&failure.reason), "{failure}");
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
        Step::CallKms => assert!(recorded.recorded_version(recorded.wanted_version()).is_none()),
        Step::ReportFailure(failure) => {
            assert!(matches!(failure.reason, Reason::TooManyVersions | Reason::SecretTooLarge), "{failure}");
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

// === decisions ===

/// No decision on a `DataKey`, whatever is in it, breaks the protocol.
pub fn data_key(data: &[u8]) -> Reached {
    let Some(Objects { key, secret }) = decode(data) else {
        return Reached::Nothing;
    };
    let wanted = Projection::of(&key, key.wanted_version());
    let created = wanted.clone().map(|wanted| wanted.into_secret(&key)).unwrap_or_default();
    let published = key.status.as_ref().and_then(|status| Projection::of(&key, status.version?));
    let secret = secret.unwrap_or_else(|| created.clone());

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
                    rival: (choice & 16 > 0).then_some("another"),
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

fn next(key: &DataKey, secret: &SecretState) -> Step {
    plan(&Observed { has_permit: true, ..Observed::new(key, secret) }, now(0))
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
        Step::AcquirePermit => {
            assert!(inputs.may_issue && !key.is_restored() && !recorded && !has_permit && pins == Ok(vec![]));
        }
        Step::DryRunRecord => panic!("no record failed"),
        Step::CallKms => {
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

fn holds_the_record(key: &DataKey, secret: &Secret) {
    let data = secret.data.as_ref().unwrap();
    for issued in key.record() {
        assert_eq!(data[&format!("ciphertextBlob.v{}", issued.version)], issued.ciphertext_blob);
        assert_eq!(data[&format!("keyId.v{}", issued.version)].0, issued.key_id.as_bytes());
    }
    let current = key.recorded_version(key.wanted_version()).unwrap();
    assert_eq!(data["version"].0, current.version.to_string().as_bytes());
    assert_eq!(data["ciphertextBlob"], current.ciphertext_blob);
    assert_eq!(data["keyId"].0, current.key_id.as_bytes());
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

// === key identifiers ===

/// Three lines: a key ID as in the spec, a Region, and the ARN that KMS answered.
pub fn key_id(data: &[u8]) -> Reached {
    let Ok(text) = std::str::from_utf8(data) else {
        return Reached::Nothing;
    };
    let mut lines = text.splitn(3, '\n').chain(std::iter::repeat(""));
    let mut next = || lines.next().unwrap();
    let (id, asked, arn) = (next(), next(), next().trim_end_matches('\n'));

    for text in [id, arn] {
        if let Some(KmsArn { partition, region, account, resource }) = KmsArn::parse(text) {
            assert_eq!(format!("arn:{partition}:kms:{region}:{account}:{resource}"), text);
            assert!(account.len() == 12 && account.parse::<u64>().is_ok() && arn::is_region(region));
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
            assert_eq!(arn::resolve_region(text, Some(asked), None), Some(region), "an ARN names its Region itself");
            assert_eq!(arn::may_answer(text, asked, text), resource.starts_with("key/"), "a key answers for itself");
        }
    }
    if KmsArn::parse(id).is_none() {
        assert_eq!(arn::resolve_region(id, Some(asked), Some("own")), Some(asked));
        let made = format!("arn:aws:kms:{asked}:111122223333:key/{id}");
        let possible = arn::is_region(asked) && arn::is_key_id(id);
        assert_eq!(arn::may_answer(id, asked, &made), possible, "{made}");
    }
    let answers = arn::may_answer(id, asked, arn);
    if answers {
        let answer = KmsArn::parse(arn).expect("an ARN");
        assert!(answer.resource.len() > "key/".len() && answer.resource.starts_with("key/"), "a key's");
        if let Some(named) = KmsArn::parse(id) {
            assert_eq!((named.region, named.account), (answer.region, answer.account));
            assert!(named.resource == answer.resource || named.resource.starts_with("alias/"));
        } else {
            assert_eq!(answer.region, asked);
            assert!(id.starts_with("alias/") || answer.resource == format!("key/{id}"));
        }
    }
    if answers { Reached::All } else { Reached::Checks }
}
