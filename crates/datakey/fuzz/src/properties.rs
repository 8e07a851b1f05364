//! What holds for whatever the API server, KMS and users send. Each property takes an input as bytes, panics where it is
//! broken, and answers how far the input got: a corpus that never gets past the checks tests nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use datakey::{
    api::{DataKey, DataKeyStatus, EncryptionContext, IssuedVersion, MAX_BLOB, MAX_VERSIONS},
    arn::{self, KmsArn},
    newer, pins,
    plan::{SecretView, Step, World, plan},
    secret::{
        Projection, Provenance, TYPE, VERSION,
        content::{self, Verdict},
        digest::Digest,
        known::{Known, Verified},
        metadata::SecretMetadata,
        project, sha256,
    },
    status::{self, Failure, Reason},
};
use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Prefix of the annotation about one version.
pub const ISSUED: &str = "datakey.dev/issued.v";

/// Bound of a failure's message, in characters.
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
    // The record is a map by version at the API server, and the pins are.
    let once = |versions: &mut Vec<IssuedVersion>| {
        let mut seen = BTreeSet::new();
        versions.retain(|issued| seen.insert(issued.version));
    };
    key.status.iter_mut().for_each(|status| once(&mut status.versions));
    key.spec.wrapped_keys.iter_mut().for_each(once);
    Some(Objects { key, secret })
}

/// What the server answers once the operator wrote this: of times, whole seconds; of those before the year 0, nothing.
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

/// A Secret becomes the record again exactly, or not at all.
pub fn adoption(data: &[u8]) -> Reached {
    let Some(Objects { key, secret: Some(secret) }) = decode(data) else {
        return Reached::Nothing;
    };
    if let Some(wanted) = project(&key, key.version()) {
        digest_decides_as_comparing_does(&key, &wanted, &secret);
    }
    let mut key = without_record(key);
    key.spec.wrapped_keys = None;
    if newer::in_the_spec(&key).is_some() {
        let step = next(&key, &SecretView::Read(Box::new(secret.clone())));
        assert!(is_deleted(&key) || is_newer(&step, Reason::SpecNewer), "a newer spec: {step:?}");
        key.spec.rest.clear();
    }
    let Ok(versions) = content::adopt(&key, &secret) else {
        let step = next(&key, &SecretView::Read(Box::new(secret)));
        assert!(is_deleted(&key) || matches!(step, Step::Fail(_)), "a Secret that is not adopted: {step:?}");
        return Reached::Checks;
    };
    assert!(versions.is_sorted_by(|one, next| one.version < next.version), "versions are not in order");
    for issued in &versions {
        is_whole(issued, &secret);
    }

    let mut recorded = key.clone();
    recorded.status = Some(status::recorded(&key, versions.clone()));
    let Some(recorded) = written(&recorded) else {
        return Reached::Checks;
    };
    let held = current(&secret);
    let projection = project(&recorded, held).expect("the plain entries hold a version that is adopted");
    for (name, value) in &projection.data {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        assert!(found.is_some_and(|found| means_the_same(name, found, value)), "entry {name}: {found:?}, {value:?}");
    }
    let again = content::adopt(&key, &projection.create(&recorded));
    assert_eq!(again.as_deref(), Ok(recorded.record()), "adopted once more");

    if newer::in_the_record(&recorded).is_some() {
        let step = next(&recorded, &SecretView::Read(Box::new(secret)));
        assert!(is_deleted(&key) || is_newer(&step, Reason::RecordNewer), "a newer record: {step:?}");
        return Reached::All;
    }
    if !is_deleted(&key) {
        pins_agree(&key, &versions, &secret);
    }
    is_planned(&key, &recorded, &versions, secret);
    Reached::All
}

fn is_newer(step: &Step, reason: Reason) -> bool {
    matches!(step, Step::Fail(failure) if failure.reason == reason)
}

/// Numbers and the encryption context may be spelled otherwise than the operator spells them; all else is kept as it is.
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
    let provenance: Provenance = serde_json::from_str(annotation).unwrap();
    assert_eq!(provenance.sha256, sha256(&issued.ciphertext_blob.0));
    assert_eq!(provenance.key_id, issued.request.key_id);
    let arn = KmsArn::parse(&issued.key_id).expect("an ARN");
    let region = arn::resolve_region(&issued.request.key_id, issued.request.region.as_deref(), Some(arn.region));
    assert!(arn::may_answer(&issued.request.key_id, region.unwrap(), &issued.key_id));
}

