//! The protocol with one precaution left out: what each mutant does otherwise, and the least that must happen for it to
//! be caught.

use datakey::{
    api::{DataKey, DataKeyStatus, VerifiedSecret},
    condition,
    names::SECRET_TYPE,
    protocol::{Answer, SecretState, Source, Step},
    reason::Reason,
    secret::{Projection, known::Verified},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    Model, Violation,
    objects::{self, Id, Spec},
    operator::{Learned, THIS, now},
    secrets,
    server::Writer,
    world::{Budget, KeyAt, NOTHING, Operator, SecretAt, State, View, Write},
};

/// A precaution that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None: the protocol as it is.
    None,

    // === before KMS is asked ===
    /// Nobody looks at the Secret's name.
    NoLook,
    /// A Secret that is there before the record is not adopted but taken as nothing.
    NoAdoption,
    /// A Secret is adopted whatever its data keys were asked for with.
    AdoptOtherSettings,

    // === what is pinned ===
    /// It is overlooked.
    PinsIgnored,
    /// It is recorded whatever the Secret holds.
    PinsOverSecret,
    /// It is recorded without what the Secret holds beside it.
    PinsOnly,

    // === the record ===
    /// It is written whatever the object became meanwhile, and the server does not guard it.
    RecordUnconditionally,
    /// It is written to a `DataKey` of the same name, whatever its uid.
    RecordOnNamesake,
    /// It is written without the earlier versions.
    RecordReplaced,
    /// It was refused, and what KMS answered is published nevertheless.
    RefusedRecordIgnored,
    /// It met another write and is written again, with what KMS answered, without a decision on what the `DataKey` became.
    RecordAgainUndecided,
    /// It met another write, and what KMS answered is recorded although the `DataKey` asks for something else now.
    AnswerToAnother,
    /// It was not answered in time, and what KMS answered is published nevertheless.
    TimeoutIsSuccess,

    // === the Secret ===
    /// It is published before the record.
    SecretFirst,
    /// It is applied instead of created: one that is there is overwritten.
    ApplyInsteadOfCreate,
    /// One that is there is taken for the one that was to be created.
    AlreadyExistsIsSuccess,
    /// One without our marks or of another type is taken for missing and overwritten.
    UnmarkedIsMissing,
    /// It is replaced whatever it became meanwhile.
    ReplaceUnconditionally,
    /// It is put right without comparing its data keys.
    NoComparison,

    // === what is told ===
    /// Ready is told before the Secret is written.
    ReadyFirst,
    /// A Secret that the watch knows is right, whatever its metadata say.
    DriftOverlooked,
    /// What was read and found right is right for any version.
    VerifiedForAnyVersion,
    /// What was read and found right is right whatever the Secret became meanwhile.
    VerifiedForever,
    /// The status names the Secret by its resource version alone.
    RevisionWithoutUid,
    /// The status names a revision, and not what it holds.
    RevisionWithoutDigest,
    /// The status names the revision that is about to be replaced.
    RevisionBeforeTheWrite,

    // === what a step brought ===
    /// A Secret that was read is forgotten.
    LoadedIsAbsent,
    /// A failure is forgotten.
    FailureForgotten,

    // === deletion ===
    /// Under `Delete` every Secret that is created is owned.
    OwnerOfAdopted,
}

