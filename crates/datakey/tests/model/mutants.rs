//! The mutants of the protocol, each without one precaution: what a mutant does differently, and the smallest budget with which
//! the model catches it.

use datakey::{
    api::{IssuedVersion, KeyKind as _, KeyStatus, VerifiedSecret},
    condition,
    protocol::{Answer, SecretState, Source, Step},
    reason::Reason,
    secret::{Projection, known::Verified},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    Model, Violation,
    budgets::{Budget, NOTHING},
    classes::ClassView,
    kind::Key,
    objects::{self, Id, Spec},
    operator::{Learned, THIS, now},
    secrets,
    server::Writer,
    world::{KeyAt, Operator, SecretAt, State, View, Write},
};

mod classes;

/// The precaution that a mutant omits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None: the protocol as it is.
    None,

    // === before the call to KMS ===
    /// No request checks whether the Secret's name is free.
    NameNotChecked,
    /// A Secret without a record is ignored instead of adopted.
    NoAdoption,
    /// A Secret is adopted although its data keys were requested with other variant.
    AdoptOtherSettings,

    // === the pins ===
    /// Pins are ignored.
    PinsIgnored,
    /// Pins are recorded without reading the Secret.
    PinsOverSecret,
    /// Pins are recorded without the other versions in the Secret.
    PinsOnly,
    /// A pin is compared with the record by what it is a rewrap of, too.
    RewrapOfCompared,
    /// Pins are recorded without what they are rewraps of.
    RewrapOfForgotten,

    // === the record ===
    /// The record is written over a changed object, and the server does not guard it.
    RecordUnconditionally,
    /// The record is written to a `DataKey` of the same name with another uid.
    RecordOnNamesake,
    /// The record is written without the earlier versions.
    RecordReplaced,
    /// The write of the record is rejected, and the answer of KMS is published nevertheless.
    RefusedRecordIgnored,
    /// The write of the record conflicts, and the answer of KMS is written again without a decision on the new `DataKey`.
    RecordAgainUndecided,
    /// The write of the record conflicts, and the answer of KMS is recorded although the new spec requests another data key.
    AnswerToAnother,
    /// The write of the record times out, and the answer of KMS is published nevertheless.
    TimeoutIsSuccess,

    // === the Secret ===
    /// The Secret is written before the record.
    SecretFirst,
    /// The Secret is applied instead of created, and overwrites an existing one.
    ApplyInsteadOfCreate,
    /// An existing Secret counts as the one that was to be created.
    AlreadyExistsIsSuccess,
    /// A Secret that is not managed, or is of another type, counts as missing and is overwritten.
    UnmarkedIsMissing,
    /// The Secret is replaced although it changed after it was read.
    ReplaceUnconditionally,
    /// The Secret is restored without comparing its data keys.
    NoComparison,

    // === the status ===
    /// Ready becomes True before the Secret is written.
    ReadyFirst,
    /// A watched Secret counts as intact, whatever its revision is.
    DriftOverlooked,
    /// A Secret that was verified for one version counts as intact for any version.
    VerifiedForAnyVersion,
    /// A Secret that was verified at one revision counts as intact at any later revision.
    VerifiedForever,
    /// The status names the Secret by its resource version alone.
    RevisionWithoutUid,
    /// The status names a revision without the digest of its content.
    RevisionWithoutDigest,
    /// The status names the revision that the next write replaces.
    RevisionBeforeTheWrite,

    // === the answers ===
    /// A Secret that was read counts as absent.
    LoadedIsAbsent,
    /// A failure is ignored.
    FailureForgotten,

    // === deletion ===
    /// Under `Delete` every new Secret gets an owner reference.
    OwnerOfAdopted,

    // === the class ===
    /// KMS is called whatever the class allows.
    CallNotJudged,
    /// The answer of KMS is judged by the class as it was before the call.
    AnswerOutlivesClass,
    /// The answer of KMS is recorded although the class fills in something else by now.
    AnswerToAnotherClass,
    /// KMS is called as the operator, although the class names a role.
    RoleNotAssumed,
    /// An answer is recorded although another identity would ask now.
    AnswerToAnotherIdentity,
    /// Pins are recorded whatever the class allows.
    PinsNotJudged,
    /// What the Secret holds is recorded whatever the class allows.
    AdoptionNotJudged,
    /// A recorded version is Ready only while the class allows it.
    JudgedAgain,
    /// Before classes are listed, no class applies.
    UnlistedIsNoClass,
    /// Where classes cannot be listed, no class applies.
    UnavailableIsNoClass,
    /// Where the class does not exist, no class applies.
    AbsentIsNoClass,
    /// The check `Accepted` is omitted.
    FlawIgnored,
    /// The check `keyIds` is omitted.
    KeyIdsNotChecked,
    /// The check `keyArns` of the answers of KMS is omitted.
    KeyArnsNotChecked,
    /// The check `encryptionContext.pairs` of what a Secret holds is omitted.
    PairsNotChecked,
    /// The record does not say what the spec says.
    WrittenForgotten,
    /// The record has the request of the spec instead of what KMS was asked.
    RequestAsWritten,
    /// A pin is compared with the spec by what KMS was asked.
    PinsComparedAsAsked,
    /// A Secret is compared with the spec by what KMS was asked.
    AdoptedAsAsked,
}