/// The version in the plain entries.
fn current(secret: &Secret) -> i32 {
    secret.metadata.annotations.as_ref().unwrap()[VERSION].parse().unwrap()
}

/// Beside pins that say the same, a Secret is adopted as it is without them; beside one that does not, not at all.
fn pins_agree(key: &DataKey, versions: &[IssuedVersion], secret: &Secret) {
    let view = SecretView::Read(Box::new(secret.clone()));
    let some = versions.len().div_ceil(2);
    let mut pinned = key.clone();
    pinned.spec.wrapped_keys = Some(versions[..some].to_vec());
    match next(&pinned, &view) {
        Step::Pin(found) => assert_eq!(found, versions),
        // More than a record has.
        Step::Fail(failure) => assert!(versions.len() > MAX_VERSIONS, "{failure}"),
        step => panic!("{step:?}"),
    }
    let mut other = pinned;
    other.spec.wrapped_keys.iter_mut().flatten().for_each(|pin| pin.ciphertext_blob.0.push(0));
    let Step::Fail(failure) = next(&other, &view) else { panic!("another data key is pinned, and recorded") };
    let reasons = [Reason::SecretConflict, Reason::PinInvalid];
    assert!(reasons.contains(&failure.reason), "{failure}");
}

/// A Secret that can be adopted is looked at, read and recorded, and KMS is not asked; what follows keeps its data keys.
fn is_planned(key: &DataKey, recorded: &DataKey, versions: &[IssuedVersion], secret: Secret) {
    if is_deleted(key) {
        return;
    }
    let metadata = SecretMetadata::of(&secret.metadata);
    assert!(matches!(next(key, &SecretView::NotCached), Step::Look));
    assert!(matches!(next(key, &SecretView::Found(metadata.clone())), Step::Read));
    assert!(matches!(next(key, &SecretView::Cached(Known { metadata, verified: None })), Step::Read));
    let view = SecretView::Read(Box::new(secret));
    let step = next(key, &view);
    assert!(matches!(&step, Step::Record(found) if found == versions), "{step:?}");
    match next(recorded, &view) {
        Step::Verified(..) => {}
        Step::Replace(secret, _) => holds_the_record(recorded, &secret),
        Step::Fail(failure) if failure.reason == Reason::SecretImmutable => {}
        Step::Issue => assert!(recorded.issued(recorded.version()).is_none()),
        Step::Fail(failure) => {
            assert!(matches!(failure.reason, Reason::TooManyVersions | Reason::SecretTooLarge), "{failure}");
        }
        step => panic!("{step:?}"),
    }
}

/// A Secret is intact exactly when its digest is the projection's, and then nothing of it differs.
fn digest_decides_as_comparing_does(key: &DataKey, wanted: &Projection, secret: &Secret) {
    let same = Digest::of(secret) == wanted.digest();
    assert_eq!(same, secret.type_.as_deref() == Some(TYPE) && content::changes(wanted, secret).is_empty());
    let verdict = content::compare(key, wanted, secret);
    assert!(same || verdict != Verdict::Same);
}

// === decisions ===

