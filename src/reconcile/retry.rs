//! The delays before the next try of each object: a table in memory with one row for each object. After a restart the operator
//! reads from the status what failed, and spreads the first retries, so that failing objects are not all retried at once.

use std::{collections::HashMap, time::Duration};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use datakey::reason::{Failure, Reason, RetryPolicy};

use action_limits::{Done, LimitedAction, Streak};
use gate::{RetryGate, passes_with_a_restore};
use row::{RetryRow, RetryState};

pub use delays::RetryBounds;
pub use gate::FailureInputs;

mod action_limits;
mod delays;
mod gate;
mod request;
mod row;
#[cfg(test)]
mod tests;

/// The number of transient errors in a row that is reported: one while the API server restarts needs no report.
const REPORT_AFTER: u32 = 3;

/// How many rows are kept before the streaks that ended are dropped.
const SWEEP_FROM: usize = 1024;

/// A row for each object that is not settled, whose Secret was restored or read lately, or that was tried on request.
pub struct RetryTable {
    bounds: RetryBounds,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_uid: HashMap<String, RetryRow>,
    sweep_at: usize,
}

// === impl RetryTable ===

impl RetryTable {
    /// No object waits.
    pub fn new(bounds: RetryBounds) -> Self {
        Self { bounds, rows: Mutex::default() }
    }

    /// No delay between two attempts of an object is longer.
    pub fn longest_delay(&self) -> Duration {
        self.bounds.longest_delay()
    }

    /// The rest of an object's delay. `shown` is the failure that its status shows for the present spec: after
    /// a restart it is all that is known.
    pub fn delay_left(&self, uid: &str, inputs: &FailureInputs, shown: Option<Reason>) -> Option<Duration> {
        let now = Instant::now();
        let is_known = self.known(uid).is_some_and(|state| state.gate.is_some() || state.failures > 0);
        // A data key that was restored while the operator did not run is taken over at once.
        // A class is judged again at once, too: that costs no request.
        let is_back = |reason: Reason| {
            reason.depends_on_class()
                || inputs.is_past(reason)
                || passes_with_a_restore(reason) && inputs.secret.is_some()
        };
        let shown = shown.filter(|&reason| !is_back(reason) && !reason.depends_on_object());
        if let (false, Some(reason)) = (is_known, shown) {
            let not_before = now + self.bounds.initial_delay(reason.retry_policy());
            self.state(uid).gate = Some(RetryGate { inputs: inputs.clone(), reason, not_before });
        }
        let mut state = self.known(uid)?;
        let gate = state.gate.as_ref()?;
        if gate.is_open(inputs) {
            // The failure that the status shows for this spec would make the object wait like after a restart.
            let failures = u32::from(gate.inputs.generation == inputs.generation);
            *state = RetryState { record_failed: state.record_failed, failures, ..RetryState::default() };
            return None;
        }
        gate.left(now)
    }

    /// Acts on what the annotation `datakey.dev/retry-at` holds: a value that came while the object waits ends the wait, at most
    /// once a minute. What was there when the wait began has no effect: after a restart of the operator, or after a restore, old
    /// values would end all waits at once.
    pub fn retry_requested(&self, uid: &str, retry_at: Option<&str>) {
        let Some(retry_at) = retry_at else { return };
        if let Some(row) = self.rows.lock().by_uid.get_mut(uid) {
            row.retry_requested(retry_at, Instant::now());
        }
    }

    /// Records a failure; returns the delay.
    pub fn on_failure(&self, uid: &str, inputs: FailureInputs, failure: &Failure) -> Duration {
        let reason = failure.reason;
        let mut state = self.state(uid);
        state.failures = state.failures.saturating_add(1);
        state.errors = 0;
        let wait = self.bounds.delay(reason.retry_policy(), state.failures);
        state.gate = Some(RetryGate { inputs, reason, not_before: Instant::now() + wait });
        state.unreported = Some(failure.clone());
        state.is_logged = false;
        wait
    }

    /// Records that a line of the log reports the failure, before the status does.
    pub fn logged(&self, uid: &str) {
        if let Some(mut state) = self.known(uid) {
            state.is_logged = true;
        }
    }

    /// Whether a line of the log reports the failure.
    pub fn is_logged(&self, uid: &str) -> bool {
        self.known(uid).is_some_and(|state| state.is_logged)
    }

    /// A failure that persists and that the status does not report yet: the last write met a conflict.
    pub fn unreported(&self, uid: &str) -> Option<Failure> {
        self.known(uid)?.unreported.clone()
    }

    /// Records that the status reports the failure.
    pub fn reported(&self, uid: &str) {
        if let Some(mut state) = self.known(uid) {
            state.unreported = None;
        }
    }

