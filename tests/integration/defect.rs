//! An operator that panics. It runs in this process, because no part of the binary can be made to panic.

use std::{num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use datakey_operator::{
    controller::{self, ControllerSettings, Readiness, WatchTarget},
    kms::{Kms, KmsSettings, TimeLimits, rates::Rates},
    metrics::Metrics,
    reconcile::{Context, retry::RetryBounds},
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use testbed::kms;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{TestNamespace, message};

#[derive(Debug)]
struct Panics;

/// An operator with a defect. It runs until this value is dropped.
pub struct Defect(JoinHandle<()>);

// === impl Panics ===

impl ProvideCredentials for Panics {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { panic!("a defect") })
    }
}

// === impl Defect ===

impl Defect {
    /// Starts an operator that panics when it calls KMS.
    pub async fn at_kms(test: &TestNamespace, kubeconfig: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(kms::REGION))
            .endpoint_url(test.proxy.url())
            .credentials_provider(SharedCredentialsProvider::new(Panics))
            .build();
        let metrics = Arc::new(Metrics::default());
        let limits = KmsSettings {
            rates: Rates::new(NonZeroU32::new(100).unwrap().into(), []),
            time_limits: TimeLimits { usual: Duration::from_secs(10), rsa: Duration::from_secs(10) },
        };
        let retry_bounds = RetryBounds { min: Duration::from_millis(20), max: Duration::from_secs(1) };
        let kms = Kms::new(aws, limits, Vec::new(), Arc::clone(&metrics));
        let context = Arc::new(Context::new(client, kms, metrics, retry_bounds));
        let settings = ControllerSettings { concurrency: 4, pairs: false, grace: Duration::from_secs(1) };
        let targets = vec![WatchTarget { namespace: Some(test.namespace.clone()), client: context.client.clone() }];
        Self(tokio::spawn(controller::run(context, targets, settings, Readiness::default(), CancellationToken::new())))
    }
}

impl Drop for Defect {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn a_panic_is_reported_in_the_condition() {
    let test = TestNamespace::new("panic").await;
    let adopted = {
        let _operator = test.operator();
        test.issue("other", &json!({})).await;
        test.data("other").await
    };
    let _defect = Defect::at_kms(&test, test.operator_kubeconfig()).await;
    test.create("orders", &json!({})).await;
    let key = test.failed("orders", "InternalError").await;
    assert!(message(&key).contains("report it with the operator's log"), "{}", message(&key));
    test.event_contains("orders", "InternalError", "report it").await;
    assert!(test.secrets().get_opt("orders").await.unwrap().is_none());
    test.delete_secret("other").await;
    test.secret_becomes("other", &adopted).await;
}
