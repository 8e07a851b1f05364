//! The watch over the KMS keys. Deleting a KMS key deletes every data key that it wrapped, AWS waits 7 to 30 days with it, and an operator
//! that calls nothing while everything is settled would not notice. So each KMS key that wrapped a recorded version is asked about once in
//! an interval, by a dry run that generates nothing, with each identity that the objects have.
//!
//! A KMS key that KMS refuses twice in a row shows in the condition `KeyUsable` of each object that depends on it
//! ([`datakey::condition::key_usable`]), in events, and in metrics.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use datakey::{
    api::Object,
    class::{Identity, Tenancy},
    condition::key_usable::{Said, Verdict},
};
use futures::{StreamExt, future, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::sleep};
use tracing::{info, warn};

use crate::{
    classes::{ClassInView, Classes},
    controller::store::{Member, Reported, Store},
    kms::DryRun,
    metrics::KmsKeyStates,
    place::Place,
    reconcile::Context,
};
use announce::Announcements;
use due::{Clock, Millis, millis};
use question::Question;
use state::{Found, State};

mod announce;
mod due;
mod question;
mod state;

/// The longest time until a KMS key that KMS refused is asked about again.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Bounds of the time between two looks at which KMS keys are due.
const SHORTEST_TICK: Duration = Duration::from_millis(100);
const LONGEST_TICK: Duration = Duration::from_mins(1);

/// How many questions read objects at the same time.
const READS: usize = 8;

/// What is known of the KMS keys.
pub struct KeyChecks {
    watch: Watch,
    known: Mutex<HashMap<(Asker, Arc<str>), State>>,
    /// The servers that do not know dry runs ([`crate::kms::Kms::server`]).
    without_dry_runs: Mutex<BTreeSet<String>>,
    /// Turns to read objects.
    reads: Semaphore,
}

/// What the operator does about the KMS keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// It asks about each of them once in this interval.
    Every(Duration),
    /// It asks nothing, and removes the conditions of earlier processes: no answer keeps them true.
    Off,
    /// It asks nothing and writes nothing: the conditions stay, as in a restored cluster.
    Silent,
}

/// When KMS keys are due.
struct Clocks {
    /// Of each KMS key.
    usual: Clock,
    /// Of those that a condition reports.
    reported: Clock,
}

/// Who asks KMS: the operator, or a role of classes by its ARN and external ID. The sessions of one role for several namespaces are the
/// same identity for KMS, except for their tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Asker {
    Operator,
    Role(String, Option<String>),
}

// === impl Clocks ===

impl Clocks {
    fn new(interval: Duration, now: Millis) -> Self {
        Self { usual: Clock::new(interval, now), reported: Clock::new(wait(interval), now) }
    }
}

// === impl Asker ===

impl Asker {
    fn of(identity: &Identity) -> Self {
        match identity.role() {
            None => Self::Operator,
            Some(role) => Self::Role(role.arn.clone(), role.external_id.clone()),
        }
    }

    /// Who asks about the KMS keys of the objects of a class in a namespace; `None` if the class does not allow it there.
    fn for_objects(classes: &Classes, class: Option<&str>, namespace: &str) -> Option<Self> {
        match classes.of_name(class) {
            ClassInView::None => Some(Self::Operator),
            ClassInView::Found(class) if class.admits(namespace) => Some(Self::of(&class.identity(namespace))),
            ClassInView::Found(_) | ClassInView::Unlisted | ClassInView::Unavailable(_) | ClassInView::Absent => None,
        }
    }
}

// === impl KeyChecks ===

impl KeyChecks {
    /// Asks about each KMS key once in this interval; never, if it is zero, or if the operator may not call KMS.
    pub fn new(interval: Duration, may_call: bool) -> Self {
        let watch = match interval {
            _ if !may_call => Watch::Silent,
            Duration::ZERO => Watch::Off,
            interval => Watch::Every(interval),
        };
        Self { watch, known: Mutex::default(), without_dry_runs: Mutex::default(), reads: Semaphore::new(READS) }
    }

    /// Whether the operator asks about KMS keys.
    fn is_asking(&self) -> bool {
        self.interval().is_some()
    }

    fn interval(&self) -> Option<Duration> {
        match self.watch {
            Watch::Every(interval) => Some(interval),
            Watch::Off | Watch::Silent => None,
        }
    }

