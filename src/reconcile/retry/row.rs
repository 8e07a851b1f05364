//! What the operator remembers about one object.

use tokio::time::Instant;

use super::{
    action_limits::{LimitedAction, Streak},
    delays::RetryBounds,
    gate::RetryGate,
    request::RequestedRetry,
};
use datakey::reason::{Failure, Reason};

/// A row of the table. Its larger parts are boxed, because most rows have only one of them.
#[derive(Debug, Default)]
pub(super) struct RetryRow {
    pub retry: Option<Box<RetryState>>,
    pub restores: Option<Box<Streak>>,
    pub reads: Option<Box<Streak>>,
    pub requested: RequestedRetry,
}

/// What the operator remembers about an object that is not settled.
#[derive(Debug, Default)]
pub(super) struct RetryState {
    /// Failures in a row.
    pub failures: u32,
    /// Transient errors in a row.
    pub errors: u32,
    pub gate: Option<RetryGate>,
    /// The failure, until the status reports it.
    pub unreported: Option<Failure>,
    /// Whether a line of the log reports the failure.
    pub is_logged: bool,
    /// The failure that an Event reported because the status could not.
    pub announced: Option<Reason>,
    /// Whether the last write of a record failed: KMS is not asked again before a dry run of it was accepted.
    pub record_failed: bool,
}

// === impl RetryRow ===

impl RetryRow {
    pub fn streak(&mut self, action: LimitedAction) -> &mut Option<Box<Streak>> {
        match action {
            LimitedAction::Restore => &mut self.restores,
            LimitedAction::Read => &mut self.reads,
        }
    }

    /// Acts on the value of the annotation `datakey.dev/retry-at`, if it is not the one that was there when the object began to
    /// wait: the wait ends, now or when the limit allows it, and the next one is as short as the first.
    pub fn retry_requested(&mut self, retry_at: &str, now: Instant) {
        let state = self.retry.as_deref_mut();
        let state = state.filter(|state| state.gate.as_ref().is_some_and(|gate| gate.is_new(retry_at, now)));
        let streak = self.restores.as_deref_mut().filter(|streak| streak.is_new(retry_at, now));
        if state.is_none() && streak.is_none() {
            return;
        }
        let at = self.requested.allow(now);
        if let Some(state) = state {
            state.failures = 0;
            if let Some(gate) = &mut state.gate {
                gate.retry_by(at, retry_at);
            }
        }
        if let Some(streak) = streak {
            streak.retry_by(at, retry_at);
        }
    }

    /// Drops what does not delay anything any more.
    pub fn drop_ended(&mut self, bounds: RetryBounds, now: Instant) {
        self.requested.drop_if_past(now);
        for action in [LimitedAction::Restore, LimitedAction::Read] {
            self.streak(action).take_if(|streak| streak.has_ended(action, bounds, now));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.retry.is_none() && self.restores.is_none() && self.reads.is_none() && self.requested.is_none()
    }
}
