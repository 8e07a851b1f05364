//! The delay before the next retry of each object. It is kept in memory: after a restart the status says what failed, and
//! the first retries are spread, so that failing objects are not all retried at once.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use datakey::reason::{Failure, Reason, RetryPolicy};

/// The number of transient errors in a row that is reported: one while the API server restarts needs no report.
const REPORT_AFTER: u32 = 3;

/// Bounds of the delays between retries.
#[derive(Clone, Copy, Debug)]
pub struct RetryBounds {
    /// First delay under `RetrySoon`; the other policies begin at a multiple.
    pub min: Duration,
    /// Longest delay of all policies.
    pub max: Duration,
}

/// What a failure depends on: when that changes, the next try does not wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureInputs {
    /// `metadata.generation` of the `DataKey`.
    pub generation: Option<i64>,
    /// Whether a backup tool restored it, by its labels and annotations.
    pub restored: bool,
    /// Whether the wanted version is recorded.
    pub recorded: bool,
    /// Resource version of the Secret that the watch knows.
    pub secret: Option<String>,
    /// The other `DataKey` that the name of the Secret is reserved for.
    pub rival: Option<String>,
}

/// What the operator remembers about an object.
#[derive(Debug, Default)]
struct RetryState {
    /// Failures in a row.
    failures: u32,
    /// Transient errors in a row.
    errors: u32,
    gate: Option<RetryGate>,
    /// The failure, until the status reports it.
    unreported: Option<Failure>,
    /// Whether a line of the log reports the failure.
    is_logged: bool,
    /// The failure that an Event reported because the status could not.
    announced: Option<Reason>,
    /// Whether the last write of a record failed: KMS is not asked again before a dry run of it was accepted.
    record_failed: bool,
}

#[derive(Debug)]
struct RetryGate {
    inputs: FailureInputs,
    reason: Reason,
    not_before: Instant,
}

/// The state of the retries of all objects, by uid.
pub struct Backoff {
    bounds: RetryBounds,
    objects: Mutex<HashMap<String, RetryState>>,
}

// === impl RetryBounds ===

impl RetryBounds {
    /// First and longest delay of a policy.
    fn bounds(self, policy: RetryPolicy) -> (Duration, Duration) {
        let (first, last) = match policy {
            RetryPolicy::RetrySoon => (self.min, self.max / 5),
            RetryPolicy::RetrySlowly => (self.min * 15, self.max),
            RetryPolicy::RetryRarely => (self.min * 30, self.max),
        };
        (first.min(last), last)
    }

    /// The delay after so many failures in a row: it doubles, with up to a quarter of jitter either way.
    pub fn delay(self, policy: RetryPolicy, attempts: u32) -> Duration {
        let (first, last) = self.bounds(policy);
        let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(last).mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// The delay before the first try of an object that failed before a restart.
    fn initial_delay(self, policy: RetryPolicy) -> Duration {
        let (first, last) = self.bounds(policy);
        (first * 8).min(last).mul_f64(fastrand::f64())
    }
}

// === impl FailureInputs ===

impl FailureInputs {
    /// Whether a failure of this reason is over: what was missing is there, or the object no longer waits for it.
    fn is_past(&self, reason: Reason) -> bool {
        passes_with_a_restore(reason) && (self.recorded || reason == Reason::RestoredWithoutKey && !self.restored)
    }
}

/// Whether the failure ends as soon as an earlier data key is restored.
fn passes_with_a_restore(reason: Reason) -> bool {
    matches!(reason, Reason::RestoredWithoutKey | Reason::IssuingDisabled)
}

// === impl Backoff ===

impl Backoff {
    /// No object waits.
    pub fn new(bounds: RetryBounds) -> Self {
        Self { bounds, objects: Mutex::default() }
    }

