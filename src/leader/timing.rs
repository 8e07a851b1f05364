//! When a lease is renewed, given up and free. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// How leadership is sought and kept.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the `Lease`.
    pub namespace: String,
    /// Name of the `Lease`.
    pub name: String,
    /// How long others wait after the last renewal, in whole seconds.
    pub duration: Duration,
    /// The identity of this process; it differs after each start.
    pub identity: String,
}

// === impl LeaseSettings ===

impl LeaseSettings {
    /// How often the holder renews: a renewal that is never answered leaves time for another one.
    pub(super) fn retry_period(&self) -> Duration {
        self.duration / 4
    }

    /// The holder gives up after this time without a renewal: before another replica may take over.
    pub(super) fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often the other replicas read the lease.
    pub(super) fn poll_interval(&self) -> Duration {
        (self.duration / 15).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }
}

/// Whether a lease is free: it has no holder, or it has not changed for its whole duration.
pub(super) fn is_free(spec: &LeaseSpec, unchanged: Duration) -> bool {
    let has_no_holder = spec.holder_identity.as_deref().is_none_or(str::is_empty);
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    has_no_holder || unchanged >= Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn lease_without_a_holder_is_taken_at_once() {
        assert!(is_free(&LeaseSpec::default(), Duration::ZERO));
        assert!(is_free(&held("", 15), Duration::ZERO));
    }

    #[test]
    fn held_lease_is_taken_after_its_duration_without_a_change() {
        assert!(!is_free(&held("other", 15), Duration::from_millis(14_999)));
        assert!(is_free(&held("other", 15), Duration::from_secs(15)));
    }

    #[test]
    fn renew_deadline_allows_two_tries_before_expiry() {
        for seconds in [3, 15, 60] {
            let settings = LeaseSettings {
                namespace: String::new(),
                name: String::new(),
                duration: Duration::from_secs(seconds),
                identity: String::new(),
            };
            assert!(settings.renew_deadline() < settings.duration);
            assert!(settings.renew_deadline() > 2 * settings.retry_period());
        }
    }
}
