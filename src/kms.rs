//! AWS KMS: the one call that this operator makes, `GenerateDataKeyWithoutPlaintext`, each with a [permit](queue::Permit).
//!
//! Every call answers with a new data key and KMS keeps none of them, so a call is harmless in itself; what is kept is
//! decided by [`crate::reconcile`].

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::{
        RequestId,
        generate_data_key_without_plaintext::{
            GenerateDataKeyWithoutPlaintextError, GenerateDataKeyWithoutPlaintextOutput,
        },
    },
    types::DataKeySpec,
};
use datakey_aws::Aws;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::{
    api::{KeyRequest, KeySpec, MAX_BLOB},
    arn,
    metrics::{Metrics, OTHER_REGION},
    status::{Failure, Reason},
    text::redact,
};

use queue::{KmsQueue, Permit};
use regions::{Held, IDLE, Regions};
use shares::Shares;

mod classify;
pub mod queue;
pub mod regions;
pub mod shares;
mod tls;

/// The SDK's own default, said here because every other time limit is ours.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Limits of the calls to KMS.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls a second in each Region, at most.
    pub rate: NonZeroU32,
    /// Longest wait for the answer to one call, credentials included.
    pub timeout: Duration,
}

/// A client for every Region that is called.
pub struct Kms {
    /// Where the configuration comes from, and with it other credentials.
    aws: Option<Aws>,
    own_region: Option<String>,
    limits: Limits,
    metrics: Arc<Metrics>,
    regions: Regions,
    clients: Mutex<Clients>,
    /// The queue for permits to call KMS.
    pub queue: KmsQueue,
}

/// The clients of all Regions, with the same credentials.
struct Clients {
    config: SdkConfig,
    /// How often the credentials were read again.
    generation: u64,
    held: Held<Client>,
}

/// A usable answer of KMS.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The wrapped data key, 1 to [`MAX_BLOB`] bytes.
    pub ciphertext_blob: Vec<u8>,
    /// ARN of the KMS key that wrapped it.
    pub key_arn: String,
    /// ID of the key material, where KMS told it.
    pub key_material_id: Option<String>,
    /// Request ID of the call.
    pub request_id: Option<String>,
}

type CallError = SdkError<GenerateDataKeyWithoutPlaintextError>;

/// Why no data key was issued.
#[derive(Clone, Debug)]
pub struct NotIssued {
    /// What the user is told.
    pub failure: Failure,
    /// The code of KMS, or what else happened, of a closed set.
    pub code: &'static str,
    /// The words of KMS, for the operator's log: they can name the operator's role and other accounts. Grant tokens
    /// are taken out.
    pub words: String,
    /// Request ID of the call, if KMS was reached.
    pub request_id: Option<String>,
}

// === impl Kms ===

impl Kms {
    /// Loads the AWS configuration as every AWS tool does: environment, profile, web identity (IRSA), container credentials
    /// (EKS Pod Identity), instance metadata. These Regions may be called besides those of AWS.
    pub async fn from_env(aws: Aws, limits: Limits, extra_regions: Vec<String>, metrics: Arc<Metrics>) -> Self {
        let config = aws.load().await;
        info!(
            region = config.region().map(AsRef::as_ref),
            endpoint = std::env::var("AWS_ENDPOINT_URL_KMS").ok(),
            "AWS configuration read"
        );
        Self { aws: Some(aws), ..Self::new(config, limits, extra_regions, metrics) }
    }

    /// Calls KMS with this configuration, and never with another one.
    pub fn new(config: SdkConfig, limits: Limits, extra_regions: Vec<String>, metrics: Arc<Metrics>) -> Self {
        // An environment variable that is set to nothing names none.
        let own_region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
        let regions = Regions::new(extra_regions, own_region.as_deref());
        let queue = KmsQueue::new(limits.rate, Shares::DEFAULT);
        let clients = Mutex::new(Clients { config, generation: 0, held: Held::default() });
        Self { aws: None, own_region, limits, metrics, regions, clients, queue }
    }