    /// The rest of an object's delay. `shown` is the failure that its status shows for the present spec: after
    /// a restart it is all that is known.
    pub fn delay_left(&self, uid: &str, inputs: &FailureInputs, shown: Option<Reason>) -> Option<Duration> {
        let now = Instant::now();
        let mut objects = self.objects.lock();
        let is_known = objects.get(uid).is_some_and(|state| state.gate.is_some() || state.failures > 0);
        // A data key that was restored while the operator did not run is taken over at once.
        let is_back = |reason| inputs.is_past(reason) || passes_with_a_restore(reason) && inputs.secret.is_some();
        let shown = shown.filter(|&reason| !is_back(reason) && !reason.depends_on_object());
        if let (false, Some(reason)) = (is_known, shown) {
            let not_before = now + self.bounds.initial_delay(reason.retry_policy());
            let gate = RetryGate { inputs: inputs.clone(), reason, not_before };
            objects.entry(uid.to_owned()).or_default().gate = Some(gate);
        }
        let state = objects.get_mut(uid)?;
        let gate = state.gate.as_ref()?;
        let same_spec = gate.inputs.generation == inputs.generation;
        let same_secret = !gate.reason.depends_on_secret()
            || (&gate.inputs.secret, &gate.inputs.rival) == (&inputs.secret, &inputs.rival);
        if !same_spec || !same_secret || inputs.is_past(gate.reason) {
            *state = RetryState { record_failed: state.record_failed, ..RetryState::default() };
            return None;
        }
        Some(gate.not_before.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Takes in a failure; returns the delay.
    pub fn on_failure(&self, uid: &str, inputs: FailureInputs, failure: &Failure) -> Duration {
        let reason = failure.reason;
        let mut objects = self.objects.lock();
        let state = objects.entry(uid.to_owned()).or_default();
        state.failures = state.failures.saturating_add(1);
        state.errors = 0;
        let wait = self.bounds.delay(reason.retry_policy(), state.failures);
        state.gate = Some(RetryGate { inputs, reason, not_before: Instant::now() + wait });
        state.unreported = Some(failure.clone());
        state.is_logged = false;
        wait
    }

    /// Takes in that a line of the log reports the failure, before the status does.
    pub fn logged(&self, uid: &str) {
        if let Some(state) = self.objects.lock().get_mut(uid) {
            state.is_logged = true;
        }
    }

    /// Whether a line of the log reports the failure.
    pub fn is_logged(&self, uid: &str) -> bool {
        self.objects.lock().get(uid).is_some_and(|state| state.is_logged)
    }

    /// A failure that persists and that the status does not report yet: the last write met a conflict.
    pub fn unreported(&self, uid: &str) -> Option<Failure> {
        self.objects.lock().get(uid)?.unreported.clone()
    }

    /// Takes in that the status reports the failure.
    pub fn reported(&self, uid: &str) {
        if let Some(state) = self.objects.lock().get_mut(uid) {
            state.unreported = None;
        }
    }

    /// Takes in a transient error; returns the delay. It delays only this retry: a watch event reconciles at once.
    pub fn on_transient_error(&self, uid: &str) -> Duration {
        let mut objects = self.objects.lock();
        let state = objects.entry(uid.to_owned()).or_default();
        state.errors = state.errors.saturating_add(1);
        self.bounds.delay(RetryPolicy::RetrySoon, state.errors)
    }

    /// Whether an error in a row after those before it is reported: something is reported already, or it is one of many.
    pub fn is_worth_reporting(&self, uid: &str) -> bool {
        self.objects.lock().get(uid).is_some_and(|state| state.failures > 0 || state.errors + 1 >= REPORT_AFTER)
    }

    /// Takes in that an Event reports a failure; false if one has reported it already.
    pub fn announce(&self, uid: &str, reason: Reason) -> bool {
        self.objects.lock().entry(uid.to_owned()).or_default().announced.replace(reason) != Some(reason)
    }

    /// Takes in whether a record could be written.
    pub fn record_written(&self, uid: &str, written: bool) {
        let mut objects = self.objects.lock();
        match (objects.get_mut(uid), written) {
            (Some(state), _) => state.record_failed = !written,
            (None, true) => {}
            (None, false) => {
                objects.insert(uid.to_owned(), RetryState { record_failed: true, ..RetryState::default() });
            }
        }
    }

    /// Whether the last write of a record failed.
    pub fn has_failed_record(&self, uid: &str) -> bool {
        self.objects.lock().get(uid).is_some_and(|state| state.record_failed)
    }

    /// Ends the wait of an object: what was in its way is gone.
    pub fn try_now(&self, uid: &str) {
        // The state stays: without it the failure that the status shows would make the object wait like after a restart.
        let mut objects = self.objects.lock();
        let state = objects.entry(uid.to_owned()).or_default();
        state.gate = None;
        state.failures = state.failures.max(1);
    }

    /// Forgets an object: it is settled, or gone.
    pub fn forget(&self, uid: &str) {
        self.objects.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RetryBounds = RetryBounds { min: Duration::from_secs(1), max: Duration::from_mins(10) };

    fn inputs(generation: i64, secret: &str) -> FailureInputs {
        FailureInputs {
            generation: Some(generation),
            restored: false,
            recorded: false,
            secret: Some(secret.to_owned()),
            rival: None,
        }
    }

    #[test]
    fn what_a_restore_brings_back_is_not_waited_for() {
        let lacking = FailureInputs { restored: true, secret: None, ..inputs(1, "") };
        let comes = [
            FailureInputs { recorded: true, ..lacking.clone() },
            FailureInputs { restored: false, ..lacking.clone() },
            FailureInputs { secret: Some("7".to_owned()), ..lacking.clone() },
            FailureInputs { generation: Some(2), ..lacking.clone() },
        ];
        for there in comes {
            let backoff = Backoff::new(BOUNDS);
            let _ = backoff.on_failure("a", lacking.clone(), &Reason::RestoredWithoutKey.into());
            assert!(backoff.delay_left("a", &lacking, None).is_some());
            assert_eq!(backoff.delay_left("a", &there, None), None, "{there:?}");
            // Nor after a restart, which begins with a wait for what failed before.
            let restarted = Backoff::new(BOUNDS);
            let seen = restarted.delay_left(
                "a",
                &there,
                Some(Reason::RestoredWithoutKey).filter(|_| there.generation == Some(1)),
            );
            assert_eq!(seen, None, "{there:?}");
        }
    }

    #[test]
    fn delays_double_up_to_the_bound_of_their_policy() {
        for (policy, first, last) in
            [(RetryPolicy::RetrySoon, 1, 120), (RetryPolicy::RetrySlowly, 15, 600), (RetryPolicy::RetryRarely, 30, 600)]
        {
            for (attempts, expected) in [(1, first), (2, 2 * first), (3, 4 * first), (30, last), (u32::MAX, last)] {
                let wait = BOUNDS.delay(policy, attempts).as_secs_f64();
                let expected = f64::from(expected);
                assert!((0.75 * expected..=1.25 * expected).contains(&wait), "{policy:?} {attempts}: {wait}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kms_failure_waits_for_a_change_of_the_spec_only() {
        let backoff = Backoff::new(BOUNDS);
        assert_eq!(backoff.delay_left("a", &inputs(1, "s1"), None), None);
        let wait = backoff.on_failure("a", inputs(1, "s1"), &Reason::AccessDenied.into());
        assert_eq!(backoff.delay_left("a", &inputs(1, "s1"), None), Some(wait));
        assert_eq!(backoff.delay_left("a", &inputs(1, "s2"), None), Some(wait));
        assert_eq!(backoff.delay_left("b", &inputs(1, "s1"), None), None, "another object");
        assert_eq!(backoff.delay_left("a", &inputs(2, "s1"), None), None, "the spec changed");
        assert_eq!(backoff.delay_left("a", &inputs(1, "s1"), None), None, "and that was the end of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_waits_until_the_secret_changes() {
        let backoff = Backoff::new(BOUNDS);
        backoff.on_failure("a", inputs(1, "s1"), &Reason::SecretConflict.into());
        assert!(backoff.delay_left("a", &inputs(1, "s1"), None).is_some());
        assert_eq!(backoff.delay_left("a", &inputs(1, "s2"), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_and_the_next_one_is_longer() {
        let backoff = Backoff::new(BOUNDS);
        let first = backoff.on_failure("a", inputs(1, "s"), &Reason::Throttled.into());
        tokio::time::advance(first).await;
        assert_eq!(backoff.delay_left("a", &inputs(1, "s"), None), None);
        assert!(backoff.on_failure("a", inputs(1, "s"), &Reason::Throttled.into()) > first);
        backoff.forget("a");
        assert_eq!(backoff.delay_left("a", &inputs(1, "s"), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_failing_objects_are_spread() {
        let backoff = Backoff::new(BOUNDS);
        let shown = Some(Reason::AccessDenied);
        let mut delays: Vec<_> =
            (0..100).filter_map(|n| backoff.delay_left(&n.to_string(), &inputs(1, "s"), shown)).collect();
        delays.sort_unstable();
        let (first, last) = (delays[0], delays[delays.len() - 1]);
        assert!(delays.len() > 95 && last.abs_diff(first) > Duration::from_mins(2), "{delays:?}");
        assert!(last <= Duration::from_mins(4));
    }

    #[tokio::test(start_paused = true)]
    async fn another_release_does_not_wait_for_what_it_may_understand() {
        let backoff = Backoff::new(BOUNDS);
        for (number, reason) in [Reason::RecordNewer, Reason::SpecNewer, Reason::SpecInvalid].into_iter().enumerate() {
            assert_eq!(backoff.delay_left(&number.to_string(), &inputs(1, "s"), Some(reason)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_kept_until_it_is_reported_or_its_inputs_change() {
        let backoff = Backoff::new(BOUNDS);
        backoff.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
        assert_eq!(backoff.unreported("a"), Some(Reason::AccessDenied.into()));
        backoff.reported("a");
        assert_eq!(backoff.unreported("a"), None);
        assert!(backoff.delay_left("a", &inputs(1, "s"), None).is_some(), "it waits all the same");

        backoff.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
        assert_eq!(backoff.delay_left("a", &inputs(2, "s"), None), None);
        assert_eq!(backoff.unreported("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_reported_once_it_is_one_of_many() {
        let backoff = Backoff::new(BOUNDS);
        assert!(!backoff.is_worth_reporting("a"));
        backoff.on_transient_error("a");
        assert!(!backoff.is_worth_reporting("a"));
        backoff.on_transient_error("a");
        assert!(backoff.is_worth_reporting("a"), "the third in a row");
        backoff.on_failure("a", inputs(1, "s"), &Reason::ApiServerFailed.into());
        assert!(backoff.is_worth_reporting("a"), "it goes on");
        backoff.forget("a");
        assert!(!backoff.is_worth_reporting("a"));
    }

    #[test]
    fn an_event_reports_each_failure_once() {
        let backoff = Backoff::new(BOUNDS);
        assert!(backoff.announce("a", Reason::WriteRejected));
        assert!(!backoff.announce("a", Reason::WriteRejected));
        assert!(backoff.announce("a", Reason::ApiServerFailed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_record_is_remembered_across_changes_of_the_spec() {
        let backoff = Backoff::new(BOUNDS);
        assert!(!backoff.has_failed_record("a"));
        backoff.record_written("a", false);
        backoff.on_failure("a", inputs(1, "s"), &Reason::WriteRejected.into());
        assert_eq!(backoff.delay_left("a", &inputs(2, "s"), None), None);
        assert!(backoff.has_failed_record("a"));
        backoff.record_written("a", true);
        assert!(!backoff.has_failed_record("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_holds_nothing_back() {
        let backoff = Backoff::new(BOUNDS);
        assert!(backoff.on_transient_error("a") < backoff.on_transient_error("a"));
        assert_eq!(backoff.delay_left("a", &inputs(1, "s"), None), None);
    }
}
