//! How long to wait after a failure, for each object. In memory: after a restart the status says what failed, and the
//! first tries are spread, so that failing objects are not all retried at once.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use datakey::reason::{Failure, Reason, RetryPolicy};

/// How many errors in a row that may pass by themselves are reported: an API server that restarts is no news.
const REPORT_AFTER: u32 = 3;

/// Bounds of the waits.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// First delay under `RetrySoon`; the other policies begin at a multiple.
    pub min: Duration,
    /// Longest wait of all.
    pub max: Duration,
}

/// What a failure was about: when that has changed, the next try need not wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `metadata.generation` of the `DataKey`.
    pub generation: Option<i64>,
    /// Whether it bears the sign of a backup tool.
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
struct Memory {
    /// Failures in a row.
    failures: u32,
    /// Errors in a row that pass by themselves.
    errors: u32,
    gate: Option<Gate>,
    /// The failure, until the status reports it.
    unreported: Option<Failure>,
    /// The failure that an Event reported because the status could not.
    announced: Option<Reason>,
    /// Whether the last write of a record failed: KMS is not asked again before a dry run of it was accepted.
    record_failed: bool,
}

#[derive(Debug)]
struct Gate {
    subject: Subject,
    reason: Reason,
    not_before: Instant,
}

/// The waits of all objects, by uid.
pub struct Backoff {
    waits: Waits,
    objects: Mutex<HashMap<String, Memory>>,
}

// === impl Waits ===

impl Waits {
    /// First and longest wait of a policy.
    fn bounds(self, policy: RetryPolicy) -> (Duration, Duration) {
        let (first, last) = match policy {
            RetryPolicy::RetrySoon => (self.min, self.max / 5),
            RetryPolicy::RetrySlowly => (self.min * 15, self.max),
            RetryPolicy::RetryRarely => (self.min * 30, self.max),
        };
        (first.min(last), last)
    }

    /// The wait after so many failures in a row: doubling, with a quarter of jitter either way.
    pub fn after(self, policy: RetryPolicy, attempts: u32) -> Duration {
        let (first, last) = self.bounds(policy);
        let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(last).mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// The wait before the first try of an object that failed before a restart.
    fn spread(self, policy: RetryPolicy) -> Duration {
        let (first, last) = self.bounds(policy);
        (first * 8).min(last).mul_f64(fastrand::f64())
    }
}

// === impl Subject ===

impl Subject {
    /// Whether a failure of this reason can't be any more: what it lacked has come, or its sign is gone.
    fn is_past(&self, reason: Reason) -> bool {
        is_of_a_restore(reason) && (self.recorded || reason == Reason::RestoredWithoutKey && !self.restored)
    }
}

/// Whether it passes as soon as what was issued before comes back.
fn is_of_a_restore(reason: Reason) -> bool {
    matches!(reason, Reason::RestoredWithoutKey | Reason::IssuingDisabled)
}

// === impl Backoff ===

impl Backoff {
    /// No object waits.
    pub fn new(waits: Waits) -> Self {
        Self { waits, objects: Mutex::default() }
    }

