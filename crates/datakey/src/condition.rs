//! The conditions `Ready` and `Stalled`, and [`key_usable`] beside them.
//!
//! `Ready` is always present. `Stalled` is present, as True, only when a user must act, so that kstatus reads
//! `InProgress` while a retry can help and `Failed` otherwise. `status.observedGeneration` and the conditions' own are
//! written together: `kubectl wait` trusts the condition's, kstatus only the status's.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    api::{
        Conditions, IssuedVersion, KeyStatus, Kind, Object, PENDING, READY, STALLED, VerifiedSecret,
        truncate_to_seconds,
    },
    reason::{Failure, MAX_MESSAGE, Reason, RetryPolicy},
    secret::sha256,
    text::{capitalized, printable},
};

pub mod key_usable;

/// The reason of `Ready=True`.
pub const ISSUED: &str = "Issued";

/// What the `Ready` condition of an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadyState {
    /// `Ready=True`.
    Issued,
    /// No present condition, `Ready=Unknown`, or a reason that this release does not know.
    Pending,
    /// `Ready=False`.
    Failed(Reason),
}

// === impl ReadyState ===

impl ReadyState {
    /// The state that this status reports.
    pub fn of(status: Option<&KeyStatus>) -> Self {
        match status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == READY)) {
            Some(ready) if ready.status == "True" => Self::Issued,
            Some(ready) => ready.reason.parse().map_or(Self::Pending, Self::Failed),
            None => Self::Pending,
        }
    }

    /// The reason that the condition has in this state.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Issued => ISSUED,
            Self::Pending => PENDING,
            Self::Failed(reason) => reason.as_str(),
        }
    }
}

/// The status of an object whose Secret, at this revision, holds the data key of the spec.
pub fn ready<'a>(
    object: impl Into<Object<'a>>,
    issued: &IssuedVersion,
    secret: Option<VerifiedSecret>,
    now: Timestamp,
) -> KeyStatus {
    let object = object.into();
    let old = object.status.cloned().unwrap_or_default();
    let message = format!("Secret {} holds {} version {}", object.secret_name(), object.kind.noun, issued.version);
    let ready = condition(&old.conditions, object.metadata.generation, READY, ("True", ISSUED), &message, now);
    KeyStatus {
        observed_generation: object.metadata.generation,
        conditions: Conditions::beside(vec![ready], old.conditions),
        version: Some(issued.version),
        key_id: Some(issued.key_id.clone()),
        public_key_sha256: issued.public_key.as_ref().map(|der| sha256(&der.0)),
        issued_at: Some(issued.issued_at.clone()),
        secret,
        ..old
    }
}

/// The status of an object that cannot be made ready now.
pub fn failed<'a>(object: impl Into<Object<'a>>, failure: &Failure, now: Timestamp) -> KeyStatus {
    let object = object.into();
    let old = object.status.cloned().unwrap_or_default();
    let own = failed_conditions(object.kind, failure, &old.conditions, object.metadata.generation, now);
    KeyStatus {
        observed_generation: object.metadata.generation,
        conditions: Conditions::beside(own, old.conditions),
        key_id: if old.versions.is_empty() { object.spec.request.key_id.map(str::to_owned) } else { old.key_id },
        ..old
    }
}

/// The status of [`failed`] in no more bytes than the present status has: etcd may have no room for more, but `Ready` must not
/// stay True while the Secret is wrong.
pub fn failed_briefly<'a>(object: impl Into<Object<'a>>, reason: Reason, now: Timestamp) -> KeyStatus {
    let object = object.into();
    let old = object.status.cloned().unwrap_or_default();
    let ready = condition(&old.conditions, object.metadata.generation, READY, ("False", reason.as_str()), "", now);
    KeyStatus {
        observed_generation: object.metadata.generation,
        conditions: Conditions::beside(vec![ready], old.conditions),
        ..old
    }
}

/// The operator's own conditions of an object that cannot be made ready now; `old` are the present ones.
pub fn failed_conditions(
    kind: &Kind,
    failure: &Failure,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (reason, message) = (failure.reason.as_str(), failure.message(kind));
    let mut conditions = vec![condition(old, generation, READY, ("False", reason), &message, now)];
    if failure.reason.retry_policy() == RetryPolicy::RetryRarely {
        // Not the same text: both conditions are shown side by side, and each status write has both.
        let message =
            format!("{}: see the message of the Ready condition", capitalized(&kind.reword(failure.reason.what())));
        conditions.push(condition(old, generation, STALLED, ("True", reason), &message, now));
    }
    conditions
}