/// Every mutant, with the least that must happen for it to be caught.
pub const MUTANTS: &[(Mutant, Budget)] = &[
    (Mutant::NoLook, Budget { recreate: 1, ..NOTHING }),
    (Mutant::NoAdoption, Budget { recreate: 1, ..NOTHING }),
    (Mutant::AdoptOtherSettings, Budget { respec: 1, ..NOTHING }),
    (Mutant::PinsIgnored, Budget { pin: 1, ..NOTHING }),
    (Mutant::PinsOverSecret, Budget { pin: 1, recreate: 1, ..NOTHING }),
    (Mutant::PinsOnly, Budget { pin: 1, recreate: 1, ..NOTHING }),
    (Mutant::RecordUnconditionally, NOTHING),
    (Mutant::RecordOnNamesake, Budget { recreate: 1, ..NOTHING }),
    (Mutant::RecordReplaced, Budget { version: 1, ..NOTHING }),
    (Mutant::RefusedRecordIgnored, NOTHING),
    (Mutant::RecordAgainUndecided, NOTHING),
    (Mutant::AnswerToAnother, Budget { correct: 1, ..NOTHING }),
    (Mutant::TimeoutIsSuccess, Budget { late: 1, ..NOTHING }),
    (Mutant::SecretFirst, Budget { delete_secret: 1, ..NOTHING }),
    (Mutant::ApplyInsteadOfCreate, Budget { foreign: 1, ..NOTHING }),
    (Mutant::AlreadyExistsIsSuccess, Budget { foreign: 1, ..NOTHING }),
    (Mutant::UnmarkedIsMissing, Budget { foreign: 1, ..NOTHING }),
    (Mutant::ReplaceUnconditionally, Budget { edit: 1, version: 1, ..NOTHING }),
    (Mutant::NoComparison, Budget { version: 1, ..NOTHING }),
    (Mutant::ReadyFirst, NOTHING),
    (Mutant::DriftOverlooked, Budget { edit: 1, ..NOTHING }),
    (Mutant::VerifiedForAnyVersion, Budget { version: 1, ..NOTHING }),
    (Mutant::VerifiedForever, Budget { edit: 1, ..NOTHING }),
    (Mutant::RevisionWithoutUid, Budget { migrate: 1, ..NOTHING }),
    (Mutant::RevisionWithoutDigest, Budget { version: 1, ..NOTHING }),
    (Mutant::RevisionBeforeTheWrite, Budget { edit: 1, ..NOTHING }),
    (Mutant::LoadedIsAbsent, NOTHING),
    (Mutant::FailureForgotten, Budget { foreign: 1, ..NOTHING }),
    (Mutant::OwnerOfAdopted, Budget { policy: 1, recreate: 1, ..NOTHING }),
];

impl Model {
    /// What the mutant takes the `DataKey` for.
    pub fn mistaken_key(&self, key: &DataKey, view: &View) -> DataKey {
        let mut taken = key.clone();
        if let (Mutant::AdoptOtherSettings, View::Loaded(at)) = (self.mutant, view)
            && let Some(settings) = self.secret_summary(at.object).asked_with(key.wanted_version())
            && key.record().is_empty()
        {
            let spec = objects::summarize_key(key).spec;
            taken.spec = Spec { settings, ..spec }.whole();
        }
        if self.mutant == Mutant::PinsIgnored {
            taken.spec.wrapped_keys = None;
        }
        if let (Mutant::RevisionWithoutUid | Mutant::RevisionWithoutDigest, View::Watched(_)) = (self.mutant, view)
            && let Some(saved) = taken.status.as_mut().and_then(|status| status.secret.as_mut())
        {
            if self.mutant == Mutant::RevisionWithoutUid {
                THIS.clone_into(&mut saved.uid);
            } else if let Some(wanted) = Projection::of(key, key.wanted_version()) {
                saved.digest = wanted.digest().to_string();
            }
        }
        taken
    }

    /// What the mutant takes the Secret for.
    pub fn mistaken_view(&self, key: &DataKey, seen: SecretState) -> SecretState {
        match (self.mutant, seen) {
            (Mutant::NoLook, SecretState::Unwatched) => SecretState::Absent,
            (Mutant::NoAdoption, SecretState::Present(_) | SecretState::Loaded(_)) if key.record().is_empty() => {
                SecretState::Absent
            }
            (Mutant::PinsOverSecret, SecretState::Watched(_) | SecretState::Present(_) | SecretState::Loaded(_))
                if key.record().is_empty() && !key.pinned_versions().is_empty() =>
            {
                SecretState::Absent
            }
            (Mutant::UnmarkedIsMissing, SecretState::Present(metadata)) if !metadata.is_managed => SecretState::Absent,
            (Mutant::UnmarkedIsMissing, SecretState::Loaded(secret))
                if secret.type_.as_deref() != Some(SECRET_TYPE) =>
            {
                SecretState::Absent
            }
            (mutant @ (Mutant::VerifiedForAnyVersion | Mutant::DriftOverlooked), SecretState::Watched(mut known))
                if known.verified.is_some() || mutant == Mutant::DriftOverlooked =>
            {
                let published = key.status.as_ref().and_then(|status| status.version);
                let wanted = Projection::of(key, key.wanted_version()).or_else(|| Projection::of(key, published?));
                known.verified = wanted.map(|wanted| Verified::written(wanted.digest()));
                SecretState::Watched(known)
            }
            (_, seen) => seen,
        }
    }

