//! The clients of the AWS SDK, one for each Region in use, all with the credentials of the operator. The credentials of a role go with
//! the call, so the roles share the clients and their connections.

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
};
use datakey::api::QuotaClass;
use datakey_aws::Aws;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::region_map::RegionMap;
use crate::metrics::OTHER_REGION;

/// The SDK's default, set here because the operator sets every other time limit of a call.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// The longest times of one call, each including the time to get credentials.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// Of every call but those for RSA key pairs.
    pub usual: Duration,
    /// Of a call for an RSA key pair: KMS searches for primes, and now and then that takes much longer than it does on average.
    pub rsa: Duration,
}

/// The clients of all Regions.
pub struct Clients {
    /// The source of the configuration, if the credentials can be read again.
    aws: Option<Aws>,
    time_limits: TimeLimits,
    state: Mutex<Inner>,
}

struct Inner {
    config: SdkConfig,
    /// The number of times that the credentials were read again.
    generation: u64,
    by_region: RegionMap<Client>,
    /// Kept, because a client keeps the credentials that it was given: a new one would ask for them again.
    sts: Option<aws_sdk_sts::Client>,
}

/// A client for calls in one Region.
pub struct RegionalClient<'a> {
    /// The client of the AWS SDK.
    pub client: Client,
    /// The Region as metrics name it: there are as many label values as the operator keeps clients.
    pub label: &'a str,
    /// Which credentials the client has, for [`Clients::renew_credentials`].
    pub generation: u64,
}

/// A client for AWS STS.
pub struct StsClient {
    /// The client of the AWS SDK.
    pub client: aws_sdk_sts::Client,
    /// The Region that it calls.
    pub region: String,
    /// Which credentials the client has, for [`Clients::renew_credentials`].
    pub generation: u64,
}

// === impl Clients ===

impl Clients {
    /// No clients yet. Without a source, the configuration never changes.
    pub fn new(aws: Option<Aws>, config: SdkConfig, time_limits: TimeLimits) -> Self {
        Self {
            aws,
            time_limits,
            state: Mutex::new(Inner { config, generation: 0, by_region: RegionMap::default(), sts: None }),
        }
    }

    /// The client for a Region. If too many other Regions are in use, the client is for this call only.
    pub fn get<'a>(&self, region: &'a str) -> RegionalClient<'a> {
        let mut state = self.state.lock();
        let Inner { config, generation, by_region, .. } = &mut *state;
        let generation = *generation;
        match by_region.get_or_make(region, Instant::now(), || self.new_client(config, region)) {
            Some(client) => RegionalClient { client, label: region, generation },
            None => RegionalClient { client: self.new_client(config, region), label: OTHER_REGION, generation },
        }
    }

    /// A client for STS in the operator's own Region; `None` if it has none. It calls the endpoint of that Region, never the global one.
    pub fn sts(&self) -> Option<StsClient> {
        let mut state = self.state.lock();
        let region = state.config.region().map(ToString::to_string).filter(|region| !region.is_empty())?;
        let Inner { config, generation, sts, .. } = &mut *state;
        let client = sts.get_or_insert_with(|| {
            let config = aws_sdk_sts::config::Builder::from(&*config)
                // The operator has its own back-off.
                .retry_config(RetryConfig::disabled())
                .timeout_config(self.time_limits.of(QuotaClass::Symmetric))
                .build();
            aws_sdk_sts::Client::from_conf(config)
        });
        Some(StsClient { client: client.clone(), region, generation: *generation })
    }

    /// The time limits of a call that counts against a quota of this class, where they are not those of the client.
    pub fn time_limits(&self, class: QuotaClass) -> Option<TimeoutConfig> {
        class.is_rsa().then(|| self.time_limits.of(class))
    }

    /// The operator's own account, if its credentials name it.
    pub fn account(&self) -> Option<String> {
        self.aws.as_ref()?.account()
    }

    /// Reads the credentials again, including the profile files, unless another call already did after `generation`. The SDK
    /// does not do it by itself: it reads a profile once, and keeps a read error for good.
    pub async fn renew_credentials(&self, generation: u64) {
        let Some(aws) = &self.aws else { return };
        if self.state.lock().generation != generation {
            return;
        }
        // Boxed because the future is large and this path is rare.
        let config = Box::pin(aws.load()).await;
        let mut state = self.state.lock();
        if state.generation == generation {
            state.by_region.replace_all(|region| self.new_client(&config, region));
            (state.config, state.generation) = (config, generation.wrapping_add(1));
            state.sts = None;
        }
    }

    /// Drops the clients of the Regions that are idle and not busy, and calls `forget` for each of them. The lock is held
    /// meanwhile, so that no call of such a Region is counted between the two.
    pub fn drop_idle(&self, is_busy: impl Fn(&str) -> bool, forget: impl Fn(&str)) {
        let mut state = self.state.lock();
        for region in state.by_region.remove_idle(Instant::now(), is_busy) {
            forget(&region);
        }
    }

    fn new_client(&self, config: &SdkConfig, region: &str) -> Client {
        let config = aws_sdk_kms::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            // The SDK's retries would bypass the rate limit and the operator's back-off.
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.time_limits.of(QuotaClass::Symmetric))
            .build();
        Client::from_conf(config)
    }
}

// === impl TimeLimits ===

impl TimeLimits {
    fn of(self, class: QuotaClass) -> TimeoutConfig {
        let limit = if class.is_rsa() { self.rsa } else { self.usual };
        TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(limit)
            .operation_timeout(limit)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use aws_credential_types::{
        Credentials,
        provider::{ProvideCredentials, SharedCredentialsProvider, future},
    };

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<AtomicUsize>);

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.0.fetch_add(1, Ordering::Relaxed);
            future::ProvideCredentials::ready(Ok(Credentials::for_tests()))
        }
    }

    #[tokio::test]
    async fn calls_of_sts_share_the_credentials_of_the_operator() {
        let provider = Counting::default();
        // Nothing listens on this port, which no program can be given.
        let config = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .behavior_version(aws_config::BehaviorVersion::latest())
            .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
            .endpoint_url("http://127.0.0.1:1")
            .build();
        let limit = Duration::from_secs(5);
        let clients = Clients::new(None, config, TimeLimits { usual: limit, rsa: limit });
        for _ in 0..3 {
            let sts = clients.sts().unwrap();
            assert_eq!(sts.region, "eu-west-1");
            sts.client.get_caller_identity().send().await.unwrap_err();
        }
        assert_eq!(provider.0.load(Ordering::Relaxed), 1);
    }
}