/// The condition of this type, if the object has it.
pub fn find<'a>(object: impl Into<Object<'a>>, type_: &str) -> Option<&'a Condition> {
    object.into().status?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// The reason of the failure that the status shows for the current spec, if it shows one.
pub fn reported_failure<'a>(object: impl Into<Object<'a>>) -> Option<Reason> {
    let object = object.into();
    let ready = find(object, READY)?;
    let current = ready.observed_generation == object.metadata.generation;
    ready.reason.parse().ok().filter(|_| current)
}

fn condition(
    old: &[Condition],
    generation: Option<i64>,
    type_: &str,
    (status, reason): (&str, &str),
    message: &str,
    now: Timestamp,
) -> Condition {
    // Kubernetes API conventions: the time is that of the last change of `status`, not of the last write.
    let same = old.iter().find(|old| old.type_ == type_ && old.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: printable(message, MAX_MESSAGE),
        last_transition_time: same.map_or_else(|| truncate_to_seconds(now), |old| old.last_transition_time.clone()),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{DataKey, KeyKind as _},
        fixtures::{at, data_key, issued},
    };

    #[test]
    fn stalled_is_set_only_when_a_user_must_act() {
        for &reason in Reason::ALL {
            let status = failed(&data_key(), &reason.into(), at(5));
            let stalled = status.conditions.iter().any(|condition| condition.type_ == STALLED);
            assert_eq!(stalled, reason.retry_policy() == RetryPolicy::RetryRarely, "{reason:?}");
        }
    }

    #[test]
    fn stalled_refers_to_ready_and_repeats_nothing() {
        let key = data_key();
        let failure = Failure::new(Reason::KeyDisabled, "alias/orders in Region eu-west-1");
        let status = failed(&key, &failure, at(5));
        let [ready, stalled] = &*status.conditions else { panic!("{:?}", status.conditions) };
        assert_eq!(ready.message, failure.message(DataKey::KIND));
        assert_eq!(stalled.message, "The KMS key is disabled: see the message of the Ready condition");
    }

    #[test]
    fn ready_removes_stalled_and_names_the_current_version() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::KeyDisabled.into(), at(5)));
        let status = ready(&key, &issued(1), None, at(9));
        assert_eq!(status.conditions.len(), 1);
        assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()), ("True", ISSUED));
        assert_eq!((status.version, status.key_id), (Some(1), Some(issued(1).key_id)));
    }

    #[test]
    fn transition_time_changes_only_with_the_condition_status() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::Throttled.into(), at(5)));
        key.status = Some(failed(&key, &Reason::KmsTimeout.into(), at(7)));
        assert_eq!(find(&key, READY).map(|c| c.last_transition_time.0), Some(at(5)));
        key.status = Some(ready(&key, &issued(1), None, at(9)));
        assert_eq!(find(&key, READY).map(|c| c.last_transition_time.0), Some(at(9)));
    }

    #[test]
    fn status_and_conditions_have_the_same_generation() {
        let mut key = data_key();
        key.metadata.generation = Some(7);
        for status in [ready(&key, &issued(1), None, at(1)), failed(&key, &Reason::KeyDisabled.into(), at(1))] {
            assert_eq!(status.observed_generation, Some(7));
            assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(7)));
        }
    }

    #[test]
    fn failure_of_an_older_generation_is_not_current() {
        let mut key = data_key();
        key.status = Some(failed(&key, &Reason::KeyDisabled.into(), at(1)));
        assert_eq!(reported_failure(&key), Some(Reason::KeyDisabled));
        key.metadata.generation = Some(2);
        assert_eq!(reported_failure(&key), None);
    }

    #[test]
    fn messages_have_no_invisible_characters() {
        let odd = "refused: \u{1b}[2J\r\n\u{202e}x";
        let mut key = data_key();
        key.spec.secret_name = Some(odd.to_owned());
        for status in
            [ready(&key, &issued(1), None, at(1)), failed(&key, &Failure::new(Reason::SecretConflict, odd), at(1))]
        {
            assert!(status.conditions[0].message.contains(r"\u{1b}[2J\r\n\u{202e}x"), "{:?}", status.conditions);
            for condition in &*status.conditions {
                assert!(condition.message.chars().all(crate::text::is_printable), "{}", condition.message);
            }
        }
    }
}
