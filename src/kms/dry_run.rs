//! What the answer to a dry run says about the KMS key.
//!
//! Source: AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`, parameter `DryRun`; AWS KMS developer guide, "Testing your
//! permissions": a call that would succeed is answered with `DryRunOperationException`.

use datakey::{condition::key_usable::Cause, reason::Reason};

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
    /// Nothing, for the failure with this code: the request is denied or invalid, and will be so the next time.
    Denied(&'static str),
    /// Nothing, for the failure with this code: the call was throttled, or not answered.
    NoAnswer(&'static str),
}

// === impl DryRun ===

impl DryRun {
    /// What this answer says.
    pub(super) fn of(answer: Result<(), KmsFailure>) -> Self {
        match answer {
            Ok(()) => Self::NotKnown,
            Err(failed) if failed.known_code == WOULD_SUCCEED => Self::Usable,
            Err(failed) => match (Cause::of_code(failed.known_code), failed.failure.reason) {
                (Some(cause), _) => Self::Unusable(cause),
                (
                    None,
                    Reason::Throttled
                    | Reason::KmsUnavailable
                    | Reason::KmsUnreachable
                    | Reason::KmsTimeout
                    | Reason::TlsFailed
                    | Reason::CredentialsMissing,
                ) => Self::NoAnswer(failed.known_code),
                (None, _) => Self::Denied(failed.known_code),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::reason::Failure;

    use super::*;
    use crate::kms::error_codes::{Classification, reason_for};

    #[test]
    fn only_three_errors_say_that_a_key_is_unusable() {
        let says = |code| {
            let Classification(_, reason) = reason_for(Some(code), 400);
            let failed = KmsFailure { known_code: code, ..KmsFailure::not_called(Failure::from(reason)) };
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
        for code in ["AccessDeniedException", "InvalidGrantTokenException", "UnrecognizedClientException", "Unknown"] {
            assert_eq!(says(code), DryRun::Denied(code));
        }
        for code in ["ThrottlingException", "KeyUnavailableException", "DependencyTimeoutException"] {
            assert_eq!(says(code), DryRun::NoAnswer(code));
        }
        assert_eq!(DryRun::of(Ok(())), DryRun::NotKnown);
    }
}