    /// What the mutant does instead of the step.
    pub fn mistaken_step(&self, key: &DataKey, secret: &SecretState, step: Step) -> Step {
        let wanted = Projection::of(key, key.wanted_version());
        match (self.mutant, secret, step, wanted) {
            (Mutant::NoComparison, SecretState::Loaded(secret), Step::ReportFailure(failure), Some(wanted))
                if failure.reason == Reason::SecretConflict =>
            {
                Step::ReplaceSecret(Box::new(wanted.restore_into((**secret).clone())), None)
            }
            (Mutant::ReadyFirst, _, step @ Step::CreateSecret(_), Some(_)) => {
                let ready = condition::ready(key, key.recorded_version(key.wanted_version()).unwrap(), None, now());
                if key.status.as_ref() == Some(&ready) { step } else { Step::PutStatus(Box::new(ready)) }
            }
            (
                Mutant::RevisionBeforeTheWrite,
                SecretState::Loaded(read),
                step @ Step::ReplaceSecret(..),
                Some(wanted),
            ) => {
                let mut status = key.status.clone().unwrap();
                let metadata = &read.metadata;
                status.secret = Some(VerifiedSecret {
                    uid: metadata.uid.clone().unwrap(),
                    resource_version: metadata.resource_version.clone().unwrap(),
                    digest: wanted.digest().to_string(),
                });
                if key.status.as_ref() == Some(&status) { step } else { Step::PutStatus(Box::new(status)) }
            }
            (Mutant::OwnerOfAdopted, _, Step::CreateSecret(_), Some(wanted)) => {
                let mut young = key.clone();
                young.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                young.spec.wrapped_keys = None;
                young.status.as_mut().unwrap().adopted = None;
                Step::CreateSecret(Box::new(wanted.into_secret(&young)))
            }
            (Mutant::PinsOnly, _, Step::Record(mut record), _) if record.source == Source::Pins => {
                record.versions.retain(|issued| key.pinned_versions().iter().any(|pin| pin.version == issued.version));
                Step::Record(record)
            }
            (_, _, step, _) => step,
        }
    }

    /// What the mutant records.
    pub fn mistaken_record(&self, mut status: DataKeyStatus, source: Source) -> DataKeyStatus {
        if self.mutant == Mutant::RecordReplaced && source == Source::Kms {
            status.versions.drain(..status.versions.len() - 1);
        }
        status
    }

    /// What the mutant takes the answer for.
    pub fn mistaken_answer(&self, answer: Learned) -> Learned {
        match (self.mutant, answer) {
            (Mutant::LoadedIsAbsent, Answer::Secret { is_verified, .. }) => {
                Answer::Secret { secret: None, is_verified }
            }
            (Mutant::FailureForgotten, Answer::Failed(_)) => Answer::DryRunAccepted,
            (_, answer) => answer,
        }
    }

    /// Whether the server takes a status although the object is another than the one that it was decided on.
    pub fn takes_unguarded_record(&self, at: KeyAt, to: Id) -> bool {
        let same = self.key_summary(at.object).uid == self.key_summary(to).uid;
        match self.mutant {
            Mutant::RecordUnconditionally => same,
            Mutant::RecordOnNamesake => !same,
            _ => false,
        }
    }

    /// The Secret is written with what KMS answered, if there is none.
    pub fn publish_first(&self, state: &mut State, record: &Write) -> Result<(), Violation> {
        let Write::Status { to, .. } = record else { return Ok(()) };
        let key = self.key(*to);
        let wanted = Projection::of(&key, key.wanted_version()).unwrap().into_secret(&key);
        let id = self.secret_number(secrets::stored(wanted));
        if state.secret.is_none() { self.put_secret(state, id, Writer::Operator) } else { Ok(()) }
    }

    /// The watch reports another revision of a Secret that was read.
    pub fn carry_verified(&self, operator: &mut Operator, new: Option<SecretAt>) {
        if let (Mutant::VerifiedForever, Some((at, held)), Some(new)) = (self.mutant, operator.verified, new)
            && at.uid == new.uid
        {
            operator.verified = Some((new, held));
        }
    }
}