/// Every mutant, with the smallest budget with which the model catches it.
pub const MUTANTS: &[(Mutant, Budget)] = &[
    (Mutant::NameNotChecked, Budget { recreate: 1, ..NOTHING }),
    (Mutant::NoAdoption, Budget { recreate: 1, ..NOTHING }),
    (Mutant::AdoptOtherSettings, Budget { respec: 1, ..NOTHING }),
    (Mutant::PinsIgnored, Budget { pin: 1, ..NOTHING }),
    (Mutant::PinsOverSecret, Budget { pin: 1, recreate: 1, ..NOTHING }),
    (Mutant::PinsOnly, Budget { pin: 1, recreate: 1, ..NOTHING }),
    (Mutant::RewrapOfCompared, Budget { pin: 1, version: 1, ..NOTHING }),
    (Mutant::RewrapOfForgotten, Budget { pin: 1, ..NOTHING }),
    (Mutant::RecordUnconditionally, NOTHING),
    (Mutant::RecordOnNamesake, Budget { recreate: 1, ..NOTHING }),
    (Mutant::RecordReplaced, Budget { version: 1, ..NOTHING }),
    (Mutant::RefusedRecordIgnored, NOTHING),
    (Mutant::RecordAgainUndecided, NOTHING),
    (Mutant::AnswerToAnother, Budget { version: 1, ..NOTHING }),
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
    (Mutant::CallNotJudged, Budget { class: 1, ..NOTHING }),
    (Mutant::AnswerOutlivesClass, Budget { class: 1, ..NOTHING }),
    (Mutant::AnswerToAnotherClass, Budget { class: 1, ..NOTHING }),
    (Mutant::RoleNotAssumed, Budget { class: 1, ..NOTHING }),
    (Mutant::AnswerToAnotherIdentity, Budget { class: 1, correct: 1, ..NOTHING }),
    (Mutant::PinsNotJudged, Budget { class: 1, pin: 1, ..NOTHING }),
    (Mutant::AdoptionNotJudged, Budget { class: 1, ..NOTHING }),
    (Mutant::JudgedAgain, Budget { class: 1, ..NOTHING }),
    (Mutant::UnlistedIsNoClass, Budget { unusable: 1, stops: 1, ..NOTHING }),
    (Mutant::UnavailableIsNoClass, Budget { unusable: 1, stops: 1, ..NOTHING }),
    (Mutant::AbsentIsNoClass, Budget { unusable: 1, ..NOTHING }),
    (Mutant::FlawIgnored, Budget { unusable: 1, ..NOTHING }),
    (Mutant::KeyIdsNotChecked, Budget { class: 1, ..NOTHING }),
    (Mutant::KeyArnsNotChecked, Budget { alias: 1, ..NOTHING }),
    (Mutant::PairsNotChecked, Budget { class: 1, ..NOTHING }),
    (Mutant::WrittenForgotten, Budget { class: 1, ..NOTHING }),
    (Mutant::RequestAsWritten, Budget { class: 1, ..NOTHING }),
    (Mutant::PinsComparedAsAsked, Budget { class: 1, pin: 1, ..NOTHING }),
    (Mutant::AdoptedAsAsked, Budget { class: 1, recreate: 1, ..NOTHING }),
];

