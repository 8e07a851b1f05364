//! The actions of users, backup tools, other controllers and the garbage collector.

use datakey::api::KeyKind as _;

use crate::{
    Derivation, Model, Violation,
    objects::{Id, Pins, Spec},
    requests::{AskAt, DataKeyAt, RequestVariant},
    secrets,
    server::Writer,
    world::{Action, Held, Origin, SecretAt, State},
};

/// The states that follow a state, each with its action.
pub type Successors = Vec<(Action, State)>;

impl Model {
    pub fn environment(&self, state: &State, next: &mut Successors) -> Result<(), Violation> {
        match state.secret {
            Some(at) => self.change_secret(state, at.object, next)?,
            None => self.place_secret(state, next)?,
        }
        self.change_key(state, next);
        Self::change_class(state, next);
        self.recreate_key(state, next)
    }

    /// Changes or removes an existing Secret.
    fn change_secret(&self, state: &State, id: Id, next: &mut Successors) -> Result<(), Violation> {
        if self.is_garbage(state) {
            let mut collected = state.clone();
            self.remove_secret(&mut collected);
            next.push((Action::CollectGarbage, collected));
        }
        if let Some(mut deleted) = state.spend(|budget| &mut budget.delete_secret) {
            self.remove_secret(&mut deleted);
            next.push((Action::DeleteSecret, deleted));
        }
        let summary = self.secret_summary(id);
        if summary.foreign {
            return Ok(());
        }
        if let Some(mut changed) = state.spend(|budget| &mut budget.edit).filter(|_| !summary.edited) {
            let edited = self.derived_secret(id, Derivation::Edited, secrets::edited);
            self.put_secret(&mut changed, edited, Writer::OtherClient)?;
            next.push((Action::EditSecret, changed));
        }
        if let (Some(mut changed), Some(earlier)) = (state.spend(|budget| &mut budget.revert), state.earlier)
            && !self.secret_summary(earlier).foreign
        {
            self.put_secret(&mut changed, earlier, Writer::OtherClient)?;
            next.push((Action::RevertSecret, changed));
        }
        if let Some(mut changed) = state.spend(|budget| &mut budget.unmark).filter(|_| summary.has_own_labels) {
            let unmarked = self.derived_secret(id, Derivation::Unmarked, secrets::unmarked);
            self.put_secret(&mut changed, unmarked, Writer::OtherClient)?;
            next.push((Action::UnmarkSecret, changed));
        }
        Ok(())
    }

    /// Creates a Secret where there is none.
    fn place_secret(&self, state: &State, next: &mut Successors) -> Result<(), Violation> {
        if let Some(mut taken) = state.spend(|budget| &mut budget.foreign) {
            self.put_secret(&mut taken, self.foreign, Writer::OtherClient)?;
            next.push((Action::CreateForeignSecret, taken));
        }
        if let Some(taken) = state.spend(|budget| &mut budget.lookalike) {
            for lookalike in self.lookalikes {
                let mut taken = taken.clone();
                self.put_secret(&mut taken, lookalike, Writer::OtherClient)?;
                next.push((Action::CreateLookalike, taken));
            }
        }
        if let (Some(mut restored), Some(backup)) = (state.spend(|budget| &mut budget.restore), state.backup) {
            // If another data key was published since the backup, the user who restores it changes the bytes, not the operator.
            let agrees = |(version, number)| state.shown.get(version).is_none_or(|seen| seen == number);
            if self.held(backup).iter().all(agrees) {
                let restore = self.derived_secret(backup, Derivation::Restored, secrets::restored);
                self.put_secret(&mut restored, restore, Writer::OtherClient)?;
                next.push((Action::RestoreSecret, restored));
            }
        }
        Ok(())
    }

