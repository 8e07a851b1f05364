//! An operator: the real [`Attempt`], with its steps carried out in the world of the model as `reconcile` carries them out.

use std::{rc::Rc, time::Instant};

use datakey::{
    api::{KeyKind as _, KeyStatus, READY},
    class::Tenancy,
    identity::Revision,
    protocol::{Answer, Attempt, Change, Inputs, SecretState, Source, Step},
    secret::{
        Projection,
        digest::Digest,
        known::{self, KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};

use crate::{
    Derivation, Model, Violation,
    classes::ClassView,
    kind::Key,
    mutants::Mutant,
    objects::Id,
    requests::{AskAt, DataKeyAt},
    secrets,
    world::{
        Action, Effect, Held, KeyAt, Operator, Origin, Outcome, Run, Saved, SecretAt, State, View, Write, plain,
        secret_in,
    },
};

/// An attempt, as far as a decision rests on it: the `DataKey` and whether its status names the uid and the revision of the
/// Secret; no uids and revisions. Beside it, what the operator sees of the class.
pub type Question = (Attempt<(Id, [bool; 2]), View, DataKeyAt, Id>, ClassView);

/// The uid and the revision of the Secret in view; decisions depend only on equality with them.
pub const THIS: &str = "1";
const ANOTHER: &str = "2";

/// A step in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    End,
    GetSecretMetadata,
    GetSecret,
    AcquirePermit,
    CallKms(AskAt),
    /// Record the answer of KMS.
    RecordIssued(Id),
    /// Record versions of the pins or of the Secret.
    RecordExisting(Id),
    /// Write a status that names the revision of the Secret in view, or the earlier revision.
    PutStatus {
        to: Id,
        saves_view: bool,
    },
    /// Write Ready=True although the Secret in view does not hold the recorded bytes.
    UnfoundedReady,
    /// Another step than without the class, although all is recorded.
    JudgedAgain,
    Create(Id),
    Replace(Id),
    AcceptRevision(Id),
    ReportFailure(Id),
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl Model {
    /// A reconcile that begins with the content of the caches.
    pub fn start(operator: &Operator) -> Option<Run> {
        Some(Run::new(operator.key?, Self::cached(operator)))
    }

    fn cached(operator: &Operator) -> Option<(SecretAt, Option<Held>)> {
        let verified = operator.verified.filter(|(at, _)| operator.secret == Some(*at)).map(|(_, held)| held);
        operator.secret.map(|at| (at, verified))
    }

    pub fn decide(&self, run: &Run, class: ClassView) -> Decision {
        if self.mutant == Mutant::RecordAgainUndecided
            && let Some(answer) = run.unrecorded_answer()
        {
            let id = run.object().object;
            return Decision::RecordIssued(
                self.derived(id, Derivation::Issued(*answer), || self.recorded(id, *answer)),
            );
        }
        let view = *run.secret();
        let asked = run.map(|key| (key.object, key.names(view)), plain, |answer| answer, |failure| failure);
        if let Some(decision) = self.decisions.borrow().get(&(asked, class)) {
            return *decision;
        }
        let decision = self.decide_uncached((asked, class));
        self.decisions.borrow_mut().insert((asked, class), decision);
        decision
    }

    fn decide_uncached(&self, (attempt, class): Question) -> Decision {
        let decision = self.ask_plan((attempt, class));
        let (id, _) = *attempt.object();
        if self.has_class() && self.is_recorded(id) && decision != self.ask_plan((attempt, ClassView::Unlisted)) {
            return Decision::JudgedAgain;
        }
        decision
    }

    /// Whether the record has the wanted version and all pins. Then no class matters any more.
    fn is_recorded(&self, id: Id) -> bool {
        let record = self.record(id);
        record.get(self.key_summary(id).spec.version).is_some() && self.pins(id).not_in(record).is_none()
    }

    fn ask_plan(&self, (asked, class): Question) -> Decision {
        let (id, names) = *asked.object();
        let view = *asked.secret();
        let key = self.key_that_names(id, names);
        let secret = self.mistaken_view(&key, self.secret_view(&view));
        let attempt = asked.map(
            |_| Rc::new(self.mistaken_key(&key, &view, class)),
            |_| secret.clone(),
            |answer| self.mistaken_identity(self.unrecorded(id, answer), class),
            |failure| self.failures.borrow()[failure as usize].clone(),
        );
        let seen = self.mistaken_class(class, asked.unrecorded_answer());
        let found = seen.found().map(|at| at.with_spec(self.mistaken_spec(at.terms, &view)));
        let next = |tenancy: Tenancy<'_>| attempt.next(Inputs { tenancy, ..Inputs::default() }, now());
        let tenancy = seen.tenancy(found.as_ref());
        let step = self.mistaken_judgment(next(tenancy), &attempt, (seen, tenancy), next);
        match self.mistaken_step(&key, &secret, step) {
            Step::Settled | Step::RequeueAfter(_) => Decision::End,
            Step::AcquirePermit(_) => Decision::AcquirePermit,
            Step::DryRunRecord(_) => unreachable!("no dry run is asked for"),
            Step::GetSecretMetadata => Decision::GetSecretMetadata,
            Step::GetSecret => Decision::GetSecret,
            Step::CallKms(ask) => Decision::CallKms(AskAt::of(&ask)),
            Step::Record(record) => {
                let to = self.with_status(id, Some(self.mistaken_record(record.status(&key), record.source)));
                if record.source == Source::Kms { Decision::RecordIssued(to) } else { Decision::RecordExisting(to) }
            }
            Step::CreateSecret(secret) => self.create(&view, *secret),
            Step::ReplaceSecret(secret, _) => Decision::Replace(self.secret_number(secrets::stored(*secret))),
            Step::AcceptRevision(..) => {
                let held = Projection::of(&key, key.as_object().wanted_version()).unwrap().into_secret(&key);
                Decision::AcceptRevision(self.secret_number(secrets::stored(held)))
            }
            Step::ReportFailure(failure) => {
                let mut failures = self.failures.borrow_mut();
                let known = failures.iter().position(|known| *known == failure);
                let number = known.unwrap_or_else(|| {
                    failures.push(failure);
                    failures.len() - 1
                });
                Decision::ReportFailure(Id::try_from(number).unwrap())
            }
            Step::PutStatus(status) => self.publish_status(id, &key, &view, *status),
        }
    }

    /// The `DataKey` with a status that names the uid and the revision of the Secret that is in view, or others.
    fn key_that_names(&self, id: Id, names: [bool; 2]) -> Key {
        let mut key = (*self.key(id)).clone();
        if let Some(saved) = key.status.as_mut().and_then(|status| status.secret.as_mut()) {
            let [uid, revision] = names.map(|same| if same { THIS } else { ANOTHER }.to_owned());
            (saved.uid, saved.resource_version) = (uid, revision);
        }
        key
    }

    fn secret_view(&self, view: &View) -> SecretState {
        let this = || Revision { uid: THIS.to_owned(), resource_version: THIS.to_owned() };
        let metadata =
            |at: SecretAt| SecretMetadata { revision: this(), ..SecretMetadata::of(&self.secret(at.object).metadata) };
        match *view {
            View::Unwatched => SecretState::Unwatched,
            View::Watched((at, held)) => {
                let verified = held.map(|held| Verified {
                    digest: Digest::of(&self.secret(held.object)),
                    origin: match held.origin {
                        Origin::Written => known::Origin::Written,
                        Origin::Read => known::Origin::Read(Instant::now()),
                        Origin::Settled => known::Origin::Settled,
                    },
                });
                SecretState::Watched(KnownSecret { metadata: metadata(at), verified })
            }
            View::Absent => SecretState::Absent,
            View::Present(at) => SecretState::Present(metadata(at)),
            View::Loaded(at) => {
                let mut secret = (*self.secret(at.object)).clone();
                let Revision { uid, resource_version } = this();
                (secret.metadata.uid, secret.metadata.resource_version) = (Some(uid), Some(resource_version));
                SecretState::Loaded(Box::new(secret))
            }
        }
    }

    fn create(&self, view: &View, secret: Secret) -> Decision {
        let created = self.secret_number(secrets::stored(secret));
        // Only a mutant creates a Secret in place of an existing one.
        if secret_in(view).is_some() { Decision::Replace(created) } else { Decision::Create(created) }
    }

    fn publish_status(&self, id: Id, key: &Key, view: &View, status: KeyStatus) -> Decision {
        let ready = status.conditions.iter().any(|shown| shown.type_ == READY && shown.status == "True");
        let saves_view = status.secret.as_ref().is_some_and(|saved| [&saved.uid, &saved.resource_version] == [THIS; 2]);
        let seen = match view {
            View::Watched((at, _)) => self.secret(at.object).data.clone(),
            _ => None,
        };
        if ready && seen != Projection::of(key, key.as_object().wanted_version()).map(|wanted| wanted.data) {
            return Decision::UnfoundedReady;
        }
        Decision::PutStatus { to: self.with_status(id, Some(status)), saves_view }
    }

    /// Carries out one effect of a running reconcile. `late`: the answer to a write times out.
    pub fn step(&self, state: &State, who: usize, late: bool) -> Result<Option<(Action, State)>, Violation> {
        let mut run = state.operators[who].run.unwrap();
        let by = self.key_summary(run.object().object).uid;
        let class = state.operators[who].class;
        let mut decision = self.decide(&run, class);
        if let Decision::AcquirePermit = decision {
            run = self.learned(run, Answer::Permit);
            decision = self.decide(&run, class);
        }
        if let Decision::CallKms(ask) = decision {
            self.may_ask(&run, class, ask)?;
            run = self.learned(run, Answer::Issued(self.answer(state, run.object().object, ask)));
            if self.has_class() {
                // The class can change before the answer is recorded.
                let mut next = state.clone();
                next.operators[who].run = Some(run);
                return Ok((!late).then_some((Action::CallKms, next)));
            }
            decision = self.decide(&run, class);
        }
        let on = *run.object();
        let (effect, write) = match decision {
            Decision::RecordIssued(to) => {
                self.may_record_answer(&run, class, to)?;
                (Effect::Issue, Write::Status { on, to, saved: on.saved })
            }
            Decision::RecordExisting(to) => {
                self.may_record_claims(&run, class, to)?;
                (Effect::Adopt, Write::Status { on, to, saved: on.saved })
            }
            Decision::PutStatus { to, saves_view } => {
                let saved = if saves_view { secret_in(run.secret()).map(Saved::of) } else { on.saved };
                (Effect::SetStatus, Write::Status { on, to, saved })
            }
            Decision::Create(to) => (Effect::Create, Write::Create { by, to }),
            Decision::Replace(to) => (Effect::Replace, Write::Replace { by, on: secret_in(run.secret()).unwrap(), to }),
            _ if late => return Ok(None),
            effectless => return self.apply_read(state, who, run, effectless).map(Some),
        };
        let mut next = state.clone();
        if self.mutant == Mutant::SecretFirst && effect == Effect::Issue {
            self.publish_first(&mut next, &write)?;
        }
        let (outcome, after) = if late {
            next.flight.push(write);
            (Outcome::Late, self.without_answer(&mut next, run, effect, &write))
        } else if self.apply(&mut next, &write)? {
            (Outcome::Applied, Some(self.applied(&mut next, who, run, &write)))
        } else {
            (Outcome::Refused, self.refused(&mut next, who, run, effect, &write))
        };
        next.operators[who].run = after;
        Ok(Some((Action::Write(effect, outcome), next)))
    }

    /// Carries out a step that writes nothing.
    fn apply_read(
        &self,
        state: &State,
        who: usize,
        run: Run,
        decision: Decision,
    ) -> Result<(Action, State), Violation> {
        let mut next = state.clone();
        let (action, run) = match decision {
            Decision::GetSecretMetadata => {
                (Action::GetMetadata, Some(self.learned(run, Answer::Metadata(state.secret))))
            }
            Decision::GetSecret => {
                let read = Answer::Secret { secret: state.secret, is_verified: false };
                (Action::GetSecret, Some(self.learned(run, read)))
            }
            Decision::AcceptRevision(held) => {
                let (at, held) = (secret_in(run.secret()).unwrap(), Held { object: held, origin: Origin::Read });
                next.operators[who].store(at, held);
                (Action::AcceptRevision, Some(self.learned(run, Answer::Revision((at, Some(held))))))
            }
            Decision::ReportFailure(failure) => (Action::Fail, Some(self.learned(run, Answer::Failed(failure)))),
            Decision::UnfoundedReady => {
                return Err("Ready is True, but the Secret was not seen to hold the data key".to_owned());
            }
            Decision::JudgedAgain => return Err("what is recorded is judged again".to_owned()),
            _ => (Action::Reconcile, None),
        };
        next.operators[who].run = run;
        Ok((action, next))
    }

    /// The attempt after an answer that does not end it.
    pub fn learned(&self, mut run: Run, answer: Learned) -> Run {
        run.learn(self.mistaken_answer(answer)).unwrap();
        run
    }

    /// The reconcile after an accepted write. The answer contains the whole stored object.
    fn applied(&self, state: &mut State, who: usize, run: Run, write: &Write) -> Run {
        match write {
            Write::Status { .. } => self.learned(run, Answer::Stored(state.key)),
            Write::Create { .. } | Write::Replace { .. } => {
                let at = state.secret.unwrap();
                let held = Held { object: at.object, origin: Origin::Written };
                state.operators[who].store(at, held);
                self.learned(run, Answer::Revision((at, Some(held))))
            }
        }
    }

    /// The reconcile after a rejected write. An existing Secret is inspected, and after a conflict the record is decided on again.
    /// Any other rejection ends the reconcile.
    fn refused(&self, state: &mut State, who: usize, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match (write, state.secret) {
            (Write::Create { to, .. }, Some(at)) if self.mutant == Mutant::AlreadyExistsIsSuccess => {
                let held = Held { object: *to, origin: Origin::Written };
                Some(self.learned(run, Answer::Revision((SecretAt { object: *to, ..at }, Some(held)))))
            }
            (Write::Create { .. }, Some(at)) => Some(self.learned(run, Answer::Metadata(Some(at)))),
            (Write::Status { to, .. }, _) if self.mutant == Mutant::RefusedRecordIgnored && effect == Effect::Issue => {
                Some(self.as_if_stored(state, run, *to))
            }
            (Write::Status { .. }, _) if effect == Effect::Issue => self.overtaken(state, who, run),
            _ => None,
        }
    }

    /// The reconcile after a conflict, with the current `DataKey`. If the spec changed, it continues with the cached Secret.
    fn overtaken(&self, state: &State, who: usize, mut run: Run) -> Option<Run> {
        run.learn(Answer::Conflict).ok()?;
        let (before, object) = (run.object().object, state.key);
        let issued = run.unrecorded_answer().map(|answer| self.unrecorded(before, *answer));
        let change = Change::between(&*self.key(before), &*self.key(object.object), issued.as_ref());
        let change = match change {
            Change::Spec { .. } if self.mutant == Mutant::AnswerToAnother => Change::Spec { still_wanted: true },
            change => change,
        };
        run.learn(Answer::Overtaken { object, secret: Self::cached(&state.operators[who]), change }).ok()?;
        Some(run)
    }

    /// The reconcile after a timeout: it ends, because the write may have been applied or not.
    fn without_answer(&self, state: &mut State, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match write {
            Write::Status { to, .. } if self.mutant == Mutant::TimeoutIsSuccess && effect == Effect::Issue => {
                Some(self.as_if_stored(state, run, *to))
            }
            _ => None,
        }
    }

    fn as_if_stored(&self, state: &mut State, run: Run, to: Id) -> Run {
        let stored = KeyAt { object: to, revision: state.new_revision(), ..*run.object() };
        self.learned(run, Answer::Stored(stored))
    }
}

/// An answer in numbers.
pub type Learned = Answer<KeyAt, (SecretAt, Option<Held>), SecretAt, SecretAt, DataKeyAt, Id>;

// === impl Operator ===

impl Operator {
    /// Stores the verified content of a revision of the Secret.
    fn store(&mut self, at: SecretAt, held: Held) {
        self.secret = Some(at);
        self.verified = Some((at, held));
    }
}

// === impl KeyAt ===

impl KeyAt {
    /// Whether the status names the uid and the revision of the Secret that is in view.
    fn names(self, view: View) -> [bool; 2] {
        match (self.saved, view) {
            (Some(saved), View::Watched((at, _)) | View::Loaded(at)) => {
                [saved.uid == at.uid, saved.revision == at.revision]
            }
            _ => [false; 2],
        }
    }
}
