//! Once the faults stop, every `DataKey` settles: it is Ready, or reports a conflict that only a user can decide.

use datakey::{
    api::{KeyKind as _, READY},
    condition,
    protocol::MAX_STEPS,
    secret::{Projection, sha256},
};
use k8s_openapi::api::core::v1::Secret;

use crate::{
    Model, Violation,
    kind::Key,
    objects::KeySummary,
    operator::Decision,
    secrets::SecretSummary,
    world::{Held, Operator, SecretAt, State},
};

/// A number of reconciles after which every `DataKey` must be settled.
const MAX_RECONCILES: usize = 8;

impl Model {
    /// Runs one operator with current caches alone until a whole reconcile changes nothing, and checks the result.
    pub fn settles(&self, state: &State, verified: Option<(SecretAt, Held)>) -> Result<(), Violation> {
        let mut state = state.clone();
        state.flight.clear();
        if self.is_garbage(&state) {
            self.remove_secret(&mut state);
        }
        let class = self.class_in_view(&state);
        state.operators[0] = Operator { verified, class, ..Operator::default() };
        let found = state.clone();
        for _ in 0..MAX_RECONCILES {
            let before = (state.key, state.secret, state.operators[0].verified);
            self.reconcile(&mut state)?;
            if before == (state.key, state.secret, state.operators[0].verified) {
                return self.is_settled_correctly(&found, &state);
            }
        }
        Err("the DataKey does not settle".to_owned())
    }

    fn reconcile(&self, state: &mut State) -> Result<(), Violation> {
        let operator = &mut state.operators[0];
        operator.key = Some(state.key);
        operator.secret = state.secret.filter(|at| self.secret_summary(at.object).watched);
        operator.run = Self::start(operator);
        for _ in 0..MAX_STEPS {
            let Some(run) = state.operators[0].run else { return Ok(()) };
            if self.decide(&run, state.operators[0].class) == Decision::End {
                state.operators[0].run = None;
                return Ok(());
            }
            *state = self.step(state, 0, false)?.unwrap().1;
        }
        Err("a reconcile does not end".to_owned())
    }

    /// Checks that Ready is correct whenever an operator with current caches has nothing to do.
    pub fn ready_means_intact(&self, state: &State, operator: &Operator) -> Result<(), Violation> {
        let has_seen_everything = operator.key == Some(state.key) && operator.secret == self.watched(state);
        let Some(run) = Self::start(operator).filter(|_| operator.run.is_none() && has_seen_everything) else {
            return Ok(());
        };
        let key = self.key(state.key.object);
        let ready = condition::find(&*key, READY).unwrap();
        let is_ready = ready.status == "True" && ready.observed_generation == key.metadata.generation;
        if is_ready && self.decide(&run, operator.class) == Decision::End && !self.is_published(state) {
            return Err("Ready, nothing to do, and the Secret is not what is recorded".to_owned());
        }
        Ok(())
    }

    fn is_settled_correctly(&self, found: &State, state: &State) -> Result<(), Violation> {
        let key = self.key(state.key.object);
        let ready = condition::find(&*key, READY).unwrap();
        if ready.observed_generation != key.metadata.generation {
            return Err("settled, but Ready is that of another spec".to_owned());
        }
        match ready.status.as_str() {
            "True" if self.pins(state.key.object).not_in(self.record(state.key.object)).is_some() => {
                Err("Ready, but what is pinned is not recorded".to_owned())
            }
            "True" if self.is_published(state) => Ok(()),
            "True" => Err("Ready, but the Secret is not what is recorded".to_owned()),
            "False" if ready.reason == "SecretConflict" => {
                let untouched = (found.secret, self.record(found.key.object));
                if (state.secret, self.record(state.key.object)) != untouched {
                    return Err("KMS was called or the Secret written before the conflict was reported".to_owned());
                }
                let Some(at) = state.secret else { return Err("a conflict with a Secret that is not there".into()) };
                let secret = self.secret_summary(at.object);
                let uncertain = secret.edited && !is_verified(&key, &self.secret(at.object));
                if uncertain || self.only_a_user_can_decide(&self.key_summary(state.key.object), &secret) {
                    Ok(())
                } else {
                    Err("a conflict with a Secret that is its own".to_owned())
                }
            }
            "False" if ready.reason == "ClassNotFound" && state.class.is_none() && self.has_class() => Ok(()),
            "False" if ready.reason == "ClassRefused" && state.class.is_some() => {
                let is_refused = self.class_refuses(state);
                if is_refused {
                    Ok(())
                } else {
                    Err("refused, although the class allows all that is asked for".to_owned())
                }
            }
            other => Err(format!("settled, but Ready is {other} ({})", ready.reason)),
        }
    }

    /// Whether everything that the operator manages in the Secret is exactly the projection of the record.
    fn is_published(&self, state: &State) -> bool {
        let (Some(at), key) = (state.secret, self.key(state.key.object)) else { return false };
        let Some(wanted) = Projection::of(&*key, key.as_object().wanted_version()) else { return false };
        let (secret, expected) = (self.secret_summary(at.object), self.key_summary(state.key.object));
        self.secret(at.object).data == Some(wanted.data) && secret.held == expected.record && secret.has_own_labels
    }

    /// Whether the class refuses a pin that is not recorded or, if the wanted version is not recorded, what would be asked of KMS,
    /// what it would answer, or what the Secret holds.
    fn class_refuses(&self, state: &State) -> bool {
        let (class, key) = (self.class_in_view(state), self.key_summary(state.key.object));
        let pins = key.spec.pins.iter().filter(|pin| key.record.get(pin.version).is_none());
        if pins.into_iter().any(|pin| !class.allows_claim(pin)) {
            return true;
        }
        let of_the_secret = state.secret.map(|at| self.secret_summary(at.object).claims);
        let answer = key.spec.variant.key_now(state.alias_moved);
        key.record.get(key.spec.version).is_none()
            && (class.request_for(key.spec.variant).is_none()
                || !class.allows_key(answer)
                || of_the_secret.iter().flatten().flatten().any(|claim| !class.allows_claim(*claim)))
    }

    /// Whether a conflict between this `DataKey` and this Secret is correct.
    fn only_a_user_can_decide(&self, key: &KeySummary, secret: &SecretSummary) -> bool {
        if secret.foreign {
            return true;
        }
        if key.record.is_empty() {
            // Its data keys were requested with other variant, or it lost a part that the record is rebuilt from.
            let other_settings = secret.asked_with(key.spec.version).is_some_and(|asked| asked != key.spec.variant);
            let pins = key.spec.pins.data_keys();
            let another =
                pins.iter().any(|(version, number)| secret.held.get(version).is_some_and(|held| held != number));
            return another || other_settings || secret.edited || !secret.has_own_labels || secret.held.is_empty();
        }
        // Only a restore, or a write that outlived its DataKey, brings back data keys of an earlier DataKey of this name.
        (self.budget.restore > 0 || self.budget.outlived > 0) && secret.held.not_in(key.record).is_some()
    }
}

/// Whether the annotation of the edited version still has the checksum of the recorded data key: then the bytes are certainly
/// an edit, and not an unrecorded data key.
fn is_verified(key: &Key, secret: &Secret) -> bool {
    let annotation = secret.metadata.annotations.as_ref().and_then(|all| all.get("datakey.dev/issued.v1"));
    let recorded = key.as_object().recorded_version(1).map(|issued| sha256(&issued.ciphertext_blob.0));
    matches!((annotation, recorded), (Some(annotation), Some(recorded)) if annotation.contains(&recorded))
}
