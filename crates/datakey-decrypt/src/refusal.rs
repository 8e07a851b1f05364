//! Why a wrapped data key was neither unwrapped nor rewrapped.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use datakey::text::{on_one_line, printable};
use datakey_aws::{is_unreachable, lacks_credentials, why_unsent};

const CHECK_CREDENTIALS: &str = "check AWS credentials (aws sts get-caller-identity)";

/// The most characters of a message of KMS that are shown.
const LONGEST_MESSAGE: usize = 500;

/// Why a wrapped data key was neither unwrapped nor rewrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of cause.
    pub cause: Cause,
    /// The cause, and what to do, on one line.
    pub why: String,
}

/// What kind of cause: who can remove it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What is wrapped, its KMS key and its encryption context do not belong together.
    Mismatch,
    /// The KMS key is disabled, deleted or about to be deleted, or not for encryption.
    KeyUnusable,
    /// The caller has no credentials, or no permission.
    AccessDenied,
    /// No answer, or one that can be another one later.
    Unavailable,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(cause: Cause, why: &str) -> Self {
        Self { cause, why: why.to_owned() }
    }

    /// Whether it concerns the data key and its KMS key. Otherwise it is not known whether the data key unwraps.
    pub fn is_final(&self) -> bool {
        matches!(self.cause, Cause::Mismatch | Cause::KeyUnusable)
    }

    /// The endpoint is none of AWS KMS.
    pub(crate) fn no_answer_of_kms() -> Self {
        let why = "the answer was none of AWS KMS: check what endpoint is called (AWS_ENDPOINT_URL_KMS)";
        Self::new(Cause::Unavailable, why)
    }

    /// Converts an error code of KMS: some concern the data key and its KMS key, the others concern the caller (AWS KMS API
    /// reference, `Decrypt` and `ReEncrypt`, errors, and "Common errors").
    fn by_code(code: &str, message: &str, permissions: &str) -> Self {
        let why = format!("AWS KMS refuses: {code}{message}");
        let needs = format!("your AWS identity needs {permissions}");
        let (cause, advice) = match code {
            "InvalidCiphertextException" => {
                (Cause::Mismatch, "what is wrapped, its KMS key and its encryption context don't belong together")
            }
            "IncorrectKeyException" => (Cause::Mismatch, "another KMS key wrapped it"),
            // A blob that no KMS key made can have a length that is not valid.
            "ValidationException" => (Cause::Mismatch, "what is wrapped is not an answer of AWS KMS"),
            "DisabledException" => (Cause::KeyUnusable, "enable the KMS key"),
            "KMSInvalidStateException" => (Cause::KeyUnusable, "cancel the deletion of the KMS key, or enable it"),
            "NotFoundException" => (Cause::KeyUnusable, "check the ARN of the KMS key, and whether it was deleted"),
            "InvalidKeyUsageException" => (Cause::KeyUnusable, "the KMS key is not for encryption"),
            "AccessDeniedException" => (Cause::AccessDenied, needs.as_str()),
            "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "NotAuthorized"
            | "OptInRequired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException" => (Cause::AccessDenied, CHECK_CREDENTIALS),
            _ => (Cause::Unavailable, ""),
        };
        Self::new(cause, &if advice.is_empty() { why } else { format!("{why}; {advice}") })
    }

    /// Converts the error of a call that needs these permissions.
    pub(crate) fn of<E>(error: &SdkError<E>, permissions: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                // Each error of KMS has one.
                let Some(code) = service.err().code() else { return Self::no_answer_of_kms() };
                let message = service.err().message();
                let message = message.map(|message| format!(": {}", printable(&on_one_line(message), LONGEST_MESSAGE)));
                Self::by_code(code, &message.unwrap_or_default(), permissions)
            }
            SdkError::TimeoutError(_) => {
                Self::new(Cause::Unavailable, "AWS KMS did not answer in time: check the network")
            }
            // The text of this error can contain a part of the answer, and so of the plaintext.
            SdkError::ResponseError(_) => Self::no_answer_of_kms(),
            other if lacks_credentials(other) => {
                let cause = if is_unreachable(other) { Cause::Unavailable } else { Cause::AccessDenied };
                let why = why_unsent(other);
                Self::new(cause, &format!("AWS credentials could not be obtained: {why}; {CHECK_CREDENTIALS}"))
            }
            other => {
                let why = why_unsent(other);
                Self::new(Cause::Unavailable, &format!("AWS KMS could not be called: {why}; check the network"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_cause() {
        for (code, cause) in [
            ("InvalidCiphertextException", Cause::Mismatch),
            ("IncorrectKeyException", Cause::Mismatch),
            ("ValidationException", Cause::Mismatch),
            ("DisabledException", Cause::KeyUnusable),
            ("NotFoundException", Cause::KeyUnusable),
            ("KMSInvalidStateException", Cause::KeyUnusable),
            ("InvalidKeyUsageException", Cause::KeyUnusable),
            ("AccessDeniedException", Cause::AccessDenied),
            ("ExpiredTokenException", Cause::AccessDenied),
            ("UnrecognizedClientException", Cause::AccessDenied),
            ("KeyUnavailableException", Cause::Unavailable),
            ("DependencyTimeoutException", Cause::Unavailable),
            ("ThrottlingException", Cause::Unavailable),
            ("KMSInternalException", Cause::Unavailable),
            ("", Cause::Unavailable),
        ] {
            let refusal = Refusal::by_code(code, ": as it says", "kms:Decrypt");
            assert_eq!(refusal.cause, cause, "{code}");
            assert!(refusal.why.contains(code) && refusal.why.contains("as it says"), "{}", refusal.why);
            assert!(!refusal.why.contains("; ;") && !refusal.why.contains("; :"), "{}", refusal.why);
            assert_eq!(refusal.is_final(), matches!(cause, Cause::Mismatch | Cause::KeyUnusable), "{code}");
        }
    }
}
