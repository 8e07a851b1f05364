//! The call of AWS STS that opens a session (AWS STS API reference, `AssumeRole`).

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sdk_sts::{error::SdkError, operation::RequestId as _, types::Tag};
use datakey::{
    class::Role,
    reason::{Failure, Reason},
    secret::sha256,
    text::{printable, redact},
};
use tokio::time::{Duration, Instant};

use super::{Opened, SESSION_LENGTH};
use crate::{
    kms::{
        clients::StsClient,
        error_codes::Classification,
        errors::{CallError, KmsFailure, classify, message, not_sent},
        sdk_request::without_type,
        tls,
    },
    logging::MAX_ERROR_LENGTH,
};

/// The longest name of a session, in characters.
const MAX_SESSION_NAME: usize = 64;

/// Asks STS for a session.
///
/// # Errors
/// Why there is none. The failure names neither the role nor the external ID, which the user of the object must not learn. If STS did
/// not answer, it names no class either, because then it counts for all.
pub async fn assume(sts: &StsClient, role: &Role) -> Result<Opened, KmsFailure> {
    let tags = role.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let tags: Vec<_> = tags.collect::<Result<_, _>>().map_err(|_| unusable(role, "a tag without a value"))?;
    let call = sts
        .client
        .assume_role()
        .role_arn(&role.arn)
        .role_session_name(session_name(&role.namespace))
        .duration_seconds(i32::try_from(SESSION_LENGTH.as_secs()).unwrap_or(i32::MAX))
        .set_external_id(role.external_id.clone())
        .set_tags((!tags.is_empty()).then_some(tags));
    let answer = call.send().await.map_err(without_type).map_err(|error| failure(&error, role, &sts.region))?;
    let Some(given) = answer.credentials else { return Err(unusable(role, "no credentials")) };
    let now = SystemTime::now();
    let Ok(ends) = SystemTime::try_from(given.expiration) else {
        return Err(unusable(role, "no time of expiration"));
    };
    let credentials = Credentials::new(
        given.access_key_id,
        given.secret_access_key,
        Some(given.session_token),
        Some(ends),
        "the role of a class",
    );
    // The AWS SDK panics over what no HTTP header can hold.
    if let Some(part) = datakey_aws::unusable_part(&credentials) {
        return Err(unusable(role, &format!("blanks or characters outside ASCII in the {part}")));
    }
    Ok(Opened::new(credentials, ends.duration_since(now).unwrap_or(Duration::ZERO), Instant::now()))
}

/// The name of the session, as CloudTrail shows it. A long name of a namespace is cut, and its digest added.
fn session_name(namespace: &str) -> String {
    let name = format!("datakey-{namespace}");
    if name.len() <= MAX_SESSION_NAME {
        return name;
    }
    let digest = sha256(namespace.as_bytes());
    let kept: String = name.chars().take(MAX_SESSION_NAME - 9).collect();
    format!("{kept}-{}", digest.chars().take(8).collect::<String>())
}

fn unusable(role: &Role, what: &str) -> KmsFailure {
    let failure =
        Failure::new(Reason::KmsAnswerInvalid, of_class(role)).with_what("the answer of AWS STS is not usable");
    let failure = failure.with_advice("Check what endpoint the operator calls (AWS_ENDPOINT_URL_STS)");
    let code = "AnswerInvalid";
    KmsFailure { failure: failure.into(), code: code.into(), known_code: code, message: what.into(), request_id: None }
}

fn of_class(role: &Role) -> String {
    format!("the role of class {}", printable(&role.class.name, MAX_SESSION_NAME))
}

