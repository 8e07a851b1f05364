//! Leader election among replicas, by a `Lease`. It avoids duplicate calls to KMS; safety never depends on it.
//!
//! As client-go does it: a candidate takes the lease when it has no holder, or when it has not been renewed for its whole
//! duration by the candidate's own clock, so the clocks of nodes need not agree. Every write names the resource version
//! that it was decided on. A holder that can't renew stops before another replica may take over.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::{
    api_server::{
        errors::{describe, is_unanswered},
        outage::Repeats,
    },
    logging::warn_if,
};
use datakey::names::FIELD_MANAGER;

use timing::is_free;

mod timing;

pub use timing::LeaseSettings;

/// A `Lease` that replicas compete for.
pub struct Election {
    api: Api<Lease>,
    settings: LeaseSettings,
    kube_timeout: Duration,
}

/// The lease, held by this replica.
pub struct Leadership {
    election: Election,
    lease: Lease,
    renewed: Instant,
}

/// A lease as this replica last read it, and since when it has not changed.
struct ObservedLease {
    spec: LeaseSpec,
    since: Instant,
}

// === impl Election ===

impl Election {
    /// Creates the election and sends no request. Each later request waits for an answer no longer than `kube_timeout` and the
    /// retry period.
    pub fn new(client: Client, settings: LeaseSettings, kube_timeout: Duration) -> Self {
        // A renewal that is not answered must leave time for another one.
        let kube_timeout = kube_timeout.min(settings.retry_period());
        Self { api: Api::namespaced(client, &settings.namespace), settings, kube_timeout }
    }

    /// Waits until this replica leads. `standing_by` is called whenever the API server reports another leader.
    pub async fn acquire(self, standing_by: impl Fn()) -> Leadership {
        let LeaseSettings { namespace, name, identity, .. } = &self.settings;
        let mut seen: Option<ObservedLease> = None;
        let mut reported: Option<String> = None;
        let mut warned = Repeats::default();
        loop {
            let begun = Instant::now();
            match self.try_once(&mut seen).await {
                Ok(Some(lease)) => {
                    info!(namespace, name, identity, "this replica leads");
                    return Leadership { election: self, lease, renewed: begun };
                }
                Ok(None) => {
                    let holder = seen.as_ref().and_then(|seen| seen.spec.holder_identity.clone()).unwrap_or_default();
                    if reported.as_ref() != Some(&holder) {
                        info!(namespace, name, holder, "another replica leads; standing by");
                        reported = Some(holder);
                    }
                    standing_by();
                }
                Err(error) => {
                    let is_answered = !is_unanswered(&error);
                    let error = describe(&error);
                    let is_due = is_answered && warned.is_due(&error, Instant::now());
                    warn_if!(is_due, namespace, name, error, "the lease can't be read or taken");
                }
            }
            sleep(self.settings.poll_interval()).await;
        }
    }

    /// Reads the lease, and takes it if it is free.
    async fn try_once(&self, seen: &mut Option<ObservedLease>) -> Result<Option<Lease>, kube::Error> {
        let name = &self.settings.name;
        let Some(mut lease) = self.with_timeout(self.api.get_opt(name)).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claimed(&LeaseSpec::default())),
            };
            return conflict_is_none(self.with_timeout(self.api.create(&ours(), &lease)).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            *seen = Some(ObservedLease { spec: spec.clone(), since: Instant::now() });
        }
        let unchanged = seen.as_ref().map_or(Duration::ZERO, |seen| seen.since.elapsed());
        if !is_free(&spec, unchanged) {
            return Ok(None);
        }
        lease.spec = Some(self.claimed(&spec));
        lease.metadata.managed_fields = None;
        conflict_is_none(self.with_timeout(self.api.replace(name, &ours(), &lease)).await)
    }

    /// The lease with this replica as its holder.
    fn claimed(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default().saturating_add(1)),
            ..before.clone()
        }
    }

    async fn with_timeout<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        let late = |_| kube::Error::Service(format!("no answer within {:?}", self.kube_timeout).into());
        timeout(self.kube_timeout, request).await.map_err(late)?
    }
}

// === impl Leadership ===

impl Leadership {
    /// Renews the lease until that fails for too long or another replica holds it; returns which of the two.
    pub async fn until_lost(&mut self) -> &'static str {
        loop {
            let until = self.renewed + self.election.settings.renew_deadline();
            match timeout_at(until, self.keep()).await {
                Ok(true) => {}
                Ok(false) => return "another replica took the lease",
                Err(_) => return "the lease could not be renewed in time",
            }
        }
    }

    /// Waits, then renews the lease; false if another replica holds it. After an error, the next try starts sooner.
    async fn keep(&mut self) -> bool {
        let settings = &self.election.settings;
        let soonest = Instant::now() + settings.poll_interval();
        sleep_until(soonest.max(self.renewed + settings.retry_period())).await;
        match self.renew().await {
            Ok(()) => true,
            Err(error) => {
                debug!(error = describe(&error), "the lease was not renewed");
                self.is_ours().await
            }
        }
    }

    /// Releases the lease, so that another replica can take it immediately.
    pub async fn release(mut self) {
        let spec = self.lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.write().await {
            Ok(()) => info!("the lease is released"),
            Err(error) => {
                warn!(error = describe(&error), "the lease was not released; others wait until it runs out");
            }
        }
    }

    async fn renew(&mut self) -> Result<(), kube::Error> {
        let begun = Instant::now();
        self.lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        self.write().await?;
        self.renewed = begun;
        Ok(())
    }

    async fn write(&mut self) -> Result<(), kube::Error> {
        self.lease.metadata.managed_fields = None;
        let Election { api, settings, .. } = &self.election;
        self.lease = self.election.with_timeout(api.replace(&settings.name, &ours(), &self.lease)).await?;
        Ok(())
    }

    /// Reads the lease; false if another replica holds it or it is gone. Without an answer the result is true. Keeps the lease
    /// that was read, so that the next renewal includes the changes of other clients.
    async fn is_ours(&mut self) -> bool {
        let Election { api, settings, .. } = &self.election;
        match self.election.with_timeout(api.get_opt(&settings.name)).await {
            Ok(Some(lease)) => {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
                let is_ours = holder == Some(&settings.identity);
                self.lease = lease;
                is_ours
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

/// A conflict means that another replica was faster: that is not an error.
fn conflict_is_none(answer: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match answer {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
