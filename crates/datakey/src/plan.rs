//! All decisions, in one place and pure: from a `DataKey` and what is known of its Secret to the next step.
//!
//! The order is the protocol: *record first, Secret second*. KMS answers every call with a new data key and keeps
//! none, so exactly one data key a version comes from one guarded write: the record in `status.versions`. The Secret
//! is a function of the record, so whoever writes it, whenever and however often, writes the same bytes.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};

use crate::{
    api::{DataKey, DataKeyStatus, IssuedVersion, MAX_VERSIONS, VerifiedSecret},
    newer, pins,
    secret::{
        Projection,
        content::{self, Verdict},
        digest::Digest,
        known::{Known, Origin},
        metadata::SecretMetadata,
        project_under,
    },
    size,
    status::{self, Failure, Reason},
    template::{self, Reserved},
};

/// What a decision rests on.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct World<'a> {
    /// The `DataKey`, from the cache or as the last write answered.
    pub key: &'a DataKey,
    /// What is known of the Secret of that name.
    pub secret: &'a SecretView,
    /// What just failed and has to be told.
    pub failure: Option<&'a Failure>,
    /// How long an earlier failure still forbids another try.
    pub wait: Option<Duration>,
    /// Whether it is this object's turn to call KMS.
    pub turn: bool,
    /// What another client last changed in the Secret, where it was restored so often lately that it is left alone for now.
    pub contested: Option<&'a str>,
    /// The operator's own Region, if it has one.
    pub region: Option<&'a str>,
    /// Whether the installed definition keeps `status.secret`.
    pub revision_is_kept: bool,
    /// Whether the last write of a record failed, and no dry run of it was accepted since.
    pub rehearse: bool,
    /// Whether data keys may be issued at all: not under `--issue=false`.
    pub may_issue: bool,
    /// Another `DataKey` whose recorded data key the Secret of that name holds or has to hold.
    pub rival: Option<&'a str>,
    /// Keys that the template of the Secret may not have.
    pub reserved: &'a Reserved,
    /// Whether the Secret that was read is of the revision that this process or the status vouches for: no other client has
    /// changed it since.
    pub is_vouched_for: bool,
}

/// What is known of the Secret of that name.
#[derive(Clone, Debug)]
pub enum SecretView {
    /// The watch does not know it, and nobody has looked. A Secret of another type may be there.
    NotCached,
    /// The watch knows it: it is of this operator's type.
    Cached(Known),
    /// The server has none.
    Missing,
    /// The server has one; these are its metadata.
    Found(SecretMetadata),
    /// The server has this one.
    Read(Box<Secret>),
}

/// The next step.
#[derive(Clone, Debug)]
pub enum Step {
    /// All is as it should be, or as it can be.
    Done,
    /// Nothing before this time has passed.
    Wait(Duration),
    /// Ask the server for the Secret's metadata.
    Look,
    /// Ask the server for the whole Secret.
    Read,
    /// Take a turn to call KMS, or wait for it.
    Queue,
    /// Write the record with a data key of the largest size, as a dry run: admission that refuses every record must not cost a
    /// call to KMS for each try.
    Rehearse,
    /// Ask KMS for a data key and record it.
    Issue,
    /// Record what the Secret of a `DataKey` without a record holds.
    Record(Vec<IssuedVersion>),
    /// Record what the spec pins, and what the Secret of a `DataKey` without a record holds beside it.
    Pin(Vec<IssuedVersion>),
    /// Create the Secret. One that is there is never overwritten.
    Create(Box<Secret>),
    /// Replace the Secret that was read, if it is still the same; the text names what another client changed in it.
    Replace(Box<Secret>, Option<String>),
    /// The Secret was read and holds what is recorded: at this revision, with this digest.
    Verified(SecretMetadata, Digest),
    /// Tell this failure.
    Fail(Failure),
    /// Write the status.
    SetStatus(Box<DataKeyStatus>),
}

// === impl World ===

impl<'a> World<'a> {
    /// A world in which nothing failed, nothing has to wait, and it is no turn to call KMS.
    pub fn new(key: &'a DataKey, secret: &'a SecretView) -> Self {
        Self {
            key,
            secret,
            failure: None,
            wait: None,
            turn: false,
            contested: None,
            region: None,
            revision_is_kept: true,
            rehearse: false,
            may_issue: true,
            rival: None,
            reserved: Reserved::ALWAYS,
            is_vouched_for: false,
        }
    }

    /// The Secret with these plain entries, if they are recorded.
    fn project(&self, current: i32) -> Option<Projection> {
        project_under(self.key, current, self.reserved)
    }

    /// What the Secret holds as long as no other client changed it: the version that it was last published with.
    fn last_published(&self) -> Option<Projection> {
        self.project(self.key.status.as_ref()?.version?)
    }
}

/// Decides on the next step.
pub fn plan(world: &World<'_>, now: Timestamp) -> Step {
    let key = world.key;
    if key.metadata.deletion_timestamp.is_some() {
        // Nothing is issued, and its Secret is left alone: restoring it would work against the garbage collector. A finalizer
        // can hold the object for long, so Ready must not go on saying that the Secret holds the data key.
        return set_status(world, status::failed(key, &Reason::Deleting.into(), now));
    }
    if let Some(failure) = world.failure {
        return set_status(world, status::failed(key, failure, now));
    }
    if let Some(failure) = newer::in_the_record(key) {
        // What such a version means for the Secret is not known, and the Secret holds all versions or none.
        return fail_once(world, failure);
    }
    let newer = newer::in_the_spec(key);
    let refused = template::refused(key, world.reserved);
    let pins = match (pins::pending(key, world.region), &newer) {
        (Ok(pins), Some(failure)) if !pins.is_empty() => Err(failure.clone()),
        (Ok(pins), _) => refused.map_or(Ok(pins), Err),
        (pins, _) => pins,
    };
    match (key.issued(key.version()), world.project(key.version())) {
        (Some(issued), Some(wanted)) => publish(world, issued, &wanted, pins, now),
        _ => match (pins, newer) {
            (Err(failure), _) | (Ok(_), Some(failure)) => fail_once(world, failure),
            (Ok(pins), None) if pins.is_empty() => issue(world),
            (Ok(pins), None) => pin(world, pins),
        },
    }
}