/// No decision on a `DataKey`, whatever is in it, breaks the protocol.
pub fn data_key(data: &[u8]) -> Reached {
    let Some(Objects { key, secret }) = decode(data) else {
        return Reached::Nothing;
    };
    let wanted = project(&key, key.version());
    let created = wanted.clone().map(|wanted| wanted.create(&key)).unwrap_or_default();
    let published = key.status.as_ref().and_then(|status| project(&key, status.version?));
    let secret = secret.unwrap_or_else(|| created.clone());

    let metadata = SecretMetadata::of(&secret.metadata);
    let foreign = SecretMetadata { is_managed: false, ..metadata.clone() };
    let mut views = vec![
        SecretView::NotCached,
        SecretView::Missing,
        SecretView::Found(metadata.clone()),
        SecretView::Found(foreign),
        SecretView::Cached(Known { metadata: metadata.clone(), verified: None }),
        SecretView::Read(Box::new(secret)),
        SecretView::Read(Box::new(created)),
    ];
    for digest in wanted.iter().chain(&published).map(Projection::digest) {
        for verified in [Verified::written(digest), Verified::read(digest, Instant::now())] {
            views.push(SecretView::Cached(Known { metadata: metadata.clone(), verified: Some(verified) }));
        }
    }
    for view in &views {
        for choice in (0..8).chain([10, 18]) {
            let world = World {
                wait: (choice & 1 > 0).then_some(Duration::from_secs(9)),
                turn: choice & 2 > 0,
                contested: (choice & 4 > 0).then_some("it was deleted"),
                may_issue: choice & 8 == 0,
                rival: (choice & 16 > 0).then_some("another"),
                ..World::new(&key, view)
            };
            keeps_the_protocol(&world, plan(&world, now(0)));
        }
    }
    let reason = Reason::ALL[data.len() % Reason::ALL.len()];
    for failure in [reason.into(), Failure::new(reason, String::from_utf8_lossy(data))] {
        is_told_once(&key, &SecretView::Missing, Some(&failure));
    }
    let decided = wanted.is_some() || pins::pending(&key, None).is_ok_and(|pins| !pins.is_empty());
    if decided && !is_deleted(&key) { Reached::All } else { Reached::Checks }
}

fn next(key: &DataKey, secret: &SecretView) -> Step {
    plan(&World { turn: true, ..World::new(key, secret) }, now(0))
}

fn keeps_the_protocol(world: &World<'_>, step: Step) {
    let World { key, secret: view, turn, .. } = *world;
    let recorded = key.issued(key.version()).is_some();
    if is_deleted(key) {
        let says_so = |status: &DataKeyStatus| status.conditions.iter().any(|shown| shown.reason == "Deleting");
        assert!(matches!(&step, Step::Done) || matches!(&step, Step::SetStatus(status) if says_so(status)), "{step:?}");
        return;
    }
    let pins = pins::pending(key, world.region);
    match step {
        Step::Done => {}
        Step::Wait(wait) => assert_eq!(Some(wait), world.wait),
        Step::Look => {
            assert!(!recorded && matches!(view, SecretView::NotCached));
            assert!(turn || pins.is_ok_and(|pins| !pins.is_empty()), "out of turn");
        }
        Step::Read => assert!(matches!(view, SecretView::Cached(_) | SecretView::Found(_))),
        Step::Queue => assert!(world.may_issue && !key.is_restored() && !recorded && !turn && pins == Ok(vec![])),
        Step::Rehearse => panic!("no record failed"),
        Step::Issue => {
            assert!(world.may_issue && !key.is_restored(), "issued where nothing may be");
            assert!(!recorded && turn, "issued again, or out of turn");
            assert!(world.rival.is_none() || !key.record().is_empty(), "issued under another DataKey's name");
            assert_eq!(pins, Ok(vec![]), "issued while a pin is not recorded");
            let SecretView::Read(secret) = view else {
                return assert!(matches!(view, SecretView::Missing | SecretView::Cached(_)), "nobody looked: {view:?}");
            };
            assert!(!key.record().is_empty(), "there is a Secret, and no record: {secret:?}");
        }
        Step::Record(versions) => assert!(key.record().is_empty() && !versions.is_empty()),
        Step::Pin(versions) => become_the_record(world, &versions),
        Step::Create(secret) => {
            assert!(recorded && matches!(view, SecretView::NotCached | SecretView::Missing));
            is_right(key, secret);
        }
        Step::Replace(secret, _) => {
            let SecretView::Read(read) = view else { panic!("replaced without reading it") };
            assert!(recorded);
            assert_eq!(read.type_.as_deref(), Some(TYPE), "a foreign Secret is replaced");
            // Without them the server would not guard the write.
            assert_eq!(secret.metadata.uid, read.metadata.uid);
            assert_eq!(secret.metadata.resource_version, read.metadata.resource_version);
            loses_no_data_key(key, read, &secret);
            is_right(key, secret);
        }
        Step::Verified(metadata, digest) => {
            assert!(recorded);
            let view = SecretView::Cached(Known { metadata, verified: Some(Verified::written(digest)) });
            is_told_once(key, &view, None);
        }
        Step::Fail(failure) => {
            is_told_once(key, view, Some(&failure));
        }
        Step::SetStatus(_) => is_told_once(key, view, None),
    }
}

