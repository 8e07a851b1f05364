//! AWS KMS: the two operations that this operator calls, `GenerateDataKeyWithoutPlaintext` and
//! `GenerateDataKeyPairWithoutPlaintext`. Each call needs a [permit](queue::Permit).
//!
//! Each call generates a new data key or key pair, and KMS stores none of them. So a call has no effect by itself;
//! [`crate::reconcile`] decides which data key is recorded.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_kms::error::SdkError;
use datakey_aws::Aws;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::metrics::Metrics;
use datakey::{
    api::{KeyRequest, QuotaClass},
    arn,
    class::{Identity, Role},
    reason::{Failure, Reason},
};

use clients::{Clients, RegionalClient};
use lane_id::LaneId;
use queue::{Permit, RateQueue};
use rates::Rates;
use region_map::IDLE_TIMEOUT;
use regions::Regions;
use roles::{Caller, Roles, Session, SessionKey};
use shares::Shares;

pub use answer::GeneratedKey;
pub use clients::TimeLimits;
pub use dry_run::DryRun;
pub use errors::KmsFailure;
use errors::{Called, CalledBy};
use sdk_request::Call;

mod answer;
mod clients;
mod dry_run;
mod error_codes;
mod errors;
pub mod lane_id;
pub mod queue;
pub mod rates;
mod region_map;
pub mod regions;
pub mod roles;
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

/// What KMS is asked.
#[derive(Clone, Copy)]
struct Asked<'a> {
    caller: &'a Caller,
    request: &'a KeyRequest,
    grant_tokens: &'a [String],
    is_dry_run: bool,
}

/// The calls to KMS in all Regions.
pub struct Kms {
    own_region: Option<String>,
    /// The endpoint of all Regions, where the configuration names one.
    endpoint: Option<String>,
    metrics: Arc<Metrics>,
    regions: Regions,
    clients: Clients,
    /// The queue for permits to call KMS.
    pub queue: RateQueue,
    /// The roles of classes.
    pub roles: Roles,
    renewed_by_dry_run: Mutex<Option<Instant>>,
}

