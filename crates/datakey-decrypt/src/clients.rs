//! The clients of AWS KMS, one for each Region, with the credentials of the caller.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
    time::Duration,
};

use aws_config::{Region, SdkConfig, retry::RetryConfig};
use aws_sdk_kms::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
};
use datakey::api::EncryptionContext;
use datakey_aws::{Aws, lacks_credentials};
use parking_lot::Mutex;

use crate::{caller::Caller, refusal::Refusal};

/// The clients.
pub struct Clients {
    shared: SdkConfig,
    /// The Region of the caller's configuration.
    pub own_region: Option<String>,
    endpoint_url: Option<String>,
    timeout: Duration,
    retries: Option<u32>,
    regions: Mutex<BTreeMap<String, Client>>,
    /// The first failure to get credentials. Later calls end with it.
    without_credentials: OnceLock<Refusal>,
}

/// An encryption context as a parameter of an operation. Policies can distinguish an empty one from an absent one, so an empty one is
/// not sent.
pub fn sent_context(context: &EncryptionContext) -> Option<HashMap<String, String>> {
    (!context.is_empty()).then(|| context.clone().into_iter().collect())
}

// === impl Clients ===

impl Clients {
    /// Reads the AWS configuration. Calls no service.
    pub async fn new(caller: &Caller) -> Result<Self, String> {
        let aws = Aws::with_overrides(caller.app, caller.user, &caller.overrides).await?;
        Ok(Self {
            shared: aws.load_for_command(caller.fallback_region.as_deref()).await,
            own_region: aws.own_region().await.map(|region| region.to_string()),
            endpoint_url: caller.overrides.endpoint_url.clone(),
            timeout: caller.timeout,
            retries: caller.retries,
            regions: Mutex::default(),
            without_credentials: OnceLock::new(),
        })
    }

    /// The client of a Region.
    ///
    /// # Errors
    /// No credentials were found before. To look for them again takes seconds, where instance metadata do not answer, for each of
    /// many data keys.
    pub fn of(&self, region: &str) -> Result<Client, Refusal> {
        if let Some(known) = self.without_credentials.get() {
            return Err(known.clone());
        }
        let create = || {
            let mut config = aws_sdk_kms::config::Builder::from(&self.shared)
                .region(Region::new(region.to_owned()))
                .timeout_config(TimeoutConfig::builder().operation_timeout(self.timeout).build());
            if let Some(retries) = self.retries {
                config = config.retry_config(RetryConfig::standard().with_max_attempts(retries.saturating_add(1)));
            }
            if let Some(url) = &self.endpoint_url {
                config = config.endpoint_url(url);
            }
            Client::from_conf(config.build())
        };
        Ok(self.regions.lock().entry(region.to_owned()).or_insert_with(create).clone())
    }

    /// The refusal of a call that needs these permissions. Remembers that there are no credentials.
    pub fn refusal<E>(&self, error: &SdkError<E>, permissions: &str) -> Refusal
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let refusal = Refusal::of(error, permissions);
        if lacks_credentials(error) { self.without_credentials.get_or_init(|| refusal).clone() } else { refusal }
    }
}