fn failure(error: &CallError, role: &Role, region: &str) -> KmsFailure {
    // A message about the form of a request repeats its values.
    let secrets: Vec<_> = role.external_id.clone().into_iter().collect();
    let there = format!("Region {region}");
    let in_the_region = format!("{there}, {}", of_class(role));
    let again = "Nothing to do: the operator tries again";
    let mut shown = None;
    let (known_code, failure) = match error {
        SdkError::ServiceError(service) => {
            let (Classification(known_code, reason), code) = classify(error, service.raw().status().as_u16(), &secrets);
            let failure = match reason {
                Reason::Throttled => Failure::new(reason, in_the_region)
                    .with_what("the request quota of AWS STS for the operator's account is used up")
                    .with_advice(again),
                Reason::KmsUnavailable | Reason::KmsTimeout => Failure::new(reason, format!("{in_the_region} ({code})"))
                    .with_what("AWS STS failed for the moment")
                    .with_advice(again),
                // These concern the credentials with which the operator calls STS.
                Reason::CredentialsRejected => Failure::new(reason, format!("AWS STS in {there} ({code})")),
                _ => Failure::new(Reason::CredentialsRejected, format!("{} ({code})", of_class(role)))
                    .with_what("AWS STS did not let the operator assume a role")
                    .with_advice(
                        "Ask the platform team: the log of the operator names the role, and so does the condition RoleAssumed of \
                         the DataKeyClass",
                    ),
            };
            shown = Some(code);
            (known_code, failure)
        }
        SdkError::TimeoutError(_) => (
            "Timeout",
            Failure::new(Reason::KmsTimeout, there).with_what("AWS STS did not answer in time"),
        ),
        SdkError::ResponseError(_) => return unusable(role, &message(error)),
        _ => match (tls::problem(error), not_sent(error)) {
            (Some(problem), _) => ("TlsFailed", Failure::new(Reason::TlsFailed, problem)),
            (None, (code, Reason::KmsUnreachable)) => (
                code,
                Failure::new(Reason::KmsUnreachable, there).with_what("no connection to AWS STS").with_advice(
                    "Check DNS, network policy, proxy and STS endpoint of the operator; its log has the error. It tries again",
                ),
            ),
            (None, (code, reason)) => (code, reason.into()),
        },
    };
    KmsFailure {
        failure: failure.into(),
        code: shown.unwrap_or_else(|| known_code.to_owned()).into(),
        known_code,
        message: printable(&redact(&message(error), &secrets), MAX_ERROR_LENGTH).into(),
        request_id: error.request_id().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::config::http::HttpResponse;
    use aws_sdk_sts::error::ErrorMetadata;
    use datakey::api::{ClassRef, DataKey, KeyKind as _, Rest};

    use super::*;

    const ROLE: &str = "arn:aws:iam::444455556666:role/team-shop";

    fn role() -> Role {
        Role {
            arn: ROLE.to_owned(),
            external_id: Some("ext-1".to_owned()),
            tags: [("datakey-namespace".to_owned(), "shop".to_owned())].into(),
            namespace: "shop".to_owned(),
            class: ClassRef { name: "team".to_owned(), uid: "u".to_owned(), generation: 1, rest: Rest::new() },
        }
    }

    fn refused(code: Option<&str>, message: &str, status: u16) -> KmsFailure {
        let mut metadata = ErrorMetadata::builder().message(message);
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        failure(&SdkError::service_error(metadata.build(), response), &role(), "eu-west-1")
    }

    #[test]
    fn each_code_of_sts_has_its_reason() {
        for (code, status, reason, is_own, words) in [
            (Some("AccessDenied"), 403, Reason::CredentialsRejected, false, "did not let the operator assume a role"),
            (Some("ValidationError"), 400, Reason::CredentialsRejected, false, "(ValidationError)"),
            (Some("PackedPolicyTooLarge"), 400, Reason::CredentialsRejected, false, "(PackedPolicyTooLarge)"),
            (Some("RegionDisabledException"), 403, Reason::CredentialsRejected, false, "(RegionDisabledException)"),
            (
                Some("ExpiredTokenException"),
                400,
                Reason::CredentialsRejected,
                true,
                "the operator's credentials as unknown",
            ),
            (Some("InvalidClientTokenId"), 403, Reason::CredentialsRejected, true, "(InvalidClientTokenId)"),
            (Some("Throttling"), 400, Reason::Throttled, false, "request quota of AWS STS"),
            (Some("ServiceUnavailable"), 503, Reason::KmsUnavailable, false, "AWS STS failed for the moment"),
            (None, 500, Reason::KmsUnavailable, false, "(HTTP status 500)"),
            (None, 418, Reason::CredentialsRejected, false, "(HTTP status 418)"),
        ] {
            let failed = refused(code, "no", status);
            let message = failed.failure.message(DataKey::KIND);
            assert_eq!((failed.failure.reason, failed.concerns_own_credentials()), (reason, is_own), "{code:?}");
            assert!(message.to_lowercase().contains(&words.to_lowercase()), "{message}");
            assert!(message.contains("the role of class team") != is_own && !message.contains("AWS KMS"), "{message}");
        }
    }

    #[test]
    fn user_of_the_object_reads_neither_role_nor_external_id() {
        let said = format!("User: arn:aws:sts::1:assumed-role/o is not authorized on resource: {ROLE} with ext-1");
        let failed = refused(Some("AccessDenied"), &said, 403);
        let message = failed.failure.message(DataKey::KIND);
        assert!(!message.contains("444455556666") && !message.contains("team-shop"), "{message}");
        assert!(failed.message.contains(ROLE) && !failed.message.contains("ext-1"), "{}", failed.message);
    }

    #[test]
    fn error_before_the_answer_names_sts() {
        for (error, reason, words) in [
            (SdkError::timeout_error("slow"), Reason::KmsTimeout, "AWS STS did not answer in time"),
            (
                SdkError::construction_failure(aws_credential_types::provider::error::CredentialsError::not_loaded(
                    "none",
                )),
                Reason::CredentialsMissing,
                "The operator has no AWS credentials",
            ),
        ] {
            let failed = failure(&error, &role(), "eu-west-1");
            let message = failed.failure.message(DataKey::KIND);
            assert_eq!(failed.failure.reason, reason);
            assert!(message.starts_with(words), "{message}");
        }
    }

    #[test]
    fn name_of_the_session_has_the_namespace_and_fits() {
        assert_eq!(session_name("shop"), "datakey-shop");
        let long = "n".repeat(63);
        let name = session_name(&long);
        assert_eq!(name.len(), MAX_SESSION_NAME);
        assert!(name.starts_with("datakey-nnn"));
        assert_ne!(name, session_name(&format!("{}m", &long[1..])));
    }
}
