//! From an error of the AWS SDK to the failure that the user and the log see.

use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::{
    error::{ErrorMetadata, ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use super::{
    error_codes::{self, Classification},
    tls,
};
use crate::logging::MAX_ERROR_LENGTH;
use datakey::{
    arn::KmsArn,
    reason::{Failure, Reason},
    text::{error_chain, printable, redact},
};

/// An error of either operation: code and message are all that the operator uses of an error that KMS answers.
pub(super) type CallError = SdkError<ErrorMetadata>;

/// Why KMS generated no data key or key pair.
#[derive(Clone, Debug)]
pub struct KmsFailure {
    /// What the condition says.
    pub failure: Box<Failure>,
    /// The error code of KMS, or one of the operator's own codes.
    pub code: Box<str>,
    /// The same from a closed set, because it becomes a metric label: `Unknown` for a code that AWS documents nowhere.
    pub known_code: &'static str,
    /// The error message, for the log only: it can name the operator's role and other accounts. Grant tokens are redacted.
    pub message: Box<str>,
    /// Request ID of the call, if KMS answered.
    pub request_id: Option<String>,
}

/// What was called: the facts that a user compares with the spec.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The KMS key, as in the spec.
    pub key_id: &'a str,
    /// The Region.
    pub region: &'a str,
    /// Who calls.
    pub by: CalledBy<'a>,
}

/// Who calls KMS.
#[derive(Clone, Copy, Debug)]
pub enum CalledBy<'a> {
    /// The operator, of this account if that is known.
    Operator(Option<&'a str>),
    /// The role of a class. Its account is for the platform team.
    Role,
}

/// The longest error code that is shown, in characters.
const MAX_CODE: usize = 64;

// === impl Called ===

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_id, region, by } = *self;
        let named = KmsArn::parse(key_id).map(|arn| arn.account);
        write!(f, "{key_id} in Region {region} and ")?;
        match (named, by) {
            (Some(account), _) | (None, CalledBy::Operator(Some(account))) => write!(f, "account {account}"),
            (None, CalledBy::Operator(None)) => f.write_str("the operator's account"),
            (None, CalledBy::Role) => f.write_str("the account of the role of the class"),
        }
    }
}

// === impl KmsFailure ===

impl KmsFailure {
    /// The request is invalid, so KMS was not called.
    pub(super) fn not_called(failure: Failure) -> Self {
        let message = failure.detail.clone().unwrap_or_default().into();
        Self { failure: failure.into(), code: "NotCalled".into(), known_code: "NotCalled", message, request_id: None }
    }

    /// Whether AWS rejected the credentials of the operator itself, and not only what it asked for with them.
    pub(super) fn concerns_own_credentials(&self) -> bool {
        let Classification(_, reason) = error_codes::reason_for(Some(self.known_code), 0);
        reason == Reason::CredentialsRejected || self.failure.reason == Reason::CredentialsMissing
    }

    /// KMS answered without an error, but not with a usable data key.
    pub(super) fn unusable_answer(why: String, request_id: Option<String>) -> Self {
        let failure = Failure::new(Reason::KmsAnswerInvalid, why.clone());
        Self {
            failure: failure.into(),
            code: "AnswerInvalid".into(),
            known_code: "AnswerInvalid",
            message: why.into(),
            request_id,
        }
    }

