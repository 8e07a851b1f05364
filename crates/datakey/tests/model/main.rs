//! The protocol under everything that a cluster does to it, exhaustively within bounds: the real `plan` as the transition
//! function of two operators that both believe to lead, with stale caches, before a small model of the API server and of
//! KMS. Writes are lost, late, or applied with the answer lost; an operator stops between any two effects; Secrets are
//! deleted, edited, stripped of labels and annotations, replaced by foreign ones or by some that look like ours, restored,
//! and collected as garbage; DataKeys are deleted and created again, with the same settings or with others, or restored
//! without their status; their version is raised and reverted, their deletion policy changed, and their settings corrected
//! as long as the server lets them be. What is recorded is pinned in the spec, or another cluster's data keys are; pins are
//! removed; and the whole cluster is lost and built again from what lies in Git, the spec.
//!
//! What must hold in every state:
//! * a reader who saw a version's bytes never sees other bytes under that version;
//! * the same in a cluster that is built again, of a version that is pinned;
//! * a recorded data key is never changed or dropped, answers the spec that it was recorded for, and is what is pinned;
//! * a foreign Secret is never written, and no write of an operator takes a data key out of a Secret;
//! * Ready is written only after the Secret was seen to hold the recorded bytes;
//! * once an operator has seen everything and has nothing to do, Ready means that the Secret holds the recorded bytes;
//! * what a `DataKey` adopted or took from pins is not deleted with it;
//! * once the faults stop, every `DataKey` comes to rest: Ready with the Secret as the record says, or a conflict that only
//!   a person can decide, and before which neither KMS was asked nor the Secret written.
//!
//! What is not promised has tests that find it: see [`LIMITS`].
//!
//! Each mutant of the protocol leaves one precaution out, and must be caught.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod budgets;
mod environment;
mod explore;
mod mutants;
mod objects;
mod operator;
mod rest;
mod secrets;
mod server;
mod world;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use datakey::{
    api::{DataKey, DataKeyStatus},
    reason::Failure,
};
use k8s_openapi::api::core::v1::Secret;

use crate::{
    budgets::{LARGE, LIMITS, SMALL},
    mutants::{MUTANTS, Mutant},
    objects::{DataKeys, Id, Interned, KeySummary, Spec},
    operator::{Decision, Question},
    secrets::SecretSummary,
    world::{Budget, DataKeyAt},
};

/// What does not hold.
type Violation = String;

/// How an object is made from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Derivation {
    Issued(DataKeyAt),
    WithSpec(Spec),
    Edited,
    Unmarked,
    Orphaned,
    Restored,
}

/// A world to be explored: the protocol or a mutant of it, what may happen, and the objects met so far.
struct Model {
    mutant: Mutant,
    budget: Budget,
    foreign: Id,
    lookalikes: [Id; 3],
    keys: RefCell<Interned<DataKey, KeySummary>>,
    secrets: RefCell<Interned<Secret, SecretSummary>>,
    failures: RefCell<Vec<Failure>>,
    decisions: RefCell<HashMap<Question, Decision>>,
    derived: RefCell<HashMap<(Id, Derivation), Id>>,
}

impl Model {
    fn new(mutant: Mutant, budget: Budget) -> Self {
        let mut secrets = Interned::new(secrets::summarize_secret);
        Self {
            mutant,
            budget,
            foreign: secrets.number(secrets::foreign()),
            lookalikes: secrets::lookalikes().map(|secret| secrets.number(secret)),
            keys: RefCell::new(Interned::new(objects::summarize_key)),
            secrets: RefCell::new(secrets),
            failures: RefCell::default(),
            decisions: RefCell::default(),
            derived: RefCell::default(),
        }
    }

    fn key(&self, id: Id) -> Rc<DataKey> {
        self.keys.borrow().object(id)
    }

    fn key_summary(&self, id: Id) -> KeySummary {
        self.keys.borrow().summary(id)
    }

    fn record(&self, id: Id) -> DataKeys {
        self.key_summary(id).record
    }