/// The spec pins data keys that the record has not. They become the record once it is certain that the Secret holds
/// nothing that they would cost.
fn pin(world: &World<'_>, pins: Vec<IssuedVersion>) -> Step {
    let key = world.key;
    if let (Some(wait), SecretView::NotCached | SecretView::Cached(_)) = (world.wait, world.secret) {
        return Step::Wait(wait);
    }
    let intact = |known| {
        [world.last_published(), world.project(key.version())].iter().flatten().any(|of| is_intact(key, known, of))
    };
    match world.secret {
        SecretView::NotCached | SecretView::Missing if is_reserved(world) => reserved(world),
        SecretView::NotCached => Step::Look,
        SecretView::Cached(known) if intact(known) => take_over(key, pins, Step::Pin),
        SecretView::Cached(_) => Step::Read,
        SecretView::Found(metadata) => read_if_managed(metadata),
        SecretView::Missing => take_over(key, pins, Step::Pin),
        SecretView::Read(secret) => match pins::beside(key, pins, secret) {
            Ok(versions) => take_over(key, versions, Step::Pin),
            Err(why) => conflict(key, &why),
        },
    }
}

/// What only a change of the spec can mend is not tried again while it waits.
fn fail_once(world: &World<'_>, failure: Failure) -> Step {
    match world.wait {
        Some(wait) if status::shown_failure(world.key) == Some(failure.reason) => Step::Wait(wait),
        _ => Step::Fail(failure),
    }
}

/// The record has no data key of the wanted version. KMS is asked only once it is certain what the Secret holds.
fn issue(world: &World<'_>) -> Step {
    let key = world.key;
    if key.record().len() >= MAX_VERSIONS {
        return Step::Fail(Reason::TooManyVersions.into());
    }
    if let (Some(wait), SecretView::NotCached | SecretView::Cached(_)) = (world.wait, world.secret) {
        return Step::Wait(wait);
    }
    match world.secret {
        SecretView::NotCached | SecretView::Missing if is_reserved(world) => reserved(world),
        // The look is part of the turn: while many wait, none of them costs the API server anything.
        SecretView::NotCached => in_turn(world, Step::Look),
        SecretView::Cached(known) => match world.last_published() {
            Some(earlier) if is_intact(key, known, &earlier) => in_turn(world, ask_kms(world)),
            _ => Step::Read,
        },
        SecretView::Found(metadata) => read_if_managed(metadata),
        SecretView::Missing => in_turn(world, ask_kms(world)),
        SecretView::Read(secret) if key.record().is_empty() => match content::adopt(key, secret) {
            Ok(versions) => take_over(key, versions, Step::Record),
            // With neither record nor Secret there is nothing to tell this DataKey from a new one.
            Err(why) => conflict(
                key,
                &format!(
                    "{why}. If it holds the data key of a backup, mend its content in place; once it is deleted, a \
                     new data key is issued"
                ),
            ),
        },
        SecretView::Read(secret) => {
            // Recorded versions only: one that the Secret has beyond them is a conflict.
            let earlier = key.record().last().and_then(|last| world.project(last.version));
            match earlier.map(|earlier| content::compare(key, &earlier, secret)) {
                Some(Verdict::Conflict(why)) => conflict(key, &why),
                _ => in_turn(world, ask_kms(world)),
            }
        }
    }
}

/// Whether the name of the Secret is another `DataKey`'s, although no Secret is there: it was deleted, or is yet to be
/// created. A data key of this one in its place would be another data key under a name that workloads use.
fn is_reserved(world: &World<'_>) -> bool {
    world.key.record().is_empty() && world.rival.is_some()
}

fn reserved(world: &World<'_>) -> Step {
    let rival = world.rival.unwrap_or_default();
    conflict(world.key, &format!("it belongs to DataKey {rival}, which has recorded a data key for it"))
}

fn ask_kms(world: &World<'_>) -> Step {
    if world.rehearse { Step::Rehearse } else { Step::Issue }
}

/// A step on the way to KMS: only where a data key may be issued, and with a permit.
fn in_turn(world: &World<'_>, step: Step) -> Step {
    let key = world.key;
    let obstacle = must_not_be_issued(world).map(Failure::from);
    match obstacle.or_else(|| size::excess(key, &[size::largest(key, world.region)])) {
        Some(failure) => Step::Fail(failure),
        None if world.turn => step,
        None => Step::Queue,
    }
}

/// A step that records these versions, where Kubernetes can store what the record becomes.
fn take_over(key: &DataKey, versions: Vec<IssuedVersion>, step: fn(Vec<IssuedVersion>) -> Step) -> Step {
    match size::excess(key, &versions) {
        Some(failure) => Step::Fail(failure),
        None => step(versions),
    }
}

/// Why what is neither recorded nor pinned nor in the Secret is not issued either.
fn must_not_be_issued(world: &World<'_>) -> Option<Reason> {
    if world.key.is_restored() {
        Some(Reason::RestoredWithoutKey)
    } else if world.may_issue {
        None
    } else {
        Some(Reason::IssuingDisabled)
    }
}