/// The least time between two dry runs that make the operator read its credentials again.
const DRY_RUN_RENEWALS: Duration = Duration::from_mins(10);

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
        let endpoint = std::env::var("AWS_ENDPOINT_URL_KMS").ok().filter(|url| !url.is_empty());
        let endpoint = endpoint.or_else(|| config.endpoint_url().map(str::to_owned));
        let clients = Clients::new(aws, config, time_limits);
        let queue = RateQueue::new(rates, Shares::DEFAULT);
        Self {
            own_region,
            endpoint,
            metrics,
            regions,
            clients,
            queue,
            roles: Roles::default(),
            renewed_by_dry_run: Mutex::default(),
        }
    }

    /// The operator's own Region.
    pub fn own_region(&self) -> Option<&str> {
        self.own_region.as_deref()
    }

    /// The server that is called for a Region: the endpoint that the configuration names for all of them, or the Region itself. An endpoint
    /// that only a profile names for KMS counts for each Region apart.
    pub fn server<'a>(&'a self, region: &'a str) -> &'a str {
        self.endpoint.as_deref().unwrap_or(region)
    }

    /// The lane of the call for a request that counts against a quota of this class, by this identity.
    ///
    /// # Errors
    /// [`Reason::RegionMissing`] if neither the request nor the configuration names a Region, [`Reason::RegionUnknown`] if it may
    /// not be called.
    pub fn lane(&self, request: &KeyRequest, class: QuotaClass, identity: &Identity) -> Result<LaneId, Failure> {
        let account = identity.role().and_then(Role::account);
        let other = account.filter(|account| self.clients.account().as_deref() != Some(*account));
        Ok(LaneId::new(self.region(request)?, class).of_account(other.map(str::to_owned)))
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

    /// The session of a role for a namespace, by the uid of the namespace, or why STS has just refused it; `None` if STS must be asked.
    pub fn known_session(&self, role: &Role, namespace_uid: &str) -> Option<Result<Session, KmsFailure>> {
        let key = SessionKey::new(role, namespace_uid);
        let known = self.roles.sessions.known(&key, Instant::now())?;
        Some(known.map(|opened| Session { role: role.clone(), key, opened }))
    }

    /// The session of a role for a namespace. Asks STS if nothing is known of it.
    ///
    /// # Errors
    /// Why there is no session. No other credentials may be used then.
    pub async fn open_session(&self, role: &Role, namespace_uid: &str) -> Result<Session, KmsFailure> {
        let key = SessionKey::new(role, namespace_uid);
        let opened = self.roles.sessions.open(&key, async || self.assume(role).await).await?;
        Ok(Session { role: role.clone(), key, opened })
    }

    async fn assume(&self, role: &Role) -> Result<roles::Opened, KmsFailure> {
        let Some(sts) = self.clients.sts() else {
            let failure =
                Failure::new(Reason::RegionMissing, "the operator has no Region, in which it would call AWS STS")
                    .with_advice("Set AWS_REGION for the operator");
            return Err(KmsFailure::not_called(failure));
        };
        let result = Box::pin(roles::assume(&sts, role)).await;
        self.metrics.role_assumption(result.as_ref().map_or_else(|failed| failed.known_code, |_| "OK"));
        self.roles.record(role, &result);
        if result.as_ref().is_err_and(KmsFailure::concerns_own_credentials) {
            self.clients.renew_credentials(sts.generation).await;
        }
        result
    }

    /// Generates a data key or a key pair in the Region of the permit.
    ///
    /// # Errors
    /// Why KMS generated nothing that is usable. The error contains no grant tokens and nothing of an unusable answer.
    pub async fn generate(
        &self,
        permit: Permit,
        caller: &Caller,
        request: &KeyRequest,
        grant_tokens: &[String],
    ) -> Result<GeneratedKey, KmsFailure> {
        let asked = Asked { caller, request, grant_tokens, is_dry_run: false };
        self.call(permit, asked, |output, region| answer::validate_answer(output, request, region)).await
    }

    /// Asks KMS whether it uses the KMS key of a request, as a dry run: KMS checks everything and generates nothing. What a server
    /// answers that does not know dry runs, and generates a data key, is dropped here.
    pub async fn dry_run(&self, permit: Permit, caller: &Caller, request: &KeyRequest) -> DryRun {
        let asked = Asked { caller, request, grant_tokens: &[], is_dry_run: true };
        DryRun::of(self.call(permit, asked, |_, _| Ok(())).await)
    }

    /// Calls KMS in the Region of the permit. `check` takes from an answer what is usable.
    async fn call<T>(
        &self,
        permit: Permit,
        asked: Asked<'_>,
        check: impl FnOnce(answer::Output, &str) -> Result<T, KmsFailure>,
    ) -> Result<T, KmsFailure> {
        let Asked { caller, request, grant_tokens, is_dry_run } = asked;
        let material = sdk_request::checked_material(request).map_err(KmsFailure::not_called)?;
        let call = permit.start_call().await;
        let LaneId { region, class, .. } = call.lane();
        let RegionalClient { client, label, generation } = self.clients.get(region);

        let begun = Instant::now();
        let limits = self.clients.time_limits(*class);
        let request_to_send = Call::new(&client, request, material, grant_tokens, is_dry_run);
        let answer = request_to_send.send(caller.credentials(), limits).await;
        call.complete(!matches!(answer, Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_))));
        let result = match answer {
            Ok(output) => check(output, region),
            Err(error) => {
                let account = self.clients.account();
                let by = match caller {
                    Caller::Operator => CalledBy::Operator(account.as_deref()),
                    Caller::Session(_) => CalledBy::Role,
                };
                let call = Called { key_id: &request.key_id, region, by };
                Err(KmsFailure::from_sdk_error(&error, call, grant_tokens))
            }
        };
        if let Err(failed) = &result {
            match (failed.failure.reason, caller) {
                (Reason::Throttled, _) => self.queue.on_throttled(call.lane()),
                (Reason::CredentialsRejected, _) if is_dry_run && !self.dry_run_may_renew() => {}
                (Reason::CredentialsRejected | Reason::CredentialsMissing, Caller::Operator) => {
                    self.clients.renew_credentials(generation).await;
                }
                (Reason::CredentialsRejected, Caller::Session(session)) => self.roles.rejected(session, failed),
                _ => {}
            }
        }
        // The answer to a dry run is always an error, so it would spoil the share of failed calls.
        if !is_dry_run {
            let code = result.as_ref().map_or_else(|failed| failed.known_code, |_| "OK");
            self.metrics.kms_call(label, code, begun.elapsed());
        }
        result
    }

    /// Whether a dry run may throw credentials away that were rejected. KMS rejects good ones, too, in a Region that the account does not
    /// use, and anyone can name such a Region in a pin.
    fn dry_run_may_renew(&self) -> bool {
        let (mut last, now) = (self.renewed_by_dry_run.lock(), Instant::now());
        let may = last.is_none_or(|last| now.saturating_duration_since(last) >= DRY_RUN_RENEWALS);
        if may {
            *last = Some(now);
        }
        may
    }

    /// Drops idle sessions, and the clients and metrics of idle Regions. Those of the operator's own Region stay: a counter that
    /// disappears and starts again is hard to read.
    fn drop_idle(&self) {
        let is_busy = |region: &str| self.own_region() == Some(region) || self.queue.is_busy(region);
        self.clients.drop_idle(is_busy, |region| self.metrics.forget_region(region));
        self.roles.drop_idle();
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
            let lane = kms.lane(&request(), *class, &Identity::Operator).unwrap();
            let permit = kms.queue.acquire_or_enqueue(&lane, "uid", &place, &mpsc::unbounded().0).unwrap();
            let begun = Instant::now();
            let Err(failed) = kms.generate(permit, &Caller::Operator, &request(), &[]).await else {
                panic!("{class:?}")
            };
            assert_eq!(failed.known_code, "Timeout", "{class:?}");
            let limit = if class.is_rsa() { rsa } else { usual };
            assert_eq!(begun.elapsed().as_secs(), limit.as_secs(), "{class:?}");
        }
    }

    #[tokio::test]
    async fn account_of_a_role_has_lanes_of_its_own() {
        let settings = KmsSettings {
            rates: Rates::new(Rate::parse("10").unwrap(), []),
            time_limits: TimeLimits { usual: Duration::from_secs(2), rsa: Duration::from_secs(3) },
        };
        let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
        let kms = Kms::new(config, settings, vec!["eu-west-1".to_owned()], Arc::default());
        let mut asked = request();
        asked.region = Some("eu-west-1".to_owned());
        let account = |identity: &Identity| kms.lane(&asked, QuotaClass::Symmetric, identity).unwrap().account;
        assert_eq!(account(&Identity::Operator), None);
        // The account of the operator is not known here.
        assert_eq!(account(&Identity::Role(Box::new(role("shop")))).as_deref(), Some("444455556666"));
    }

    fn role(name: &str) -> Role {
        Role {
            arn: format!("arn:aws:iam::444455556666:role/{name}"),
            external_id: None,
            tags: [].into(),
            namespace: "shop".to_owned(),
            class: datakey::api::ClassRef {
                name: "team".to_owned(),
                uid: "u".to_owned(),
                generation: 5,
                rest: datakey::api::Rest::new(),
            },
        }
    }

    /// After a restore of etcd, or under a definition that prunes a field, the same uid and generation can have another spec.
    #[tokio::test]
    async fn session_is_never_that_of_another_role() {
        let settings = KmsSettings {
            rates: Rates::new(Rate::parse("10").unwrap(), []),
            time_limits: TimeLimits { usual: Duration::from_secs(2), rsa: Duration::from_secs(3) },
        };
        let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
        let kms = Kms::new(config, settings, Vec::new(), Arc::default());
        let key = SessionKey::new(&role("shop"), "uid of the namespace");
        let of_shop = Credentials::new("ASIASHOP", "secret", None, None, "test");
        let opened = async || Ok(roles::Opened::new(of_shop, roles::SESSION_LENGTH, Instant::now()));
        kms.roles.sessions.open(&key, opened).await.ok().unwrap();
        let found = kms.known_session(&role("bank"), "uid of the namespace");
        let signer = found.and_then(Result::ok).filter(|session| session.serves(&role("bank")));
        assert_eq!(signer.map(|session| session.opened.credentials.access_key_id().to_owned()), None);
    }
}
