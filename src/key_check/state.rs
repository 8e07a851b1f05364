//! What is known of one KMS key by the answers of KMS to one identity. Pure.
//!
//! A single refusal says little: a KMS key can be disabled for a moment. So one is unusable only after a second refusal, some time after
//! the first. An answer that is not about the KMS key, such as a denied or throttled call, is no reason to report anything.

use datakey::condition::key_usable::{Cause, Verdict};
use k8s_openapi::jiff::Timestamp;

use super::due::Millis;
use crate::kms::DryRun;

/// What is known of a KMS key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What the answers say.
    pub found: Found,
    /// When it is asked about again, besides its moment in each interval.
    pub again: Option<Millis>,
}

/// What the answers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    #[default]
    Nothing,
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
}

// === impl State ===

impl State {
    /// What is known after another answer. `wait`: until a refused KMS key is asked about again.
    #[must_use]
    pub fn after(self, answer: DryRun, now: Millis, wait: Millis) -> Self {
        let again = Some(now.saturating_add(wait));
        match (self.found, answer) {
            (_, DryRun::Usable) => Self { found: Found::Usable, again: None },
            (Found::Nothing | Found::Usable, DryRun::Unusable(cause)) => {
                Self { found: Found::Suspected(Refused { cause, since: now }), again }
            }
            (Found::Suspected(first), DryRun::Unusable(cause)) => {
                if first.since > now {
                    // The clock was ahead.
                    return Self { found: Found::Suspected(Refused { cause, since: now }), again };
                }
                if now < first.since.saturating_add(wait) {
                    return Self { again: Some(first.since.saturating_add(wait)), ..self };
                }
                Self::unusable(Refused { cause, ..first }, again)
            }
            // Also with another cause: one that is pending deletion can be disabled, too.
            (Found::Unusable(first), DryRun::Unusable(cause)) => {
                Self::unusable(Refused { cause, since: first.since.min(now) }, again)
            }
            // Its policy or its class has changed, so what KMS said before may be over.
            (Found::Usable, DryRun::Denied(_)) => Self::default(),
            (Found::Suspected(_) | Found::Unusable(_), DryRun::Denied(_)) | (_, DryRun::NoAnswer(_)) => {
                Self { again, ..self }
            }
            (Found::Nothing, DryRun::Denied(_)) | (_, DryRun::NotKnown) => Self { again: None, ..self },
        }
    }

    /// A KMS key that does not exist is not asked about each hour: a deleted one does not come back, and who names many that never existed
    /// would make the operator call KMS for each of them.
    fn unusable(refused: Refused, again: Option<Millis>) -> Self {
        let again = again.filter(|_| refused.cause != Cause::NotFoundException);
        Self { found: Found::Unusable(refused), again }
    }

    /// Whether it is asked about again by now, besides its moment in each interval. A clock that was set back is no reason to wait longer.
    pub fn is_due(&self, now: Millis, wait: Millis) -> bool {
        self.again.is_some_and(|again| now >= again || again > now.saturating_add(wait))
    }

