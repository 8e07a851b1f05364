//! Who calls AWS KMS, and how long it waits.

use std::time::Duration;

use datakey_aws::{Overrides, User};

/// The longest wait for the answer to one call, unless the caller says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Who calls AWS KMS, with which settings, and how long it waits.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name and version of the program in the user agent of each call.
    pub app: &'static str,
    /// Whose credentials are used.
    pub user: User,
    /// The settings of a command line, which go before those of the environment and the profile files.
    pub overrides: Overrides,
    /// The longest wait for the answer to one call. It includes retries and the time to get credentials.
    pub timeout: Duration,
    /// How often a call is repeated that AWS KMS throttles or does not answer. Without it, `AWS_MAX_ATTEMPTS` and
    /// `max_attempts` of the profile count, else two.
    pub retries: Option<u32>,
    /// The Region of AWS STS where neither the settings nor the environment nor the profile name one.
    pub fallback_region: Option<String>,
}

// === impl Caller ===

impl Caller {
    /// A person at a terminal, without settings of a command line.
    pub fn person(app: &'static str) -> Self {
        Self {
            app,
            user: User::Person,
            overrides: Overrides::default(),
            timeout: TIMEOUT,
            retries: None,
            fallback_region: None,
        }
    }

    /// A workload, without settings of a command line: nothing is asked of a person, no other program is run, and AWS KMS is not
    /// called without TLS.
    pub fn workload(app: &'static str) -> Self {
        Self { user: User::Workload, ..Self::person(app) }
    }

    /// The same, with the settings of a command line.
    #[must_use]
    pub fn with_overrides(self, overrides: Overrides) -> Self {
        Self { overrides, ..self }
    }
}
