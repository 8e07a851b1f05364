//! Retries that users ask for by the annotation `datakey.dev/retry-at`, and how often one object gets them. Pure: the time is
//! passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two tries of one object that users ask for.
pub(super) const REQUEST_EVERY: Duration = Duration::from_mins(1);

/// When an object may be tried, or could be, because a user asked for it last. It is kept while the object has no annotation and
/// while it is settled, because a user can remove and set the annotation at will.
#[derive(Debug, Default)]
pub(super) struct RequestedRetry(Option<Instant>);

// === impl RequestedRetry ===

impl RequestedRetry {
    /// When the object may be tried for a request that comes now. A request that comes too early is not lost, but many of them
    /// have one try together.
    pub fn allow(&mut self, now: Instant) -> Instant {
        let at = self.0.map_or(now, |last| if last > now { last } else { now.max(last + REQUEST_EVERY) });
        self.0 = Some(at);
        at
    }

    /// Forgets the last request if it does not delay the next one any more.
    pub fn drop_if_past(&mut self, now: Instant) {
        self.0.take_if(|last| *last + REQUEST_EVERY <= now);
    }

    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_pause_get_one_try_a_minute() {
        let begun = Instant::now();
        let mut requested = RequestedRetry::default();
        let mut allowed: Vec<_> =
            (0..600).map(|second| requested.allow(begun + Duration::from_secs(second)) - begun).collect();
        allowed.dedup();
        assert_eq!(allowed, (0..=10).map(Duration::from_mins).collect::<Vec<_>>());
    }

    #[test]
    fn request_after_a_minute_is_allowed_at_once() {
        let begun = Instant::now();
        let mut requested = RequestedRetry::default();
        assert_eq!(requested.allow(begun), begun);
        let later = begun + REQUEST_EVERY - Duration::from_secs(1);
        requested.drop_if_past(later);
        assert_eq!(requested.allow(later), begun + REQUEST_EVERY);
        let later = begun + 3 * REQUEST_EVERY;
        assert_eq!(requested.allow(later), later);
        requested.drop_if_past(later + REQUEST_EVERY);
        assert!(requested.is_none());
    }
}
