//! The AWS configuration of the process: environment and profile files, as every AWS tool reads them. What the AWS SDK would
//! ignore, or panic over, is refused here with one line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::collections::BTreeMap;

use aws_config::{AppName, BehaviorVersion, ConfigLoader, SdkConfig, retry::RetryConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::os_shim_internal::{Env, Fs};

use credentials::{Account, Checked};
use settings::AwsSettings;
use sources::Sources;

mod certificates;
mod credentials;
mod forms;
mod http;
mod settings;
mod sources;

/// Whose credentials the process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// A service: nothing is asked of a person, and no other program is run.
    Service,
    /// A person at a terminal, with IAM Identity Center, `aws login` or a credential process.
    Person,
}

/// A checked AWS configuration.
pub struct Aws {
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
        let variables = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
        let variables: BTreeMap<_, _> = variables.collect();
        let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await;
        let profiles = profiles.map_err(|error| format!("the AWS profile files cannot be read: {error}"))?;
        let AwsSettings { retry, ca_bundle } =
            settings::check(&Sources { variables: &variables, profiles: &profiles }, user)?;
        let trust = certificates::trust(ca_bundle.as_ref(), &variables)?;
        Ok(Self {
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