    /// How many of the KMS keys that these objects depend on are in which state.
    pub fn states<'a>(&self, stores: impl IntoIterator<Item = &'a Store>) -> KmsKeyStates {
        let arns: BTreeSet<_> = stores.into_iter().flat_map(Store::key_arns).collect();
        let mut by_arn = BTreeMap::<Arc<str>, bool>::new();
        for ((_, arn), state) in &*self.known.lock() {
            match state.found {
                Found::Unusable(_) => _ = by_arn.insert(Arc::clone(arn), false),
                Found::Usable => _ = by_arn.entry(Arc::clone(arn)).or_insert(true),
                Found::Nothing | Found::Suspected(_) => {}
            }
        }
        let count = |is_usable| arns.iter().filter(|arn| by_arn.get(*arn) == is_usable).count();
        KmsKeyStates { usable: count(Some(&true)), unusable: count(Some(&false)), unknown: count(None) }
    }

    /// What is known of a KMS key in the record of an object; `None` where its class does not allow to ask.
    fn verdict(
        &self,
        tenancy: &Tenancy<'_>,
        own_region: Option<&str>,
        object: Object<'_>,
        arn: &str,
    ) -> Option<Verdict> {
        if self.watch == Watch::Off {
            return Some(Verdict::Usable);
        }
        let mut of_the_key = object.record().iter().filter(|issued| issued.key_id == arn);
        let identity = of_the_key.find_map(|issued| tenancy.identity_for(object, own_region, issued).ok())?;
        self.known.lock().get(&(Asker::of(&identity), Arc::from(arn)))?.verdict()
    }

    /// What is asked now.
    fn questions(&self, clocks: &mut Clocks, now: Millis, classes: &Classes, stores: &[Arc<Store>]) -> Vec<Question> {
        let arns: BTreeSet<_> = stores.iter().flat_map(|store| store.key_arns()).collect();
        // Also where another process found it out: the condition must not outlive its cause for long.
        let reported: BTreeSet<_> =
            reported(stores).filter_map(|object| object.arns).flat_map(|arns| arns.to_vec()).collect();
        let wait = self.interval().map_or(Millis::MAX, |interval| millis(wait(interval)));
        let mut again = HashSet::new();
        self.known.lock().retain(|(asker, arn), state| {
            if state.is_due(now, wait) {
                again.insert((asker.clone(), Arc::clone(arn)));
            }
            arns.contains(arn)
        });
        let (is_due, is_due_if_reported) = (clocks.usual.advance(now), clocks.reported.advance(now));
        let again_arns: HashSet<_> = again.iter().map(|(_, arn)| Arc::clone(arn)).collect();
        let is_due_again = |arn: &Arc<str>| reported.contains(arn) && is_due_if_reported(arn);
        let concerned = |arn: &Arc<str>| is_due(arn) || is_due_again(arn) || again_arns.contains(arn);
        let arns: BTreeSet<_> = arns.into_iter().filter(concerned).collect();
        let mut members = BTreeMap::<_, Vec<_>>::new();
        for (asker, arn, member) in members_of(&arns, classes, stores) {
            members.entry((asker, arn)).or_default().push((member.class, member.place));
        }
        let mut known = self.known.lock();
        // A class has changed: another identity is asked with, or none.
        known.retain(|key, _| !arns.contains(&key.1) || members.contains_key(key));
        // What this process knows has its own time, and an object can also depend on KMS keys that are usable.
        members
            .retain(|key, _| is_due(&key.1) || again.contains(key) || is_due_again(&key.1) && !known.contains_key(key));
        members.into_iter().map(|((asker, arn), members)| Question::new(asker, arn, members)).collect()
    }

    /// Learns an answer. Returns the objects whose conditions it changes.
    fn learn(
        &self,
        question: &Question,
        answer: DryRun,
        now: Millis,
        classes: &Classes,
        stores: &[Arc<Store>],
    ) -> Vec<Place> {
        let Some(interval) = self.interval() else { return Vec::new() };
        let Question { asker, arn, .. } = question;
        let key = (asker.clone(), Arc::clone(arn));
        let (before, after) = {
            let mut known = self.known.lock();
            let before = known.get(&key).copied().unwrap_or_default();
            let after = before.after(answer, now, millis(wait(interval)));
            known.insert(key, after);
            (before, after)
        };
        let is_news = before.verdict() != after.verdict();
        let concerns = |member: &Member| match after.found {
            Found::Usable => member.unusable.is_some(),
            // A new object.
            Found::Unusable(_) if !is_news => !matches!(member.unusable, Some(Said::Unusable(_))),
            // After a restart, nearly all have the condition already.
            Found::Unusable(refused) => member.unusable != Some(Said::Unusable(refused.cause)) || member.has_others,
            Found::Nothing | Found::Suspected(_) => false,
        };
        let is_answer = matches!(answer, DryRun::Usable | DryRun::Unusable(_));
        // An object whose KMS keys are all usable again is found by `outdated`.
        if !is_answer || !is_news && !matches!(after.found, Found::Unusable(_)) {
            return Vec::new();
        }
        let all = members_of(&BTreeSet::from([Arc::clone(arn)]), classes, stores);
        let of_the_asker = all.into_iter().filter(|(of, ..)| of == asker).map(|(.., member)| member);
        let concerned: Vec<_> = of_the_asker.filter(concerns).map(|member| member.place).collect();
        match (before.found, after.found) {
            (_, Found::Unusable(refused)) if is_news => warn!(
                key = &**arn,
                code = refused.cause.code(),
                "AWS KMS does not use a KMS key that wrapped data keys: cancel its deletion, and enable it"
            ),
            (Found::Unusable(_), Found::Usable) => info!(key = &**arn, "AWS KMS uses the KMS key again"),
            _ => {}
        }
        concerned
    }

    /// The objects with a condition that reports nothing any more: after a rewrap they do not depend on the KMS key that it names, or KMS uses
    /// each KMS key on which they depend. `named`: when each of them was named last; none is named twice in an hour, because a class can
    /// forbid to judge it.
    fn outdated(
        &self,
        named: &mut HashMap<Place, Millis>,
        now: Millis,
        classes: &Classes,
        stores: &[Arc<Store>],
    ) -> Vec<Place> {
        let known = self.known.lock();
        let is_outdated = |object: &Reported| {
            if object.said == Said::Outdated {
                return true;
            }
            let asker = Asker::for_objects(classes, object.class.as_deref(), object.place.namespace());
            let is_usable = |asker: &Asker, arn| {
                known.get(&(asker.clone(), Arc::clone(arn))).is_some_and(|state| state.found == Found::Usable)
            };
            asker.is_some_and(|asker| object.arns.iter().flat_map(|arns| arns.iter()).all(|arn| is_usable(&asker, arn)))
        };
        let outdated: HashSet<_> = reported(stores).filter(is_outdated).map(|object| object.place).collect();
        named.retain(|place, _| outdated.contains(place));
        let pause = millis(LONGEST_WAIT);
        let mut is_named = |place: &Place| {
            let is_due = named.get(place).is_none_or(|last| now >= last.saturating_add(pause) || now < *last);
            if is_due {
                named.insert(place.clone(), now);
            }
            is_due
        };
        outdated.into_iter().filter(|place| is_named(place)).collect()
    }

    /// Notes that a server does not know dry runs.
    fn give_up(&self, server: &str) {
        if self.without_dry_runs.lock().insert(server.to_owned()) {
            warn!(
                server,
                "the KMS server does not know DryRun and generated a data key, which is dropped: the operator does not ask this server \
                 about KMS keys again"
            );
        }
    }

    fn is_without_dry_runs(&self, server: &str) -> bool {
        self.without_dry_runs.lock().contains(server)
    }
}