/// The record has the data key: the Secret must hold it, whatever becomes of further pins.
fn publish(
    world: &World<'_>,
    issued: &IssuedVersion,
    wanted: &Projection,
    pins: Result<Vec<IssuedVersion>, Failure>,
    now: Timestamp,
) -> Step {
    let key = world.key;
    match world.secret {
        SecretView::Cached(known) if is_intact(key, known, wanted) => match pins {
            Ok(pins) if pins.is_empty() => set_status(world, status::ready(key, issued, to_save(key, known), now)),
            Ok(pins) => pin(world, pins),
            Err(failure) => fail_once(world, failure),
        },
        SecretView::Cached(_) => restore(world, || Step::Read),
        SecretView::NotCached => restore(world, || Step::Create(Box::new(wanted.clone().create(key)))),
        SecretView::Missing => Step::Create(Box::new(wanted.clone().create(key))),
        SecretView::Found(metadata) => read_if_managed(metadata),
        SecretView::Read(secret) => match content::compare(key, wanted, secret) {
            Verdict::Same => Step::Verified(SecretMetadata::of(&secret.metadata), wanted.digest()),
            Verdict::PutRight => replace(world, wanted, secret),
            Verdict::Conflict(why) => match pins {
                // What it holds beyond the record may be what is pinned.
                Ok(pins) if !pins.is_empty() => pin(world, pins),
                _ => conflict(key, &why),
            },
        },
    }
}

/// The Secret does not hold what it should. A client that changes it may do so again and again.
fn restore(world: &World<'_>, step: impl FnOnce() -> Step) -> Step {
    if let Some(wait) = world.wait {
        return Step::Wait(wait);
    }
    match world.contested {
        None => step(),
        Some(changes) => Step::Fail(Failure::new(Reason::SecretContested, changes)),
    }
}

/// The Secret was read, and something of it was changed, or the record grew, or the template changed.
fn replace(world: &World<'_>, wanted: &Projection, secret: &Secret) -> Step {
    let changes = content::changes(wanted, secret).join(", ");
    if secret.immutable == Some(true) && secret.data.as_ref() != Some(&wanted.data) {
        return Step::Fail(Failure::new(Reason::SecretImmutable, changes));
    }
    // Of a revision in which others changed labels of their own, the status may name the digest alone.
    let saved = world.key.status.as_ref().and_then(|status| status.secret.as_ref());
    let is_untouched =
        world.is_vouched_for || saved.is_some_and(|saved| saved.digest == Digest::of(secret).to_string());
    Step::Replace(Box::new(wanted.clone().put_into(secret.clone())), (!is_untouched).then_some(changes))
}

/// Whether the Secret holds exactly this: this process wrote or read this revision of it, or the status says so. Content
/// never changes within a revision, so what this process knows itself goes first.
fn is_intact(key: &DataKey, known: &Known, wanted: &Projection) -> bool {
    match &known.verified {
        Some(verified) => verified.digest == wanted.digest(),
        None => known.saved_in(key).is_some_and(|saved| saved.digest == wanted.digest().to_string()),
    }
}

/// What the status says of a Secret that is intact. A revision that differs only in what others changed, labels for
/// example, is saved later: a sweep over the labels of all Secrets would cost a write for each.
fn to_save(key: &DataKey, known: &Known) -> Option<VerifiedSecret> {
    let saved = key.status.as_ref().and_then(|status| status.secret.as_ref());
    let Some(verified) = known.verified else { return saved.cloned() };
    let revision = &known.metadata.revision;
    let now = VerifiedSecret {
        uid: revision.uid.clone(),
        resource_version: revision.resource_version.clone(),
        digest: verified.digest.to_string(),
    };
    let is_enough = |saved: &&VerifiedSecret| {
        matches!(verified.origin, Origin::Read(_)) && saved.uid == now.uid && saved.digest == now.digest
    };
    Some(saved.filter(is_enough).cloned().unwrap_or(now))
}

/// A Secret that nothing marks as managed by the operator belongs to another owner: its data are not read.
fn read_if_managed(metadata: &SecretMetadata) -> Step {
    if metadata.is_managed {
        Step::Read
    } else {
        Step::Fail(Failure::new(Reason::SecretConflict, "it is not a Secret of this operator"))
    }
}

fn conflict(key: &DataKey, why: &str) -> Step {
    Step::Fail(Failure::new(Reason::SecretConflict, format!("Secret {}: {why}", key.secret_name())))
}

