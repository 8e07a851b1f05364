//! What is known of one KMS key by the answers of KMS to one identity. Pure.
//!
//! A single refusal says little: a KMS key can be disabled for a moment. So one is unusable only after a second refusal, some time after
//! the first. An answer that is not about the KMS key, such as a denied or throttled call, changes nothing.

use datakey::condition::key_usable::{Cause, Verdict};
use k8s_openapi::jiff::Timestamp;

use super::due::Millis;
use crate::kms::DryRun;

/// What is known of a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// KMS uses it.
    Usable,
    /// KMS refused it once.
    Suspected(Refused),
    /// KMS refused it twice in a row.
    Unusable(Refused),
}

/// The refusals of KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// When KMS refused it first.
    pub since: Millis,
    /// When it is asked again.
    pub again: Millis,
}

// === impl State ===

impl State {
    /// What is known after another answer. `wait`: until a refused KMS key is asked about again.
    pub fn after(before: Option<Self>, answer: DryRun, now: Millis, wait: Millis) -> Option<Self> {
        let again = now.saturating_add(wait);
        match (before, answer) {
            (_, DryRun::Usable) => Some(Self::Usable),
            (Some(Self::Suspected(refused)), DryRun::Unusable(cause)) if now >= refused.since.saturating_add(wait) => {
                Some(Self::Unusable(Refused { cause, again, ..refused }))
            }
            (Some(Self::Unusable(refused)), DryRun::Unusable(cause)) => {
                let since = if cause == refused.cause { refused.since } else { now };
                Some(Self::Unusable(Refused { cause, since, again }))
            }
            (None | Some(Self::Usable), DryRun::Unusable(cause)) => {
                Some(Self::Suspected(Refused { cause, since: now, again }))
            }
            (Some(Self::Suspected(refused)), DryRun::Nothing(_) | DryRun::NotKnown) => {
                Some(Self::Suspected(Refused { again, ..refused }))
            }
            (Some(Self::Unusable(refused)), DryRun::Nothing(_) | DryRun::NotKnown) => {
                Some(Self::Unusable(Refused { again, ..refused }))
            }
            // Not long enough after the first one, or nothing.
            (Some(Self::Suspected(_)), DryRun::Unusable(_))
            | (None | Some(Self::Usable), DryRun::Nothing(_) | DryRun::NotKnown) => before,
        }
    }

    /// Whether it is asked about again by now, besides its moment in each interval. A clock that was set back is no reason to wait longer.
    pub fn is_due(&self, now: Millis, wait: Millis) -> bool {
        match self {
            Self::Usable => false,
            Self::Suspected(Refused { again, .. }) | Self::Unusable(Refused { again, .. }) => {
                now >= *again || *again > now.saturating_add(wait)
            }
        }
    }

    /// What the status of an object says of it; `None` while nothing is certain.
    pub fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Usable => Some(Verdict::Usable),
            Self::Suspected(_) => None,
            Self::Unusable(Refused { cause, since, .. }) => {
                Timestamp::from_millisecond(*since).ok().map(|since| Verdict::Unusable(*cause, since))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Millis = 100;
    const BAD: DryRun = DryRun::Unusable(Cause::KMSInvalidStateException);

    /// The state after these answers, each with its time.
    fn after(answers: &[(DryRun, Millis)]) -> Option<State> {
        answers.iter().fold(None, |state, (answer, at)| State::after(state, *answer, *at, WAIT))
    }

    fn refused(since: Millis, again: Millis) -> Refused {
        Refused { cause: Cause::KMSInvalidStateException, since, again }
    }

    #[test]
    fn key_is_unusable_after_two_refusals_with_time_between_them() {
        assert_eq!(after(&[(BAD, 10)]), Some(State::Suspected(refused(10, 110))));
        assert_eq!(after(&[(BAD, 10), (BAD, 50)]), Some(State::Suspected(refused(10, 110))));
        assert_eq!(after(&[(BAD, 10), (BAD, 50), (BAD, 110)]), Some(State::Unusable(refused(10, 210))));
        assert_eq!(after(&[(DryRun::Usable, 1), (BAD, 10), (BAD, 120)]), Some(State::Unusable(refused(10, 220))));
        assert_eq!(after(&[(BAD, 10), (DryRun::Usable, 110), (BAD, 210)]), Some(State::Suspected(refused(210, 310))));
    }

    #[test]
    fn answer_about_something_else_changes_nothing() {
        for nothing in [DryRun::Nothing("AccessDeniedException"), DryRun::NotKnown] {
            assert_eq!(after(&[(nothing, 1)]), None);
            assert_eq!(after(&[(DryRun::Usable, 1), (nothing, 2)]), Some(State::Usable));
            assert_eq!(after(&[(BAD, 10), (nothing, 110)]), Some(State::Suspected(refused(10, 210))));
            assert_eq!(after(&[(BAD, 10), (nothing, 110), (BAD, 210)]), Some(State::Unusable(refused(10, 310))));
            assert_eq!(after(&[(BAD, 10), (BAD, 110), (nothing, 210)]), Some(State::Unusable(refused(10, 310))));
        }
    }

    #[test]
    fn another_cause_begins_at_its_own_time() {
        let gone = DryRun::Unusable(Cause::NotFoundException);
        let Some(State::Unusable(found)) = after(&[(BAD, 10), (BAD, 110), (gone, 210)]) else { panic!() };
        assert_eq!((found.cause, found.since), (Cause::NotFoundException, 210));
    }

    #[test]
    fn only_what_is_certain_is_a_verdict() {
        assert_eq!(after(&[(BAD, 10)]).unwrap().verdict(), None);
        assert_eq!(after(&[(DryRun::Usable, 10)]).unwrap().verdict(), Some(Verdict::Usable));
        let since = Timestamp::from_millisecond(10).unwrap();
        let unusable = Verdict::Unusable(Cause::KMSInvalidStateException, since);
        assert_eq!(after(&[(BAD, 10), (BAD, 110)]).unwrap().verdict(), Some(unusable));
    }

    #[test]
    fn refused_key_is_asked_about_again_soon() {
        let state = after(&[(BAD, 10), (BAD, 110)]).unwrap();
        assert!(!state.is_due(209, WAIT) && state.is_due(210, WAIT));
        assert!(state.is_due(-1000, WAIT), "the clock was ahead");
        assert!(!State::Usable.is_due(i64::MAX, WAIT));
    }
}
