//! How many calls KMS can receive in one second, or in one period of a rate below one call a second. Pure: the time is passed in.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::kms::rates::Rate;

/// Counts the calls in flight and the calls that ended less than a period ago, and admits no more than the limit. The period is one
/// second; for a rate below one call a second it is the time of one call.
///
/// KMS receives a call at an unknown time between its start and its answer, so the times of the starts alone do not bound the
/// calls of a period. This count does: take the calls that KMS receives within one period, and of these the one that started
/// last. When it started, none of the others had ended a period ago or earlier, so the window counted all of them.
pub struct CallWindow {
    limit: usize,
    /// How long a call counts after its answer.
    period: Duration,
    in_flight: usize,
    /// The ends of the other calls that count, the first end first.
    ended: VecDeque<Instant>,
}

// === impl CallWindow ===

impl CallWindow {
    /// Counts no calls.
    pub fn new(rate: Rate) -> Self {
        Self { limit: rate.calls(), period: rate.period(), in_flight: 0, ended: VecDeque::new() }
    }

    /// Whether another call may start, or else the earliest time at which one may.
    pub fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        let period = self.period;
        while self.ended.pop_front_if(|ended| now.saturating_duration_since(*ended) >= period).is_some() {}
        if self.in_flight + self.ended.len() < self.limit {
            return Ok(());
        }
        // If no call has ended yet, the first one to end counts until a period from now or later.
        Err(self.ended.front().map_or(now, |first| *first) + period)
    }

    /// Counts a call that starts.
    pub fn start(&mut self) {
        self.in_flight += 1;
    }

    /// Records that a call ended.
    pub fn end(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ended.push_back(now);
    }

    /// The number of calls that have not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether no call counts any more.
    pub fn is_drained(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.ended.iter().all(|ended| now.saturating_duration_since(*ended) >= self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn call_counts_until_a_second_after_its_end() {
        let (begun, millis) = (Instant::now(), Duration::from_millis);
        let mut window = CallWindow::new(Rate::parse("2").unwrap());
        for _ in 0..2 {
            assert_eq!(window.admit(begun), Ok(()));
            window.start();
        }
        assert_eq!(window.admit(begun), Err(begun + WINDOW), "both are in flight");
        window.end(begun + millis(300));
        window.end(begun + millis(500));
        assert_eq!(window.admit(begun + millis(600)), Err(begun + millis(1300)));
        assert_eq!(window.admit(begun + millis(1300)), Ok(()));
        assert!(!window.is_drained(begun + millis(1300)) && window.is_drained(begun + millis(1500)));
    }
    #[tokio::test(start_paused = true)]
    async fn slow_rate_counts_a_call_for_the_time_of_one_call() {
        let (begun, seconds) = (Instant::now(), Duration::from_secs);
        let mut window = CallWindow::new(Rate::parse("0.25").unwrap());
        assert_eq!(window.admit(begun), Ok(()));
        window.start();
        assert_eq!(window.admit(begun), Err(begun + seconds(4)));
        window.end(begun + seconds(3));
        assert_eq!(window.admit(begun + seconds(6)), Err(begun + seconds(7)));
        assert!(!window.is_drained(begun + seconds(6)) && window.is_drained(begun + seconds(7)));
        assert_eq!(window.admit(begun + seconds(7)), Ok(()));
    }
}