    /// What the status of an object says of it; `None` while nothing is certain.
    pub fn verdict(&self) -> Option<Verdict> {
        match self.found {
            Found::Usable => Some(Verdict::Usable),
            Found::Nothing | Found::Suspected(_) => None,
            Found::Unusable(Refused { cause, since }) => {
                Timestamp::from_millisecond(since).ok().map(|since| Verdict::Unusable(cause, since))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Millis = 100;
    const BAD: DryRun = DryRun::Unusable(Cause::KMSInvalidStateException);
    const GONE: DryRun = DryRun::Unusable(Cause::NotFoundException);
    const DENIED: DryRun = DryRun::Denied("AccessDeniedException");
    const NO_ANSWER: DryRun = DryRun::NoAnswer("ThrottlingException");

    /// The state after these answers, each with its time.
    fn after(answers: &[(DryRun, Millis)]) -> State {
        answers.iter().fold(State::default(), |state, (answer, at)| state.after(*answer, *at, WAIT))
    }

    fn refused(since: Millis) -> Refused {
        Refused { cause: Cause::KMSInvalidStateException, since }
    }

    fn suspected(since: Millis, again: Millis) -> State {
        State { found: Found::Suspected(refused(since)), again: Some(again) }
    }

    fn unusable(since: Millis, again: Millis) -> State {
        State { found: Found::Unusable(refused(since)), again: Some(again) }
    }

    #[test]
    fn key_is_unusable_after_two_refusals_with_time_between_them() {
        assert_eq!(after(&[(BAD, 10)]), suspected(10, 110));
        assert_eq!(after(&[(BAD, 10), (BAD, 50)]), suspected(10, 110));
        assert_eq!(after(&[(BAD, 10), (BAD, 50), (BAD, 110)]), unusable(10, 210));
        assert_eq!(after(&[(DryRun::Usable, 1), (BAD, 10), (BAD, 120)]), unusable(10, 220));
        assert_eq!(after(&[(BAD, 10), (DryRun::Usable, 110), (BAD, 210)]), suspected(210, 310));
    }

    #[test]
    fn answer_about_something_else_reports_nothing() {
        for nothing in [DENIED, NO_ANSWER, DryRun::NotKnown] {
            assert_eq!(after(&[(nothing, 1)]).found, Found::Nothing);
        }
        for nothing in [DENIED, NO_ANSWER] {
            assert_eq!(after(&[(BAD, 10), (nothing, 110)]), suspected(10, 210));
            assert_eq!(after(&[(BAD, 10), (nothing, 110), (BAD, 210)]), unusable(10, 310));
            assert_eq!(after(&[(BAD, 10), (BAD, 110), (nothing, 210)]), unusable(10, 310));
        }
    }

    #[test]
    fn call_without_an_answer_is_repeated_before_the_next_interval() {
        assert_eq!(after(&[(NO_ANSWER, 10)]).again, Some(110));
        assert_eq!(after(&[(DryRun::Usable, 1), (NO_ANSWER, 10)]), State { found: Found::Usable, again: Some(110) });
        assert_eq!(after(&[(NO_ANSWER, 10), (DryRun::Usable, 110)]).again, None);
        assert_eq!(after(&[(DENIED, 10)]).again, None, "it is denied the next time, too");
    }

    #[test]
    fn denied_key_is_not_known_to_be_usable_any_more() {
        assert_eq!(after(&[(DryRun::Usable, 1), (DENIED, 10)]), State::default());
    }

    #[test]
    fn another_cause_is_no_new_beginning() {
        let Found::Unusable(found) = after(&[(BAD, 10), (BAD, 110), (GONE, 210)]).found else { panic!() };
        assert_eq!((found.cause, found.since), (Cause::NotFoundException, 10));
    }

    #[test]
    fn key_that_does_not_exist_is_asked_about_in_each_interval_only() {
        assert_eq!(after(&[(GONE, 10)]).again, Some(110));
        assert_eq!(after(&[(GONE, 10), (GONE, 110)]).again, None);
        assert_eq!(after(&[(GONE, 10), (GONE, 110), (BAD, 900)]).again, Some(1000));
    }

    #[test]
    fn only_what_is_certain_is_a_verdict() {
        assert_eq!(after(&[(BAD, 10)]).verdict(), None);
        assert_eq!(after(&[(DryRun::Usable, 10)]).verdict(), Some(Verdict::Usable));
        let since = Timestamp::from_millisecond(10).unwrap();
        let unusable = Verdict::Unusable(Cause::KMSInvalidStateException, since);
        assert_eq!(after(&[(BAD, 10), (BAD, 110)]).verdict(), Some(unusable));
    }

    #[test]
    fn refused_key_is_asked_about_again_soon() {
        let state = after(&[(BAD, 10), (BAD, 110)]);
        assert!(!state.is_due(209, WAIT) && state.is_due(210, WAIT));
        assert!(state.is_due(-1000, WAIT), "the clock was ahead");
        assert!(!after(&[(DryRun::Usable, 10)]).is_due(i64::MAX, WAIT));
    }

    #[test]
    fn clock_that_was_ahead_delays_no_report() {
        let ahead = 1_000_000;
        assert_eq!(after(&[(BAD, ahead), (BAD, 10)]), suspected(10, 110));
        assert_eq!(after(&[(BAD, ahead), (BAD, 10), (BAD, 110)]), unusable(10, 210));
        assert_eq!(after(&[(BAD, ahead), (BAD, ahead + 100), (BAD, 10)]), unusable(10, 110));
    }
}
