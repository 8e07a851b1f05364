//! Asks AWS KMS by a dry run whether it would issue a data key or a key pair: `GenerateDataKeyWithoutPlaintext` or
//! `GenerateDataKeyPairWithoutPlaintext` with `DryRun`, under the credentials of the user who runs the program.
//!
//! No value of this crate holds a data key. KMS answers a dry run with an error. Emulators exist that ignore `DryRun` and
//! issue a data key: that answer is dropped, and reported as [`Verdict::Unsupported`].
//!
//! # Example
//!
//! ```no_run
//! use datakey::api::KeyRequest;
//! use datakey_aws::Overrides;
//! use datakey_dry_run::{Verdict, dry_run};
//!
//! # async fn example(request: KeyRequest) -> Result<(), String> {
//! match dry_run("my-program-1.0", &Overrides::default(), &request, &[]).await? {
//!     Verdict::WouldIssue => println!("KMS would issue the data key"),
//!     Verdict::Refused(why) | Verdict::Unknown(why) | Verdict::Unsupported(why) => println!("{why}"),
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{collections::HashMap, error::Error, time::Duration};

use aws_config::Region;
use aws_sdk_kms::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    types::{DataKeyPairSpec as SdkKeyPairSpec, DataKeySpec as SdkKeySpec},
};
use datakey::{
    api::{KeyPairSpec, KeyRequest, KeySpec, Kind, Material},
    arn,
    text::{clause, redact},
};
use datakey_aws::{Aws, NO_REGION, Overrides, User, why_unsent};

/// The longest wait for the answer to the call. It includes retries and the time to get credentials.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What KMS answers to a dry run. Each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// KMS would issue what the request asks for.
    WouldIssue,
    /// KMS would refuse, for this cause.
    Refused(String),
    /// It is not known, for this cause: the call did not reach KMS.
    Unknown(String),
    /// The endpoint does not know dry runs.
    Unsupported(String),
}

/// Asks KMS by a dry run whether it would issue the data key or the key pair of a request. `app` is the name and version of the program in
/// the user agent of the call.
///
/// # Errors
/// Returns a message if a setting of AWS cannot be used, no Region is known, or the request does not name exactly one length or kind
/// of key pair.
pub async fn dry_run(
    app: &'static str,
    overrides: &Overrides,
    request: &KeyRequest,
    grant_tokens: &[String],
) -> Result<Verdict, String> {
    let Some(material) = request.material() else {
        return Err("the request names no length or kind".to_owned());
    };
    let aws = Aws::with_overrides(app, User::Person, overrides).await?;
    let named = arn::resolve_region(&request.key_id, request.region.as_deref(), None);
    let Some(region) = named.map(|region| Region::new(region.to_owned())).or(aws.own_region().await) else {
        return Err(NO_REGION.to_owned());
    };
    let mut config = aws_sdk_kms::config::Builder::from(&aws.load_for_command(None).await)
        .region(region)
        .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build());
    if let Some(url) = &overrides.endpoint_url {
        config = config.endpoint_url(url);
    }
    let call = Call { client: Client::from_conf(config.build()), request, grant_tokens, kind: material.kind().kind() };
    Ok(match material {
        Material::Spec(spec) => call.data_key(Some(spec), None).await,
        Material::Bytes(bytes) => call.data_key(None, Some(bytes)).await,
        Material::Pair(spec) => call.key_pair(spec).await,
    })
}

/// One call.
struct Call<'a> {
    client: Client,
    request: &'a KeyRequest,
    grant_tokens: &'a [String],
    kind: &'static Kind,
}

// === impl Call ===

impl Call<'_> {
    async fn data_key(&self, spec: Option<KeySpec>, bytes: Option<u16>) -> Verdict {
        let spec = spec.map(|spec| match spec {
            KeySpec::Aes256 => SdkKeySpec::Aes256,
            KeySpec::Aes128 => SdkKeySpec::Aes128,
        });
        let call = self.client.generate_data_key_without_plaintext().dry_run(true).set_key_spec(spec);
        let call = call.set_number_of_bytes(bytes.map(Into::into)).key_id(&self.request.key_id);
        let call = call.set_encryption_context(self.context()).set_grant_tokens(self.tokens());
        self.verdict(call.send().await)
    }

    async fn key_pair(&self, spec: KeyPairSpec) -> Verdict {
        let call = self.client.generate_data_key_pair_without_plaintext().dry_run(true);
        let call = call.key_pair_spec(SdkKeyPairSpec::from(spec.as_str())).key_id(&self.request.key_id);
        let call = call.set_encryption_context(self.context()).set_grant_tokens(self.tokens());
        self.verdict(call.send().await)
    }

    fn context(&self) -> Option<HashMap<String, String>> {
        self.request.encryption_context.as_ref().map(|pairs| pairs.clone().into_iter().collect())
    }

    fn tokens(&self) -> Option<Vec<String>> {
        (!self.grant_tokens.is_empty()).then(|| self.grant_tokens.to_vec())
    }

    fn verdict<T, E: ProvideErrorMetadata + Error + 'static>(&self, answer: Result<T, SdkError<E>>) -> Verdict {
        match answer {
            // The answer has what was issued, and is dropped here.
            Ok(_) => Verdict::Unsupported(format!(
                "this endpoint does not support dry runs: it issued a {}, which was dropped; check what endpoint is called \
                 (--endpoint-url, AWS_ENDPOINT_URL_KMS), or leave out --dry-run",
                self.kind.noun
            )),
            Err(error) => verdict(self.kind, &error, self.grant_tokens),
        }
    }
}

