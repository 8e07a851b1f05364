//! How many calls a second KMS accepts.

use std::num::NonZeroU32;

use tokio::time::Instant;

/// A token bucket of one second's calls, as KMS throttles.
#[derive(Debug)]
pub(super) struct Quota {
    per_second: f64,
    left: f64,
    at: Instant,
}

// === impl Quota ===

impl Quota {
    /// So many calls a second.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let per_second = f64::from(per_second.get());
        Self { per_second, left: per_second, at: Instant::now() }
    }

    /// Whether there is one more call.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.left = (self.left + earned).min(self.per_second);
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }
}