    /// The Region to call for a key.
    ///
    /// # Errors
    /// [`Reason::RegionMissing`] where nothing names one, [`Reason::RegionUnknown`] where it is none of those that may be
    /// called.
    pub fn region<'a>(&'a self, request: &'a KeyRequest) -> Result<&'a str, Failure> {
        let region = arn::resolve_region(&request.key_id, request.region.as_deref(), self.own_region());
        let region = region.ok_or(Reason::RegionMissing)?;
        let unknown = || Failure::new(Reason::RegionUnknown, region);
        self.regions.is_known(region).then_some(region).ok_or_else(unknown)
    }

    /// Offers permits, and drops what idle Regions hold, until it is dropped.
    pub async fn run(&self) {
        let drop_idle = async {
            loop {
                sleep(IDLE / 10).await;
                self.drop_idle();
            }
        };
        tokio::join!(self.queue.run(), drop_idle);
    }

    /// Issues a data key, in the Region of the permit.
    ///
    /// # Errors
    /// Why not. Nothing of an unusable answer is kept, and no grant token or secret material is in the error.
    pub async fn issue(
        &self,
        permit: Permit,
        request: &KeyRequest,
        grant_tokens: &[String],
    ) -> Result<WrappedKey, NotIssued> {
        let length = Length::of(request).map_err(NotIssued::before_the_call)?;
        let under_way = permit.start_call().await;
        let region = under_way.region();
        let (client, label, generation) = self.client(region);

        let call = client.generate_data_key_without_plaintext().key_id(&request.key_id);
        let call = match length {
            Length::Spec(spec) => call.key_spec(spec),
            Length::Bytes(bytes) => call.number_of_bytes(bytes),
        };
        let call = call
            .set_encryption_context(
                request.encryption_context.as_ref().map(|context| context.clone().into_iter().collect()),
            )
            .set_grant_tokens((!grant_tokens.is_empty()).then(|| grant_tokens.to_vec()));

        let begun = Instant::now();
        let answer = call.send().await;
        under_way.complete(!matches!(answer, Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_))));
        let checked = match answer {
            Ok(output) => check(output, request, region),
            Err(error) => Err(call_failure(&error, grant_tokens)),
        };
        if checked.as_ref().is_err_and(|failed| failed.failure.reason == Reason::Throttled) {
            self.queue.on_throttled(region);
        }
        if let Err(failed) = &checked
            && matches!(failed.failure.reason, Reason::CredentialsRejected | Reason::CredentialsMissing)
        {
            self.renew_credentials(generation).await;
        }
        let code = checked.as_ref().map_or_else(|failed| failed.code, |_| "OK");
        self.metrics.kms_call(label, code, begun.elapsed());
        checked
    }

    /// The operator's own Region.
    pub fn own_region(&self) -> Option<&str> {
        self.own_region.as_deref()
    }

    /// Reads the credentials again, profile files included, unless another call did since that generation. The SDK reads a
    /// profile once, and keeps what it could not read as an error for ever.
    async fn renew_credentials(&self, generation: u64) {
        let Some(aws) = &self.aws else { return };
        if self.clients.lock().generation != generation {
            return;
        }
        // Boxed: it is large, and rare.
        let config = Box::pin(aws.load()).await;
        let mut clients = self.clients.lock();
        if clients.generation == generation {
            clients.held.replace(|region| self.new_client(&config, region));
            (clients.config, clients.generation) = (config, generation.wrapping_add(1));
        }
    }

    /// The client for a Region, what the metrics call it, and the generation of its credentials.
    fn client<'a>(&self, region: &'a str) -> (Client, &'a str, u64) {
        let mut clients = self.clients.lock();
        let Clients { config, generation, held } = &mut *clients;
        let held = held.get_or_make(region, Instant::now(), || self.new_client(config, region));
        let (client, label) =
            held.map_or_else(|| (self.new_client(config, region), OTHER_REGION), |client| (client, region));
        (client, label, *generation)
    }

    fn new_client(&self, config: &SdkConfig, region: &str) -> Client {
        let timeout = self.limits.timeout;
        let config = aws_sdk_kms::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            // The SDK's retries would pass by the rate and the classes of failure.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(timeout)
                    .operation_timeout(timeout)
                    .build(),
            )
            .build();
        Client::from_conf(config)
    }

    /// Drops what idle Regions hold. The operator's own stays: a counter that comes and goes is hard to read.
    fn drop_idle(&self) {
        let is_busy = |region: &str| self.own_region() == Some(region) || self.queue.is_busy(region);
        for region in self.clients.lock().held.drop_idle(Instant::now(), is_busy) {
            self.metrics.forget_region(&region);
        }
    }
}

