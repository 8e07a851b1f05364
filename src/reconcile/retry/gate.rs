//! What keeps an object from its next try: a time, until what the failure depends on changes. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::{classes::ClassInView, place::Place};
use datakey::reason::Reason;

/// What a failure depends on: when that changes, the next try does not wait. For `retry_at` there is a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureInputs {
    /// `metadata.generation` of the object.
    pub generation: Option<i64>,
    /// Whether a backup tool restored it, by its labels and annotations.
    pub restored: bool,
    /// Whether the wanted version is recorded.
    pub recorded: bool,
    /// Resource version of the Secret that the watch knows.
    pub secret: Option<String>,
    /// The other object that the name of the Secret is reserved for.
    pub rival: Option<Place>,
    /// The class of the object.
    pub class: ClassInView,
    /// What the annotation `datakey.dev/retry-at` holds: the retry that a user asked for last.
    pub retry_at: Option<String>,
}

/// The wait after a failure.
#[derive(Debug)]
pub(super) struct RetryGate {
    pub inputs: FailureInputs,
    pub reason: Reason,
    pub not_before: Instant,
}

// === impl FailureInputs ===

impl FailureInputs {
    /// Whether a failure of this reason is over: what was missing is there, or the object no longer waits for it.
    pub(super) fn is_past(&self, reason: Reason) -> bool {
        passes_with_a_restore(reason) && (self.recorded || reason == Reason::RestoredWithoutKey && !self.restored)
    }
}

/// Whether the failure ends as soon as an earlier data key is restored.
pub(super) fn passes_with_a_restore(reason: Reason) -> bool {
    matches!(reason, Reason::RestoredWithoutKey | Reason::IssuingDisabled)
}

// === impl RetryGate ===

impl RetryGate {
    /// Whether the next try does not wait: what the failure depends on has changed, or the failure is over.
    pub fn is_open(&self, inputs: &FailureInputs) -> bool {
        let same_spec = self.inputs.generation == inputs.generation;
        let same_secret = !self.reason.depends_on_secret()
            || (&self.inputs.secret, &self.inputs.rival) == (&inputs.secret, &inputs.rival);
        let same_class = match (&self.inputs.class, &inputs.class) {
            (ClassInView::Found(before), ClassInView::Found(now)) if self.reason.depends_on_request() => before == now,
            (before, now) => !self.reason.depends_on_class() || before == now,
        };
        !same_spec || !same_secret || !same_class || inputs.is_past(self.reason)
    }

    /// Whether this value of the annotation `datakey.dev/retry-at` came after the wait began.
    pub fn is_new(&self, retry_at: &str, now: Instant) -> bool {
        self.left(now).is_some() && self.inputs.retry_at.as_deref() != Some(retry_at)
    }

    /// Ends the wait at this time at the latest, because a user asked for it by this value of the annotation.
    pub fn retry_by(&mut self, at: Instant, retry_at: &str) {
        self.not_before = self.not_before.min(at);
        self.inputs.retry_at = Some(retry_at.to_owned());
    }

    /// The rest of the wait.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.not_before.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}