fn set_status(world: &World<'_>, wanted: DataKeyStatus) -> Step {
    let Some(old) = world.key.status.as_ref() else { return Step::SetStatus(Box::new(wanted)) };
    let is_written = if world.revision_is_kept || old.secret == wanted.secret {
        *old == wanted
    } else {
        *old == DataKeyStatus { secret: old.secret.clone(), ..wanted.clone() }
    };
    if is_written { Step::Done } else { Step::SetStatus(Box::new(wanted)) }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Borrow, time::Instant};

    use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};

    use super::*;
    use crate::{
        api::{RESTORED, SecretTemplate, TemplateMetadata, VELERO_RESTORE},
        fixtures::{at, data_key, issued, pinned, recorded},
        identity::Revision,
        secret::{known::Verified, project},
    };

    fn next(key: &DataKey, secret: impl Borrow<SecretView>) -> Step {
        plan(&World { turn: true, ..World::new(key, secret.borrow()) }, at(0))
    }

    fn waiting(key: &DataKey, secret: &SecretView) -> Step {
        plan(&World { wait: Some(Duration::from_secs(9)), ..World::new(key, secret) }, at(0))
    }

    fn restored() -> DataKey {
        let mut key = data_key();
        key.metadata.labels = Some([(VELERO_RESTORE.to_owned(), "drill".to_owned())].into());
        key
    }

    fn metadata(resource_version: &str) -> SecretMetadata {
        let revision = Revision { uid: "s".into(), resource_version: resource_version.into() };
        SecretMetadata { revision, belongs_to: Some("orders".into()), is_managed: true }
    }

    fn foreign() -> SecretView {
        SecretView::Found(SecretMetadata::default())
    }

    fn managed() -> SecretView {
        SecretView::Found(metadata("8"))
    }

    fn digest(key: &DataKey, version: i32) -> Digest {
        project(key, version).unwrap().digest()
    }

    fn cached(resource_version: &str, verified: Option<Verified>) -> SecretView {
        SecretView::Cached(Known { metadata: metadata(resource_version), verified })
    }

    fn intact(key: &DataKey) -> SecretView {
        cached("7", Some(Verified::read(digest(key, key.version()), Instant::now())))
    }

    fn changed() -> SecretView {
        cached("8", None)
    }

    fn saved(key: &DataKey, version: i32) -> VerifiedSecret {
        VerifiedSecret { uid: "s".into(), resource_version: "7".into(), digest: digest(key, version).to_string() }
    }

    fn read(key: &DataKey) -> SecretView {
        SecretView::Read(Box::new(project(key, key.version()).unwrap().create(key)))
    }

    fn failure(step: Step) -> Failure {
        let Step::Fail(failure) = step else { panic!("{step:?}") };
        failure
    }

    fn published(versions: &[i32]) -> DataKey {
        let mut key = recorded(versions);
        key.status = Some(status::ready(&key, &issued(key.version()), Some(saved(&key, key.version())), at(0)));
        key
    }

    #[test]
    fn a_record_of_a_newer_release_stops_everything_but_its_report() {
        let mut key = recorded(&[1, 2]);
        key.status.as_mut().unwrap().versions[0].rest.insert("asWritten".into(), true.into());
        let intact = intact(&key);
        for version in [1, 2, 3] {
            key.spec.version = Some(version);
            for secret in [&SecretView::NotCached, &SecretView::Missing, &intact] {
                let Step::Fail(failure) = next(&key, secret) else { panic!("{:?}", next(&key, secret)) };
                assert_eq!(failure.reason, Reason::RecordNewer);
            }
        }
        key.status = Some(status::failed(&key, &Reason::RecordNewer.into(), at(1)));
        assert!(matches!(waiting(&key, &intact), Step::Wait(_)), "reported once");
    }

    #[test]
    fn a_field_of_a_newer_spec_stops_issuing_and_not_restoring() {
        let mut key = recorded(&[1]);
        key.spec.rest.insert("className".into(), "shop".into());
        assert!(matches!(next(&key, SecretView::Missing), Step::Create(_)), "the recorded version is restored");
        assert!(matches!(next(&key, intact(&key)), Step::SetStatus(_)), "and ready");
        let mut born = data_key();
        born.spec.rest.clone_from(&key.spec.rest);
        key.spec.version = Some(2);
        let mut with_pin = recorded(&[1]);
        with_pin.spec.rest.clone_from(&key.spec.rest);
        with_pin.spec.wrapped_keys = Some(vec![issued(2)]);
        for (key, secret) in [
            (&key, intact(&recorded(&[1]))),
            (&born, SecretView::Missing),
            (&born, SecretView::Read(Box::new(project(&recorded(&[1]), 1).unwrap().create(&born)))),
            (&with_pin, intact(&recorded(&[1]))),
        ] {
            let step = next(key, secret);
            assert!(matches!(&step, Step::Fail(failure) if failure.reason == Reason::SpecNewer), "{step:?}");
        }
    }

    #[test]
    fn a_new_data_key_looks_at_the_secrets_name_before_it_asks_kms() {
        assert!(matches!(next(&data_key(), SecretView::NotCached), Step::Look));
        assert!(matches!(next(&data_key(), SecretView::Missing), Step::Issue));
    }

    #[test]
    fn what_only_the_spec_changed_is_no_change_of_another_client() {
        let mut key = published(&[1]);
        let before = read(&key);
        let metadata = TemplateMetadata { labels: Some([("team".into(), "shop".into())].into()), ..<_>::default() };
        key.spec.secret_template = Some(SecretTemplate { metadata: Some(metadata), ..<_>::default() });
        let names = |key: &DataKey, view: &SecretView, is_vouched_for: bool| match plan(
            &World { is_vouched_for, ..World::new(key, view) },
            at(0),
        ) {
            Step::Replace(_, changes) => changes,
            step => panic!("{step:?}"),
        };
        assert_eq!(names(&key, &before, false), None, "the status has its digest");
        // The template changed again before the status was written.
        key.status.as_mut().unwrap().secret = None;
        assert_eq!(names(&key, &before, true), None);
        assert_eq!(
            names(&key, &before, false).unwrap(),
            "label team is missing, annotation datakey.dev/applied is missing"
        );
    }

    #[test]
    fn what_kubernetes_could_not_store_is_neither_issued_nor_recorded() {
        let large = |mut issued: IssuedVersion| {
            issued.request.encryption_context = Some([("a".to_owned(), "\u{1}".repeat(8191))].into());
            issued
        };
        let versions: Vec<_> = (1..=21).map(|version| large(issued(version))).collect();
        let mut new = data_key();
        new.spec.encryption_context.clone_from(&versions[0].request.encryption_context);
        let mut full = new.clone();
        full.status = Some(status::recorded(&full, versions[..20].to_vec()));
        full.spec.version = Some(21);
        for view in [SecretView::NotCached, SecretView::Missing] {
            assert_eq!(failure(next(&full, &view)).reason, Reason::SecretTooLarge);
            assert_eq!(
                failure(plan(&World::new(&full, &view), at(0))).reason,
                Reason::SecretTooLarge,
                "no turn is taken"
            );
        }
        let mut pins = new.clone();
        pins.spec.wrapped_keys = Some(versions.clone());
        assert_eq!(failure(next(&pins, SecretView::Missing)).reason, Reason::SecretTooLarge);
        let mut backup = new.clone();
        backup.status = Some(status::recorded(&backup, versions));
        assert_eq!(failure(next(&new, read(&backup))).reason, Reason::SecretTooLarge);
        // What is recorded is published, with whatever size an earlier release let it have.
        full.spec.version = Some(20);
        assert!(matches!(next(&full, SecretView::Missing), Step::Create(_)));
    }

    #[test]
    fn the_name_of_a_deleted_secret_stays_reserved_for_the_data_key_that_has_a_record() {
        let rival = |key: &DataKey, view: &SecretView| {
            plan(&World { rival: Some("invoices"), turn: true, ..World::new(key, view) }, at(0))
        };
        for key in [data_key(), pinned(&[1])] {
            for view in [SecretView::NotCached, SecretView::Missing] {
                let failure = failure(rival(&key, &view));
                assert_eq!(failure.reason, Reason::SecretConflict);
                assert!(failure.detail.unwrap().contains("belongs to DataKey invoices"));
            }
        }
        // Its own Secret is adopted, and what it has recorded is published, also where another DataKey wants the name.
        assert!(matches!(rival(&data_key(), &changed()), Step::Read));
        assert!(matches!(rival(&data_key(), &read(&recorded(&[1]))), Step::Record(_)));
        assert!(matches!(rival(&recorded(&[1]), &SecretView::Missing), Step::Create(_)));
    }

    #[test]
    fn a_restored_data_key_is_never_issued() {
        // With a turn and without one: no turn is taken.
        for view in [SecretView::NotCached, SecretView::Missing] {
            assert_eq!(failure(next(&restored(), &view)).reason, Reason::RestoredWithoutKey);
            assert_eq!(failure(plan(&World::new(&restored(), &view), at(0))).reason, Reason::RestoredWithoutKey);
        }
        assert!(matches!(next(&restored(), changed()), Step::Read));
        assert!(matches!(next(&restored(), read(&recorded(&[1]))), Step::Record(_)));
        let mut key = restored();
        key.status = recorded(&[1]).status;
        assert!(matches!(next(&key, SecretView::Missing), Step::Create(_)));
        key.spec.version = Some(2);
        assert_eq!(failure(next(&key, SecretView::Missing)).reason, Reason::RestoredWithoutKey);
        key.spec.wrapped_keys = Some(vec![issued(2)]);
        assert!(matches!(next(&key, SecretView::Missing), Step::Pin(_)));
    }

    #[test]
    fn a_restored_data_key_without_its_sign_is_issued() {
        let mut key = restored();
        key.metadata.generation = Some(2);
        assert!(matches!(next(&key, SecretView::Missing), Step::Issue), "the spec was changed");
        let mut key = restored();
        key.metadata.labels = None;
        assert!(matches!(next(&key, SecretView::Missing), Step::Issue));
        key.metadata.annotations = Some([(RESTORED.to_owned(), String::new())].into());
        assert_eq!(failure(next(&key, SecretView::Missing)).reason, Reason::RestoredWithoutKey);
    }

    #[test]
    fn without_issuing_what_exists_is_published() {
        let disabled = |key: &DataKey, view: SecretView| {
            plan(&World { may_issue: false, turn: true, ..World::new(key, &view) }, at(0))
        };
        for view in [SecretView::NotCached, SecretView::Missing] {
            assert_eq!(failure(disabled(&data_key(), view)).reason, Reason::IssuingDisabled);
        }
        assert!(matches!(disabled(&data_key(), read(&recorded(&[1]))), Step::Record(_)));
        assert!(matches!(disabled(&pinned(&[1]), SecretView::Missing), Step::Pin(_)));
        assert!(matches!(disabled(&recorded(&[1]), SecretView::Missing), Step::Create(_)));
        let mut key = published(&[1]);
        let before = intact(&key);
        key.spec.version = Some(2);
        assert_eq!(failure(disabled(&key, before)).reason, Reason::IssuingDisabled);
    }

    #[test]
    fn a_foreign_secret_is_neither_read_nor_overwritten_and_kms_is_not_asked() {
        for key in [data_key(), recorded(&[1])] {
            let failure = failure(next(&key, foreign()));
            assert_eq!(failure.reason, Reason::SecretConflict);
        }
    }

    #[test]
    fn a_secret_without_a_record_is_adopted_and_kms_is_not_asked() {
        assert!(matches!(next(&data_key(), changed()), Step::Read));
        assert!(matches!(next(&data_key(), managed()), Step::Read));
        let Step::Record(versions) = next(&data_key(), read(&recorded(&[1]))) else { panic!() };
        assert_eq!(versions, vec![issued(1)]);
    }

    #[test]
    fn a_secret_that_does_not_fit_the_spec_is_a_conflict_and_kms_is_not_asked() {
        let mut key = data_key();
        key.spec.key_id = "alias/other".into();
        assert_eq!(failure(next(&key, read(&recorded(&[1])))).reason, Reason::SecretConflict);
    }

    #[test]
    fn a_recorded_data_key_is_created_and_never_issued_again() {
        for view in [SecretView::NotCached, SecretView::Missing] {
            let Step::Create(secret) = next(&recorded(&[1]), view) else { panic!() };
            assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
        }
    }

    #[test]
    fn an_intact_secret_makes_ready_and_then_nothing() {
        let key = recorded(&[1]);
        let Step::SetStatus(status) = next(&key, intact(&key)) else { panic!() };
        assert_eq!(status.conditions[0].status, "True");
        let mut key = key;
        key.status = Some(*status);
        assert!(matches!(next(&key, intact(&key)), Step::Done));
    }

    #[test]
    fn a_changed_secret_is_read_before_it_is_put_right() {
        let key = published(&[1]);
        assert!(matches!(next(&key, changed()), Step::Read));
        let SecretView::Read(mut secret) = read(&key) else { panic!() };
        secret.data.as_mut().unwrap().insert("ciphertextBlob".into(), ByteString(b"x".to_vec()));
        let Step::Replace(secret, _) = next(&key, SecretView::Read(secret)) else { panic!() };
        assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
    }

    #[test]
    fn a_secret_that_was_read_and_is_right_is_not_written() {
        let key = published(&[1]);
        let Step::Verified(_, held) = next(&key, read(&key)) else { panic!() };
        assert_eq!(held, digest(&key, 1));
        assert!(matches!(next(&key, cached("8", Some(Verified::read(held, Instant::now())))), Step::Done));
    }

    #[test]
    fn the_saved_revision_is_intact_while_its_digest_is_wanted() {
        let mut key = published(&[1, 2]);
        assert!(matches!(next(&key, cached("7", None)), Step::Done));
        assert!(matches!(next(&key, cached("8", None)), Step::Read), "another revision");
        let other =
            SecretMetadata { revision: Revision { uid: "t".into(), ..metadata("7").revision }, ..metadata("7") };
        let view = SecretView::Cached(Known { metadata: other, verified: None });
        assert!(matches!(next(&key, view), Step::Read), "another Secret with the same resource version");
        key.spec.version = Some(1);
        assert!(matches!(next(&key, cached("7", None)), Step::Read), "other entries are wanted");
        key.status.as_mut().unwrap().secret = None;
        assert!(matches!(next(&key, cached("7", None)), Step::Read), "nothing is saved: recorded by 0.1.0");
    }

    #[test]
    fn what_was_read_goes_before_what_is_saved() {
        let key = published(&[1, 2]);
        let view = cached("7", Some(Verified::read(digest(&key, 1), Instant::now())));
        assert!(matches!(next(&key, view), Step::Read));
    }

    #[test]
    fn a_revision_is_saved_once_written_or_settled() {
        let key = published(&[1]);
        let held = digest(&key, 1);
        let saved_by = |resource_version: &str, verified| match next(&key, cached(resource_version, Some(verified))) {
            Step::SetStatus(status) => status.secret.map(|saved| saved.resource_version),
            Step::Done => None,
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
    fn another_secret_or_digest_is_saved_at_once() {
        let old = published(&[1]);
        for forget in [(|saved| saved.uid = "t".into()) as fn(&mut VerifiedSecret), |saved| {
            saved.digest = "of another release".into();
        }] {
            let mut key = old.clone();
            forget(key.status.as_mut().unwrap().secret.as_mut().unwrap());
            let Step::SetStatus(status) = next(&key, intact(&key)) else { panic!() };
            assert_eq!(status.secret, Some(saved(&key, 1)));
        }
    }

    #[test]
    fn a_definition_that_drops_the_revision_causes_no_loop() {
        let mut key = published(&[1]);
        key.status.as_mut().unwrap().secret = None;
        let view = intact(&key);
        let older = |key: &DataKey| plan(&World { revision_is_kept: false, ..World::new(key, &view) }, at(0));
        assert!(matches!(next(&key, &view), Step::SetStatus(_)));
        assert!(matches!(older(&key), Step::Done));
        key.status.as_mut().unwrap().version = None;
        assert!(matches!(older(&key), Step::SetStatus(_)), "the rest is written as ever");
    }

    #[test]
    fn an_immutable_secret_with_other_entries_is_reported() {
        let key = published(&[1]);
        let SecretView::Read(mut secret) = read(&key) else { panic!() };
        secret.immutable = Some(true);
        assert!(matches!(next(&key, SecretView::Read(secret.clone())), Step::Verified(..)));
        let mut unlabelled = secret.clone();
        unlabelled.metadata.labels = None;
        assert!(matches!(next(&key, SecretView::Read(unlabelled)), Step::Replace(..)), "metadata may be changed");
        secret.data.as_mut().unwrap().insert("keyId".into(), ByteString(b"x".to_vec()));
        let failure = failure(next(&key, SecretView::Read(secret)));
        assert_eq!(failure.reason, Reason::SecretImmutable);
        assert!(failure.to_string().contains("entry keyId was changed"), "{failure}");
    }

    #[test]
    fn a_new_version_is_issued_beside_an_intact_secret_without_reading_it() {
        let key = published(&[1]);
        let before = intact(&key);
        let mut key = key;
        key.spec.version = Some(2);
        assert!(matches!(next(&key, before), Step::Issue));
        assert!(matches!(next(&key, changed()), Step::Read));
        assert!(matches!(next(&key, SecretView::NotCached), Step::Look));
    }

    #[test]
    fn a_new_version_is_not_issued_over_a_secret_that_already_has_it() {
        let mut key = published(&[1]);
        key.spec.version = Some(2);
        assert_eq!(failure(next(&key, read(&recorded(&[1, 2])))).reason, Reason::SecretConflict);
    }

    #[test]
    fn going_back_to_an_issued_version_issues_nothing() {
        let mut key = published(&[1, 2]);
        key.spec.version = Some(1);
        let Step::Replace(secret, _) = next(&key, read(&recorded(&[1, 2]))) else { panic!() };
        let data = secret.data.unwrap();
        assert_eq!(data["ciphertextBlob"], issued(1).ciphertext_blob);
        assert_eq!(data["ciphertextBlob.v2"], issued(2).ciphertext_blob);
    }

    #[test]
    fn what_is_pinned_is_recorded_and_never_issued() {
        let key = pinned(&[1, 2]);
        assert!(matches!(next(&key, SecretView::NotCached), Step::Look));
        let Step::Pin(versions) = next(&key, SecretView::Missing) else { panic!() };
        assert_eq!(versions, vec![issued(1), issued(2)]);
        let Step::Create(secret) = next(&recorded(&[1, 2]), SecretView::Missing) else { panic!() };
        assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(2).ciphertext_blob);
    }

    #[test]
    fn pins_take_no_turn_at_kms_and_wait_after_a_failure() {
        let key = pinned(&[1]);
        let (missing, not_cached) = (SecretView::Missing, SecretView::NotCached);
        assert!(matches!(plan(&World::new(&key, &missing), at(0)), Step::Pin(_)));
        assert!(matches!(plan(&World::new(&key, &not_cached), at(0)), Step::Look));
        assert!(matches!(waiting(&key, &not_cached), Step::Wait(_)));
        assert!(matches!(waiting(&key, &changed()), Step::Wait(_)));
    }

    #[test]
    fn beside_pins_a_secret_is_read_and_what_it_holds_more_is_recorded_too() {
        let key = pinned(&[1]);
        assert!(matches!(next(&key, changed()), Step::Read));
        assert!(matches!(next(&key, managed()), Step::Read));
        let Step::Pin(versions) = next(&key, read(&recorded(&[1, 2]))) else { panic!() };
        assert_eq!(versions, vec![issued(1), issued(2)]);
    }

    #[test]
    fn a_secret_that_contradicts_a_pin_is_a_conflict_and_nothing_is_recorded() {
        let mut key = pinned(&[1]);
        key.spec.wrapped_keys.as_mut().unwrap()[0].ciphertext_blob = ByteString(b"another data key".to_vec());
        assert_eq!(failure(next(&key, read(&recorded(&[1])))).reason, Reason::SecretConflict);
        assert_eq!(failure(next(&key, foreign())).reason, Reason::SecretConflict);
    }

    #[test]
    fn a_pinned_version_is_not_issued_even_when_the_pin_can_not_be_used() {
        let mut key = pinned(&[1]);
        key.spec.wrapped_keys.as_mut().unwrap()[0].key_id = "alias/orders".into();
        for view in [SecretView::NotCached, SecretView::Missing, changed(), read(&recorded(&[1]))] {
            assert_eq!(failure(next(&key, view)).reason, Reason::PinInvalid);
        }
        // Nor is another one while a pin can't be followed.
        key.spec.version = Some(2);
        assert_eq!(failure(next(&key, SecretView::Missing)).reason, Reason::PinInvalid);
    }

    #[test]
    fn a_version_beyond_the_pins_is_issued_once_they_are_recorded() {
        let mut key = pinned(&[1]);
        key.spec.version = Some(2);
        assert!(matches!(next(&key, SecretView::Missing), Step::Pin(_)));
        key.status = Some(status::recorded(&key, vec![issued(1)]));
        assert!(matches!(next(&key, SecretView::Missing), Step::Issue));
    }

    #[test]
    fn a_pin_that_is_added_later_is_recorded_beside_an_intact_secret_without_reading_it() {
        let mut key = published(&[1]);
        key.spec.wrapped_keys = Some(vec![issued(1), issued(2)]);
        let Step::Pin(versions) = next(&key, intact(&key)) else { panic!() };
        assert_eq!(versions, vec![issued(2)]);
        // What is recorded is published first.
        assert!(matches!(next(&key, changed()), Step::Read));
        assert!(matches!(next(&key, SecretView::NotCached), Step::Create(_)));
        // And then the Secret gets it.
        let held = intact(&key);
        let Step::Pin(versions) = next(&key, &held) else { panic!() };
        key.status = Some(status::recorded(&key, versions));
        assert!(matches!(next(&key, &held), Step::Read));
        let Step::Replace(secret, _) = next(&key, read(&recorded(&[1]))) else { panic!() };
        assert_eq!(secret.data.unwrap()["ciphertextBlob.v2"], issued(2).ciphertext_blob);
    }

    #[test]
    fn what_the_secret_holds_beyond_the_record_is_recorded_once_it_is_pinned() {
        let mut key = published(&[1]);
        let view = read(&recorded(&[1, 2]));
        assert_eq!(failure(next(&key, &view)).reason, Reason::SecretConflict);
        key.spec.wrapped_keys = Some(vec![issued(2)]);
        let Step::Pin(versions) = next(&key, &view) else { panic!() };
        assert_eq!(versions, vec![issued(2)]);
    }

    #[test]
    fn removing_recorded_pins_changes_nothing() {
        let mut key = published(&[1, 2]);
        key.spec.wrapped_keys = Some(vec![issued(1), issued(2)]);
        assert!(matches!(next(&key, intact(&key)), Step::Done));
        key.spec.wrapped_keys = None;
        assert!(matches!(next(&key, intact(&key)), Step::Done));
    }

    #[test]
    fn a_pin_that_contradicts_the_record_is_told_and_the_secret_follows_the_record() {
        let mut key = published(&[1]);
        let pin = IssuedVersion { ciphertext_blob: ByteString(b"another data key".to_vec()), ..issued(1) };
        key.spec.wrapped_keys = Some(vec![pin]);
        let conflict = failure(next(&key, intact(&key)));
        assert_eq!(conflict.reason, Reason::PinConflict);
        let Step::Create(secret) = next(&key, SecretView::NotCached) else { panic!() };
        assert_eq!(secret.data.unwrap()["ciphertextBlob"], issued(1).ciphertext_blob);
        assert!(matches!(next(&key, changed()), Step::Read));
        // It is told once.
        let Step::SetStatus(told) = plan(&World { failure: Some(&conflict), ..World::new(&key, &intact(&key)) }, at(0))
        else {
            panic!()
        };
        key.status = Some(*told);
        assert!(matches!(waiting(&key, &intact(&key)), Step::Wait(_)));
        // And a version that nobody pinned is not issued meanwhile.
        key.spec.version = Some(2);
        assert_eq!(failure(next(&key, SecretView::Missing)).reason, Reason::PinConflict);
    }

    #[test]
    fn the_record_names_the_key_of_the_operators_own_region() {
        let mut key = pinned(&[1]);
        let arn = |region| format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab");
        key.spec.wrapped_keys.as_mut().unwrap()[0].key_id = arn("eu-west-1");
        let there = World { region: Some("us-east-1"), ..World::new(&key, &SecretView::Missing) };
        let Step::Pin(versions) = plan(&there, at(0)) else { panic!() };
        assert_eq!(versions[0].key_id, arn("us-east-1"));
    }

    #[test]
    fn a_data_key_being_deleted_says_so_and_does_nothing_more() {
        for key in [data_key(), recorded(&[1]), published(&[1])] {
            for view in [SecretView::NotCached, SecretView::Missing, changed()] {
                let mut key = key.clone();
                key.metadata.deletion_timestamp = Some(Time(at(0)));
                let Step::SetStatus(status) = next(&key, view) else { panic!() };
                assert_eq!(status.conditions[0].reason, "Deleting");
                assert!(status.conditions.len() == 1 && status.versions == key.record());
                key.status = Some(*status);
                assert!(matches!(next(&key, SecretView::Missing), Step::Done), "once");
            }
        }
    }

    #[test]
    fn a_failure_is_told_once() {
        let mut key = data_key();
        let failure = Failure::from(Reason::KeyDisabled);
        let secret = SecretView::Missing;
        let told = plan(&World { failure: Some(&failure), ..World::new(&key, &secret) }, at(0));
        let Step::SetStatus(status) = told else { panic!() };
        key.status = Some(*status);
        let again = plan(&World { failure: Some(&failure), ..World::new(&key, &secret) }, at(9));
        assert!(matches!(again, Step::Done));
    }

    #[test]
    fn while_a_failure_waits_neither_kms_nor_the_api_server_is_asked() {
        let mut bumped = published(&[1]);
        let before = intact(&bumped);
        bumped.spec.version = Some(2);
        for (key, view) in [
            (data_key(), SecretView::NotCached),
            (data_key(), changed()),
            (recorded(&[1]), SecretView::NotCached),
            (published(&[1]), changed()),
            (bumped, before),
        ] {
            assert!(matches!(waiting(&key, &view), Step::Wait(_)));
        }
    }

    #[test]
    fn neither_kms_nor_the_secrets_name_is_asked_out_of_turn() {
        let mut bumped = published(&[1]);
        let before = intact(&bumped);
        bumped.spec.version = Some(2);
        for (key, view) in [
            (data_key(), SecretView::NotCached),
            (data_key(), SecretView::Missing),
            (bumped.clone(), before),
            (bumped, read(&recorded(&[1]))),
        ] {
            assert!(matches!(plan(&World::new(&key, &view), at(0)), Step::Queue));
        }
        let adoptable = (data_key(), read(&recorded(&[1])));
        assert!(matches!(plan(&World::new(&adoptable.0, &adoptable.1), at(0)), Step::Record(_)), "needs no call");
    }

    #[test]
    fn contested_secret_is_reported_and_not_restored() {
        let key = published(&[1]);
        let changes = Some("entry keyId was changed");
        let contested = |view: &SecretView| plan(&World { contested: changes, ..World::new(&key, view) }, at(0));
        for view in [changed(), SecretView::NotCached] {
            let failure = failure(contested(&view));
            assert_eq!(failure.reason, Reason::SecretContested);
            assert!(failure.to_string().contains("entry keyId was changed"), "{failure}");
        }
        assert!(matches!(contested(&intact(&key)), Step::Done), "only while it is changed");
    }

    #[test]
    fn after_a_failed_record_a_dry_run_comes_before_kms() {
        let rehearse = |turn| {
            let (key, secret) = (data_key(), SecretView::Missing);
            plan(&World { turn, rehearse: true, ..World::new(&key, &secret) }, at(0))
        };
        assert!(matches!(rehearse(true), Step::Rehearse));
        assert!(matches!(rehearse(false), Step::Queue));
    }

    #[test]
    fn the_sixty_fifth_version_is_not_issued() {
        let versions: Vec<i32> = (1..=64).collect();
        let mut key = recorded(&versions);
        key.spec.version = Some(65);
        assert_eq!(failure(next(&key, SecretView::Missing)).reason, Reason::TooManyVersions);
    }
}
