//! The AWS configuration of the process: environment and profile files, as every AWS tool reads them. What the AWS SDK would
//! ignore, or panic over, is refused here with one line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::collections::BTreeMap;

use aws_config::{
    AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig,
    environment::region::EnvironmentVariableRegionProvider,
    meta::region::ProvideRegion,
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
    retry::RetryConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::os_shim_internal::{Env, Fs};

pub use credentials::unusable_part;
use credentials::{Account, Checked};
pub use overrides::Overrides;
use settings::AwsSettings;
use sources::Sources;
pub use unsent::{is_unreachable, lacks_credentials, why_unsent};

mod certificates;
mod credentials;
mod forms;
mod http;
mod overrides;
pub mod parameters;
mod settings;
mod sources;
mod unsent;

/// Whose credentials the process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// A service: nothing is asked of a person, and no other program is run.
    Service,
    /// A workload that gets plaintext keys: the same, and AWS KMS is not called without TLS.
    Workload,
    /// A person at a terminal, with IAM Identity Center, `aws login` or a credential process.
    Person,
}

/// The message where no Region is known.
pub const NO_REGION: &str = "no AWS Region: name it by --region, set AWS_REGION, or give the ARN of the KMS key";

/// A checked AWS configuration.
pub struct Aws {
    overrides: Overrides,
    app: Option<AppName>,
    http: SharedHttpClient,
    retry: RetryConfig,
    account: Account,
}

// === impl Aws ===

impl Aws {
    /// Reads and checks the environment and the profile files; nothing is called.
    ///
    /// # Errors
    /// One line: the name of a variable or of a profile's property, what is wrong with it, and what to write.
    pub async fn from_env(app: &'static str, user: User) -> Result<Self, String> {
        Self::with_overrides(app, user, &Overrides::default()).await
    }

    /// The same, with the settings of a command line before those of the environment and the profile files.
    ///
    /// # Errors
    /// One line: the name of a flag, a variable or a profile's property, what is wrong with it, and what to write.
    pub async fn with_overrides(app: &'static str, user: User, overrides: &Overrides) -> Result<Self, String> {
        let variables = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
        let mut variables: BTreeMap<_, _> = variables.collect();
        overrides.apply(&mut variables);
        let profile = overrides.profile.clone().map(Into::into);
        let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), profile).await;
        let profiles = profiles.map_err(|error| format!("the AWS profile files cannot be read: {error}"))?;
        overrides.require_profile(&profiles)?;
        let sources = Sources { variables: &variables, profiles: &profiles };
        let AwsSettings { retry, ca_bundle } =
            settings::check(&sources, user).map_err(|error| overrides.with_flags(&error))?;
        // A flag is in the manifest, which is reviewed; the environment can come from elsewhere.
        if user == User::Workload && overrides.endpoint_url.is_none() {
            settings::refuse_cleartext(&sources)?;
        }
        let trust =
            certificates::trust(ca_bundle.as_ref(), &variables).map_err(|error| overrides.with_flags(&error))?;
        Ok(Self {
            overrides: overrides.clone(),
            app: AppName::new(app).ok(),
            http: http::client(&trust, &variables),
            retry,
            account: Account::default(),
        })
    }

    /// A loader of the configuration, with what was checked.
    pub fn loader(&self) -> ConfigLoader {
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(self.http.clone())
            .retry_config(self.retry.clone());
        match &self.app {
            Some(app) => loader.app_name(app.clone()),
            None => loader,
        }
    }

    /// The Region that the command line, the environment or the profile names. The instance metadata service is not asked:
    /// on a user's machine that request only waits for a timeout.
    pub async fn own_region(&self) -> Option<Region> {
        if let Some(region) = &self.overrides.region {
            return Some(Region::new(region.clone()));
        }
        if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
            return Some(region);
        }
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = &self.overrides.profile {
            profile = profile.profile_name(name);
        }
        profile.build().region().await
    }

    /// Loads the configuration for a command that a person or a workload runs. Calls no service.
    ///
    /// A profile of the command line goes before access keys in the environment, as with the AWS CLI. Where no Region is
    /// known, AWS STS is called in the fallback, else in us-east-1, if a role must be assumed.
    pub async fn load_for_command(&self, fallback: Option<&str>) -> SdkConfig {
        let fallback = || Region::new(fallback.unwrap_or("us-east-1").to_owned());
        let region = self.own_region().await.unwrap_or_else(fallback);
        let mut loader = self.loader().region(region.clone());
        if let Some(name) = &self.overrides.profile {
            let provider = ProviderConfig::without_region()
                .with_region(Some(region))
                .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
                .with_http_client(self.http.clone());
            let profile = ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(name).build();
            loader = loader.profile_name(name).credentials_provider(profile);
        }
        loader.load().await
    }

    /// The account of the credentials that signed the last request, if their source names it: 12 digits.
    pub fn account(&self) -> Option<String> {
        self.account.id()
    }

    /// Loads the configuration, profile files and credentials included, as it is now. Nothing is called but the instance
    /// metadata service, and that only where nothing else names a Region.
    pub async fn load(&self) -> SdkConfig {
        let config = self.loader().load().await;
        let Some(credentials) = config.credentials_provider() else { return config };
        let checked = SharedCredentialsProvider::new(Checked::new(credentials, self.account.clone()));
        config.into_builder().credentials_provider(checked).build()
    }
}