// === impl NotIssued ===

impl NotIssued {
    fn before_the_call(failure: Failure) -> Self {
        let words = failure.to_string();
        Self { failure, code: "NotCalled", words, request_id: None }
    }
}

/// The length of a data key as KMS takes it: one of two, never both.
enum Length {
    Spec(DataKeySpec),
    Bytes(i32),
}

// === impl Length ===

impl Length {
    fn of(request: &KeyRequest) -> Result<Self, Failure> {
        match (request.key_spec, request.number_of_bytes) {
            (Some(KeySpec::Aes256), None) => Ok(Self::Spec(DataKeySpec::Aes256)),
            (Some(KeySpec::Aes128), None) => Ok(Self::Spec(DataKeySpec::Aes128)),
            (None, Some(bytes @ 1..=1024)) => Ok(Self::Bytes(bytes)),
            _ => Err(Failure::new(
                Reason::SpecInvalid,
                "set exactly one of keySpec (AES_256 or AES_128) and numberOfBytes (1 to 1024)",
            )),
        }
    }
}

/// Checks an answer: everything in it is optional to the SDK, and a data key that can't be unwrapped again must never
/// be published.
fn check(
    output: GenerateDataKeyWithoutPlaintextOutput,
    request: &KeyRequest,
    region: &str,
) -> Result<WrappedKey, NotIssued> {
    let request_id = output.request_id().map(str::to_owned);
    let unusable = |why: String| NotIssued {
        failure: Failure::new(Reason::KmsAnswerInvalid, why.clone()),
        code: "AnswerInvalid",
        words: why,
        request_id: request_id.clone(),
    };
    let blob = output.ciphertext_blob.map(aws_sdk_kms::primitives::Blob::into_inner).unwrap_or_default();
    if blob.is_empty() {
        return Err(unusable("no CiphertextBlob".to_owned()));
    }
    if blob.len() > MAX_BLOB {
        return Err(unusable(format!("CiphertextBlob of {} bytes, at most {MAX_BLOB} are possible", blob.len())));
    }
    let Some(arn) = output.key_id else {
        return Err(unusable("no KeyId".to_owned()));
    };
    if !arn::may_answer(&request.key_id, region, &arn) {
        return Err(unusable("KeyId is not the ARN of the key that was asked for".to_owned()));
    }
    // What only identifies the call is left out where the record would not take it: that would cost the data key.
    let key_material_id = output.key_material_id.filter(|id| arn::is_key_material_id(id));
    let request_id = request_id.filter(|id| arn::is_request_id(id));
    Ok(WrappedKey { ciphertext_blob: blob, key_arn: arn, key_material_id, request_id })
}