    /// How long an object still has to wait. `shown` is the failure that its status shows for the present spec: after
    /// a restart it is all that is known.
    pub fn remaining(&self, uid: &str, subject: &Subject, shown: Option<Reason>) -> Option<Duration> {
        let now = Instant::now();
        let mut objects = self.objects.lock();
        let is_known = objects.get(uid).is_some_and(|memory| memory.gate.is_some() || memory.failures > 0);
        // What came back while nothing watched it is taken over at once.
        let is_back = |reason| subject.is_past(reason) || is_of_a_restore(reason) && subject.secret.is_some();
        let shown = shown.filter(|&reason| !is_back(reason) && !reason.depends_on_object());
        if let (false, Some(reason)) = (is_known, shown) {
            let not_before = now + self.waits.spread(reason.retry_policy());
            let gate = Gate { subject: subject.clone(), reason, not_before };
            objects.entry(uid.to_owned()).or_default().gate = Some(gate);
        }
        let memory = objects.get_mut(uid)?;
        let gate = memory.gate.as_ref()?;
        let same_spec = gate.subject.generation == subject.generation;
        let same_secret = !gate.reason.depends_on_secret()
            || (&gate.subject.secret, &gate.subject.rival) == (&subject.secret, &subject.rival);
        if !same_spec || !same_secret || subject.is_past(gate.reason) {
            *memory = Memory { record_failed: memory.record_failed, ..Memory::default() };
            return None;
        }
        Some(gate.not_before.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Takes in a failure; returns the wait.
    pub fn failed(&self, uid: &str, subject: Subject, failure: &Failure) -> Duration {
        let reason = failure.reason;
        let mut objects = self.objects.lock();
        let memory = objects.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.errors = 0;
        let wait = self.waits.after(reason.retry_policy(), memory.failures);
        memory.gate = Some(Gate { subject, reason, not_before: Instant::now() + wait });
        memory.unreported = Some(failure.clone());
        wait
    }

    /// A failure that persists and that the status does not report yet: the last write met a conflict.
    pub fn unreported(&self, uid: &str) -> Option<Failure> {
        self.objects.lock().get(uid)?.unreported.clone()
    }

    /// Takes in that the status reports the failure.
    pub fn reported(&self, uid: &str) {
        if let Some(memory) = self.objects.lock().get_mut(uid) {
            memory.unreported = None;
        }
    }

    /// Takes in a transient error; returns the delay. It delays only this retry: a watch event reconciles at once.
    pub fn erred(&self, uid: &str) -> Duration {
        let mut objects = self.objects.lock();
        let memory = objects.entry(uid.to_owned()).or_default();
        memory.errors = memory.errors.saturating_add(1);
        self.waits.after(RetryPolicy::RetrySoon, memory.errors)
    }

    /// Whether an error in a row after those before it is reported: something is reported already, or it is one of many.
    pub fn is_worth_reporting(&self, uid: &str) -> bool {
        self.objects.lock().get(uid).is_some_and(|memory| memory.failures > 0 || memory.errors + 1 >= REPORT_AFTER)
    }

    /// Takes in that an Event reports a failure; false if one has reported it already.
    pub fn announce(&self, uid: &str, reason: Reason) -> bool {
        self.objects.lock().entry(uid.to_owned()).or_default().announced.replace(reason) != Some(reason)
    }

    /// Takes in whether a record could be written.
    pub fn record_written(&self, uid: &str, written: bool) {
        let mut objects = self.objects.lock();
        match (objects.get_mut(uid), written) {
            (Some(memory), _) => memory.record_failed = !written,
            (None, true) => {}
            (None, false) => {
                objects.insert(uid.to_owned(), Memory { record_failed: true, ..Memory::default() });
            }
        }
    }

    /// Whether the last write of a record failed.
    pub fn has_failed_record(&self, uid: &str) -> bool {
        self.objects.lock().get(uid).is_some_and(|memory| memory.record_failed)
    }

    /// Ends the wait of an object: what was in its way is gone.
    pub fn try_now(&self, uid: &str) {
        // The memory stays: without it the failure that the status shows would make the object wait like after a restart.
        let mut objects = self.objects.lock();
        let memory = objects.entry(uid.to_owned()).or_default();
        memory.gate = None;
        memory.failures = memory.failures.max(1);
    }

    /// Forgets an object: it is as it should be, or gone.
    pub fn forget(&self, uid: &str) {
        self.objects.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits { min: Duration::from_secs(1), max: Duration::from_mins(10) };

    fn subject(generation: i64, secret: &str) -> Subject {
        Subject {
            generation: Some(generation),
            restored: false,
            recorded: false,
            secret: Some(secret.to_owned()),
            rival: None,
        }
    }

    #[test]
    fn what_a_restore_brings_back_is_not_waited_for() {
        let lacking = Subject { restored: true, secret: None, ..subject(1, "") };
        let comes = [
            Subject { recorded: true, ..lacking.clone() },
            Subject { restored: false, ..lacking.clone() },
            Subject { secret: Some("7".to_owned()), ..lacking.clone() },
            Subject { generation: Some(2), ..lacking.clone() },
        ];
        for there in comes {
            let backoff = Backoff::new(WAITS);
            let _ = backoff.failed("a", lacking.clone(), &Reason::RestoredWithoutKey.into());
            assert!(backoff.remaining("a", &lacking, None).is_some());
            assert_eq!(backoff.remaining("a", &there, None), None, "{there:?}");
            // Nor after a restart, which begins with a wait for what failed before.
            let restarted = Backoff::new(WAITS);
            let seen = restarted.remaining(
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
                let wait = WAITS.after(policy, attempts).as_secs_f64();
                let expected = f64::from(expected);
                assert!((0.75 * expected..=1.25 * expected).contains(&wait), "{policy:?} {attempts}: {wait}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kms_failure_waits_for_a_change_of_the_spec_only() {
        let backoff = Backoff::new(WAITS);
        assert_eq!(backoff.remaining("a", &subject(1, "s1"), None), None);
        let wait = backoff.failed("a", subject(1, "s1"), &Reason::AccessDenied.into());
        assert_eq!(backoff.remaining("a", &subject(1, "s1"), None), Some(wait));
        assert_eq!(backoff.remaining("a", &subject(1, "s2"), None), Some(wait));
        assert_eq!(backoff.remaining("b", &subject(1, "s1"), None), None, "another object");
        assert_eq!(backoff.remaining("a", &subject(2, "s1"), None), None, "the spec changed");
        assert_eq!(backoff.remaining("a", &subject(1, "s1"), None), None, "and that was the end of it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_waits_until_the_secret_changes() {
        let backoff = Backoff::new(WAITS);
        backoff.failed("a", subject(1, "s1"), &Reason::SecretConflict.into());
        assert!(backoff.remaining("a", &subject(1, "s1"), None).is_some());
        assert_eq!(backoff.remaining("a", &subject(1, "s2"), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_and_the_next_one_is_longer() {
        let backoff = Backoff::new(WAITS);
        let first = backoff.failed("a", subject(1, "s"), &Reason::Throttled.into());
        tokio::time::advance(first).await;
        assert_eq!(backoff.remaining("a", &subject(1, "s"), None), None);
        assert!(backoff.failed("a", subject(1, "s"), &Reason::Throttled.into()) > first);
        backoff.forget("a");
        assert_eq!(backoff.remaining("a", &subject(1, "s"), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_failing_objects_are_spread() {
        let backoff = Backoff::new(WAITS);
        let shown = Some(Reason::AccessDenied);
        let mut waits: Vec<_> =
            (0..100).filter_map(|n| backoff.remaining(&n.to_string(), &subject(1, "s"), shown)).collect();
        waits.sort_unstable();
        let (first, last) = (waits[0], waits[waits.len() - 1]);
        assert!(waits.len() > 95 && last.abs_diff(first) > Duration::from_mins(2), "{waits:?}");
        assert!(last <= Duration::from_mins(4));
    }

    #[tokio::test(start_paused = true)]
    async fn another_release_does_not_wait_for_what_it_may_understand() {
        let backoff = Backoff::new(WAITS);
        for (number, reason) in [Reason::RecordNewer, Reason::SpecNewer, Reason::SpecInvalid].into_iter().enumerate() {
            assert_eq!(backoff.remaining(&number.to_string(), &subject(1, "s"), Some(reason)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_kept_until_it_is_reported_or_its_inputs_change() {
        let backoff = Backoff::new(WAITS);
        backoff.failed("a", subject(1, "s"), &Reason::AccessDenied.into());
        assert_eq!(backoff.unreported("a"), Some(Reason::AccessDenied.into()));
        backoff.reported("a");
        assert_eq!(backoff.unreported("a"), None);
        assert!(backoff.remaining("a", &subject(1, "s"), None).is_some(), "it waits all the same");

        backoff.failed("a", subject(1, "s"), &Reason::AccessDenied.into());
        assert_eq!(backoff.remaining("a", &subject(2, "s"), None), None);
        assert_eq!(backoff.unreported("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_reported_once_it_is_one_of_many() {
        let backoff = Backoff::new(WAITS);
        assert!(!backoff.is_worth_reporting("a"));
        backoff.erred("a");
        assert!(!backoff.is_worth_reporting("a"));
        backoff.erred("a");
        assert!(backoff.is_worth_reporting("a"), "the third in a row");
        backoff.failed("a", subject(1, "s"), &Reason::ApiServerFailed.into());
        assert!(backoff.is_worth_reporting("a"), "it goes on");
        backoff.forget("a");
        assert!(!backoff.is_worth_reporting("a"));
    }

    #[test]
    fn an_event_reports_each_failure_once() {
        let backoff = Backoff::new(WAITS);
        assert!(backoff.announce("a", Reason::Refused));
        assert!(!backoff.announce("a", Reason::Refused));
        assert!(backoff.announce("a", Reason::ApiServerFailed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_record_is_remembered_across_changes_of_the_spec() {
        let backoff = Backoff::new(WAITS);
        assert!(!backoff.has_failed_record("a"));
        backoff.record_written("a", false);
        backoff.failed("a", subject(1, "s"), &Reason::Refused.into());
        assert_eq!(backoff.remaining("a", &subject(2, "s"), None), None);
        assert!(backoff.has_failed_record("a"));
        backoff.record_written("a", true);
        assert!(!backoff.has_failed_record("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_holds_nothing_back() {
        let backoff = Backoff::new(WAITS);
        assert!(backoff.erred("a") < backoff.erred("a"));
        assert_eq!(backoff.remaining("a", &subject(1, "s"), None), None);
    }
}