    /// Records a transient error; returns the delay. It delays only this retry: a watch event reconciles immediately.
    pub fn on_transient_error(&self, uid: &str) -> Duration {
        let mut state = self.state(uid);
        state.errors = state.errors.saturating_add(1);
        self.bounds.delay(RetryPolicy::RetrySoon, state.errors)
    }

    /// Whether to report a transient error: the object already has a failure, or the error is at least the `REPORT_AFTER`th in
    /// a row.
    pub fn is_worth_reporting(&self, uid: &str) -> bool {
        self.known(uid).is_some_and(|state| state.failures > 0 || state.errors + 1 >= REPORT_AFTER)
    }

    /// Records that an Event reports a failure; false if an Event has reported it already.
    pub fn announce(&self, uid: &str, reason: Reason) -> bool {
        self.state(uid).announced.replace(reason) != Some(reason)
    }

    /// Records whether a record could be written.
    pub fn record_written(&self, uid: &str, written: bool) {
        match self.known(uid) {
            Some(mut state) => state.record_failed = !written,
            None if written => {}
            None => self.state(uid).record_failed = true,
        }
    }

    /// Whether the last write of a record failed.
    pub fn has_failed_record(&self, uid: &str) -> bool {
        self.known(uid).is_some_and(|state| state.record_failed)
    }

    /// Ends the wait of an object: what was in its way is gone.
    pub fn try_now(&self, uid: &str) {
        // The state stays: without it the failure that the status shows would make the object wait like after a restart.
        let mut state = self.state(uid);
        state.gate = None;
        state.failures = state.failures.max(1);
    }

    /// How long the next restore of an object's Secret still has to wait.
    pub fn restore_wait(&self, uid: &str) -> Option<Duration> {
        self.wait(LimitedAction::Restore, uid)
    }

    /// What the last restore changed in an object's Secret, while the next restore must wait.
    pub fn restore_limited(&self, uid: &str) -> Option<String> {
        let now = Instant::now();
        let rows = self.rows.lock();
        let streak = rows.by_uid.get(uid)?.restores.as_ref()?;
        streak.wait(now).map(|_| streak.detail.clone())
    }

    /// Records that the Secret was restored, what was changed in it, and what the annotation `datakey.dev/retry-at` holds.
    pub fn restored(&self, uid: &str, detail: &str, retry_at: Option<&str>) {
        self.done(LimitedAction::Restore, uid, Done { detail, retry_at });
    }

    /// How long the next read of an object's Secret still has to wait.
    pub fn read_wait(&self, uid: &str) -> Option<Duration> {
        self.wait(LimitedAction::Read, uid)
    }

    /// Records that the Secret was read.
    pub fn secret_read(&self, uid: &str) {
        self.done(LimitedAction::Read, uid, Done::default());
    }

    /// Records that an object is settled. The counts of restores and reads of its Secret stay, and when a retry was requested last:
    /// a client that keeps changing the Secret, or asking, can pause now and then.
    pub fn settled(&self, uid: &str) {
        let mut rows = self.rows.lock();
        if let Some(row) = rows.by_uid.get_mut(uid) {
            row.retry = None;
            row.requested.drop_if_past(Instant::now());
            if row.is_empty() {
                rows.by_uid.remove(uid);
            }
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.rows.lock().by_uid.remove(uid);
    }

    fn wait(&self, action: LimitedAction, uid: &str) -> Option<Duration> {
        self.rows.lock().by_uid.get_mut(uid)?.streak(action).as_ref()?.wait(Instant::now())
    }

    fn done(&self, action: LimitedAction, uid: &str, done: Done<'_>) {
        let now = Instant::now();
        let mut rows = self.rows.lock();
        if rows.by_uid.len() >= rows.sweep_at.max(SWEEP_FROM) {
            rows.by_uid.retain(|_, row| {
                row.drop_ended(self.bounds, now);
                !row.is_empty()
            });
            rows.sweep_at = 2 * rows.by_uid.len();
        }
        let streak = rows.by_uid.entry(uid.to_owned()).or_default().streak(action);
        streak.get_or_insert_with(|| Box::new(Streak::new(now))).done(action, done, self.bounds, now);
    }

    /// The state of an object, if there is one.
    fn known(&self, uid: &str) -> Option<MappedMutexGuard<'_, RetryState>> {
        MutexGuard::try_map(self.rows.lock(), |rows| rows.by_uid.get_mut(uid)?.retry.as_deref_mut()).ok()
    }

    /// The state of an object, with a row of its own from now on.
    fn state(&self, uid: &str) -> MappedMutexGuard<'_, RetryState> {
        MutexGuard::map(self.rows.lock(), |rows| {
            &mut **rows.by_uid.entry(uid.to_owned()).or_default().retry.get_or_insert_default()
        })
    }
}
