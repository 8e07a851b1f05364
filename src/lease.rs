//! Leadership among replicas, by a `Lease`. It saves double calls to KMS; safety never rests on it.
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

use datakey::{names::FIELD_MANAGER, text::error_chain};

/// How leadership is sought and kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the `Lease`.
    pub namespace: String,
    /// Name of the `Lease`.
    pub name: String,
    /// How long others wait after the last renewal, in whole seconds.
    pub duration: Duration,
    /// Who this is: another one after each start.
    pub identity: String,
}

/// A `Lease` that replicas compete for.
pub struct Election {
    api: Api<Lease>,
    settings: Settings,
    kube_timeout: Duration,
}

/// The lease is held.
pub struct Leadership {
    election: Election,
    lease: Lease,
    renewed: Instant,
}

/// A lease as last seen, and since when it has been so.
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

type Answer = Result<Lease, kube::Error>;

// === impl Settings ===

impl Settings {
    /// How often the holder renews: a renewal that is never answered leaves time for another one.
    fn renew_every(&self) -> Duration {
        self.duration / 4
    }

    /// After this time without a renewal the holder gives up: before another replica may take over.
    fn give_up_after(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often the others look.
    fn look_every(&self) -> Duration {
        (self.duration / 15).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }
}

// === impl Election ===

impl Election {
    /// No request is sent yet. Each waits for an answer no longer than `kube_timeout`.
    pub fn new(client: Client, settings: Settings, kube_timeout: Duration) -> Self {
        // A renewal that is not answered must leave time for another one.
        let kube_timeout = kube_timeout.min(settings.renew_every());
        Self { api: Api::namespaced(client, &settings.namespace), settings, kube_timeout }
    }

    /// Waits until this replica leads. `standing_by` is called whenever the API server reports another leader.
    pub async fn won(self, standing_by: impl Fn()) -> Leadership {
        let Settings { namespace, name, identity, .. } = &self.settings;
        let mut seen: Option<Seen> = None;
        let mut reported: Option<String> = None;
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
                Err(error) => warn!(namespace, name, error = error_chain(&error), "the lease can't be read or taken"),
            }
            sleep(self.settings.look_every()).await;
        }
    }

    /// Looks at the lease, and takes it if it may be taken.
    async fn try_once(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, kube::Error> {
        let name = &self.settings.name;
        let Some(mut lease) = self.within(self.api.get_opt(name)).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                spec: Some(self.taken(&LeaseSpec::default())),
            };
            return won_or_lost(self.within(self.api.create(&ours(), &lease)).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.spec != spec) {
            *seen = Some(Seen { spec: spec.clone(), since: Instant::now() });
        }
        let unchanged = seen.as_ref().map_or(Duration::ZERO, |seen| seen.since.elapsed());
        if !may_be_taken(&spec, unchanged) {
            return Ok(None);
        }
        lease.spec = Some(self.taken(&spec));
        lease.metadata.managed_fields = None;
        won_or_lost(self.within(self.api.replace(name, &ours(), &lease)).await)
    }

    /// The lease in this replica's hands.
    fn taken(&self, before: &LeaseSpec) -> LeaseSpec {
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

    async fn within<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        let late = |_| kube::Error::Service(format!("no answer within {:?}", self.kube_timeout).into());
        timeout(self.kube_timeout, request).await.map_err(late)?
    }
}

// === impl Leadership ===

impl Leadership {
    /// Renews the lease until that fails for too long or another replica holds it.
    pub async fn lost(&mut self) {
        let Settings { namespace, name, .. } = self.election.settings.clone();
        loop {
            let until = self.renewed + self.election.settings.give_up_after();
            match timeout_at(until, self.kept()).await {
                Ok(true) => {}
                Ok(false) => return warn!(namespace, name, "another replica took the lease"),
                Err(_) => return warn!(namespace, name, "the lease could not be renewed in time"),
            }
        }
    }

    /// Waits, then renews it; false if another replica has it. After an error it is tried again, and sooner.
    async fn kept(&mut self) -> bool {
        let settings = &self.election.settings;
        let soonest = Instant::now() + settings.look_every();
        sleep_until(soonest.max(self.renewed + settings.renew_every())).await;
        match self.renew().await {
            Ok(()) => true,
            Err(error) => {
                debug!(error = error_chain(&error), "the lease was not renewed");
                self.is_ours().await
            }
        }
    }

    /// Lets others take it at once.
    pub async fn release(mut self) {
        let spec = self.lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.write().await {
            Ok(()) => info!("the lease is released"),
            Err(error) => {
                warn!(error = error_chain(&error), "the lease was not released; others wait until it runs out");
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
        self.lease = self.election.within(api.replace(&settings.name, &ours(), &self.lease)).await?;
        Ok(())
    }

    /// Whether this replica still holds it, as far as is known; takes in changes of other clients.
    async fn is_ours(&mut self) -> bool {
        let Election { api, settings, .. } = &self.election;
        match self.election.within(api.get_opt(&settings.name)).await {
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

/// Whether a lease that has not changed for this time has no holder any more.
fn may_be_taken(spec: &LeaseSpec, unchanged: Duration) -> bool {
    let is_free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    is_free || unchanged >= Duration::from_secs(seconds)
}

/// A conflict means that another replica was faster: that is not an error.
fn won_or_lost(answer: Answer) -> Result<Option<Lease>, kube::Error> {
    match answer {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn lease_without_a_holder_is_taken_at_once() {
        assert!(may_be_taken(&LeaseSpec::default(), Duration::ZERO));
        assert!(may_be_taken(&held("", 15), Duration::ZERO));
    }

    #[test]
    fn held_lease_is_taken_after_its_duration_without_a_change() {
        assert!(!may_be_taken(&held("other", 15), Duration::from_millis(14_999)));
        assert!(may_be_taken(&held("other", 15), Duration::from_secs(15)));
    }

    #[test]
    fn renew_deadline_allows_two_tries_before_expiry() {
        for seconds in [3, 15, 60] {
            let settings = Settings {
                namespace: String::new(),
                name: String::new(),
                duration: Duration::from_secs(seconds),
                identity: String::new(),
            };
            assert!(settings.give_up_after() < settings.duration);
            assert!(settings.give_up_after() > 2 * settings.renew_every());
        }
    }
}
