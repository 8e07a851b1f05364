//! Limits for repeated restores and reads of one Secret: a client that keeps changing the Secret causes requests at a bounded
//! rate only. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::delays::RetryBounds;
use datakey::reason::RetryPolicy;

/// Restores of a streak that have no delay before them. A user with kubectl hardly causes more.
const RESTORES: u32 = 10;

/// Reads of a streak that have no delay before them. They are more than the restores: each restore needs one read, and
/// restores have a limit of their own.
pub(super) const READS: u32 = 20;

/// How often a Secret is read while other clients keep changing it.
pub(super) const READ_EVERY: Duration = Duration::from_secs(10);

/// An action that is limited if it repeats.
#[derive(Clone, Copy, Debug)]
pub(super) enum LimitedAction {
    /// Restores of a Secret: without a delay at first, then with delays from 15 times the shortest wait up to the longest one.
    Restore,
    /// Reads of a Secret that other clients changed.
    Read,
}

/// One action.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done<'a> {
    /// What it changed.
    pub detail: &'a str,
    /// What the annotation `datakey.dev/retry-at` holds.
    pub retry_at: Option<&'a str>,
}

/// Repetitions of one action for one object.
#[derive(Debug)]
pub(super) struct Streak {
    length: u32,
    last: Instant,
    /// When the next one may be done.
    not_before: Instant,
    /// What the last action changed.
    pub detail: String,
    /// What the annotation `datakey.dev/retry-at` held when it was done.
    retry_at: Option<String>,
}

// === impl LimitedAction ===

impl LimitedAction {
    /// A streak ends after this time without another action.
    fn pause(self, bounds: RetryBounds) -> Duration {
        match self {
            Self::Restore => 2 * bounds.max,
            Self::Read => 2 * READ_EVERY,
        }
    }

    /// The delay before the next action, after this many in the streak.
    fn delay(self, length: u32, bounds: RetryBounds) -> Duration {
        let (at_once, delay): (_, fn(u32, RetryBounds) -> Duration) = match self {
            Self::Restore => (RESTORES, |over, bounds| bounds.delay(RetryPolicy::RetrySlowly, over)),
            Self::Read => (READS, |_, _| READ_EVERY),
        };
        match length.checked_sub(at_once) {
            Some(over) => delay(over + 1, bounds),
            None => Duration::ZERO,
        }
    }
}

// === impl Streak ===

impl Streak {
    /// Nothing was done.
    pub fn new(now: Instant) -> Self {
        Self { length: 0, last: now, not_before: now, detail: String::new(), retry_at: None }
    }

    /// Records one action.
    pub fn done(&mut self, action: LimitedAction, done: Done<'_>, bounds: RetryBounds, now: Instant) {
        self.length = if self.has_ended(action, bounds, now) { 1 } else { self.length.saturating_add(1) };
        self.last = now;
        done.detail.clone_into(&mut self.detail);
        self.retry_at = done.retry_at.map(str::to_owned);
        self.not_before = now + action.delay(self.length, bounds);
    }

    /// How long the next one still has to wait.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        Some(self.not_before.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Whether this value of the annotation `datakey.dev/retry-at` came after the wait began.
    pub fn is_new(&self, retry_at: &str, now: Instant) -> bool {
        self.wait(now).is_some() && self.retry_at.as_deref() != Some(retry_at)
    }

    /// Ends the wait at this time at the latest, because a user asked for it by this value of the annotation. The streak goes on.
    pub fn retry_by(&mut self, at: Instant, retry_at: &str) {
        self.not_before = self.not_before.min(at);
        self.retry_at = Some(retry_at.to_owned());
    }

    /// Whether the next action begins a new streak.
    pub fn has_ended(&self, action: LimitedAction, bounds: RetryBounds, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= action.pause(bounds)
    }
}
