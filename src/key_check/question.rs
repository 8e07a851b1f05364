//! One question to KMS about a KMS key: which recorded version it is asked with, and with whose credentials.

use std::{collections::HashSet, sync::Arc, time::Duration};

use datakey::{
    api::{DataKey, DataKeyPair, IssuedVersion, KeyKind, KeyRequest, KindId, Material, QuotaClass},
    arn::KmsArn,
    class::{Identity, Role},
};
use futures::{StreamExt, channel::mpsc};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Asker;
use crate::{
    api_server::{keys, namespaces},
    kms::{
        DryRun,
        lane_id::LaneId,
        queue::{Permit, RateQueue},
        roles::Caller,
    },
    metrics::KeyCheck,
    place::Place,
    reconcile::Context,
};

/// How many of the objects are looked at for a version with which the class allows to ask.
const CANDIDATES: usize = 8;

/// How many of them KMS is asked with at most: it can deny the encryption context or the operation of one and allow that of another.
const CALLS: usize = 3;

/// How long a question lets all objects that wait for its lane go first, and then how long it waits at most in turn with them.
const LONGEST_TURN: Duration = Duration::from_mins(10);

/// How long a question waits until it looks again whether objects wait for its lane.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a question may hold a permit before the call.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

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
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// KMS answered, or the call failed.
    Answered(DryRun),
    /// No class of the objects allows to ask.
    Forbidden,
    /// The objects could not be read, or others waited for KMS all the time.
    NotAsked,
    /// The server does not know dry runs.
    NoDryRuns,
}

/// Why KMS is not asked with the version of an object.
enum Why {
    Forbidden,
    Unread,
}

/// A recorded version with which KMS is asked.
struct Version {
    issued: IssuedVersion,
    identity: Identity,
    namespace: String,
}

/// What KMS is asked.
struct Prepared {
    request: KeyRequest,
    lane: LaneId,
    caller: Caller,
}

// === impl Outcome ===

impl Outcome {
    /// What is learned from it.
    pub fn answer(self) -> DryRun {
        match self {
            Self::Answered(answer) => answer,
            Self::Forbidden => DryRun::Denied("NotAllowed"),
            Self::NotAsked => DryRun::NoAnswer("NotAsked"),
            Self::NoDryRuns => DryRun::NotKnown,
        }
    }

    /// How it is counted; `None` if it is not.
    pub fn result(self) -> Option<KeyCheck> {
        match self {
            Self::Answered(answer) => Some(KeyCheck::of(answer)),
            Self::Forbidden | Self::NotAsked => Some(KeyCheck::NotAsked),
            Self::NoDryRuns => None,
        }
    }
}

// === impl Question ===

impl Question {
    /// A question about a KMS key on which these objects depend, each with the name of its class.
    pub fn new(asker: Asker, arn: Arc<str>, mut members: Vec<(Option<Arc<str>>, Place)>) -> Self {
        // Others each time, and first one of each namespace and class: what one object asks for can be denied, and many objects of one
        // namespace must not hide those of another.
        fastrand::shuffle(&mut members);
        let mut seen = HashSet::new();
        let (first, others): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|(class, place)| seen.insert((place.namespace().to_owned(), class.clone())));
        let candidates = first.into_iter().chain(others).map(|(_, place)| place).take(CANDIDATES).collect();
        Self { asker, arn, candidates }
    }

    /// The objects that it is asked with, in their order.
    #[cfg(test)]
    pub fn candidates(&self) -> &[Place] {
        &self.candidates
    }

    /// What it is about.
    pub fn id(&self) -> (Asker, Arc<str>) {
        (self.asker.clone(), Arc::clone(&self.arn))
    }

    /// Asks KMS, once no object waits for the lane of the call.
    pub async fn ask(&self, context: &Context) -> Outcome {
        let Some(region) = KmsArn::parse(&self.arn).map(|arn| arn.region) else { return Outcome::Forbidden };
        let server = context.kms.server(region);
        let (mut outcome, mut calls) = (Outcome::Forbidden, 0);
        for place in &self.candidates {
            if context.key_checks.is_without_dry_runs(server) {
                return Outcome::NoDryRuns;
            }
            match self.ask_with(place, server, context).await {
                Ok(denied @ Outcome::Answered(DryRun::Denied(_))) => {
                    (outcome, calls) = (denied, calls + 1);
                    if calls == CALLS {
                        break;
                    }
                }
                Ok(ended) => return ended,
                Err(Why::Unread) if calls == 0 => outcome = Outcome::NotAsked,
                Err(Why::Unread | Why::Forbidden) => {}
            }
        }
        outcome
    }

    /// Asks KMS with a version of this object.
    async fn ask_with(&self, place: &Place, server: &str, context: &Context) -> Result<Outcome, Why> {
        let mut asked = {
            let _turn = context.key_checks.reads.acquire().await;
            self.prepared(place, context).await?
        };
        let permit = if let Some(permit) = context.kms.queue.acquire_if_idle(&asked.lane) {
            permit
        } else {
            let uid = format!("{:?}", self.id());
            let Some(permit) = acquire(&context.kms.queue, &asked.lane, &uid, place).await else {
                return Ok(Outcome::NotAsked);
            };
            // Meanwhile the object can be gone, and its class can have changed.
            match timeout(LONGEST_HOLD, self.prepared(place, context)).await {
                Ok(Ok(now)) if now.lane == asked.lane => asked = now,
                _ => return Ok(Outcome::NotAsked),
            }
            permit
        };
        if context.key_checks.is_without_dry_runs(server) {
            return Ok(Outcome::NoDryRuns);
        }
        let answer = context.kms.dry_run(permit, &asked.caller, &asked.request).await;
        match answer {
            DryRun::NotKnown => context.key_checks.give_up(server),
            DryRun::Denied(code) | DryRun::NoAnswer(code) => {
                debug!(key = &*self.arn, code, "a dry run says nothing about the KMS key");
            }
            DryRun::Usable | DryRun::Unusable(_) => {}
        }
        Ok(Outcome::Answered(answer))
    }

    /// What KMS is asked with this object, and with whose credentials.
    async fn prepared(&self, place: &Place, context: &Context) -> Result<Prepared, Why> {
        let found = match place.kind() {
            KindId::DataKey => self.version_of::<DataKey>(place, context).await,
            KindId::DataKeyPair => self.version_of::<DataKeyPair>(place, context).await,
        };
        let Version { issued, identity, namespace } = found?;
        let mut request = issued.request;
        // The record says which KMS key wrapped the version. An alias can name another one by now.
        (request.key_id, request.region) = (self.arn.to_string(), None);
        let class = request.material().map_or(QuotaClass::Symmetric, Material::quota_class);
        let lane = context.kms.lane(&request, class, &identity).map_err(|_| Why::Forbidden)?;
        let caller = match identity.role() {
            None => Caller::Operator,
            Some(role) => session(context, role, &namespace).await.ok_or(Why::Unread)?,
        };
        Ok(Prepared { request, lane, caller })
    }

    /// The newest version of an object that this KMS key wrapped, if the class that the object has now allows to ask with it.
    async fn version_of<K: KeyKind>(&self, place: &Place, context: &Context) -> Result<Version, Why> {
        let read = keys::get::<K>(&context.client, place.namespace(), place.name());
        let Ok(Ok(found)) = timeout(context.kube_timeout, read).await else { return Err(Why::Unread) };
        let key: K = found.and_then(|found| found.decode().ok()).ok_or(Why::Forbidden)?;
        let object = key.as_object();
        if object.metadata.deletion_timestamp.is_some() {
            return Err(Why::Forbidden);
        }
        let class = context.classes.of(object);
        let tenancy = class.tenancy(context.classes.is_required());
        // A newer release can record a request that this one cannot send.
        let of_the_key =
            object.record().iter().filter(|issued| issued.key_id == *self.arn && issued.request.material().is_some());
        let allowed = of_the_key.filter_map(|issued| {
            let identity = tenancy.identity_for(object, context.kms.own_region(), issued).ok()?;
            (Asker::of(&identity) == self.asker).then_some((issued, identity))
        });
        let (issued, identity) = allowed.max_by_key(|(issued, _)| issued.version).ok_or(Why::Forbidden)?;
        Ok(Version { issued: issued.clone(), identity, namespace: place.namespace().to_owned() })
    }
}

