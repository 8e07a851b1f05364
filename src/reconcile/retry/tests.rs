//! Tests of the table with a clock that they control.

use super::{
    action_limits::{READ_EVERY, READS},
    *,
};

use datakey::class::Class;

use crate::classes::ClassInView;

const BOUNDS: RetryBounds = RetryBounds { min: Duration::from_secs(1), max: Duration::from_mins(10) };

fn inputs(generation: i64, secret: &str) -> FailureInputs {
    FailureInputs {
        generation: Some(generation),
        restored: false,
        recorded: false,
        secret: Some(secret.to_owned()),
        rival: None,
        class: ClassInView::None,
        retry_at: None,
    }
}

#[test]
fn restored_status_does_not_delay_the_first_try() {
    let lacking = FailureInputs { restored: true, secret: None, ..inputs(1, "") };
    let comes = [
        FailureInputs { recorded: true, ..lacking.clone() },
        FailureInputs { restored: false, ..lacking.clone() },
        FailureInputs { secret: Some("7".to_owned()), ..lacking.clone() },
        FailureInputs { generation: Some(2), ..lacking.clone() },
    ];
    for there in comes {
        let retries = RetryTable::new(BOUNDS);
        let _ = retries.on_failure("a", lacking.clone(), &Reason::RestoredWithoutKey.into());
        assert!(retries.delay_left("a", &lacking, None).is_some());
        assert_eq!(retries.delay_left("a", &there, None), None, "{there:?}");
        // Nor after a restart, which begins with a wait for what failed before.
        let restarted = RetryTable::new(BOUNDS);
        let seen =
            restarted.delay_left("a", &there, Some(Reason::RestoredWithoutKey).filter(|_| there.generation == Some(1)));
        assert_eq!(seen, None, "{there:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn kms_failure_waits_for_a_change_of_the_spec_only() {
    let retries = RetryTable::new(BOUNDS);
    assert_eq!(retries.delay_left("a", &inputs(1, "s1"), None), None);
    let wait = retries.on_failure("a", inputs(1, "s1"), &Reason::AccessDenied.into());
    assert_eq!(retries.delay_left("a", &inputs(1, "s1"), None), Some(wait));
    assert_eq!(retries.delay_left("a", &inputs(1, "s2"), None), Some(wait));
    assert_eq!(retries.delay_left("b", &inputs(1, "s1"), None), None, "another object");
    assert_eq!(retries.delay_left("a", &inputs(2, "s1"), None), None, "the spec changed");
    assert_eq!(retries.delay_left("a", &inputs(1, "s1"), None), None, "and that was the end of it");
}

#[tokio::test(start_paused = true)]
async fn conflict_waits_until_the_secret_changes() {
    let retries = RetryTable::new(BOUNDS);
    retries.on_failure("a", inputs(1, "s1"), &Reason::SecretConflict.into());
    assert!(retries.delay_left("a", &inputs(1, "s1"), None).is_some());
    assert_eq!(retries.delay_left("a", &inputs(1, "s2"), None), None);
}

#[tokio::test(start_paused = true)]
async fn each_wait_is_longer_than_the_last() {
    let retries = RetryTable::new(BOUNDS);
    let first = retries.on_failure("a", inputs(1, "s"), &Reason::Throttled.into());
    tokio::time::advance(first).await;
    assert_eq!(retries.delay_left("a", &inputs(1, "s"), None), None);
    assert!(retries.on_failure("a", inputs(1, "s"), &Reason::Throttled.into()) > first);
    retries.forget("a");
    assert_eq!(retries.delay_left("a", &inputs(1, "s"), None), None);
}

#[tokio::test(start_paused = true)]
async fn failing_objects_are_spread_after_a_restart() {
    let retries = RetryTable::new(BOUNDS);
    let shown = Some(Reason::AccessDenied);
    let mut delays: Vec<_> =
        (0..100).filter_map(|n| retries.delay_left(&n.to_string(), &inputs(1, "s"), shown)).collect();
    delays.sort_unstable();
    let (first, last) = (delays[0], delays[delays.len() - 1]);
    assert!(delays.len() > 95 && last.abs_diff(first) > Duration::from_mins(2), "{delays:?}");
    assert!(last <= Duration::from_mins(4));
}

#[tokio::test(start_paused = true)]
async fn new_release_retries_a_newer_record_at_once() {
    let retries = RetryTable::new(BOUNDS);
    for (number, reason) in [Reason::RecordNewer, Reason::SpecNewer, Reason::SpecInvalid].into_iter().enumerate() {
        assert_eq!(retries.delay_left(&number.to_string(), &inputs(1, "s"), Some(reason)), None);
    }
}

#[tokio::test(start_paused = true)]
async fn failure_is_kept_until_it_is_reported_or_its_inputs_change() {
    let retries = RetryTable::new(BOUNDS);
    retries.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
    assert_eq!(retries.unreported("a"), Some(Reason::AccessDenied.into()));
    retries.reported("a");
    assert_eq!(retries.unreported("a"), None);
    assert!(retries.delay_left("a", &inputs(1, "s"), None).is_some(), "it waits all the same");

    retries.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
    assert_eq!(retries.delay_left("a", &inputs(2, "s"), None), None);
    assert_eq!(retries.unreported("a"), None);
}

#[tokio::test(start_paused = true)]
async fn third_api_error_in_a_row_is_reported() {
    let retries = RetryTable::new(BOUNDS);
    assert!(!retries.is_worth_reporting("a"));
    retries.on_transient_error("a");
    assert!(!retries.is_worth_reporting("a"));
    retries.on_transient_error("a");
    assert!(retries.is_worth_reporting("a"), "the third in a row");
    retries.on_failure("a", inputs(1, "s"), &Reason::ApiServerFailed.into());
    assert!(retries.is_worth_reporting("a"), "it goes on");
    retries.forget("a");
    assert!(!retries.is_worth_reporting("a"));
}

#[test]
fn event_reports_each_failure_once() {
    let retries = RetryTable::new(BOUNDS);
    assert!(retries.announce("a", Reason::WriteRejected));
    assert!(!retries.announce("a", Reason::WriteRejected));
    assert!(retries.announce("a", Reason::ApiServerFailed));
}

#[tokio::test(start_paused = true)]
async fn failed_record_is_remembered_across_spec_changes() {
    let retries = RetryTable::new(BOUNDS);
    assert!(!retries.has_failed_record("a"));
    retries.record_written("a", false);
    retries.on_failure("a", inputs(1, "s"), &Reason::WriteRejected.into());
    assert_eq!(retries.delay_left("a", &inputs(2, "s"), None), None);
    assert!(retries.has_failed_record("a"));
    retries.record_written("a", true);
    assert!(!retries.has_failed_record("a"));
}

#[tokio::test(start_paused = true)]
async fn api_errors_delay_no_request() {
    let retries = RetryTable::new(BOUNDS);
    assert!(retries.on_transient_error("a") < retries.on_transient_error("a"));
    assert_eq!(retries.delay_left("a", &inputs(1, "s"), None), None);
}

#[tokio::test(start_paused = true)]
async fn ten_restores_are_done_at_once_and_more_are_delayed() {
    let restores = RetryTable::new(BOUNDS);
    for _ in 0..10 {
        assert_eq!(restores.restore_wait("a"), None);
        restores.restored("a", "", None);
    }
    assert!(restores.restore_wait("a").is_some(), "the eleventh waits");
    let begun = Instant::now();
    let mut more = 0;
    while begun.elapsed() < Duration::from_hours(1) {
        if let Some(wait) = restores.restore_wait("a") {
            tokio::time::advance(wait).await;
        }
        restores.restored("a", "", None);
        more += 1;
    }
    // 15 s, 30 s, ... 8 min, then every 10 min, give or take a quarter.
    assert!((9..=15).contains(&more), "{more} in an hour");
    assert_eq!(restores.restore_wait("b"), None, "another object");
}

#[tokio::test(start_paused = true)]
async fn pause_ends_the_streak() {
    let restores = RetryTable::new(BOUNDS);
    for _ in 0..12 {
        restores.restored("a", "entry keyId was changed", None);
    }
    assert!(restores.restore_wait("a").is_some());
    assert_eq!(restores.restore_limited("a").as_deref(), Some("entry keyId was changed"));
    tokio::time::advance(2 * BOUNDS.max).await;
    restores.restored("a", "", None);
    assert_eq!((restores.restore_wait("a"), restores.restore_limited("a")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn secret_that_keeps_changing_is_read_every_ten_seconds() {
    let reads = RetryTable::new(BOUNDS);
    for _ in 1..READS {
        assert_eq!(reads.read_wait("a"), None);
        reads.secret_read("a");
    }
    for _ in 0..6 {
        reads.secret_read("a");
        assert_eq!(reads.read_wait("a"), Some(READ_EVERY));
        tokio::time::advance(READ_EVERY).await;
    }
    assert_eq!(reads.read_wait("a"), None);
}

#[tokio::test(start_paused = true)]
async fn ended_rows_are_dropped() {
    let reads = RetryTable::new(BOUNDS);
    for number in 0..SWEEP_FROM {
        reads.secret_read(&number.to_string());
    }
    tokio::time::advance(3 * READ_EVERY).await;
    reads.secret_read("one more");
    assert_eq!(reads.rows.lock().by_uid.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn settled_object_has_a_row_for_its_streaks_only() {
    let retries = RetryTable::new(BOUNDS);
    for uid in ["fought over", "quiet"] {
        retries.on_failure(uid, inputs(1, "s"), &Reason::SecretContested.into());
    }
    for _ in 0..=10 {
        retries.restored("fought over", "entry keyId was changed", None);
    }
    let wait = retries.restore_wait("fought over");
    assert!(wait.is_some());
    for uid in ["fought over", "quiet", "never known"] {
        retries.settled(uid);
        assert_eq!(retries.delay_left(uid, &inputs(1, "s"), None), None);
    }
    assert_eq!(retries.restore_wait("fought over"), wait);
    assert_eq!(retries.rows.lock().by_uid.len(), 1);
    retries.forget("fought over");
    assert_eq!(retries.restore_wait("fought over"), None);
    assert!(retries.rows.lock().by_uid.is_empty());
}

/// The same with this value of the annotation `datakey.dev/retry-at`.
fn asked(retry_at: &str) -> FailureInputs {
    FailureInputs { retry_at: Some(retry_at.to_owned()), ..inputs(1, "s") }
}

/// The rest of the delay at a reconcile with these inputs.
fn reconciled(retries: &RetryTable, inputs: &FailureInputs, shown: Option<Reason>) -> Option<Duration> {
    retries.retry_requested("a", inputs.retry_at.as_deref());
    retries.delay_left("a", inputs, shown)
}

#[tokio::test(start_paused = true)]
async fn requested_retry_ends_the_wait_and_begins_with_a_short_one() {
    let retries = RetryTable::new(BOUNDS);
    let shown = Some(Reason::AccessDenied);
    for _ in 0..5 {
        retries.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
    }
    assert!(reconciled(&retries, &inputs(1, "s"), shown).is_some());
    assert_eq!(reconciled(&retries, &asked("garbage"), shown), None);
    // The reconcile may wait for a permit, and another one goes on.
    assert_eq!(reconciled(&retries, &asked("garbage"), shown), None);
    let wait = retries.on_failure("a", asked("garbage"), &Reason::AccessDenied.into());
    assert!(wait < Duration::from_secs(40), "{wait:?}");
    assert_eq!(reconciled(&retries, &asked("garbage"), shown), Some(wait), "once for each value");
}

/// So many failures that the next wait takes minutes.
fn fail_often(retries: &RetryTable, inputs: &FailureInputs) {
    for _ in 0..9 {
        retries.on_failure("a", inputs.clone(), &Reason::AccessDenied.into());
    }
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_pause_cause_one_try_a_minute() {
    let retries = RetryTable::new(BOUNDS);
    let mut tries = 0;
    for second in 0..600_u32 {
        // Removed, set, set back to an earlier value, from the future.
        let inputs = match second % 4 {
            0 => inputs(1, "s"),
            1 => asked("2999-01-01T00:00:00Z"),
            _ => asked(&second.to_string()),
        };
        if second % 50 == 0 {
            // A spec with other settings was Ready in between.
            retries.settled("a");
            fail_often(&retries, &inputs);
        }
        if reconciled(&retries, &inputs, None).is_none() {
            tries += 1;
            fail_often(&retries, &inputs);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!((9..=11).contains(&tries), "{tries} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn second_request_within_a_minute_waits_for_its_end() {
    let retries = RetryTable::new(BOUNDS);
    fail_often(&retries, &inputs(1, "s"));
    assert_eq!(reconciled(&retries, &asked("1"), None), None);
    fail_often(&retries, &asked("1"));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(reconciled(&retries, &asked("2"), None), Some(Duration::from_secs(40)));
    tokio::time::advance(Duration::from_secs(39)).await;
    assert_eq!(reconciled(&retries, &asked("3"), None), Some(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(reconciled(&retries, &asked("3"), None), None);
}

#[tokio::test(start_paused = true)]
async fn restart_does_not_act_on_requests_from_before() {
    let retries = RetryTable::new(BOUNDS);
    let shown = Some(Reason::AccessDenied);
    let waits = (0..100).filter(|_| {
        retries.forget("a");
        reconciled(&retries, &asked("1"), shown).is_some()
    });
    assert!(waits.count() > 95);
    tokio::time::advance(BOUNDS.max).await;
    retries.on_failure("a", asked("1"), &Reason::AccessDenied.into());
    assert_eq!(reconciled(&retries, &asked("2"), shown), None);
}

#[tokio::test(start_paused = true)]
async fn requested_restore_is_done_at_once_and_the_streak_goes_on() {
    let restores = RetryTable::new(BOUNDS);
    for _ in 0..12 {
        restores.restored("a", "entry keyId was changed", Some("1"));
    }
    let wait = restores.restore_wait("a");
    restores.retry_requested("a", Some("1"));
    assert_eq!(restores.restore_wait("a"), wait, "that was there before");
    restores.retry_requested("a", Some("2"));
    assert_eq!((restores.restore_wait("a"), restores.restore_limited("a")), (None, None));
    restores.restored("a", "entry keyId was changed", Some("2"));
    assert!(restores.restore_wait("a") > wait, "the streak goes on");
}

#[tokio::test(start_paused = true)]
async fn request_of_a_settled_object_leaves_no_row() {
    let retries = RetryTable::new(BOUNDS);
    retries.retry_requested("a", Some("1"));
    assert!(retries.rows.lock().by_uid.is_empty());
    retries.on_failure("a", inputs(1, "s"), &Reason::AccessDenied.into());
    assert_eq!(reconciled(&retries, &asked("1"), None), None);
    retries.settled("a");
    assert_eq!(retries.rows.lock().by_uid.len(), 1, "it counts for a minute");
    tokio::time::advance(request::REQUEST_EVERY).await;
    retries.settled("a");
    assert!(retries.rows.lock().by_uid.is_empty());
}

/// A class that was changed this often.
fn class(generation: i64) -> ClassInView {
    ClassInView::Found(Class::new("shop", "u", generation, Err("x".to_owned())).into())
}

#[tokio::test(start_paused = true)]
async fn refusal_waits_for_another_class_or_another_secret() {
    let of = |class| FailureInputs { class, ..inputs(1, "s") };
    let refused = [Reason::ClassMissing, Reason::ClassNotFound, Reason::ClassRefused, Reason::ClassesUnavailable];
    let begun = of(class(1));
    // The Secret of the recorded versions is restored although the class refuses a pin.
    let restored = FailureInputs { secret: None, ..begun.clone() };
    for reason in refused {
        for there in [of(class(2)), of(ClassInView::Absent), restored.clone()] {
            let retries = RetryTable::new(BOUNDS);
            retries.on_failure("a", begun.clone(), &reason.into());
            assert!(retries.delay_left("a", &begun, None).is_some());
            assert_eq!(retries.delay_left("a", &there, None), None, "{reason:?} {there:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_failed_is_retried_with_another_class() {
    let of = |class| FailureInputs { class, ..inputs(1, "s") };
    let retries = RetryTable::new(BOUNDS);
    retries.on_failure("a", of(class(1)), &Reason::KeyNotFound.into());
    assert!(retries.delay_left("a", &of(class(1)), None).is_some());
    for _step in 0..2 {
        let left = retries.delay_left("a", &of(class(2)), Some(Reason::KeyNotFound));
        assert_eq!(left, None, "it can fill in another key");
    }
    retries.on_failure("a", of(class(2)), &Reason::Throttled.into());
    assert!(retries.delay_left("a", &of(class(3)), None).is_some(), "no class ends that");
    // The first list of classes after a start is no change of one.
    let restarted = RetryTable::new(BOUNDS);
    let shown = Some(Reason::KeyNotFound);
    restarted.delay_left("a", &of(ClassInView::Unlisted), shown);
    assert!(restarted.delay_left("a", &of(class(2)), shown).is_some());
}