/// Pins are recorded as they are, each once; beside them nothing but what only the Secret holds. What follows keeps to
/// the protocol, and above all loses nothing of the Secret.
fn become_the_record(world: &World<'_>, versions: &[IssuedVersion]) {
    let key = world.key;
    assert!(!versions.is_empty());
    for issued in versions {
        assert!(key.issued(issued.version).is_none(), "recorded twice");
        let Some(pin) = key.pins().iter().find(|pin| pin.version == issued.version) else {
            let SecretView::Read(secret) = world.secret else { panic!("neither pinned nor read") };
            assert!(key.record().is_empty());
            is_whole(issued, secret);
            continue;
        };
        assert!(arn::decrypts_for(&pin.key_id, &issued.key_id));
        assert_eq!(&IssuedVersion { key_id: pin.key_id.clone(), ..issued.clone() }, pin);
    }
    let mut recorded = key.clone();
    recorded.status = Some(status::recorded(key, versions.to_vec()));
    assert!(recorded.record().len() <= MAX_VERSIONS);
    if let Some(recorded) = written(&recorded) {
        assert_eq!(pins::pending(&recorded, world.region), Ok(vec![]), "pinned again");
        let next = World { key: &recorded, ..*world };
        let step = plan(&next, now(0));
        assert!(!matches!(&step, Step::Fail(why) if why.reason == Reason::SecretConflict), "recorded over a Secret");
        keeps_the_protocol(&next, step);
    }
}

/// A Secret that the operator writes is the record's projection, and then nothing but the status is left to write.
fn is_right(key: &DataKey, secret: Box<Secret>) {
    holds_the_record(key, &secret);
    let view = SecretView::Read(secret);
    let step = next(key, &view);
    assert!(matches!(step, Step::Verified(..)), "what was just written: {step:?}");
}

fn holds_the_record(key: &DataKey, secret: &Secret) {
    let data = secret.data.as_ref().unwrap();
    for issued in key.record() {
        assert_eq!(data[&format!("ciphertextBlob.v{}", issued.version)], issued.ciphertext_blob);
        assert_eq!(data[&format!("keyId.v{}", issued.version)].0, issued.key_id.as_bytes());
    }
    let current = key.issued(key.version()).unwrap();
    assert_eq!(data["version"].0, current.version.to_string().as_bytes());
    assert_eq!(data["ciphertextBlob"], current.ciphertext_blob);
    assert_eq!(data["keyId"].0, current.key_id.as_bytes());
}

/// What could be adopted is not overwritten.
fn loses_no_data_key(key: &DataKey, before: &Secret, after: &Secret) {
    let blob = |secret: &Secret, issued: &IssuedVersion| -> Option<ByteString> {
        secret.data.as_ref()?.get(&format!("ciphertextBlob.v{}", issued.version)).cloned()
    };
    for issued in content::adopt(&without_record(key.clone()), before).iter().flatten() {
        assert_eq!(blob(before, issued), blob(after, issued), "data key version {}", issued.version);
    }
}

/// A status that is wanted and then set is not wanted again.
fn is_told_once(key: &DataKey, secret: &SecretView, failure: Option<&Failure>) {
    let world = World { failure, ..World::new(key, secret) };
    let status = match plan(&world, now(0)) {
        Step::Done => return,
        Step::SetStatus(status) => status,
        // What is recorded is published; the pins come then.
        Step::Pin(_) if failure.is_none() => return,
        Step::Fail(of_the_pins) if failure.is_none() && pins::pending(key, None).as_ref() == Err(&of_the_pins) => {
            return is_told_once(key, secret, Some(&of_the_pins));
        }
        Step::Fail(newer)
            if failure.is_none()
                && [newer::in_the_record(key), newer::in_the_spec(key)].contains(&Some(newer.clone())) =>
        {
            return is_told_once(key, secret, Some(&newer));
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
    let mut told = key.clone();
    told.status = Some(*status);
    let again = plan(&World { key: &told, ..world }, now(9));
    assert!(matches!(again, Step::Done), "told again: {again:?}");
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
        if let Some(KmsArn { region, account, resource }) = KmsArn::parse(text) {
            let partition = text.split(':').nth(1).unwrap();
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