    /// The call failed.
    pub(super) fn from_sdk_error(error: &CallError, call: Called<'_>, grant_tokens: &[String]) -> Self {
        let in_the_region = |reason| Failure::new(reason, format!("Region {}", call.region));
        let mut shown = None;
        let (known_code, failure) = match error {
            SdkError::ServiceError(service) => {
                let (Classification(known_code, reason), code) =
                    classify(error, service.raw().status().as_u16(), grant_tokens);
                // Only the code goes into the condition. The error message can repeat the request, and name the operator's
                // role and other accounts. The request ID would change the condition at every retry, and so cost a write.
                let failure = Failure::new(reason, format!("{call} ({code})"));
                let failure = match (reason, call.by) {
                    (Reason::AccessDenied, CalledBy::Role) => {
                        failure.with_what("the AWS role of the class may not use the KMS key")
                    }
                    (Reason::CredentialsRejected, CalledBy::Role) => {
                        failure.with_what("AWS refused the session of the role of the class").with_advice(
                            "The operator opens another one. If that does not help, check the clock of its node",
                        )
                    }
                    // An ARN names the Region and the account already.
                    (Reason::KeyNotFound, _) if KmsArn::parse(call.key_id).is_some() => {
                        failure.with_advice("Correct the ARN in spec.keyId, or create the key or alias there")
                    }
                    _ => failure,
                };
                shown = Some(code);
                (known_code, failure)
            }
            SdkError::TimeoutError(_) => ("Timeout", in_the_region(Reason::KmsTimeout)),
            SdkError::ResponseError(_) => ("AnswerInvalid", Reason::KmsAnswerInvalid.into()),
            // Checked before missing credentials: the SDK may fetch credentials over TLS, too.
            _ => match (tls::problem(error), not_sent(error)) {
                (Some(problem), _) => ("TlsFailed", Failure::new(Reason::TlsFailed, problem)),
                (None, (code, Reason::KmsUnreachable)) => (code, in_the_region(Reason::KmsUnreachable)),
                (None, (code, reason)) => (code, reason.into()),
            },
        };
        let message = printable(&redact(&message(error), grant_tokens), MAX_ERROR_LENGTH).into();
        let request_id = error.request_id().map(str::to_owned);
        let code = shown.unwrap_or_else(|| known_code.to_owned()).into();
        Self { failure: failure.into(), code, known_code, message, request_id }
    }
}

/// The reason for an error that AWS answers, and the code as the user sees it. `secrets` are not shown.
pub(super) fn classify(error: &CallError, http_status: u16, secrets: &[String]) -> (Classification, String) {
    let code = error
        .code()
        .filter(|code| !code.is_empty())
        .map_or_else(|| format!("HTTP status {http_status}"), |code| printable(&redact(code, secrets), MAX_CODE));
    (error_codes::reason_for(error.code(), http_status), code)
}

/// The message of KMS, or else what the SDK says, with its causes. The code is a field of its own.
pub(super) fn message(error: &CallError) -> String {
    match error {
        SdkError::ServiceError(service) => {
            let status = || format!("no message, HTTP status {}", service.raw().status().as_u16());
            error.message().filter(|message| !message.is_empty()).map_or_else(status, str::to_owned)
        }
        error => error_chain(error),
    }
}

/// The reason for a call that did not reach KMS, other than TLS.
pub(super) fn not_sent(error: &CallError) -> (&'static str, Reason) {
    match error {
        _ if has_source::<CredentialsError>(error) => ("NoCredentials", Reason::CredentialsMissing),
        SdkError::DispatchFailure(_) => ("Unreachable", Reason::KmsUnreachable),
        // Not the configuration: the operator checks it at start.
        _ => ("NotSent", Reason::InternalError),
    }
}

