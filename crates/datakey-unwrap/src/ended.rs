//! How the program ends: its exit codes, and the one line that says why.

use std::{fmt::Display, io::Write as _, process::ExitCode};

use datakey::text::clause;
use datakey_decrypt::Cause;

/// How the program ended, in ascending order of severity: of several versions, the most severe failure is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// All is done.
    Success,
    /// AWS KMS or the node does not answer, or something is not there yet.
    TryAgain,
    /// The KMS key cannot be used.
    KeyUnusable,
    /// AWS refuses the caller.
    AccessDenied,
    /// An argument is wrong, or a folder, file or mount cannot be used (sysexits.h, `EX_USAGE`).
    Usage,
    /// What is in the Secret is not what the arguments say.
    Mismatch,
    /// The command of `exec` cannot be run (POSIX, `env`).
    NotExecutable,
    /// The command of `exec` is not there (POSIX, `env`).
    NotFound,
}

/// Why the program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub ended: Ended,
    /// What is wrong, and what to do.
    pub why: String,
}

// === impl Ended ===

impl Ended {
    /// Every exit code, in ascending order.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Mismatch,
        Self::AccessDenied,
        Self::KeyUnusable,
        Self::Usage,
        Self::TryAgain,
        Self::NotExecutable,
        Self::NotFound,
    ];

    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Mismatch => 2,
            Self::AccessDenied => 3,
            Self::KeyUnusable => 4,
            Self::Usage => 64,
            // sysexits.h, EX_TEMPFAIL.
            Self::TryAgain => 75,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        ended.code().into()
    }
}

impl From<Cause> for Ended {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Mismatch => Self::Mismatch,
            Cause::KeyUnusable => Self::KeyUnusable,
            Cause::AccessDenied => Self::AccessDenied,
            Cause::Unavailable => Self::TryAgain,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// What is in the Secret is not what the arguments say.
    pub fn mismatch(why: impl Display) -> Self {
        Self { ended: Ended::Mismatch, why: why.to_string() }
    }

    /// An argument is wrong, or a folder, file or mount cannot be used.
    pub fn usage(why: impl Display) -> Self {
        Self { ended: Ended::Usage, why: why.to_string() }
    }

    /// It can succeed later.
    pub fn try_again(why: impl Display) -> Self {
        Self { ended: Ended::TryAgain, why: why.to_string() }
    }

    /// Prints the reason, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        note(&self.why);
        self.ended.into()
    }
}

/// What each line of the program begins with.
pub const PREFIX: &str = "datakey-unwrap: ";

/// Prints one line to standard error. Text from outside can have line ends and characters that change a terminal.
pub fn note(line: &str) {
    // A closed or full standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{PREFIX}{}", clause(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_ascend_and_differ() {
        let codes = Ended::ALL.map(Ended::code);
        assert!(codes.is_sorted_by(|one, next| one < next), "{codes:?}");
    }
}
