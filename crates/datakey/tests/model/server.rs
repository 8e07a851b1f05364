//! The API server and KMS: how they answer the operators' requests.

use crate::{
    Model, Violation,
    mutants::Mutant,
    objects::{self, DataKeys, Id},
    world::{KeyAt, Run, Saved, SecretAt, State, Write, secret_in},
};

/// The client that writes a Secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Operator,
    OtherClient,
}

impl Model {
    /// The number of a new data key. Numbers only have to differ, so the first one that no object has is used.
    pub fn fresh(&self, state: &State) -> u8 {
        let mut used = state.shown.bits();
        let mut key = |id: Id| used |= self.record(id).bits() | self.pins(id).bits();
        key(state.key.object);
        for operator in &state.operators {
            operator.key.iter().chain(operator.run.iter().map(Run::object)).for_each(|at| key(at.object));
        }
        let mut secret = |id: Id| used |= self.held(id).bits();
        state.secret.iter().for_each(|at| secret(at.object));
        state.backup.iter().for_each(|id| secret(*id));
        for operator in &state.operators {
            let seen = operator.run.and_then(|run| secret_in(run.secret()));
            operator.secret.iter().chain(&seen).for_each(|at| secret(at.object));
        }
        for answer in state.operators.iter().filter_map(|operator| operator.run?.unrecorded_answer().copied()) {
            used |= 1 << answer.number;
        }
        for write in &state.flight {
            used |= match write {
                Write::Status { to, .. } => self.record(*to).bits() | self.pins(*to).bits(),
                Write::Create { to, .. } | Write::Replace { to, .. } => self.held(*to).bits(),
            };
        }
        u8::try_from(used.trailing_ones()).unwrap()
    }

    /// Applies a write; `Ok(false)` if the server rejects it.
    pub fn apply(&self, state: &mut State, write: &Write) -> Result<bool, Violation> {
        match *write {
            Write::Status { on, to, saved } => return self.put_status(state, on, to, saved),
            Write::Create { by, to } => {
                let taken = state.secret.is_some() && self.mutant != Mutant::ApplyInsteadOfCreate;
                if taken || !self.may_write(state, by) {
                    return Ok(false);
                }
                self.put_secret(state, to, Writer::Operator)?;
            }
            Write::Replace { by, on, to } => {
                let unconditional = self.mutant == Mutant::ReplaceUnconditionally && state.secret.is_some();
                if state.secret != Some(on) && !unconditional || !self.may_write(state, by) {
                    return Ok(false);
                }
                self.put_secret(state, to, Writer::Operator)?;
            }
        }
        Ok(true)
    }

    /// Whether a Secret can be written for the `DataKey` of this uid. The server has no condition on another object, so a write can
    /// outlive its `DataKey`; the protocol does not prevent that, and it happens only if the budget allows it.
    fn may_write(&self, state: &mut State, by: u16) -> bool {
        if self.key_summary(state.key.object).uid == by {
            return true;
        }
        let left = state.budget.outlived.checked_sub(1);
        state.budget.outlived = left.unwrap_or_default();
        left.is_some()
    }

    fn put_status(&self, state: &mut State, on: KeyAt, to: Id, saved: Option<Saved>) -> Result<bool, Violation> {
        let at = state.key;
        let new = if at == on {
            to
        } else if self.takes_unguarded_record(at, to) {
            self.with_status(at.object, self.key(to).status.clone())
        } else {
            return Ok(false);
        };
        // The server's rules would reject these writes; the attempt alone is a defect of the protocol.
        if let Some(version) = self.record(at.object).not_in(self.record(new)) {
            return Err(format!("the recorded data key version {version} was changed or dropped"));
        }
        if !self.key_summary(new).record_answers_spec {
            return Err("a data key was recorded that does not answer the spec".to_owned());
        }
        if !self.key_summary(new).pins_agree {
            return Err("another data key was recorded than is pinned".to_owned());
        }
        if !self.key_summary(new).rewraps_are_as_pinned {
            return Err("a rewrap is not recorded as it is pinned".to_owned());
        }
        if (new, saved) != (at.object, at.saved) {
            state.key = KeyAt { object: new, revision: state.new_revision(), saved };
        }
        Ok(true)
    }

    pub fn put_secret(&self, state: &mut State, to: Id, by: Writer) -> Result<(), Violation> {
        let old = state.secret;
        let held = self.held(to);
        if let Some(before) = old.map(|at| self.secret_summary(at.object)).filter(|_| by == Writer::Operator) {
            if before.foreign {
                return Err("a foreign Secret was written".to_owned());
            }
            if let Some(version) = before.held.not_in(held) {
                return Err(format!("data key version {version} was taken out of the Secret"));
            }
        }
        let owner = self.secret_summary(to).owner.filter(|_| by == Writer::Operator && old.is_none());
        let key = self.key(state.key.object);
        if owner.is_some_and(|owner| owner == self.key_summary(state.key.object).uid && !objects::issued_all(&key)) {
            return Err("what was adopted or pinned would be deleted with the DataKey".to_owned());
        }
        if self.budget.revert > 0 {
            state.earlier = old.map(|at| at.object);
        }
        let revision = state.new_revision();
        state.secret = Some(SecretAt { object: to, uid: old.map_or(revision, |at| at.uid), revision });
        for (version, number) in held.iter() {
            match state.shown.get(version) {
                Some(seen) if seen != number => {
                    return Err(format!("readers see other bytes under version {version}"));
                }
                _ => state.shown.set(version, number),
            }
        }
        Ok(())
    }

    /// Removes the Secret. A user who removes one that contradicts the record gives up its data keys, as the conflict's message
    /// says; a data key without a record is lost with its only copy.
    pub fn remove_secret(&self, state: &mut State) {
        let Some(at) = state.secret.take() else { return };
        if !self.secret_summary(at.object).foreign {
            state.backup = Some(at.object);
        }
        let key = state.key.object;
        state.shown.keep_only([self.record(key), self.pins(key)]);
    }

    /// Whether garbage collection will delete the Secret, because its owner was deleted.
    pub fn is_garbage(&self, state: &State) -> bool {
        let owner = state.secret.and_then(|at| self.secret_summary(at.object).owner);
        owner.is_some_and(|owner| owner != self.key_summary(state.key.object).uid)
    }

    /// The Secret, if the watch sees it.
    pub fn watched(&self, state: &State) -> Option<SecretAt> {
        state.secret.filter(|at| self.secret_summary(at.object).watched)
    }

    /// Deletes the `DataKey` and creates one of the same name, or restores it: in both cases it has another uid and no status.
    /// Versions that only the record had are lost; readers still rely on those in the Secret or in the pins.
    pub fn recreate(&self, state: &mut State, key: Id) {
        state.key = KeyAt { object: key, revision: state.new_revision(), saved: None };
        let held = state.secret.map_or(DataKeys::default(), |at| self.held(at.object));
        state.shown.keep_only([held, self.pins(key)]);
    }

    /// Replaces the cluster, with all objects and all writes in flight, by one that has only the spec from Git.
    pub fn rebuild(&self, state: &mut State, key: Id) {
        state.operators = <_>::default();
        state.flight.clear();
        state.secret = None;
        self.recreate(state, key);
    }
}
