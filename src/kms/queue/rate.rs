//! A rate that halves when KMS throttles a call, and recovers. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::kms::rates::Rate;

/// How far the schedule may lag behind the clock. Calls that were missed within this time start at once; calls that were missed
/// earlier are lost, because KMS would receive them as a burst.
const CATCH_UP: Duration = Duration::from_millis(50);

/// The time that the rate counts calls in.
const SECOND: Duration = Duration::from_secs(1);

/// How long the rate takes to grow by the whole limit.
const RECOVERY: Duration = Duration::from_secs(50);

/// The fewest calls at the limit within the recovery: only a call shows whether KMS throttles a higher rate, too.
const RECOVERY_CALLS: f64 = 10.0;

/// How long further throttling is ignored after the rate was halved: those calls started before that.
const THROTTLE_COOLDOWN: Duration = Duration::from_secs(1);

/// The lowest rate, in calls per second; half the limit if that is lower. Only a call shows that KMS accepts calls again.
const MIN_RATE: f64 = 0.5;

/// The rate of one lane, and the schedule of its calls.
pub struct AdaptiveRate {
    /// The highest rate, in calls per second.
    limit: f64,
    /// The rate after the last halving, and the time of the halving.
    halved: Option<(f64, Instant)>,
    /// The time until which the calls so far use up the rate.
    used_until: Instant,
}

// === impl AdaptiveRate ===

impl AdaptiveRate {
    /// Starts at the limit.
    pub fn new(limit: Rate, now: Instant) -> Self {
        Self { limit: limit.per_second(), halved: None, used_until: now }
    }

    /// The current rate, in calls per second.
    pub fn current(&self, now: Instant) -> f64 {
        let Some((rate, since)) = self.halved else { return self.limit };
        let grown = now.saturating_duration_since(since).div_duration_f64(self.recovery()) * self.limit;
        (rate + grown).min(self.limit)
    }

    /// Schedules a call now, or returns the time at which the next call may start.
    pub fn schedule(&mut self, now: Instant) -> Result<(), Instant> {
        let next = self.next_start(now);
        if next > now {
            return Err(next);
        }
        self.used_until = self.used_until.max(now) + SECOND.div_f64(self.current(now));
        Ok(())
    }

    /// The earliest time at which the schedule has a place for a call: now, or later.
    pub fn next_start(&self, now: Instant) -> Instant {
        let early = self.used_until.saturating_duration_since(now + CATCH_UP);
        now + early
    }

    /// Halves the rate, unless it was halved just before.
    pub fn halve(&mut self, now: Instant) {
        if self.halved.is_none_or(|(_, since)| now.saturating_duration_since(since) >= THROTTLE_COOLDOWN) {
            let rate = (self.current(now) / 2.0).max(MIN_RATE.min(self.limit / 2.0));
            self.halved = Some((rate, now));
        }
    }

    /// Whether a new rate would behave in the same way.
    pub fn is_recovered(&self, now: Instant) -> bool {
        self.current(now) >= self.limit && self.used_until <= now
    }

    fn recovery(&self) -> Duration {
        RECOVERY.max(SECOND.mul_f64(RECOVERY_CALLS / self.limit))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn limit(text: &str) -> Rate {
        Rate::parse(text).unwrap()
    }

    /// The number of calls that a rate schedules within a time.
    async fn calls_within(rate: &mut AdaptiveRate, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut calls = 0;
        while Instant::now() < end {
            while rate.schedule(Instant::now()).is_ok() {
                calls += 1;
            }
            advance(Duration::from_millis(1)).await;
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn late_calls_start_at_once_within_the_catch_up_time() {
        let mut rate = AdaptiveRate::new(limit("100"), Instant::now());
        advance(Duration::from_hours(1)).await;
        let at_once = std::iter::repeat_with(|| rate.schedule(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 6);
        advance(Duration::from_millis(40)).await;
        let at_once = std::iter::repeat_with(|| rate.schedule(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_rate_once_a_second() {
        let mut rate = AdaptiveRate::new(limit("100"), Instant::now());
        for _ in 0..9 {
            rate.halve(Instant::now());
        }
        let calls = calls_within(&mut rate, SECOND).await;
        assert!((50..=54).contains(&calls), "{calls}");
        rate.halve(Instant::now());
        assert!((25.0..27.0).contains(&rate.current(Instant::now())));
        advance(Duration::from_secs(20)).await;
        assert!((65.0..67.0).contains(&rate.current(Instant::now())));
        advance(RECOVERY).await;
        assert!(rate.current(Instant::now()) >= 100.0 && rate.is_recovered(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn constant_throttling_does_not_stop_the_calls() {
        let mut rate = AdaptiveRate::new(limit("100"), Instant::now());
        for _ in 0..30 {
            rate.halve(Instant::now());
            advance(THROTTLE_COOLDOWN).await;
        }
        assert!(calls_within(&mut rate, Duration::from_secs(4)).await > 1);
    }
    #[tokio::test(start_paused = true)]
    async fn slow_rate_is_kept_halved_and_recovered_over_several_calls() {
        let mut rate = AdaptiveRate::new(limit("0.025"), Instant::now());
        let begun = Instant::now();
        assert_eq!(rate.schedule(begun), Ok(()));
        let next = rate.schedule(begun).unwrap_err();
        assert_eq!(next, begun + Duration::from_secs(40) - CATCH_UP);
        rate.halve(begun);
        advance(THROTTLE_COOLDOWN).await;
        rate.halve(Instant::now());
        let current = rate.current(Instant::now());
        assert!((0.0125..0.013).contains(&current), "half the limit is the lowest rate: {current}");
        advance(Duration::from_mins(3)).await;
        assert!(rate.current(Instant::now()) < 0.025, "four calls later it still recovers");
        advance(Duration::from_mins(3)).await;
        assert!(rate.is_recovered(Instant::now()));
    }
}