/// Converts an error of the AWS SDK. Its message can repeat the request: grant tokens are redacted.
fn verdict<E: ProvideErrorMetadata + Error + 'static>(
    kind: &Kind,
    error: &SdkError<E>,
    grant_tokens: &[String],
) -> Verdict {
    match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an error without a code");
            let message = service.err().message().map(|message| redact(message, grant_tokens));
            of_code(kind, code, message.as_deref())
        }
        SdkError::TimeoutError(_) => Verdict::Unknown("AWS KMS did not answer in time: check the network".to_owned()),
        SdkError::ResponseError(_) => Verdict::Unknown(
            "the answer was none of AWS KMS: check what endpoint is called (--endpoint-url, AWS_ENDPOINT_URL_KMS)"
                .to_owned(),
        ),
        // The call was not sent; the usual cause is that no credentials were found.
        other => Verdict::Unknown(format!(
            "AWS KMS could not be called: {}; check AWS credentials (aws sts get-caller-identity) and network",
            redact(&why_unsent(other), grant_tokens)
        )),
    }
}

/// Converts an error code of KMS (AWS KMS API reference, `GenerateDataKeyWithoutPlaintext` and
/// `GenerateDataKeyPairWithoutPlaintext`, errors).
fn of_code(kind: &Kind, code: &str, message: Option<&str>) -> Verdict {
    if code == "DryRunOperationException" {
        return Verdict::WouldIssue;
    }
    let message = message.map(|message| format!(": {}", clause(message))).unwrap_or_default();
    let why = format!("AWS KMS refuses: {code}{message}");
    match code {
        "AccessDeniedException" => Verdict::Refused(format!(
            "{why}; your AWS identity needs kms:{} on the key with this encryption context",
            kind.operation
        )),
        "NotFoundException" => {
            Verdict::Refused(format!("{why}; correct --key-id or --region, or create the key or alias there"))
        }
        "DisabledException" => Verdict::Refused(format!("{why}; enable the KMS key")),
        "InvalidKeyUsageException" => Verdict::Refused(format!("{why}; name a symmetric encryption key")),
        // Key pairs cannot be issued under a KMS key of a custom key store.
        "UnsupportedOperationException" => {
            Verdict::Refused(format!("{why}; name a KMS key that is in no custom key store"))
        }
        "InvalidGrantTokenException" => Verdict::Refused(format!("{why}; correct --grant-tokens")),
        "KMSInvalidStateException" | "ValidationException" => Verdict::Refused(why),
        _ => Verdict::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::{
        config::http::HttpResponse, error::ErrorMetadata,
        operation::generate_data_key_without_plaintext::GenerateDataKeyWithoutPlaintextError,
    };
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _};

    use super::*;

    #[test]
    fn dry_run_exception_is_the_success() {
        assert_eq!(
            of_code(DataKey::KIND, "DryRunOperationException", Some("would have succeeded")),
            Verdict::WouldIssue
        );
    }

    #[test]
    fn refusals_of_the_request_say_what_to_do() {
        for (code, advice) in [
            ("AccessDeniedException", "kms:GenerateDataKeyWithoutPlaintext"),
            ("NotFoundException", "--key-id"),
            ("DisabledException", "enable the KMS key"),
            ("KMSInvalidStateException", "KMSInvalidStateException: words"),
        ] {
            let verdict = of_code(DataKey::KIND, code, Some("words"));
            assert!(matches!(&verdict, Verdict::Refused(why) if why.contains(advice)), "{verdict:?}");
        }
    }

    #[test]
    fn refusal_of_a_key_pair_names_its_action() {
        let verdict = of_code(DataKeyPair::KIND, "AccessDeniedException", None);
        assert!(matches!(&verdict, Verdict::Refused(why) if why.contains("kms:GenerateDataKeyPairWithoutPlaintext ")));
        let verdict = of_code(DataKeyPair::KIND, "UnsupportedOperationException", None);
        assert!(matches!(&verdict, Verdict::Refused(why) if why.contains("custom key store")), "{verdict:?}");
    }

    #[test]
    fn grant_tokens_are_not_in_a_message() {
        let metadata = ErrorMetadata::builder().code("ValidationException").message("1 of [t0ken] is wrong").build();
        let response = HttpResponse::new(400_u16.try_into().unwrap(), "".into());
        let error = SdkError::service_error(GenerateDataKeyWithoutPlaintextError::generic(metadata), response);
        let Verdict::Refused(why) = verdict(DataKey::KIND, &error, &["t0ken".to_owned()]) else { panic!("refused") };
        assert!(why.contains("[[redacted]] is wrong"), "{why}");
    }

    #[test]
    fn other_errors_leave_the_result_unknown() {
        for code in
            ["ThrottlingException", "ExpiredTokenException", "KMSInternalException", "DependencyTimeoutException"]
        {
            let verdict = of_code(DataKey::KIND, code, Some("words\u{1b}[2J"));
            assert!(matches!(&verdict, Verdict::Unknown(why) if why.contains(r"words\u{1b}[2J")), "{verdict:?}");
        }
    }
}
