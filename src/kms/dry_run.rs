//! What the answer to a dry run says about the KMS key.
//!
//! Source: AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`, parameter `DryRun`; AWS KMS developer guide, "Testing your
//! permissions": a call that would succeed is answered with `DryRunOperationException`.

use datakey::condition::key_usable::Cause;

use super::errors::KmsFailure;

/// The error code of a dry run that would succeed.
const WOULD_SUCCEED: &str = "DryRunOperationException";

/// What the answer to a dry run says about the KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// KMS uses it.
    Usable,
    /// KMS does not use it.
    Unusable(Cause),
    /// The server does not know dry runs: it generated a data key, which is dropped.
    NotKnown,
    /// Nothing, for the failure with this code: the call was denied, throttled or not answered.
    Nothing(&'static str),
}

// === impl DryRun ===

impl DryRun {
    /// What this answer says.
    pub(super) fn of(answer: Result<(), KmsFailure>) -> Self {
        match answer {
            Ok(()) => Self::NotKnown,
            Err(failed) if failed.known_code == WOULD_SUCCEED => Self::Usable,
            Err(failed) => Cause::of_code(failed.known_code).map_or(Self::Nothing(failed.known_code), Self::Unusable),
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::reason::{Failure, Reason};

    use super::*;

    #[test]
    fn only_three_errors_say_that_a_key_is_unusable() {
        let says = |code| {
            let failed = KmsFailure { known_code: code, ..KmsFailure::not_called(Failure::from(Reason::KmsError)) };
            DryRun::of(Err(failed))
        };
        assert_eq!(says("DryRunOperationException"), DryRun::Usable);
        for (code, cause) in [
            ("DisabledException", Cause::DisabledException),
            ("KMSInvalidStateException", Cause::KMSInvalidStateException),
            ("NotFoundException", Cause::NotFoundException),
        ] {
            assert_eq!(says(code), DryRun::Unusable(cause));
        }
        for code in ["AccessDeniedException", "ThrottlingException", "KeyUnavailableException", "Timeout", "Unknown"] {
            assert_eq!(says(code), DryRun::Nothing(code));
        }
        assert_eq!(DryRun::of(Ok(())), DryRun::NotKnown);
    }
}
