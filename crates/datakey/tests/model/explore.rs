//! The search: every state that can be reached within the budget, breadth first, so that the trace to a violation is the
//! shortest.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
};

use crate::{
    Model, Violation,
    classes::{ClassAt, ClassView, Terms},
    environment::Successors,
    objects::Spec,
    operator::Decision,
    world::{Action, Operator, State},
};

/// A violation with the trace to the state where the next action, or settling, violates an invariant.
#[derive(Debug)]
pub struct Caught {
    pub violation: Violation,
    pub trace: Vec<Action>,
    pub last: Box<State>,
}

/// Every state seen: where it was first reached from, and how.
struct Seen {
    numbers: HashMap<[u64; 2], u32>,
    reached: Vec<(u32, Action)>,
}

impl Model {
    /// Explores every state within the budget, and returns the number of states or the first violation.
    pub fn explore(&self) -> Result<usize, Caught> {
        let in_class = self.has_class();
        let key = self.new_key(0, Spec { in_class, ..Spec::FIRST });
        let class = in_class.then_some(ClassAt { terms: Terms::Open, uid: 0 });
        let first = State::first(key, class, self.budget);
        let mut seen = Seen { numbers: HashMap::new(), reached: Vec::new() };
        let mut settled = HashSet::new();
        let mut queue = VecDeque::new();
        seen.insert(&first, 0, Action::Begin);
        queue.push_back((0, first));
        while let Some((number, state)) = queue.pop_front() {
            let caught = |violation| seen.caught(violation, number, &state);
            for operator in &state.operators {
                self.ready_means_intact(&state, operator).map_err(caught)?;
                let verified = operator.verified.filter(|(at, _)| state.secret == Some(*at));
                // How the DataKey settles depends on nothing else.
                let names = state
                    .secret
                    .map(|at| state.key.saved.map(|saved| [saved.uid == at.uid, saved.revision == at.revision]));
                let secret = state.secret.map(|at| at.object);
                let aws = (state.class, state.alias_moved);
                let world = (state.key.object, names, secret, verified.map(|(_, held)| held), aws);
                if settled.insert(world) {
                    self.settles(&state, verified).map_err(caught)?;
                }
            }
            for (action, next) in self.successors(&state).map_err(caught)? {
                let next = next.canonical();
                if let Some(new) = seen.insert(&next, number, action) {
                    queue.push_back((new, next));
                }
            }
        }
        Ok(seen.reached.len())
    }

    /// Everything that can happen next.
    fn successors(&self, state: &State) -> Result<Successors, Violation> {
        let mut next = Vec::new();
        let operators = if self.budget.alone { 1 } else { 2 };
        for (who, operator) in state.operators.iter().enumerate().take(operators) {
            self.sync_class(state, who, operator, &mut next);
            if operator.run.is_some() {
                self.continue_run(state, who, &mut next)?;
            } else {
                // A reconcile does not read these caches again, so they need not change before it ends.
                self.sync_or_start(state, who, operator, &mut next);
            }
        }
        for (number, write) in state.flight.iter().enumerate() {
            let mut lost = state.clone();
            lost.flight.remove(number);
            let mut applied = lost.clone();
            let action =
                if self.apply(&mut applied, write)? { Action::LateWriteApplied } else { Action::LateWriteRefused };
            next.extend([(Action::LateWriteLost, lost), (action, applied)]);
        }
        self.environment(state, &mut next)?;
        Ok(next)
    }

    fn continue_run(&self, state: &State, who: usize, next: &mut Successors) -> Result<(), Violation> {
        next.extend(self.step(state, who, false)?);
        if let Some(before) = state.spend(|budget| &mut budget.late) {
            next.extend(self.step(&before, who, true)?);
        }
        if let Some(mut stopped) = state.spend(|budget| &mut budget.stops) {
            stopped.operators[who].run = None;
            stopped.operators[who].verified = None;
            stopped.operators[who].class = ClassView::Unlisted;
            next.push((Action::Stop, stopped));
        }
        Ok(())
    }

    fn sync_or_start(&self, state: &State, who: usize, operator: &Operator, next: &mut Successors) {
        if operator.key != Some(state.key) {
            let mut synced = state.clone();
            synced.operators[who].key = Some(state.key);
            next.push((Action::SyncDataKey, synced));
        }
        let watched = self.watched(state);
        if operator.secret != watched {
            let mut synced = state.clone();
            synced.operators[who].secret = watched;
            self.carry_verified(&mut synced.operators[who], watched);
            next.push((Action::SyncSecret, synced));
        }
        next.extend(Self::settle(state, who).map(|settled| (Action::Settle, settled)));
        // A reconcile that ends at once changes nothing.
        if let Some(run) = Self::start(operator).filter(|run| self.decide(run, operator.class) != Decision::End) {
            let mut started = state.clone();
            started.operators[who].run = Some(run);
            next.push((Action::Reconcile, started));
        }
    }
}

// === impl Seen ===

impl Seen {
    /// The number of a state that is new.
    fn insert(&mut self, state: &State, from: u32, action: Action) -> Option<u32> {
        let number = u32::try_from(self.reached.len()).unwrap();
        let new = *self.numbers.entry(state.fingerprint()).or_insert(number) == number;
        new.then(|| {
            self.reached.push((from, action));
            number
        })
    }

    fn caught(&self, violation: Violation, mut number: u32, last: &State) -> Caught {
        let mut trace = Vec::new();
        while number > 0 {
            let (from, action) = self.reached[number as usize];
            trace.push(action);
            number = from;
        }
        trace.reverse();
        Caught { violation, trace, last: Box::new(last.clone()) }
    }
}

// === impl Caught ===

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:?}", self.violation, self.trace)
    }
}
