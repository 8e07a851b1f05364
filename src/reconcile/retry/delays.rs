//! How long an object waits before its next retry. Pure.

use std::time::Duration;

use datakey::reason::RetryPolicy;

/// Bounds of the delays between retries.
#[derive(Clone, Copy, Debug)]
pub struct RetryBounds {
    /// First delay under `RetrySoon`; the other policies begin at a multiple.
    pub min: Duration,
    /// Longest delay of all policies.
    pub max: Duration,
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

    /// No [`Self::delay`] is longer.
    pub fn longest_delay(self) -> Duration {
        self.max.saturating_mul(5) / 4
    }

    /// The delay before the first try of an object that failed before a restart.
    pub(super) fn initial_delay(self, policy: RetryPolicy) -> Duration {
        let (first, last) = self.bounds(policy);
        (first * 8).min(last).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RetryBounds = RetryBounds { min: Duration::from_secs(1), max: Duration::from_mins(10) };

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
}
