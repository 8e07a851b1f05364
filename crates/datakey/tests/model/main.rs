//! The protocol under everything that a cluster does to it, exhaustively within bounds: the real `plan` as the transition
//! function of two operators that both act as the leader, with stale caches, on a small model of the API server and of KMS.
//! Writes are lost, late, or applied with the answer lost; an operator stops between any two effects; Secrets are deleted,
//! edited, stripped of labels and annotations, replaced by foreign ones or lookalikes, restored, and collected as garbage;
//! DataKeys are deleted and created again, with the same variant or with others, or restored without their status; their
//! version is raised and reverted, their deletion policy changed, and their variant corrected as long as the server allows
//! it. Recorded data keys, or those of another cluster, are pinned in the spec; pins are removed; and the whole cluster is lost
//! and built again from the spec in Git. The class that the objects name is changed, deleted and created again, or cannot be
//! listed, while each operator sees it as it was, and the alias of the KMS key is moved.
//!
//! What must hold in every state:
//! * a reader who saw a version's bytes never sees other bytes under that version;
//! * the same holds for a pinned version in a cluster that is built again;
//! * a recorded data key is never changed or dropped, matches the spec that it was recorded for, and agrees with its pin;
//! * what a pin says of a rewrap (`rewrapOf`) is recorded with it, and is not compared with what is recorded;
//! * a foreign Secret is never written, and no write of an operator takes a data key out of a Secret;
//! * Ready is written only after the Secret was seen to hold the recorded bytes;
//! * when an operator with current caches has nothing to do, Ready means that the Secret holds the recorded bytes;
//! * a version that a `DataKey` adopted or took from pins is not deleted with it;
//! * KMS is asked, and an answer, a pin or what a Secret holds is recorded, only as the class allows it that the operator sees at
//!   that decision; the record says what KMS was asked, and names that class;
//! * what is recorded is not judged again: while nothing else is wanted, no step depends on the class;
//! * once the faults stop, every `DataKey` settles: it is Ready with the Secret as recorded, or reports a conflict that only a
//!   user can decide, and before which neither KMS was called nor the Secret written, or is refused by its class as that is now.
//!
//! [`LIMITS`] has a test for each property that the protocol does not promise.
//!
//! Each mutant of the protocol omits one precaution, and the model must catch it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod budgets;
mod classes;
mod environment;
mod explore;
mod kind;
mod mutants;
mod objects;
mod operator;
mod requests;
mod secrets;
mod server;
mod settles;
mod world;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use datakey::{api::KeyStatus, reason::Failure};
use k8s_openapi::api::core::v1::Secret;

use crate::{
    budgets::{Budget, LARGE, LIMITS, SMALL},
    kind::Key,
    mutants::{MUTANTS, Mutant},
    objects::{DataKeys, Id, Interned, KeySummary, Spec},
    operator::{Decision, Question},
    requests::DataKeyAt,
    secrets::SecretSummary,
};

/// The invariant that does not hold.
type Violation = String;

/// The way in which an object is derived from another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Derivation {
    Issued(DataKeyAt),
    WithSpec(Spec),
    Edited,
    Unmarked,
    Orphaned,
    Restored,
}

/// One exploration: the protocol or a mutant of it, the budget of faults, and the objects so far.
struct Model {
    mutant: Mutant,
    budget: Budget,
    foreign: Id,
    lookalikes: [Id; 3],
    keys: RefCell<Interned<Key, KeySummary>>,
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

    fn key(&self, id: Id) -> Rc<Key> {
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

    fn with_status(&self, id: Id, status: Option<KeyStatus>) -> Id {
        let mut key = (*self.key(id)).clone();
        key.status = status;
        // The saved revision is a part of the state; the object has the digest only, so that equal objects have one number.
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

    /// The derived object, from the cache if it was derived before.
    fn derived(&self, id: Id, how: Derivation, derive: impl Fn() -> Id) -> Id {
        if let Some(known) = self.derived.borrow().get(&(id, how)) {
            return *known;
        }
        let new = derive();
        self.derived.borrow_mut().insert((id, how), new);
        new
    }
}

/// Explores all of these budgets on two threads, and prints the number of states of each.
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
    assert!(explore_all(SMALL) > 2_000_000, "the model does not reach what it should");
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
