//! A rate that halves when KMS throttles a call, and recovers. Pure: the time is passed in.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// How far the schedule may lag behind the clock. Calls that were missed within this time start at once; calls that were missed
/// earlier are lost, because KMS would receive them as a burst.
const CATCH_UP: Duration = Duration::from_millis(50);

/// The time that the rate counts calls in.
const SECOND: Duration = Duration::from_secs(1);

/// How long the rate takes to grow by the whole limit.
const RECOVERY: Duration = Duration::from_secs(50);

/// How long further throttling is ignored after the rate was halved: those calls started before that.
const THROTTLE_COOLDOWN: Duration = Duration::from_secs(1);

/// The lowest rate, in calls per second. Only a call shows that KMS accepts calls again.
const MIN_RATE: f64 = 0.5;

/// The rate of one Region, and the schedule of its calls.
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
    pub fn new(limit: NonZeroU32, now: Instant) -> Self {
        Self { limit: f64::from(limit.get()), halved: None, used_until: now }
    }

    /// The current rate, in calls per second.
    pub fn current(&self, now: Instant) -> f64 {
        let Some((rate, since)) = self.halved else { return self.limit };
        let grown = now.saturating_duration_since(since).div_duration_f64(RECOVERY) * self.limit;
        (rate + grown).min(self.limit)
    }

    /// Schedules a call now, or returns the time at which the next call may start.
    pub fn schedule(&mut self, now: Instant) -> Result<(), Instant> {
        let rate = self.current(now);
        let interval = SECOND.div_f64(rate);
        match self.used_until.checked_duration_since(now + CATCH_UP) {
            Some(early) if !early.is_zero() => Err(now + early),
            _ => {
                self.used_until = self.used_until.max(now) + interval;
                Ok(())
            }
        }
    }

    /// Halves the rate, unless it was halved just before.
    pub fn halve(&mut self, now: Instant) {
        if self.halved.is_none_or(|(_, since)| now.saturating_duration_since(since) >= THROTTLE_COOLDOWN) {
            let rate = (self.current(now) / 2.0).max(MIN_RATE.min(self.limit));
            self.halved = Some((rate, now));
        }
    }

    /// Whether a new rate would behave in the same way.
    pub fn is_recovered(&self, now: Instant) -> bool {
        self.current(now) >= self.limit && self.used_until <= now
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LIMIT: NonZeroU32 = NonZeroU32::new(100).unwrap();

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
        let mut rate = AdaptiveRate::new(LIMIT, Instant::now());
        advance(Duration::from_hours(1)).await;
        let at_once = std::iter::repeat_with(|| rate.schedule(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 6);
        advance(Duration::from_millis(40)).await;
        let at_once = std::iter::repeat_with(|| rate.schedule(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_rate_once_a_second() {
        let mut rate = AdaptiveRate::new(LIMIT, Instant::now());
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
        let mut rate = AdaptiveRate::new(LIMIT, Instant::now());
        for _ in 0..30 {
            rate.halve(Instant::now());
            advance(THROTTLE_COOLDOWN).await;
        }
        assert!(calls_within(&mut rate, Duration::from_secs(4)).await > 1);
    }
}
