//! One question to KMS about a KMS key: which recorded version it is asked with, and with whose credentials.

use std::{sync::Arc, time::Duration};

use datakey::{
    api::{DataKey, DataKeyPair, IssuedVersion, KeyKind, KeyRequest, KindId, Material, QuotaClass},
    arn::KmsArn,
    class::{Identity, Role},
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Asker;
use crate::{
    api_server::{keys, namespaces},
    kms::{DryRun, lane_id::LaneId, queue::Permit, roles::Caller},
    place::Place,
    reconcile::Context,
};

/// How many of the objects are looked at for a version with which the class allows to ask.
const CANDIDATES: usize = 8;

/// How long a question waits at most while objects wait for its lane.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// How long a question waits until it looks again whether objects wait for its lane.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A question about a KMS key.
pub struct Question {
    /// Who asks.
    pub asker: Asker,
    /// The ARN of the KMS key.
    pub arn: Arc<str>,
    /// Some of the objects that depend on it.
    candidates: Vec<Place>,
}

/// How a question ended.
pub enum Outcome {
    /// KMS answered, or the call failed.
    Answered(DryRun),
    /// It was not asked.
    NotAsked,
}

/// A recorded version with which KMS is asked.
struct Version {
    issued: IssuedVersion,
    grant_tokens: Vec<String>,
    identity: Identity,
    namespace: String,
}

/// What KMS is asked.
struct Prepared {
    request: KeyRequest,
    grant_tokens: Vec<String>,
    lane: LaneId,
    caller: Caller,
}

// === impl Question ===

impl Question {
    /// A question about a KMS key on which these objects depend.
    pub fn new(asker: Asker, arn: Arc<str>, mut members: Vec<Place>) -> Self {
        // Others each time: what one object asks for can be denied, and a class can allow the objects of one namespace only.
        fastrand::shuffle(&mut members);
        members.truncate(CANDIDATES);
        Self { asker, arn, candidates: members }
    }

    /// What it is about.
    pub fn id(&self) -> (Asker, Arc<str>) {
        (self.asker.clone(), Arc::clone(&self.arn))
    }

    /// Asks KMS, once no object waits for the lane of the call.
    pub async fn ask(&self, context: &Context) -> Outcome {
        let Some(region) = KmsArn::parse(&self.arn).map(|arn| arn.region) else { return Outcome::NotAsked };
        let server = context.kms.server(region);
        if context.key_checks.is_without_dry_runs(server) {
            return Outcome::NotAsked;
        }
        let Some(mut asked) = self.prepared(context).await else { return Outcome::NotAsked };
        let permit = if let Some(permit) = context.kms.queue.acquire_if_idle(&asked.lane) {
            permit
        } else {
            let Ok(permit) = timeout(LONGEST_WAIT, acquire(context, &asked.lane)).await else {
                return Outcome::NotAsked;
            };
            // Meanwhile the object can be gone, and its class can have changed.
            let Some(now) = self.prepared(context).await.filter(|now| now.lane == asked.lane) else {
                return Outcome::NotAsked;
            };
            asked = now;
            permit
        };
        if context.key_checks.is_without_dry_runs(server) {
            return Outcome::NotAsked;
        }
        let answer = context.kms.dry_run(permit, &asked.caller, &asked.request, &asked.grant_tokens).await;
        match answer {
            DryRun::NotKnown => context.key_checks.give_up(server),
            DryRun::Nothing(code) => debug!(key = &*self.arn, code, "a dry run says nothing about the KMS key"),
            DryRun::Usable | DryRun::Unusable(_) => {}
        }
        Outcome::Answered(answer)
    }

    /// What KMS is asked, and with whose credentials; `None` if no class allows to ask.
    async fn prepared(&self, context: &Context) -> Option<Prepared> {
        let mut found = None;
        for place in &self.candidates {
            found = match place.kind() {
                KindId::DataKey => self.version_of::<DataKey>(place, context).await,
                KindId::DataKeyPair => self.version_of::<DataKeyPair>(place, context).await,
            };
            if found.is_some() {
                break;
            }
        }
        let Version { issued, grant_tokens, identity, namespace } = found?;
        let mut request = issued.request;
        // The record says which KMS key wrapped the version. An alias can name another one by now.
        (request.key_id, request.region) = (self.arn.to_string(), None);
        let class = request.material().map_or(QuotaClass::Symmetric, Material::quota_class);
        let lane = context.kms.lane(&request, class, &identity).ok()?;
        let caller = match identity.role() {
            None => Caller::Operator,
            Some(role) => session(context, role, &namespace).await?,
        };
        Some(Prepared { request, grant_tokens, lane, caller })
    }

    /// The newest version of an object that this KMS key wrapped, if the class that the object has now allows to ask with it.
    async fn version_of<K: KeyKind>(&self, place: &Place, context: &Context) -> Option<Version> {
        let read = keys::get::<K>(&context.client, place.namespace(), place.name());
        let found = timeout(context.kube_timeout, read).await.ok()?.ok()??;
        let key: K = found.decode().ok()?;
        let object = key.as_object();
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let class = context.classes.of(object);
        let tenancy = class.tenancy(context.classes.is_required());
        let of_the_key = object.record().iter().filter(|issued| issued.key_id == *self.arn);
        let allowed = of_the_key.filter_map(|issued| {
            let identity = tenancy.identity_for(object, context.kms.own_region(), issued).ok()?;
            (Asker::of(&identity) == self.asker).then_some((issued, identity))
        });
        let (issued, identity) = allowed.max_by_key(|(issued, _)| issued.version)?;
        Some(Version {
            issued: issued.clone(),
            grant_tokens: object.spec.grant_tokens.to_vec(),
            identity,
            namespace: place.namespace().to_owned(),
        })
    }
}

/// Waits for a permit that no object waits for.
async fn acquire(context: &Context, lane: &LaneId) -> Permit {
    loop {
        if let Some(permit) = context.kms.queue.acquire_if_idle(lane) {
            return permit;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// A session of a role for a namespace; `None` if there is none. The operator never asks as itself instead.
async fn session(context: &Context, role: &Role, namespace: &str) -> Option<Caller> {
    let uid = timeout(context.kube_timeout, namespaces::uid(&context.client, namespace)).await.ok()?.ok()?;
    let session = match context.kms.known_session(role, &uid) {
        Some(known) => known,
        None => Box::pin(context.kms.open_session(role, &uid)).await,
    };
    session.ok().map(|session| Caller::Session(Box::new(session)))
}
