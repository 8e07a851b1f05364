//! The exit codes of the process. docs/reference.md has the table that the tests generate from here.

use std::process::ExitCode;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command succeeded, or the operator stopped in order.
    Success,
    /// The operator cannot go on.
    Failure,
    /// A flag, a variable or another setting is invalid (sysexits.h, `EX_USAGE`).
    Usage,
}

// === impl Ended ===

impl Ended {
    /// Every exit code, in ascending order.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Usage];

    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 64,
        }
    }

    /// When the process ends with this code, for users.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "The command succeeded, or the operator stopped after SIGTERM or SIGINT.",
            Self::Failure => "The operator cannot go on, for example because it lost the Lease. The log has the error.",
            Self::Usage => {
                "A flag, an environment variable or a setting of AWS or Kubernetes is invalid. One line on standard error \
                 names it."
            }
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        ended.code().into()
    }
}
