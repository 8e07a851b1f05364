//! An operator: the real `plan`, and its steps carried out one by one as `reconcile` does.

use datakey::{
    api::{DataKey, DataKeyStatus},
    identity::Revision,
    plan::{SecretView, Step, World, plan},
    secret::{
        digest::Digest,
        known::{self, Known, Verified},
        metadata::SecretMetadata,
        project,
    },
    status,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use std::time::Instant;

use crate::{
    Derivation, Model, Violation,
    mutants::Mutant,
    objects::{self, Id, Spec},
    secrets,
    world::{
        Action, DataKeyAt, Effect, Held, KeyAt, Operator, Origin, Outcome, Run, Saved, SecretAt, State, View, Write,
    },
};

/// What a decision rests on: the `DataKey`, whether its status names the uid and the revision of the Secret, what is known of
/// the Secret, the failure to report.
pub type Question = (Id, [bool; 2], View, Option<Id>);

/// In place of uid and revision: only whether they are the same decides.
pub const THIS: &str = "1";
const ANOTHER: &str = "2";

/// A step in numbers.
#[derive(Clone, Copy, Debug)]
pub enum Decision {
    End,
    Look,
    Read,
    Issue,
    Adopt(Id),
    /// With the revision of the Secret that is in view, or with the one from before.
    Status {
        to: Id,
        saves_view: bool,
    },
    /// Ready, and what it rests on does not hold the recorded bytes.
    UnfoundedReady,
    Create(Id),
    Replace(Id),
    Verified(Id),
    Fail(Id),
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl Model {
    /// A reconcile begins with what the caches have.
    pub fn start(operator: &Operator) -> Option<Run> {
        Some(Run { key: operator.key?, view: Self::cached(operator), failure: None, unrecorded: None })
    }

    fn cached(operator: &Operator) -> View {
        let verified = operator.verified.filter(|(at, _)| operator.secret == Some(*at)).map(|(_, held)| held);
        operator.secret.map_or(View::NotCached, |at| View::Cached(at, verified))
    }

    pub fn decide(&self, run: &Run) -> Decision {
        if self.mutant == Mutant::RecordAgainUndecided && run.unrecorded.is_some() {
            return Decision::Issue;
        }
        let question = (run.key.object, run.key.names(run.view), run.view.plain(), run.failure);
        if let Some(decision) = self.decisions.borrow().get(&question) {
            return *decision;
        }
        let decision = self.ask_plan(question);
        self.decisions.borrow_mut().insert(question, decision);
        decision
    }

    fn ask_plan(&self, (id, names, view, failure): Question) -> Decision {
        let key = self.key_that_names(id, names);
        let secret = self.mistaken_view(&key, self.secret_view(&view));
        let failure = failure.map(|failure| self.failures.borrow()[failure as usize].clone());
        let step = plan(
            &World { failure: failure.as_ref(), turn: true, ..World::new(&self.mistaken_key(&key, &view), &secret) },
            now(),
        );
        let step = self.mistaken_step(&key, &secret, step);
        match step {
            Step::Done | Step::Wait(_) => Decision::End,
            Step::Queue => unreachable!("it is always its turn"),
            Step::Rehearse => unreachable!("no dry run is asked for"),
            Step::Look => Decision::Look,
            Step::Read => Decision::Read,
            Step::Issue => Decision::Issue,
            Step::Record(versions) | Step::Pin(versions) => {
                Decision::Adopt(self.with_status(id, Some(status::adopted(&key, versions))))
            }
            Step::Create(secret) => self.create(&view, *secret),
            Step::Replace(secret, _) => Decision::Replace(self.secret_number(secrets::stored(*secret))),
            Step::Verified(..) => {
                let held = project(&key, key.version()).unwrap().create(&key);
                Decision::Verified(self.secret_number(secrets::stored(held)))
            }
            Step::Fail(failure) => {
                let mut failures = self.failures.borrow_mut();
                let known = failures.iter().position(|known| *known == failure);
                let number = known.unwrap_or_else(|| {
                    failures.push(failure);
                    failures.len() - 1
                });
                Decision::Fail(Id::try_from(number).unwrap())
            }
            Step::SetStatus(status) => self.set_status(id, &key, &view, *status),
        }
    }

    /// The `DataKey` with a status that names the uid and the revision of the Secret that is in view, or others.
    fn key_that_names(&self, id: Id, names: [bool; 2]) -> DataKey {
        let mut key = (*self.key(id)).clone();
        if let Some(saved) = key.status.as_mut().and_then(|status| status.secret.as_mut()) {
            let [uid, revision] = names.map(|same| if same { THIS } else { ANOTHER }.to_owned());
            (saved.uid, saved.resource_version) = (uid, revision);
        }
        key
    }

    fn secret_view(&self, view: &View) -> SecretView {
        let this = || Revision { uid: THIS.to_owned(), resource_version: THIS.to_owned() };
        let metadata =
            |at: SecretAt| SecretMetadata { revision: this(), ..SecretMetadata::of(&self.secret(at.object).metadata) };
        match *view {
            View::NotCached => SecretView::NotCached,
            View::Cached(at, held) => {
                let verified = held.map(|held| Verified {
                    digest: Digest::of(&self.secret(held.object)),
                    origin: match held.origin {
                        Origin::Written => known::Origin::Written,
                        Origin::Read => known::Origin::Read(Instant::now()),
                        Origin::Settled => known::Origin::Settled,
                    },
                });
                SecretView::Cached(Known { metadata: metadata(at), verified })
            }
            View::Missing => SecretView::Missing,
            View::Found(at) => SecretView::Found(metadata(at)),
            View::Read(at) => {
                let mut secret = (*self.secret(at.object)).clone();
                let Revision { uid, resource_version } = this();
                (secret.metadata.uid, secret.metadata.resource_version) = (Some(uid), Some(resource_version));
                SecretView::Read(Box::new(secret))
            }
        }
    }

    fn create(&self, view: &View, secret: Secret) -> Decision {
        let created = self.secret_number(secrets::stored(secret));
        // The mutant that takes what is there for missing.
        if view.secret().is_some() { Decision::Replace(created) } else { Decision::Create(created) }
    }

    fn set_status(&self, id: Id, key: &DataKey, view: &View, status: DataKeyStatus) -> Decision {
        let ready = status.conditions.iter().any(|shown| shown.type_ == status::READY && shown.status == "True");
        let saves_view = status.secret.as_ref().is_some_and(|saved| [&saved.uid, &saved.resource_version] == [THIS; 2]);
        let seen = match view {
            View::Cached(at, _) => self.secret(at.object).data.clone(),
            _ => None,
        };
        if ready && seen != project(key, key.version()).map(|wanted| wanted.data) {
            return Decision::UnfoundedReady;
        }
        Decision::Status { to: self.with_status(id, Some(status)), saves_view }
    }

    /// What KMS answers to the `DataKey`'s request.
    fn answer(&self, state: &State, id: Id) -> DataKeyAt {
        let Spec { version, settings, .. } = self.key_summary(id).spec;
        DataKeyAt { number: self.fresh(state), version, settings }
    }

    /// The record with what KMS answered.
    fn issued(&self, id: Id, answer: DataKeyAt) -> Id {
        let key = self.key(id);
        let DataKeyAt { number, version, settings } = answer;
        let issued = objects::issued(self.key_summary(id).uid, version, number, settings);
        let mut recorded = status::recorded(&key, vec![issued]);
        if self.mutant == Mutant::RecordReplaced {
            recorded.versions.drain(..recorded.versions.len() - 1);
        }
        self.with_status(id, Some(recorded))
    }

    /// One effect of a running reconcile. `late`: the answer to a write does not come in time.
    pub fn step(&self, state: &State, who: usize, late: bool) -> Result<Option<(Action, State)>, Violation> {
        let mut run = state.operators[who].run.unwrap();
        let by = self.key_summary(run.key.object).uid;
        let mut asked = run;
        let (effect, write) = match self.decide(&run) {
            Decision::Issue => {
                let id = run.key.object;
                let answer = run.unrecorded.unwrap_or_else(|| self.answer(state, id));
                asked.unrecorded = Some(answer);
                run.unrecorded = None;
                let to = self.derived(id, Derivation::Issued(answer), || self.issued(id, answer));
                (Effect::Issue, Write::Status { on: run.key, to, saved: run.key.saved })
            }
            Decision::Adopt(to) => (Effect::Adopt, Write::Status { on: run.key, to, saved: run.key.saved }),
            Decision::Status { to, saves_view } => {
                let saved = if saves_view { run.view.secret().map(Saved::of) } else { run.key.saved };
                (Effect::SetStatus, Write::Status { on: run.key, to, saved })
            }
            Decision::Create(to) => (Effect::Create, Write::Create { by, to }),
            Decision::Replace(to) => (Effect::Replace, Write::Replace { by, on: run.view.secret().unwrap(), to }),
            _ if late => return Ok(None),
            effectless => return Self::take_in(state, who, run, effectless).map(Some),
        };
        let mut next = state.clone();
        if self.mutant == Mutant::SecretFirst && effect == Effect::Issue {
            self.publish_first(&mut next, &write)?;
        }
        let (outcome, after) = if late {
            next.flight.push(write);
            (Outcome::Late, self.without_answer(&mut next, run, effect, &write))
        } else if self.apply(&mut next, &write)? {
            (Outcome::Applied, Some(Self::applied(&mut next, who, run, &write)))
        } else {
            (Outcome::Refused, self.refused(&mut next, who, asked, effect, &write))
        };
        next.operators[who].run = after;
        Ok(Some((Action::Write(effect, outcome), next)))
    }

    /// A step that writes nothing.
    fn take_in(state: &State, who: usize, run: Run, decision: Decision) -> Result<(Action, State), Violation> {
        let mut next = state.clone();
        let (action, run) = match decision {
            Decision::Look => {
                (Action::Look, Some(Run { view: state.secret.map_or(View::Missing, View::Found), ..run }))
            }
            Decision::Read => (Action::Read, Some(Run { view: state.secret.map_or(View::Missing, View::Read), ..run })),
            Decision::Verified(held) => {
                let held = Held { object: held, origin: Origin::Read };
                let view = next.operators[who].learn(run.view.secret().unwrap(), held);
                (Action::Verify, Some(Run { view, ..run }))
            }
            Decision::Fail(failure) => (Action::Fail, Some(Run { failure: Some(failure), ..run })),
            Decision::UnfoundedReady => {
                return Err("Ready is told of a Secret that was not seen to hold the data key".to_owned());
            }
            _ => (Action::Reconcile, None),
        };
        next.operators[who].run = run;
        Ok((action, next))
    }

    /// The answer has the whole Secret as it is stored.
    fn applied(state: &mut State, who: usize, run: Run, write: &Write) -> Run {
        match write {
            Write::Status { .. } => Run { key: state.key, ..run },
            Write::Create { .. } | Write::Replace { .. } => {
                let at = state.secret.unwrap();
                let held = Held { object: at.object, origin: Origin::Written };
                Run { view: state.operators[who].learn(at, held), ..run }
            }
        }
    }

    /// A Secret that is already there is looked at, and a record that met another write is decided on again. Everything else
    /// that is refused ends the reconcile.
    fn refused(&self, state: &mut State, who: usize, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match (write, state.secret) {
            (Write::Create { to, .. }, Some(at)) if self.mutant == Mutant::AlreadyExistsIsSuccess => {
                let held = Held { object: *to, origin: Origin::Written };
                Some(Run { view: View::Cached(SecretAt { object: *to, ..at }, Some(held)), ..run })
            }
            (Write::Create { .. }, Some(at)) => Some(Run { view: View::Found(at), ..run }),
            (Write::Status { to, .. }, _) if self.mutant == Mutant::RefusedRecordIgnored && effect == Effect::Issue => {
                Some(Run {
                    key: KeyAt { object: *to, revision: state.new_revision(), ..run.key },
                    unrecorded: None,
                    ..run
                })
            }
            (Write::Status { .. }, _) if effect == Effect::Issue => self.decide_again(state, who, run),
            _ => None,
        }
    }

    /// The `DataKey` as it is now, with what KMS answered, if it still asks for the same. Where the spec changed, nothing is
    /// known of the Secret but what the caches have.
    fn decide_again(&self, state: &State, who: usize, run: Run) -> Option<Run> {
        let key = state.key;
        let (before, now) = (self.key_summary(run.key.object), self.key_summary(key.object));
        let view = if before.spec == now.spec { run.view } else { Self::cached(&state.operators[who]) };
        let is_wanted = |answer: &DataKeyAt| (answer.version, answer.settings) == (now.spec.version, now.spec.settings);
        let unrecorded = run.unrecorded.filter(|answer| self.mutant == Mutant::AnswerToAnother || is_wanted(answer));
        (before.uid == now.uid).then_some(Run { key, view, unrecorded, ..run })
    }

    /// Without an answer the reconcile ends: what was sent may or may not be there.
    fn without_answer(&self, state: &mut State, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match write {
            Write::Status { to, .. } if self.mutant == Mutant::TimeoutIsSuccess && effect == Effect::Issue => {
                Some(Run { key: KeyAt { object: *to, revision: state.new_revision(), ..run.key }, ..run })
            }
            _ => None,
        }
    }
}

// === impl Operator ===

impl Operator {
    /// Takes in what a revision of the Secret was found to hold.
    fn learn(&mut self, at: SecretAt, held: Held) -> View {
        self.secret = Some(at);
        self.verified = Some((at, held));
        View::Cached(at, Some(held))
    }
}

// === impl KeyAt ===

impl KeyAt {
    /// Whether the status names the uid and the revision of the Secret that is in view.
    fn names(self, view: View) -> [bool; 2] {
        match (self.saved, view) {
            (Some(saved), View::Cached(at, _) | View::Read(at)) => [saved.uid == at.uid, saved.revision == at.revision],
            _ => [false; 2],
        }
    }
}