/// The objects that depend on one of these KMS keys, each with the KMS key and who asks about it.
fn members_of(arns: &BTreeSet<Arc<str>>, classes: &Classes, stores: &[Arc<Store>]) -> Vec<(Asker, Arc<str>, Member)> {
    let all = stores.iter().flat_map(|store| store.wrapped_by(arns));
    let with_asker = all.filter_map(|(arn, member)| {
        let asker = Asker::for_objects(classes, member.class.as_deref(), member.place.namespace())?;
        Some((asker, arn, member))
    });
    with_asker.collect()
}

/// The objects with a condition.
fn reported(stores: &[Arc<Store>]) -> impl Iterator<Item = Reported> {
    stores.iter().flat_map(|store| store.reported())
}

/// How long a KMS key that KMS refused waits for the next question.
fn wait(interval: Duration) -> Duration {
    LONGEST_WAIT.min(interval / 2)
}

fn now() -> Millis {
    Timestamp::now().as_millisecond()
}

/// Asks about the KMS keys of these objects, and keeps their conditions, until it is dropped.
pub async fn run(context: &Context, stores: &[Arc<Store>]) {
    for store in stores {
        store.wait_until_listed().await;
    }
    let (announce, announced) = announce::queue();
    let announcing = announce::run(context, announced);
    match context.key_checks.watch {
        Watch::Every(interval) => _ = future::join(ask(context, stores, interval, announce), announcing).await,
        Watch::Off => _ = future::join(clear(stores, announce), announcing).await,
        Watch::Silent => {}
    }
}

/// Removes what earlier processes reported, also what could not be removed the first time or comes back with a backup.
async fn clear(stores: &[Arc<Store>], announce: Announcements) {
    loop {
        for Reported { place, .. } in reported(stores) {
            announce.send(place);
        }
        sleep(LONGEST_WAIT).await;
    }
}

async fn ask(context: &Context, stores: &[Arc<Store>], interval: Duration, announce: Announcements) {
    let checks = &context.key_checks;
    let tick = (interval / 720).clamp(SHORTEST_TICK, LONGEST_TICK);
    let mut clocks = Clocks::new(interval, now());
    let (mut asked, mut under_way) = (FuturesUnordered::new(), BTreeSet::new());
    let mut outdated = HashMap::new();
    loop {
        tokio::select! {
            () = sleep(tick) => {
                for question in checks.questions(&mut clocks, now(), &context.classes, stores) {
                    if under_way.insert(question.id()) {
                        asked.push(async { (question.ask(context).await, question) });
                    }
                }
                for place in checks.outdated(&mut outdated, now(), &context.classes, stores) {
                    announce.send(place);
                }
            }
            Some((outcome, question)) = asked.next(), if !asked.is_empty() => {
                under_way.remove(&question.id());
                if let Some(result) = outcome.result() {
                    context.metrics.kms_key_checked(result);
                }
                for place in checks.learn(&question, outcome.answer(), now(), &context.classes, stores) {
                    announce.send(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
