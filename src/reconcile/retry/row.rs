//! What the operator remembers about one object.

use tokio::time::Instant;

use super::{
    action_limits::{LimitedAction, Streak},
    delays::RetryBounds,
    gate::RetryGate,
};
use datakey::reason::{Failure, Reason};

/// A row of the table. Its parts are boxed, because most rows have only one of the three.
#[derive(Debug, Default)]
pub(super) struct RetryRow {
    pub retry: Option<Box<RetryState>>,
    pub restores: Option<Box<Streak>>,
    pub reads: Option<Box<Streak>>,
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

    pub fn drop_ended_streaks(&mut self, bounds: RetryBounds, now: Instant) {
        for action in [LimitedAction::Restore, LimitedAction::Read] {
            self.streak(action).take_if(|streak| streak.has_ended(action, bounds, now));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.retry.is_none() && self.restores.is_none() && self.reads.is_none()
    }
}
