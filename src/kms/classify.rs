//! From an error code of KMS to the reason that the user sees. Pure.
//!
//! By code, never by HTTP status alone: the status on the wire differs from the one that the model states, and the
//! SDK's own retry verdict rests on it.

use crate::status::Reason;

/// Codes that KMS documents for `GenerateDataKeyWithoutPlaintext`, the common errors of AWS services, and those seen
/// from its emulators, each with its reason (AWS KMS API reference, "Errors" and "Common Errors").
const CODES: &[(&str, Reason)] = &[
    ("AccessDenied", Reason::AccessDenied),
    ("AccessDeniedException", Reason::AccessDenied),
    ("DependencyTimeoutException", Reason::KmsUnavailable),
    ("DisabledException", Reason::KeyDisabled),
    ("DryRunOperationException", Reason::KmsAnswerInvalid),
    ("ExpiredToken", Reason::CredentialsRejected),
    ("ExpiredTokenException", Reason::CredentialsRejected),
    ("IncompleteSignature", Reason::CredentialsRejected),
    ("InternalFailure", Reason::KmsUnavailable),
    ("InvalidArnException", Reason::RequestInvalid),
    ("InvalidClientTokenId", Reason::CredentialsRejected),
    ("InvalidGrantTokenException", Reason::GrantTokenInvalid),
    ("InvalidKeyUsageException", Reason::KeyUsageInvalid),
    ("InvalidSignatureException", Reason::CredentialsRejected),
    ("KMSInternalException", Reason::KmsUnavailable),
    ("KMSInvalidStateException", Reason::KeyStateInvalid),
    ("KeyUnavailableException", Reason::KmsUnavailable),
    ("LimitExceededException", Reason::Throttled),
    ("MalformedHttpRequestException", Reason::RequestInvalid),
    ("MissingAuthenticationToken", Reason::CredentialsRejected),
    ("MissingAuthenticationTokenException", Reason::CredentialsRejected),
    ("NotAuthorized", Reason::AccessDenied),
    ("NotFoundException", Reason::KeyNotFound),
    ("OptInRequired", Reason::AccessDenied),
    ("RequestAbortedException", Reason::KmsUnavailable),
    ("RequestEntityTooLargeException", Reason::RequestInvalid),
    ("RequestExpired", Reason::CredentialsRejected),
    ("RequestLimitExceeded", Reason::Throttled),
    ("RequestTimeoutException", Reason::KmsTimeout),
    ("ServiceUnavailable", Reason::KmsUnavailable),
    ("ServiceUnavailableException", Reason::KmsUnavailable),
    ("SerializationException", Reason::RequestInvalid),
    ("SignatureDoesNotMatch", Reason::CredentialsRejected),
    ("Throttling", Reason::Throttled),
    ("ThrottlingException", Reason::Throttled),
    ("TooManyRequestsException", Reason::Throttled),
    ("UnknownOperationException", Reason::KmsAnswerInvalid),
    ("UnrecognizedClientException", Reason::CredentialsRejected),
    ("UnsupportedOperationException", Reason::KeyUsageInvalid),
    ("ValidationError", Reason::RequestInvalid),
    ("ValidationException", Reason::RequestInvalid),
];

/// An error answer of KMS: the code, as a metric may carry it, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The code if it is a known one, else `Unknown`: a closed set.
    pub code: &'static str,
    /// What the user is told.
    pub reason: Reason,
}

/// Classifies an error answer by its code; one without a known code by whose fault its HTTP status says it is.
pub fn by_code(code: Option<&str>, http_status: u16) -> Classified {
    let known = code.and_then(|code| CODES.iter().find(|(known, _)| *known == code));
    match known {
        Some(&(code, reason)) => Classified { code, reason },
        None if http_status == 429 => Classified { code: "Unknown", reason: Reason::Throttled },
        None if http_status >= 500 => Classified { code: "Unknown", reason: Reason::KmsUnavailable },
        None => Classified { code: "Unknown", reason: Reason::KmsError },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_error_of_the_operation_has_a_reason_of_its_kind() {
        for (code, reason) in [
            ("NotFoundException", Reason::KeyNotFound),
            ("DisabledException", Reason::KeyDisabled),
            ("KeyUnavailableException", Reason::KmsUnavailable),
            ("DependencyTimeoutException", Reason::KmsUnavailable),
            ("KMSInternalException", Reason::KmsUnavailable),
            ("InvalidKeyUsageException", Reason::KeyUsageInvalid),
            ("InvalidGrantTokenException", Reason::GrantTokenInvalid),
            ("KMSInvalidStateException", Reason::KeyStateInvalid),
            ("DryRunOperationException", Reason::KmsAnswerInvalid),
            ("ThrottlingException", Reason::Throttled),
            ("AccessDeniedException", Reason::AccessDenied),
            ("ValidationException", Reason::RequestInvalid),
            ("ExpiredTokenException", Reason::CredentialsRejected),
            ("UnrecognizedClientException", Reason::CredentialsRejected),
        ] {
            assert_eq!(by_code(Some(code), 400), Classified { code, reason });
        }
    }

    #[test]
    fn the_code_decides_not_the_http_status() {
        for status in [400, 403, 404, 409, 500, 503] {
            assert_eq!(by_code(Some("KMSInternalException"), status).reason, Reason::KmsUnavailable);
            assert_eq!(by_code(Some("DisabledException"), status).reason, Reason::KeyDisabled);
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_whose_fault_it_is_and_never_becomes_a_label() {
        assert_eq!(by_code(Some("Zorp"), 503), Classified { code: "Unknown", reason: Reason::KmsUnavailable });
        assert_eq!(by_code(None, 429).reason, Reason::Throttled);
        assert_eq!(by_code(Some("Zorp"), 400), Classified { code: "Unknown", reason: Reason::KmsError });
    }

    #[test]
    fn codes_stand_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
