//! AWS KMS: the two operations that this operator calls, `GenerateDataKeyWithoutPlaintext` and
//! `GenerateDataKeyPairWithoutPlaintext`. Each call needs a [permit](queue::Permit).
//!
//! Each call generates a new data key or key pair, and KMS stores none of them. So a call has no effect by itself;
//! [`crate::reconcile`] decides which data key is recorded.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_kms::error::SdkError;
use datakey_aws::Aws;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::metrics::Metrics;
use datakey::{
    api::{KeyRequest, QuotaClass},
    arn,
    reason::{Failure, Reason},
};

use clients::{Clients, RegionalClient};
use lane_id::LaneId;
use queue::{Permit, RateQueue};
use rates::Rates;
use region_map::IDLE_TIMEOUT;
use regions::Regions;
use shares::Shares;

pub use answer::GeneratedKey;
pub use clients::TimeLimits;
use errors::Called;
pub use errors::KmsFailure;
use sdk_request::Call;

mod answer;
mod clients;
mod error_codes;
mod errors;
pub mod lane_id;
pub mod queue;
pub mod rates;
mod region_map;
pub mod regions;
mod sdk_request;
pub mod shares;
mod tls;

/// Limits of the calls to KMS.
#[derive(Clone, Debug)]
pub struct KmsSettings {
    /// The most calls per second of each lane.
    pub rates: Rates,
    /// The longest times of one call.
    pub time_limits: TimeLimits,
}

/// The calls to KMS in all Regions.
pub struct Kms {
    own_region: Option<String>,
    metrics: Arc<Metrics>,
    regions: Regions,
    clients: Clients,
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
        let KmsSettings { rates, time_limits } = settings;
        // A variable such as AWS_REGION can have an empty value.
        let own_region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
        let regions = Regions::new(extra_regions, own_region.as_deref());
        let clients = Clients::new(aws, config, time_limits);
        Self { own_region, metrics, regions, clients, queue: RateQueue::new(rates, Shares::DEFAULT) }
    }

    /// The operator's own Region.
    pub fn own_region(&self) -> Option<&str> {
        self.own_region.as_deref()
    }

    /// The lane of the call for a request that counts against a quota of this class.
    ///
    /// # Errors
    /// [`Reason::RegionMissing`] if neither the request nor the configuration names a Region, [`Reason::RegionUnknown`] if it may
    /// not be called.
    pub fn lane(&self, request: &KeyRequest, class: QuotaClass) -> Result<LaneId, Failure> {
        Ok(LaneId::new(self.region(request)?, class))
    }

    fn region<'a>(&'a self, request: &'a KeyRequest) -> Result<&'a str, Failure> {
        let region = arn::resolve_region(&request.key_id, request.region.as_deref(), self.own_region());
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
        let LaneId { region, class } = call.lane();
        let RegionalClient { client, label, generation } = self.clients.get(region);

        let begun = Instant::now();
        let limits = self.clients.time_limits(*class);
        let answer = Call::new(&client, request, material, grant_tokens).send(limits).await;
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
            Err(Reason::Throttled) => self.queue.on_throttled(call.lane()),
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
    use datakey::{api::KindId, fixtures::request};
    use futures::channel::mpsc;

    use super::*;
    use crate::{kms::rates::Rate, place::Place};

    #[tokio::test(start_paused = true)]
    async fn calls_for_rsa_have_a_time_limit_of_their_own() {
        // It accepts no connection and answers nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
            .endpoint_url(format!("http://{}", silent.local_addr().unwrap()))
            .build();
        let (usual, rsa) = (Duration::from_secs(2), Duration::from_secs(3));
        let settings =
            KmsSettings { rates: Rates::new(Rate::parse("10").unwrap(), []), time_limits: TimeLimits { usual, rsa } };
        let kms = Kms::new(config, settings, Vec::new(), Arc::default());
        let place = Place::new(KindId::DataKey, "shop", "orders");
        for class in QuotaClass::ALL {
            let lane = kms.lane(&request(), *class).unwrap();
            let permit = kms.queue.acquire_or_enqueue(&lane, "uid", &place, &mpsc::unbounded().0).unwrap();
            let begun = Instant::now();
            let Err(failed) = kms.generate(permit, &request(), &[]).await else { panic!("{class:?}") };
            assert_eq!(failed.known_code, "Timeout", "{class:?}");
            let limit = if class.is_rsa() { rsa } else { usual };
            assert_eq!(begun.elapsed().as_secs(), limit.as_secs(), "{class:?}");
        }
    }
}
