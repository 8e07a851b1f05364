//! When a KMS key is asked about: at one moment of each interval of the wall clock, by a hash of its ARN. Pure.
//!
//! So the moments of many KMS keys are spread over the interval, and a process that starts, however often, asks no more than one that
//! runs all the time. A moment that no process sees is not made up for: the next one follows an interval later.

use std::time::Duration;

use datakey::secret::sha256;

/// A time of the wall clock, in milliseconds since 1970.
pub type Millis = i64;

/// The wall clock as the checks see it. It never goes back within an interval, so that nothing is asked twice.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    interval: i64,
    seen: Millis,
}

// === impl Clock ===

impl Clock {
    /// Begins at this time: what was due before is not due any more.
    pub fn new(interval: Duration, now: Millis) -> Self {
        Self { interval: millis(interval).max(1), seen: now }
    }

    /// Goes on to this time. Returns which ARNs became due since.
    pub fn advance(&mut self, now: Millis) -> impl Fn(&str) -> bool + use<> {
        let Self { interval, seen } = *self;
        // A clock that was set back by more is trusted: it was wrong before.
        let goes_on = now > seen || now < seen.saturating_sub(interval);
        if goes_on {
            self.seen = now;
        }
        move |arn| {
            let moment = |at: Millis| at.saturating_sub(offset(arn, interval)).div_euclid(interval);
            now > seen && moment(now) > moment(seen)
        }
    }
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The moment of an ARN within an interval, the same in every process and release.
fn offset(arn: &str, interval: i64) -> i64 {
    let digits = sha256(arn.as_bytes());
    let hash = digits.get(..15).and_then(|digits| i64::from_str_radix(digits, 16).ok());
    hash.unwrap_or_default().rem_euclid(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const INTERVAL: Duration = Duration::from_hours(12);

    fn arns() -> Vec<String> {
        (0..20).map(|number| format!("arn:aws:kms:eu-west-1:111122223333:key/{number}")).collect()
    }

    /// How many of the ARNs are due when processes run from one of these times to the next.
    fn calls(times: &[Millis], runs_until: impl Fn(Millis, Millis) -> Millis) -> usize {
        let mut calls = 0;
        for pair in times.windows(2) {
            let (start, next) = (pair[0], pair[1]);
            let mut clock = Clock::new(INTERVAL, start);
            let mut now = start;
            while now < runs_until(start, next) {
                now += 60_000;
                let is_due = clock.advance(now);
                calls += arns().iter().filter(|arn| is_due(arn)).count();
            }
        }
        calls
    }

    #[test]
    fn each_key_is_asked_about_once_in_an_interval() {
        for start in [0, 1_795_000_000_000, 1_795_000_000_000 + 7 * HOUR] {
            assert_eq!(calls(&[start, start + 24 * HOUR], |_, next| next), 40);
        }
    }

    #[test]
    fn restarts_cost_no_call_and_lose_at_most_what_they_miss() {
        let starts: Vec<_> = (0..=50).map(|number| number * 24 * HOUR / 50).collect();
        assert_eq!(calls(&starts, |_, next| next), 40, "50 processes, one after the other");
        let missed = calls(&starts, |_, next| next - 5 * 60_000);
        assert!((20..40).contains(&missed), "{missed}");
        let short: Vec<_> = (0..50).collect();
        assert_eq!(calls(&short, |start, _| start), 0, "none at start");
    }

    #[test]
    fn keys_are_due_at_different_moments() {
        let mut offsets: Vec<_> = arns().iter().map(|arn| offset(arn, 12 * HOUR)).collect();
        offsets.sort_unstable();
        let most = offsets.windows(6).filter(|six| six[5] - six[0] < HOUR).count();
        assert_eq!(most, 0, "no six of twenty within an hour: {offsets:?}");
    }

    #[test]
    fn clock_that_is_set_back_asks_nothing_twice() {
        let mut clock = Clock::new(INTERVAL, 0);
        let count = |clock: &mut Clock, now| {
            let is_due = clock.advance(now);
            arns().iter().filter(|arn| is_due(arn)).count()
        };
        assert_eq!(count(&mut clock, 12 * HOUR), 20);
        assert_eq!(count(&mut clock, 6 * HOUR), 0);
        assert_eq!(count(&mut clock, 12 * HOUR), 0);
        // It was years ahead.
        assert_eq!(count(&mut clock, 100_000 * HOUR), 20);
        assert_eq!(count(&mut clock, 24 * HOUR), 0);
        assert_eq!(count(&mut clock, 36 * HOUR), 20);
    }
}