    /// Changes the spec.
    fn change_key(&self, state: &State, next: &mut Successors) {
        let now = self.key_summary(state.key.object).spec;
        let mut change = |changed: Option<State>, spec: Spec, action: Action| {
            let Some(mut changed) = changed else { return };
            let id = self.with_spec(state.key.object, spec);
            // The rules of the definition reject a spec that the record or a pin contradicts.
            let summary = self.key_summary(id);
            let policy_is_fixed = !summary.record.is_empty() && spec.delete != now.delete;
            if summary.record_answers_spec && summary.pins_agree && !policy_is_fixed {
                changed.key.object = id;
                changed.key.revision = changed.new_revision();
                next.push((action, changed));
            }
        };
        let variant = match now.variant {
            RequestVariant::First => RequestVariant::OtherContext,
            RequestVariant::OtherContext | RequestVariant::OtherKey | RequestVariant::OtherKeyAndContext => {
                RequestVariant::First
            }
        };
        change(state.spend(|budget| &mut budget.correct), Spec { variant, ..now }, Action::CorrectSettings);
        change(
            state.spend(|budget| &mut budget.version),
            Spec { version: 3 - now.version, ..now },
            Action::ChangeVersion,
        );
        change(state.spend(|budget| &mut budget.policy), Spec { delete: !now.delete, ..now }, Action::ChangePolicy);
        let record = Pins::of(self.key(state.key.object).as_object().record());
        for (pins, action) in [(record, Action::PinRecord), (Pins::default(), Action::Unpin)] {
            if pins != now.pins {
                change(state.spend(|budget| &mut budget.pin), Spec { pins, ..now }, action);
            }
        }
        for version in [1, 2].into_iter().filter(|&version| now.pins.get(version).is_none()) {
            let mut pins = now.pins;
            let (number, ask) = (self.fresh(state), AskAt::without_class(now.variant));
            pins.set(DataKeyAt { number, version, ask, key: now.variant.key() });
            change(state.spend(|budget| &mut budget.pin), Spec { pins, ..now }, Action::PinAnothers);
        }
    }

    /// Gives the `DataKey` another uid and removes its status. If it was deleted and created again, the garbage collector deletes
    /// its Secret at any later time; if it was deleted without its dependents, or restored from a backup, the Secret stays.
    fn recreate_key(&self, state: &State, next: &mut Successors) -> Result<(), Violation> {
        let now = self.key_summary(state.key.object).spec;
        let others = [RequestVariant::First, RequestVariant::OtherContext, RequestVariant::OtherKey];
        let others = others.into_iter().filter(|variant| *variant != now.variant);
        let recreated = state.spend(|budget| &mut budget.recreate).map(|after| (now.variant, after));
        let other = state
            .spend(|budget| &mut budget.respec)
            .into_iter()
            .flat_map(|after| others.clone().map(move |other| (other, after.clone())));
        for (variant, mut after) in recreated.into_iter().chain(other) {
            after.uids += 1;
            let key = self.new_key(after.uids, Spec { variant, ..now });
            if !self.key_summary(key).pins_agree {
                continue;
            }
            let owned = state.secret.filter(|at| self.secret_summary(at.object).owner.is_some());
            if let Some(at) = owned {
                let mut kept = after.clone();
                let orphaned = self.derived_secret(at.object, Derivation::Orphaned, secrets::orphaned);
                self.put_secret(&mut kept, orphaned, Writer::OtherClient)?;
                self.recreate(&mut kept, key);
                next.push((Action::RecreateDataKeyOrphaningSecret, kept));
            }
            self.recreate(&mut after, key);
            next.push((Action::RecreateDataKey, after));
        }
        if let Some(mut after) = state.spend(|budget| &mut budget.rebuild) {
            after.uids += 1;
            let key = self.new_key(after.uids, now);
            self.rebuild(&mut after, key);
            next.push((Action::RebuildCluster, after));
        }
        self.move_cluster(state, next);
        Ok(())
    }

    /// Restores the `DataKey` with its status in another cluster, and the Secret unchanged or edited. There the Secret happens to
    /// have the resource version that the status names.
    fn move_cluster(&self, state: &State, next: &mut Successors) {
        let (Some(at), Some(saved)) = (state.secret, state.key.saved) else { return };
        let Some(mut moved) = state.spend(|budget| &mut budget.migrate) else { return };
        let summary = self.secret_summary(at.object);
        if summary.foreign || summary.edited {
            return;
        }
        moved.operators = <_>::default();
        moved.flight.clear();
        moved.uids += 1;
        moved.key.object = self.with_uid(state.key.object, moved.uids);
        moved.key.revision = moved.new_revision();
        let edited = self.derived_secret(at.object, Derivation::Edited, secrets::edited);
        for object in [at.object, edited] {
            let object = self.derived_secret(object, Derivation::Restored, secrets::restored);
            let uid = moved.new_revision();
            let secret = Some(SecretAt { object, uid, revision: saved.revision });
            next.push((Action::MoveCluster, State { secret, ..moved.clone() }));
        }
    }

    /// Lets so much time pass that the status must name the revision that was read.
    pub fn settle(state: &State, who: usize) -> Option<State> {
        let (at, held) = state.operators[who].verified.filter(|(_, held)| held.origin == Origin::Read)?;
        let mut settled = state.spend(|budget| &mut budget.settle)?;
        settled.operators[who].verified = Some((at, Held { origin: Origin::Settled, ..held }));
        Some(settled)
    }
}