    fn pins(&self, id: Id) -> DataKeys {
        self.key_summary(id).spec.pins.data_keys()
    }

    fn secret(&self, id: Id) -> Rc<Secret> {
        self.secrets.borrow().object(id)
    }

    fn secret_summary(&self, id: Id) -> SecretSummary {
        self.secrets.borrow().summary(id)
    }

    fn held(&self, id: Id) -> DataKeys {
        self.secret_summary(id).held
    }

    fn secret_number(&self, secret: Secret) -> Id {
        self.secrets.borrow_mut().number(secret)
    }

    fn new_key(&self, uid: u16, spec: Spec) -> Id {
        self.keys.borrow_mut().number(objects::new_key(uid, spec))
    }

    fn with_status(&self, id: Id, status: Option<DataKeyStatus>) -> Id {
        let mut key = (*self.key(id)).clone();
        key.status = status;
        // Which revision it names is a part of the state; the object has the digest.
        if let Some(saved) = key.status.as_mut().and_then(|status| status.secret.as_mut()) {
            (saved.uid, saved.resource_version) = <_>::default();
        }
        self.keys.borrow_mut().number(key)
    }

    fn with_uid(&self, id: Id, uid: u16) -> Id {
        let mut key = (*self.key(id)).clone();
        key.metadata = self.key(self.new_key(uid, self.key_summary(id).spec)).metadata.clone();
        self.keys.borrow_mut().number(key)
    }

    fn with_spec(&self, id: Id, spec: Spec) -> Id {
        self.derived(id, Derivation::WithSpec(spec), || {
            let mut key = (*self.key(id)).clone();
            key.spec = spec.whole();
            key.metadata.generation = Some(spec.generation());
            self.keys.borrow_mut().number(key)
        })
    }

    fn derived_secret(&self, id: Id, how: Derivation, derive: impl Fn(&Secret) -> Secret) -> Id {
        self.derived(id, how, || self.secret_number(derive(&self.secret(id))))
    }

    /// What was derived before is not derived again.
    fn derived(&self, id: Id, how: Derivation, derive: impl Fn() -> Id) -> Id {
        if let Some(known) = self.derived.borrow().get(&(id, how)) {
            return *known;
        }
        let new = derive();
        self.derived.borrow_mut().insert((id, how), new);
        new
    }
}

/// Explores all of them on two threads; tells the states of each.
fn explore_all(budgets: &[(&str, Budget)]) -> usize {
    let next = AtomicUsize::new(0);
    let states = AtomicUsize::new(0);
    let worker = || {
        while let Some((name, budget)) = budgets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let explored = Model::new(Mutant::None, *budget).explore();
            let explored = explored.unwrap_or_else(|caught| panic!("{name}: {caught}\n{:#?}", caught.last));
            println!("{name}: {explored} states");
            states.fetch_add(explored, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    let states = states.into_inner();
    println!("{states} states in all");
    states
}

#[test]
fn protocol_keeps_its_promises_in_every_state() {
    assert!(explore_all(SMALL) > 800_000, "the model does not reach what it should");
}

#[test]
#[ignore = "minutes: make model"]
fn protocol_keeps_its_promises_in_larger_worlds() {
    explore_all(LARGE);
}

#[test]
fn every_mutant_of_the_protocol_is_caught() {
    for (mutant, budget) in MUTANTS {
        match Model::new(*mutant, *budget).explore() {
            Ok(states) => panic!("{mutant:?} is not caught in {states} states"),
            Err(caught) => println!("{mutant:?} is caught: {caught}"),
        }
        for lesser in budget.lesser() {
            assert!(Model::new(*mutant, lesser).explore().is_ok(), "{mutant:?} is caught with less: {lesser:?}");
        }
    }
}

#[test]
fn protocol_has_only_the_documented_limits() {
    for (limit, budget, violation) in LIMITS {
        match Model::new(Mutant::None, *budget).explore() {
            Ok(_) => panic!("no limit any more: {limit}; its budget belongs to those that hold"),
            Err(caught) => assert!(caught.violation.starts_with(violation), "{limit}: {caught}"),
        }
    }
}
