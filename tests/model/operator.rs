//! An operator: the real `plan`, and its steps carried out one by one as `reconcile` does.

use datakey_operator::{
    api::{DataKey, DataKeyStatus},
    plan::{SecretView, Step, World, plan},
    secret::{Facts, MANAGER, index::Known, project},
    status,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};

use crate::{
    Derivation, Model, Violation,
    mutants::Mutant,
    objects::{self, Id},
    secrets,
    world::{Action, Effect, KeyAt, Operator, Outcome, Run, SecretAt, State, View, Write},
};

/// What a decision rests on: the `DataKey`, what is known of the Secret, the failure to tell.
pub type Question = (Id, View, Option<Id>);

/// A step in numbers.
#[derive(Clone, Copy, Debug)]
pub enum Decision {
    End,
    Look,
    Read,
    Issue,
    Adopt(Id),
    Status(Id),
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
        let key = operator.key?;
        let verified = operator.verified.filter(|(at, _)| operator.secret == Some(*at)).map(|(_, held)| held);
        let view = operator.secret.map_or(View::NotCached, |at| View::Cached(at, verified));
        Some(Run { key, view, failure: None })
    }

    pub fn decide(&self, run: &Run) -> Decision {
        let question = (run.key.object, run.view.plain(), run.failure);
        if let Some(decision) = self.decisions.borrow().get(&question) {
            return *decision;
        }
        let decision = self.ask_plan(question);
        self.decisions.borrow_mut().insert(question, decision);
        decision
    }

    fn ask_plan(&self, (id, view, failure): Question) -> Decision {
        let key = self.key(id);
        let secret = self.mistaken_view(&key, self.secret_view(&view));
        let failure = failure.map(|failure| self.failures.borrow()[failure as usize].clone());
        let step = plan(
            &World {
                key: &self.mistaken_key(&key, &view),
                secret: &secret,
                failure: failure.as_ref(),
                wait: None,
                turn: true,
                contested: false,
                region: None,
            },
            now(),
        );
        let step = self.mistaken_step(&key, &secret, step);
        match step {
            Step::Done | Step::Wait(_) => Decision::End,
            Step::Queue => unreachable!("it is always its turn"),
            Step::Look => Decision::Look,
            Step::Read => Decision::Read,
            Step::Issue => Decision::Issue,
            Step::Record(versions) | Step::Pin(versions) => {
                Decision::Adopt(self.with_status(id, Some(status::recorded(&key, versions))))
            }
            Step::Create(secret) => self.create(&view, *secret),
            Step::Replace(secret) => {
                let old = self.secret(view.secret().unwrap().object);
                Decision::Replace(self.secret_number(secrets::replaced(&old, *secret, MANAGER)))
            }
            Step::Verified(..) => {
                let held = project(&key, key.version()).unwrap().create(&key);
                Decision::Verified(self.secret_number(secrets::created(held, MANAGER)))
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

    fn secret_view(&self, view: &View) -> SecretView {
        match *view {
            View::NotCached => SecretView::NotCached,
            View::Cached(at, verified) => {
                let verified = verified.map(|held| Facts::of(&self.secret(held).metadata).fingerprint);
                SecretView::Cached(Known { facts: Facts::of(&self.secret(at.object).metadata), verified })
            }
            View::Missing => SecretView::Missing,
            View::Found(at) => SecretView::Found(Facts::of(&self.secret(at.object).metadata)),
            View::Read(at) => SecretView::Read(Box::new((*self.secret(at.object)).clone())),
        }
    }

    fn create(&self, view: &View, secret: Secret) -> Decision {
        let created = self.secret_number(secrets::created(secret, MANAGER));
        // The mutant that takes what is there for missing.
        if view.secret().is_some() { Decision::Replace(created) } else { Decision::Create(created) }
    }

    fn set_status(&self, id: Id, key: &DataKey, view: &View, status: DataKeyStatus) -> Decision {
        let ready = status.conditions.iter().any(|told| told.type_ == status::READY && told.status == "True");
        let seen = match view {
            View::Cached(at, _) => self.secret(at.object).data.clone(),
            _ => None,
        };
        if ready && seen != project(key, key.version()).map(|wanted| wanted.data) {
            return Decision::UnfoundedReady;
        }
        Decision::Status(self.with_status(id, Some(status)))
    }

    /// The record with what KMS answered to the `DataKey`'s request.
    fn issued(&self, id: Id, number: u8) -> Id {
        let key = self.key(id);
        let settings = self.key_summary(id).spec.settings;
        let issued = objects::issued(key.version(), number, settings);
        let mut recorded = status::recorded(&key, vec![issued]);
        if self.mutant == Mutant::RecordReplaced {
            recorded.versions.drain(..recorded.versions.len() - 1);
        }
        self.with_status(id, Some(recorded))
    }

    /// One effect of a running reconcile. `late`: the answer to a write does not come in time.
    pub fn step(&self, state: &State, who: usize, late: bool) -> Result<Option<(Action, State)>, Violation> {
        let run = state.operators[who].run.unwrap();
        let by = self.key_summary(run.key.object).uid;
        let (effect, write) = match self.decide(&run) {
            Decision::Issue => {
                let number = self.fresh(state);
                let id = run.key.object;
                let to = self.derived(id, Derivation::Issued(number), || self.issued(id, number));
                (Effect::Issue, Write::Status { on: run.key, to })
            }
            Decision::Adopt(to) => (Effect::Adopt, Write::Status { on: run.key, to }),
            Decision::Status(to) => (Effect::SetStatus, Write::Status { on: run.key, to }),
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
            (Outcome::Applied, Some(Self::applied(&next, run, &write)))
        } else {
            (Outcome::Refused, self.refused(&mut next, run, effect, &write))
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
                let at = run.view.secret().unwrap();
                next.operators[who].verified = Some((at, held));
                (Action::Verify, Some(Run { view: View::Cached(at, Some(held)), ..run }))
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

    fn applied(state: &State, run: Run, write: &Write) -> Run {
        match write {
            Write::Status { .. } => Run { key: state.key, ..run },
            Write::Create { .. } | Write::Replace { .. } => {
                Run { view: View::Cached(state.secret.unwrap(), None), ..run }
            }
        }
    }

    /// A Secret that is already there is looked at. Everything else that is refused ends the reconcile.
    fn refused(&self, state: &mut State, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match (write, state.secret) {
            (Write::Create { to, .. }, Some(at)) if self.mutant == Mutant::AlreadyExistsIsSuccess => {
                Some(Run { view: View::Cached(SecretAt { object: *to, ..at }, None), ..run })
            }
            (Write::Create { .. }, Some(at)) => Some(Run { view: View::Found(at), ..run }),
            (Write::Status { to, .. }, _) if self.mutant == Mutant::RefusedRecordIgnored && effect == Effect::Issue => {
                Some(Run { key: KeyAt { object: *to, revision: state.new_revision() }, ..run })
            }
            _ => None,
        }
    }

    /// Without an answer the reconcile ends: what was sent may or may not be there.
    fn without_answer(&self, state: &mut State, run: Run, effect: Effect, write: &Write) -> Option<Run> {
        match write {
            Write::Status { to, .. } if self.mutant == Mutant::TimeoutIsSuccess && effect == Effect::Issue => {
                Some(Run { key: KeyAt { object: *to, revision: state.new_revision() }, ..run })
            }
            _ => None,
        }
    }
}
