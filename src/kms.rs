//! AWS KMS: the two operations that this operator calls, `GenerateDataKeyWithoutPlaintext` and
//! `GenerateDataKeyPairWithoutPlaintext`. Each call needs a [permit](queue::Permit).
//!
//! Each call generates a new data key or key pair, and KMS stores none of them. So a call has no effect by itself; [`crate::reconcile`]
//! decides which data key is recorded.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_kms::error::SdkError;
use datakey_aws::Aws;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::metrics::Metrics;
use datakey::{
    api::{KeyRequest, RequestView},
    arn,
    reason::{Failure, Reason},
};

use clients::{Clients, RegionalClient};
use queue::{Permit, RateQueue};
use region_map::IDLE_TIMEOUT;
use regions::Regions;
use shares::Shares;

pub use answer::GeneratedKey;
use errors::Called;
pub use errors::KmsFailure;
use sdk_request::Call;

mod answer;
mod clients;
mod error_codes;
mod errors;
pub mod queue;
mod region_map;
pub mod regions;
mod sdk_request;
pub mod shares;
mod tls;

/// Limits of the calls to KMS.
#[derive(Clone, Copy, Debug)]
pub struct KmsSettings {
    /// The most calls per second in each Region.
    pub rate: NonZeroU32,
    /// The longest time of one call, including the time to get credentials.
    pub timeout: Duration,
}

/// The calls to KMS in all Regions.
pub struct Kms {
    own_region: Option<String>,
    metrics: Arc<Metrics>,
    regions: Regions,
    clients: Clients,
    /// The longest time of one call.
    timeout: Duration,
    /// The queue for permits to call KMS.
    pub queue: RateQueue,
}

// === impl Kms ===

impl Kms {
    /// Loads the AWS configuration from the same sources as other AWS tools: environment, profile, web identity (IRSA),
    /// container credentials (EKS Pod Identity), instance metadata. The extra Regions may be called in addition to those of
    /// AWS.
    pub async fn from_env(aws: Aws, settings: KmsSettings, extra_regions: Vec<String>, metrics: Arc<Metrics>) -> Self {
        let config = aws.load().await;
        info!(
            region = config.region().map(AsRef::as_ref),
            endpoint = std::env::var("AWS_ENDPOINT_URL_KMS").ok(),
            "AWS configuration read"
        );
        Self::with_source(Some(aws), config, settings, extra_regions, metrics)
    }

    /// Uses this AWS configuration, and never reads another one.
    pub fn new(config: SdkConfig, settings: KmsSettings, extra_regions: Vec<String>, metrics: Arc<Metrics>) -> Self {
        Self::with_source(None, config, settings, extra_regions, metrics)
    }

    fn with_source(
        aws: Option<Aws>,
        config: SdkConfig,
        settings: KmsSettings,
        extra_regions: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let KmsSettings { rate, timeout } = settings;
        // A variable such as AWS_REGION can have an empty value.
        let own_region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
        let regions = Regions::new(extra_regions, own_region.as_deref());
        let clients = Clients::new(aws, config, timeout);
        Self { own_region, metrics, regions, clients, timeout, queue: RateQueue::new(rate, Shares::DEFAULT) }
    }

    /// The operator's own Region.
    pub fn own_region(&self) -> Option<&str> {
        self.own_region.as_deref()
    }

    /// The Region to call for a request.
    ///
    /// # Errors
    /// [`Reason::RegionMissing`] if neither the request nor the configuration names one, [`Reason::RegionUnknown`] if it may
    /// not be called.
    pub fn region<'a>(&'a self, request: RequestView<'a>) -> Result<&'a str, Failure> {
        let region = arn::resolve_region(request.key_id, request.region, self.own_region());
        let region = region.ok_or(Reason::RegionMissing)?;
        let unknown = || Failure::new(Reason::RegionUnknown, region);
        self.regions.is_known(region).then_some(region).ok_or_else(unknown)
    }

    /// Offers permits, and drops the clients of idle Regions, until it is dropped.
    pub async fn run(&self) {
        let drop_idle = async {
            loop {
                sleep(IDLE_TIMEOUT / 10).await;
                self.drop_idle();
            }
        };
        tokio::join!(self.queue.run(), drop_idle);
    }

    /// Generates a data key or a key pair in the Region of the permit.
    ///
    /// # Errors
    /// Why KMS generated nothing that is usable. The error contains no grant tokens and nothing of an unusable answer.
    pub async fn generate(
        &self,
        permit: Permit,
        request: &KeyRequest,
        grant_tokens: &[String],
    ) -> Result<GeneratedKey, KmsFailure> {
        let material = sdk_request::checked_material(request).map_err(KmsFailure::not_called)?;
        let call = permit.start_call().await;
        let region = call.region();
        let RegionalClient { client, label, generation } = self.clients.get(region);

        let begun = Instant::now();
        let answer = Call::new(&client, request, material, grant_tokens, self.timeout).send().await;
        call.complete(!matches!(answer, Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_))));
        let result = match answer {
            Ok(output) => answer::validate_answer(output, request, region),
            Err(error) => {
                let account = self.clients.account();
                let call = Called { key_id: &request.key_id, region, own_account: account.as_deref() };
                Err(KmsFailure::from_sdk_error(&error, call, grant_tokens))
            }
        };
        match result.as_ref().map_err(|failed| failed.failure.reason) {
            Err(Reason::Throttled) => self.queue.on_throttled(region),
            Err(Reason::CredentialsRejected | Reason::CredentialsMissing) => {
                self.clients.renew_credentials(generation).await;
            }
            _ => {}
        }
        let code = result.as_ref().map_or_else(|failed| failed.known_code, |_| "OK");
        self.metrics.kms_call(label, code, begun.elapsed());
        result
    }

    /// Drops the clients and metrics of idle Regions. Those of the operator's own Region stay: a counter that disappears and
    /// starts again is hard to read.
    fn drop_idle(&self) {
        let is_busy = |region: &str| self.own_region() == Some(region) || self.queue.is_busy(region);
        self.clients.drop_idle(is_busy, |region| self.metrics.forget_region(region));
    }
}
