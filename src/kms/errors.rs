//! From an error of the AWS SDK to the failure that the user and the log see.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, generate_data_key_without_plaintext::GenerateDataKeyWithoutPlaintextError},
};

use super::{
    error_codes::{self, Classification},
    tls,
};
use crate::logging::MAX_ERROR_LENGTH;
use datakey::{
    reason::{Failure, Reason},
    text::{error_chain, printable, redact},
};

type CallError = SdkError<GenerateDataKeyWithoutPlaintextError>;

/// Why KMS generated no data key.
#[derive(Clone, Debug)]
pub struct KmsFailure {
    /// What the condition says.
    pub failure: Failure,
    /// The error code of KMS, or one of the operator's own codes: a closed set, because it becomes a metric label.
    pub code: &'static str,
    /// The error message, for the log only: it can name the operator's role and other accounts. Grant tokens are redacted.
    pub message: String,
    /// Request ID of the call, if KMS answered.
    pub request_id: Option<String>,
}

// === impl KmsFailure ===

impl KmsFailure {
    /// The request is invalid, so KMS was not called.
    pub(super) fn not_called(failure: Failure) -> Self {
        let message = failure.to_string();
        Self { failure, code: "NotCalled", message, request_id: None }
    }

    /// KMS answered without an error, but not with a usable data key.
    pub(super) fn unusable_answer(why: String, request_id: Option<String>) -> Self {
        let failure = Failure::new(Reason::KmsAnswerInvalid, why.clone());
        Self { failure, code: "AnswerInvalid", message: why, request_id }
    }

    /// The call failed.
    pub(super) fn from_sdk_error(error: &CallError, grant_tokens: &[String]) -> Self {
        let (code, failure) = match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let Classification(code, reason) = error_codes::reason_for(error.code(), status);
                // Only the code goes into the condition. The error message can repeat the request, and name the operator's
                // role and other accounts. The request ID would change the condition at every retry, and so cost a write.
                (code, Failure::new(reason, code))
            }
            SdkError::TimeoutError(_) => ("Timeout", Reason::KmsTimeout.into()),
            SdkError::ResponseError(_) => ("AnswerInvalid", Reason::KmsAnswerInvalid.into()),
            // Checked before missing credentials: the SDK may fetch credentials over TLS, too.
            _ => tls::problem(error)
                .map_or_else(|| not_sent(error), |problem| ("TlsFailed", Failure::new(Reason::TlsFailed, problem))),
        };
        let message = printable(&redact(&message(error), grant_tokens), MAX_ERROR_LENGTH);
        let request_id = error.request_id().map(str::to_owned);
        Self { failure, code, message, request_id }
    }
}

/// The message of KMS, or else what the SDK says, with its causes. The code is a field of its own.
fn message(error: &CallError) -> String {
    match error {
        SdkError::ServiceError(service) => {
            let status = || format!("no message, HTTP status {}", service.raw().status().as_u16());
            error.message().filter(|message| !message.is_empty()).map_or_else(status, str::to_owned)
        }
        error => error_chain(error),
    }
}

/// The reason for a call that did not reach KMS, other than TLS.
fn not_sent(error: &CallError) -> (&'static str, Failure) {
    let (code, reason) = match error {
        _ if has_source::<CredentialsError>(error) => ("NoCredentials", Reason::CredentialsMissing),
        SdkError::DispatchFailure(_) => ("Unreachable", Reason::KmsUnreachable),
        // Not the configuration: the operator checks it at start.
        _ => ("NotSent", Reason::InternalError),
    };
    (code, reason.into())
}

/// Whether an error of this type is among the causes.
fn has_source<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<E>)
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::{config::http::HttpResponse, error::ErrorMetadata};

    use super::*;

    #[test]
    fn error_before_the_request_is_sent_has_its_reason() {
        let no_credentials = CredentialsError::not_loaded("no profile has the token t0ken");
        for (error, reason, code) in [
            (SdkError::timeout_error("slow"), Reason::KmsTimeout, "Timeout"),
            (SdkError::construction_failure(no_credentials), Reason::CredentialsMissing, "NoCredentials"),
            (SdkError::construction_failure("odd"), Reason::InternalError, "NotSent"),
        ] {
            let failed = KmsFailure::from_sdk_error(&error, &["t0ken".to_owned()]);
            assert_eq!((failed.failure.reason, failed.code), (reason, code));
            assert!(!failed.message.contains("t0ken"), "{}", failed.message);
        }
    }

    #[test]
    fn message_is_from_kms_and_not_from_an_sdk_type() {
        let message = "The ciphertext refers to a key that does not exist. ";
        let answer = |message: &str, status: u16| {
            let metadata = ErrorMetadata::builder().code("NotFoundException").message(message);
            let error = GenerateDataKeyWithoutPlaintextError::generic(metadata.build());
            let response = HttpResponse::new(status.try_into().unwrap(), "".into());
            KmsFailure::from_sdk_error(&SdkError::service_error(error, response), &[])
        };
        let failed = answer(message, 400);
        assert_eq!((failed.code, failed.message.as_str()), ("NotFoundException", message));
        assert_eq!(answer("", 503).message, "no message, HTTP status 503");
        assert_eq!(answer(&message.repeat(100), 400).message.len(), MAX_ERROR_LENGTH);
    }
}