impl Model {
    /// The `DataKey` as the mutant sees it.
    pub fn mistaken_key(&self, key: &Key, view: &View, class: ClassView) -> Key {
        let mut taken = self.without_class(key.clone(), class);
        if let (Mutant::AdoptOtherSettings, View::Loaded(at)) = (self.mutant, view)
            && let Some(variant) = self.secret_summary(at.object).asked_with(key.as_object().wanted_version())
            && key.as_object().record().is_empty()
        {
            let spec = objects::summarize_key(key).spec;
            taken.spec = Spec { variant, ..spec }.whole();
        }
        if self.mutant == Mutant::PinsIgnored {
            taken.spec.wrapped_keys = None;
        }
        if self.mutant == Mutant::RewrapOfCompared {
            let recorded = |pin: &IssuedVersion| key.as_object().recorded_version(pin.version);
            let differs =
                |pin: &&mut IssuedVersion| recorded(pin).is_some_and(|issued| issued.rewrap_of != pin.rewrap_of);
            // The protocol then takes it for the pin of another data key.
            taken.spec.wrapped_keys.iter_mut().flatten().filter(differs).for_each(|pin| pin.ciphertext_blob.0.push(0));
        }
        if let (Mutant::RevisionWithoutUid | Mutant::RevisionWithoutDigest, View::Watched(_)) = (self.mutant, view)
            && let Some(saved) = taken.status.as_mut().and_then(|status| status.secret.as_mut())
        {
            if self.mutant == Mutant::RevisionWithoutUid {
                THIS.clone_into(&mut saved.uid);
            } else if let Some(wanted) = Projection::of(key, key.as_object().wanted_version()) {
                saved.digest = wanted.digest().to_string();
            }
        }
        taken
    }

    /// The knowledge of the Secret as the mutant sees it.
    pub fn mistaken_view(&self, key: &Key, seen: SecretState) -> SecretState {
        match (self.mutant, seen) {
            (Mutant::AdoptedAsAsked, SecretState::Loaded(secret)) if key.as_object().record().is_empty() => {
                SecretState::Loaded(Box::new(classes::as_asked(*secret)))
            }
            (Mutant::NameNotChecked, SecretState::Unwatched) => SecretState::Absent,
            (Mutant::NoAdoption, SecretState::Present(_) | SecretState::Loaded(_))
                if key.as_object().record().is_empty() =>
            {
                SecretState::Absent
            }
            (Mutant::PinsOverSecret, SecretState::Watched(_) | SecretState::Present(_) | SecretState::Loaded(_))
                if key.as_object().record().is_empty() && !key.as_object().spec.pins.is_empty() =>
            {
                SecretState::Absent
            }
            (Mutant::UnmarkedIsMissing, SecretState::Present(metadata)) if !metadata.is_managed => SecretState::Absent,
            (Mutant::UnmarkedIsMissing, SecretState::Loaded(secret))
                if secret.type_.as_deref() != Some(Key::KIND.secret_type) =>
            {
                SecretState::Absent
            }
            (mutant @ (Mutant::VerifiedForAnyVersion | Mutant::DriftOverlooked), SecretState::Watched(mut known))
                if known.verified.is_some() || mutant == Mutant::DriftOverlooked =>
            {
                let published = key.status.as_ref().and_then(|status| status.version);
                let wanted =
                    Projection::of(key, key.as_object().wanted_version()).or_else(|| Projection::of(key, published?));
                known.verified = wanted.map(|wanted| Verified::written(wanted.digest()));
                SecretState::Watched(known)
            }
            (_, seen) => seen,
        }
    }