fn call_failure(error: &CallError, grant_tokens: &[String]) -> NotIssued {
    let (code, failure) = match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let classify::Classified { code, reason } = classify::by_code(error.code(), status);
            // What KMS says can repeat the request, and name the operator's role and other accounts: it is for the log.
            // The request ID is, too: in a condition it would be another text, and so another write, at every retry.
            (code, Failure::new(reason, code))
        }
        SdkError::TimeoutError(_) => ("Timeout", Reason::KmsTimeout.into()),
        SdkError::ResponseError(_) => ("AnswerInvalid", Reason::KmsAnswerInvalid.into()),
        _ => tls::problem(error).map_or_else(
            || not_sent(error),
            // Credentials can come over TLS, too.
            |problem| ("TlsFailed", Failure::new(Reason::TlsFailed, problem)),
        ),
    };
    let words = redact(&DisplayErrorContext(error).to_string(), grant_tokens);
    let request_id = error.request_id().map(str::to_owned);
    NotIssued { failure, code, words, request_id }
}

fn not_sent(error: &CallError) -> (&'static str, Failure) {
    let (code, reason) = match error {
        _ if has_source::<CredentialsError>(error) => ("NoCredentials", Reason::CredentialsMissing),
        SdkError::DispatchFailure(_) => ("Unreachable", Reason::KmsUnreachable),
        // What the configuration can be blamed for is refused at start.
        _ => ("NotSent", Reason::InternalError),
    };
    (code, reason.into())
}

fn has_source<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<E>)
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::primitives::Blob;

    use super::*;
    use crate::fixtures::{ARN, request};

    fn output() -> aws_sdk_kms::operation::generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextOutputBuilder
    {
        GenerateDataKeyWithoutPlaintextOutput::builder().ciphertext_blob(Blob::new(vec![7; 184])).key_id(ARN)
    }

    fn why_unusable(output: GenerateDataKeyWithoutPlaintextOutput) -> String {
        let Err(failed) = check(output, &request(), "eu-west-1") else { panic!("was taken as usable") };
        assert_eq!(failed.failure.reason, Reason::KmsAnswerInvalid);
        failed.words
    }

    #[test]
    fn a_whole_answer_is_usable() {
        let Ok(key) = check(output().build(), &request(), "eu-west-1") else { panic!("was refused") };
        assert_eq!((key.ciphertext_blob.len(), key.key_arn.as_str()), (184, ARN));
    }

    #[test]
    fn an_answer_without_a_usable_data_key_is_refused() {
        assert!(why_unusable(output().set_ciphertext_blob(None).build()).contains("no CiphertextBlob"));
        assert!(why_unusable(output().ciphertext_blob(Blob::new(vec![])).build()).contains("no CiphertextBlob"));
        assert!(why_unusable(output().ciphertext_blob(Blob::new(vec![0; 6145])).build()).contains("6145 bytes"));
        assert!(why_unusable(output().set_key_id(None).build()).contains("no KeyId"));
        for odd in ["alias/orders", &ARN.replace("1234abcd", "\u{1b}[2J"), &format!("{ARN} "), &ARN.replace("-1:", ":")]
        {
            assert!(why_unusable(output().key_id(odd).build()).contains("not the ARN"), "{odd:?}");
        }
    }

    #[test]
    fn ids_that_the_record_would_not_take_are_left_out() {
        let answer = |id: &str| check(output().key_material_id(id).build(), &request(), "eu-west-1");
        for (id, kept) in [("ab".repeat(32), true), ("ab\u{202e}".to_owned(), false), ("a".repeat(65), false)] {
            let Ok(key) = answer(&id) else { panic!("was refused") };
            assert_eq!(key.key_material_id.is_some(), kept, "{id:?}");
        }
    }

    #[test]
    fn the_largest_blob_of_kms_is_usable() {
        assert!(check(output().ciphertext_blob(Blob::new(vec![0; 6144])).build(), &request(), "eu-west-1").is_ok());
    }

    #[test]
    fn a_request_with_both_lengths_or_none_is_not_sent() {
        let mut both = request();
        both.number_of_bytes = Some(32);
        let mut none = request();
        none.key_spec = None;
        for request in [both, none] {
            assert_eq!(Length::of(&request).err().map(|failure| failure.reason), Some(Reason::SpecInvalid));
        }
    }
}