/// Whether an error of this type is among the causes.
fn has_source<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<E>)
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::config::http::HttpResponse;

    use super::*;

    const CALL: Called<'static> = Called { key_id: "alias/orders", region: "eu-west-1", by: CalledBy::Operator(None) };

    /// The failure for an error answer of KMS.
    fn failed(call: Called<'_>, code: Option<&str>, message: &str, status: u16) -> KmsFailure {
        let mut metadata = ErrorMetadata::builder().message(message);
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        KmsFailure::from_sdk_error(&SdkError::service_error(metadata.build(), response), call, &["t0ken".to_owned()])
    }

    #[test]
    fn condition_names_key_region_account_and_code() {
        let arn = "arn:aws:kms:us-east-1:444455556666:alias/orders";
        for (key_id, own_account, facts) in [
            ("alias/orders", None, "alias/orders in Region eu-west-1 and the operator's account"),
            ("alias/orders", Some("111122223333"), "alias/orders in Region eu-west-1 and account 111122223333"),
            (arn, Some("111122223333"), &format!("{arn} in Region eu-west-1 and account 444455556666")),
        ] {
            let failed = failed(
                Called { key_id, by: CalledBy::Operator(own_account), ..CALL },
                Some("NotFoundException"),
                "no",
                400,
            );
            assert_eq!(failed.failure.detail.as_deref().unwrap(), format!("{facts} (NotFoundException)"));
        }
    }

    #[test]
    fn failure_of_a_role_does_not_blame_the_operator() {
        for (code, what) in [
            (
                "AccessDeniedException",
                "The AWS role of the class may not use the KMS key: alias/orders in Region eu-west-1",
            ),
            ("ExpiredTokenException", "AWS refused the session of the role of the class: alias/orders"),
        ] {
            let failed = failed(Called { by: CalledBy::Role, ..CALL }, Some(code), "no", 400);
            let message = failed.failure.message(<datakey::api::DataKey as datakey::api::KeyKind>::KIND);
            assert!(message.starts_with(what) && message.contains("the account of the role of the class"), "{message}");
            assert!(!message.contains("operator's account"), "{message}");
        }
    }

    #[test]
    fn advice_for_a_missing_key_fits_the_form_of_its_id() {
        for (key_id, advice) in [
            ("alias/orders", None),
            ("arn:aws:kms:us-east-1:444455556666:alias/orders", Some("Correct the ARN in spec.keyId, or create")),
        ] {
            let failed = failed(Called { key_id, ..CALL }, Some("NotFoundException"), "no", 400);
            let found = failed.failure.advice.as_deref();
            assert_eq!(found.is_some(), advice.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().starts_with(advice.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn undocumented_code_is_shown_but_is_no_metric_label() {
        for (code, shown) in [
            (Some("ZorpException"), "ZorpException".to_owned()),
            (Some("a\u{1b}[2Jt0ken"), r"a\u{1b}[2J[redacted]".to_owned()),
            (Some(&*"x".repeat(100)), "x".repeat(64)),
            (None, "HTTP status 418".to_owned()),
        ] {
            let failed = failed(CALL, code, "no", 418);
            assert_eq!((failed.known_code, &*failed.code), ("Unknown", &*shown));
            assert!(failed.failure.detail.as_deref().unwrap().ends_with(&format!("({shown})")));
        }
    }

    #[test]
    fn error_before_the_request_is_sent_has_its_reason() {
        let no_credentials = CredentialsError::not_loaded("no profile has the token t0ken");
        for (error, reason, code) in [
            (SdkError::timeout_error("slow"), Reason::KmsTimeout, "Timeout"),
            (SdkError::construction_failure(no_credentials), Reason::CredentialsMissing, "NoCredentials"),
            (SdkError::construction_failure("odd"), Reason::InternalError, "NotSent"),
        ] {
            let failed = KmsFailure::from_sdk_error(&error, CALL, &["t0ken".to_owned()]);
            assert_eq!((failed.failure.reason, failed.known_code, &*failed.code), (reason, code, code));
            assert!(!failed.message.contains("t0ken"), "{}", failed.message);
        }
    }

    #[test]
    fn message_is_from_kms_and_not_from_an_sdk_type() {
        let message = "The ciphertext refers to a key that does not exist. ";
        let answer = |message: &str, status: u16| failed(CALL, Some("NotFoundException"), message, status);
        let failed = answer(message, 400);
        assert_eq!((failed.known_code, &*failed.message), ("NotFoundException", message));
        assert_eq!(&*answer("", 503).message, "no message, HTTP status 503");
        assert_eq!(answer(&message.repeat(100), 400).message.len(), MAX_ERROR_LENGTH);
    }
}