    /// The step that the mutant takes instead.
    pub fn mistaken_step(&self, key: &Key, secret: &SecretState, step: Step) -> Step {
        let wanted = Projection::of(key, key.as_object().wanted_version());
        match (self.mutant, secret, step, wanted) {
            (Mutant::NoComparison, SecretState::Loaded(secret), Step::ReportFailure(failure), Some(wanted))
                if failure.reason == Reason::SecretConflict =>
            {
                Step::ReplaceSecret(Box::new(wanted.restore_into((**secret).clone())), None)
            }
            (Mutant::ReadyFirst, _, step @ Step::CreateSecret(_), Some(_)) => {
                let ready = condition::ready(
                    key,
                    key.as_object().recorded_version(key.as_object().wanted_version()).unwrap(),
                    None,
                    now(),
                );
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
                record
                    .versions
                    .retain(|issued| key.as_object().spec.pins.iter().any(|pin| pin.version == issued.version));
                Step::Record(record)
            }
            (_, _, step, _) => step,
        }
    }

    /// The status with the record that the mutant writes.
    pub fn mistaken_record(&self, mut status: KeyStatus, source: Source) -> KeyStatus {
        if self.mutant == Mutant::RecordReplaced && source == Source::Kms {
            status.versions.drain(..status.versions.len() - 1);
        }
        if source == Source::Kms {
            status.versions.iter_mut().rev().take(1).for_each(|issued| self.misrecord(issued));
        }
        if self.mutant == Mutant::RewrapOfForgotten && source == Source::Pins {
            status.versions.iter_mut().for_each(|issued| issued.rewrap_of = None);
        }
        status
    }

    /// The answer as the mutant sees it.
    pub fn mistaken_answer(&self, answer: Learned) -> Learned {
        match (self.mutant, answer) {
            (Mutant::LoadedIsAbsent, Answer::Secret { is_verified, .. }) => {
                Answer::Secret { secret: None, is_verified }
            }
            (Mutant::FailureForgotten, Answer::Failed(_)) => Answer::DryRunAccepted,
            (_, answer) => answer,
        }
    }

    /// Whether the server accepts a status although the object changed after the decision.
    pub fn takes_unguarded_record(&self, at: KeyAt, to: Id) -> bool {
        let same = self.key_summary(at.object).uid == self.key_summary(to).uid;
        match self.mutant {
            Mutant::RecordUnconditionally => same,
            Mutant::RecordOnNamesake => !same,
            _ => false,
        }
    }

    /// Creates the Secret with the answer of KMS, if there is none.
    pub fn publish_first(&self, state: &mut State, record: &Write) -> Result<(), Violation> {
        let Write::Status { to, .. } = record else { return Ok(()) };
        let key = self.key(*to);
        let wanted = Projection::of(&*key, key.as_object().wanted_version()).unwrap().into_secret(&*key);
        let id = self.secret_number(secrets::stored(wanted));
        if state.secret.is_none() { self.put_secret(state, id, Writer::Operator) } else { Ok(()) }
    }

    /// Keeps the mutant's verified content when the watch reports another revision of the Secret.
    pub fn carry_verified(&self, operator: &mut Operator, new: Option<SecretAt>) {
        if let (Mutant::VerifiedForever, Some((at, held)), Some(new)) = (self.mutant, operator.verified, new)
            && at.uid == new.uid
        {
            operator.verified = Some((new, held));
        }
    }
}
