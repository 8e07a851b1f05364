//! From an error code of KMS to the reason that the user sees. Pure.
//!
//! The code decides, and not the HTTP status: KMS answers with other statuses than its API model states.
//! The SDK's own decision whether to retry depends on the status, and is not used here.

use datakey::reason::Reason;

/// The error codes of `GenerateDataKeyWithoutPlaintext`, the common error codes of AWS services (AWS KMS API reference, "Errors"
/// and "Common Errors"), and error codes of KMS emulators, each with its reason.
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
    ("InvalidParameterValue", Reason::RequestInvalid),
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
    ("PackedPolicyTooLarge", Reason::RequestInvalid),
    ("RegionDisabledException", Reason::RequestInvalid),
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

/// An error code, and the reason for the user. The code is `Unknown` if it is not in the table, because it becomes a metric
/// label: the labels must be a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification(pub &'static str, pub Reason);

/// The reason for an error code. The HTTP status decides only if the code is unknown or missing.
pub fn reason_for(code: Option<&str>, http_status: u16) -> Classification {
    let known = code.and_then(|code| CODES.iter().find(|(known, _)| *known == code));
    match known {
        Some(&(code, reason)) => Classification(code, reason),
        None if http_status == 429 => Classification("Unknown", Reason::Throttled),
        None if http_status >= 500 => Classification("Unknown", Reason::KmsUnavailable),
        None => Classification("Unknown", Reason::KmsError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_documented_error_code_has_its_reason() {
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
            assert_eq!(reason_for(Some(code), 400), Classification(code, reason));
        }
    }

    #[test]
    fn error_code_has_priority_over_the_http_status() {
        for status in [400, 403, 404, 409, 500, 503] {
            assert_eq!(reason_for(Some("KMSInternalException"), status).1, Reason::KmsUnavailable);
            assert_eq!(reason_for(Some("DisabledException"), status).1, Reason::KeyDisabled);
        }
    }

    #[test]
    fn http_status_decides_for_an_unknown_code() {
        assert_eq!(reason_for(Some("Zorp"), 503), Classification("Unknown", Reason::KmsUnavailable));
        assert_eq!(reason_for(None, 429).1, Reason::Throttled);
        assert_eq!(reason_for(Some("Zorp"), 400), Classification("Unknown", Reason::KmsError));
    }

    #[test]
    fn each_error_code_is_in_the_table_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