/// Waits for a permit; `None` if there is none in time. A tenant whose objects never stop waiting must not hide what a dry run would find,
/// so after a while the question waits in turn, as one object more of the namespace of `object`.
async fn acquire(queue: &RateQueue, lane: &LaneId, uid: &str, object: &Place) -> Option<Permit> {
    if let Ok(permit) = timeout(LONGEST_TURN, acquire_if_idle(queue, lane)).await {
        return Some(permit);
    }
    let in_turn = timeout(LONGEST_TURN, acquire_in_turn(queue, lane, uid, object)).await;
    queue.release(uid);
    in_turn.ok()
}

async fn acquire_if_idle(queue: &RateQueue, lane: &LaneId) -> Permit {
    loop {
        if let Some(permit) = queue.acquire_if_idle(lane) {
            return permit;
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn acquire_in_turn(queue: &RateQueue, lane: &LaneId, uid: &str, object: &Place) -> Permit {
    let (requeue, mut offered) = mpsc::unbounded();
    loop {
        if let Some(permit) = queue.acquire_or_enqueue(lane, uid, object, &requeue) {
            return permit;
        }
        // The other end is in this function.
        let _ = offered.next().await;
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::time::Instant;

    use super::*;
    use crate::kms::{rates::Rates, shares::Shares};

    #[tokio::test(start_paused = true)]
    async fn question_gets_its_turn_while_objects_wait_without_end() {
        let queue = RateQueue::new(Rates::new(NonZeroU32::new(20).unwrap().into(), []), Shares::UNLIMITED);
        let lane = LaneId::new("eu-west-1", QuotaClass::Symmetric);
        let (requeue, mut requeued) = mpsc::unbounded();
        let ask = |number: usize| {
            let object = Place::new(KindId::DataKey, "flood", &number.to_string());
            queue.acquire_or_enqueue(&lane, object.name(), &object, &requeue)
        };
        let mut held: Vec<_> = (0..30_000).filter_map(ask).collect();
        let flood = async {
            for permit in held.drain(..) {
                permit.start_call().await;
            }
            while let Some(object) = requeued.next().await {
                if let Some(permit) = queue.acquire_or_enqueue(&lane, object.name(), &object, &requeue) {
                    permit.start_call().await;
                }
            }
        };
        let begun = Instant::now();
        let orders = Place::new(KindId::DataKey, "shop", "orders");
        let permit = tokio::select! {
            permit = acquire(&queue, &lane, "question", &orders) => permit,
            () = flood => panic!("the flood ended"),
            () = queue.run() => unreachable!(),
        };
        assert!(permit.is_some() && queue.waiting() > 0);
        let waited = begun.elapsed();
        assert!(waited >= LONGEST_TURN && waited < LONGEST_TURN + Duration::from_secs(5), "{waited:?}");
    }
}
