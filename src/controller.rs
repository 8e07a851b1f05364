//! Decides which object is reconciled when: from events of the watches, periodic checks, and retries.

use std::sync::Arc;

use datakey::api::{DataKey, DataKeyPair, KeyKind, KindId};
use futures::{
    FutureExt, Stream, StreamExt,
    channel::mpsc,
    future,
    stream::{self, BoxStream},
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    key_check,
    kms::{queue::Requeue, shares::Shares},
    place::Place,
    reconcile::{self, Context, Error, Loaded, Next, load, reconcile},
};
use classes::ScopeOfClasses;
use resync::{resync, save_revisions};
use scope::WatchScope;
use slots::{Slot, Slots};
use store::Store;
use watch::{key_changes, secret_changes};

mod classes;
mod listing;
mod readiness;
mod resync;
mod runner;
mod scope;
pub mod slots;
mod startup;
pub mod store;
mod unreadable;
mod watch;
mod watched;

pub use readiness::Readiness;
pub use scope::WatchTarget;
pub use startup::wait_until_listable;
pub use watched::Watched;

/// The most reconciles that wait for a slot, where namespaces are served round robin. Further objects wait before that in the
/// order of their arrival, where each of them needs less memory.
const WAITING: u16 = 8192;

/// How many reconciles run at the same time, and how long they may go on after a stop.
#[derive(Clone, Copy, Debug)]
pub struct ControllerSettings {
    /// How many objects are reconciled at the same time.
    pub concurrency: u16,
    /// Whether key pairs are watched, once they can be listed.
    pub pairs: bool,
    /// How long running reconciles may go on after the stop.
    pub grace: Duration,
}

/// Reconciles until `stop`, then finishes what is running, within the grace.
pub async fn run(
    context: Arc<Context>,
    targets: Vec<WatchTarget>,
    settings: ControllerSettings,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let is_cluster_wide = targets.iter().all(|target| target.namespace.is_none());
    let begun = targets.into_iter().map(|target| start_scope(target, &readiness, &context, settings, stop.clone()));
    let (scopes, runs): (Vec<_>, Vec<_>) = begun.unzip();
    let (scopes, of_classes): (Vec<_>, Vec<_>) = scopes.into_iter().unzip();
    let stores: Vec<_> = of_classes.iter().map(|scope: &ScopeOfClasses| Arc::clone(&scope.store)).collect();
    readiness.set_watches(scopes, Arc::clone(&context));

    let mut work = Box::pin(future::join_all(runs));
    let queues = tokio::spawn({
        let context = Arc::clone(&context);
        async move {
            let events = context.events.run(context.kube_timeout);
            // An operator of some namespaces does not know all objects of a class.
            let classes = classes::run(&context, &of_classes, is_cluster_wide);
            let key_checks = Box::pin(key_check::run(&context, &stores));
            future::join5(context.kms.run(), context.reads.queue.run(), events, classes, key_checks).await
        }
    });
    tokio::select! {
        _ = &mut work => return,
        () = stop.cancelled() => info!("stopping: finishing what is running"),
    }
    if timeout(settings.grace, work).await.is_err() {
        warn!(
            "some reconciles did not finish within {:?} and are stopped; nothing is lost, the next leader repeats them",
            settings.grace
        );
    }
    queues.abort();
}

/// Starts the watches of a target. Returns them, what a change of a class concerns, and the future that reconciles what they deliver.
fn start_scope(
    target: WatchTarget,
    readiness: &Readiness,
    context: &Arc<Context>,
    settings: ControllerSettings,
    stop: CancellationToken,
) -> ((Arc<WatchScope>, ScopeOfClasses), impl Future<Output = ()>) {
    let connectivity = readiness.connectivity.clone();
    let expected: &[KindId] = if settings.pairs { &[KindId::DataKey, KindId::DataKeyPair] } else { &[KindId::DataKey] };
    let store = Arc::new(Store::new(Arc::clone(&context.working_set), expected));
    let scope = Arc::new(WatchScope { target, connectivity, store: Arc::clone(&store), listed: Notify::new() });
    let (requeue, requeued) = mpsc::unbounded();
    let of_classes = ScopeOfClasses { store: Arc::clone(&store), requeue: requeue.clone() };
    let of_pairs =
        if settings.pairs { changes_once_listable::<DataKeyPair>(&scope, context) } else { stream::empty().boxed() };
    let all = stream::select(changes::<DataKey>(&scope, context), of_pairs);
    let queue = stream::select(all, requeued);
    let slots = Slots::new(settings.concurrency);
    // Reconciles that wait for KMS hold no slot; the shares bound their number.
    let begun = settings.concurrency.saturating_add(Shares::DEFAULT.all()).saturating_add(WAITING);
    let checks = [
        resync(Arc::clone(&scope), Arc::clone(context), requeue.clone()).boxed(),
        save_revisions(Arc::clone(&scope), requeue.clone()).boxed(),
    ];
    let closes = stop.clone().cancelled_owned().map({
        let slots = slots.clone();
        move |()| slots.close()
    });
    let context = Arc::clone(context);
    let work = async move {
        // The checks run as tasks that end together with this future.
        let _checks: JoinSet<()> = checks.into_iter().chain([closes.boxed()]).collect();
        let one = |place| {
            let work =
                Work { place, store: Arc::clone(&store), requeue: requeue.clone(), context: Arc::clone(&context) };
            work.run(slots.clone())
        };
        runner::run(queue, usize::from(begun), store.wait_until_listed(), stop, one).await;
    };
    ((scope, of_classes), work)
}

/// Objects of a kind to reconcile because one of them or its Secret changed.
fn changes<K: KeyKind>(scope: &Arc<WatchScope>, context: &Arc<Context>) -> impl Stream<Item = Place> + Send + use<K> {
    stream::select(key_changes::<K>(scope, context), secret_changes(scope, K::KIND))
}

/// The same, for a kind that may not be installed, or that the operator may not list here. Reconciles wait until that is known: an
/// object that is not listed yet may reserve the name of a Secret. If there is nothing to list, they go on without the kind, and the
/// watches begin once its objects can be listed.
fn changes_once_listable<K: KeyKind>(scope: &Arc<WatchScope>, context: &Arc<Context>) -> BoxStream<'static, Place> {
    let (scope, context) = (Arc::clone(scope), Arc::clone(context));
    let probed = {
        let (scope, limit) = (Arc::clone(&scope), context.kube_timeout);
        async move { startup::obstacle_to_lists::<K>(&scope, limit).await }
    };
    let begin = move |obstacle| match obstacle {
        None => changes::<K>(&scope, &context).boxed(),
        Some(why) => changes_once_installed::<K>(&scope, &context, why),
    };
    stream::once(probed).flat_map(begin).boxed()
}

/// The same, from the time when its objects can be listed; `obstacle` is why they cannot be, as it is logged. They are listed after
/// its Secrets: reconciles do not wait for the lists any more.
fn changes_once_installed<K: KeyKind>(
    scope: &Arc<WatchScope>,
    context: &Arc<Context>,
    obstacle: String,
) -> BoxStream<'static, Place> {
    let (scope, context) = (Arc::clone(scope), Arc::clone(context));
    let installed = {
        let (scope, limit) = (Arc::clone(&scope), context.kube_timeout);
        async move { startup::wait_for::<K>(&scope.target, obstacle, limit).await }
    };
    let begin = move |()| {
        let secrets = secret_changes(&scope, K::KIND);
        let (scope, context) = (Arc::clone(&scope), Arc::clone(&context));
        let store = Arc::clone(&scope.store);
        let listed = async move { store.wait_until_secrets_are_listed(K::KIND.id).await };
        let keys = stream::once(listed).flat_map(move |()| key_changes::<K>(&scope, &context));
        stream::select(secrets, keys)
    };
    stream::once(installed).flat_map(begin).boxed()
}

/// One object to reconcile.
#[derive(Clone)]
struct Work {
    place: Place,
    store: Arc<Store>,
    requeue: Requeue,
    context: Arc<Context>,
}

// === impl Work ===

impl Work {
    /// Reconciles the object once there is a slot. Returns when it is due again.
    async fn run(self, slots: Slots) -> Option<Duration> {
        let Self { place, store, context, .. } = &self;
        let uid = store.uid(place)?;
        let has_offer = context.kms.queue.has_offer(&uid) || context.reads.queue.has_offer(&uid);
        let begin = |slot| self.clone().reconcile(slot);
        let result = match isolated(slots.clone(), place.namespace(), has_offer, begin).await {
            Err(Error::Panicked) => {
                let report = |slot| self.clone().report_panic(slot);
                isolated(slots, place.namespace(), false, report).await
            }
            result => result,
        };
        // The watch event of a deletion makes the operator forget the DataKey, but this reconcile may have stored state after
        // that event. Forget it here, too: otherwise a deleted DataKey would keep an offered permit that other objects wait for.
        if store.uid(place).as_ref() != Some(&uid) {
            context.forget(&uid);
            return None;
        }
        match result {
            Ok(Next::OnChange) => None,
            Ok(Next::After(delay)) => Some(delay),
            // A reconcile logs its own errors, where their meaning is known.
            Err(_) => Some(context.retries.on_transient_error(&uid)),
        }
    }

    /// Reconciles the object as it is now.
    async fn reconcile(self, slot: Slot) -> Result<Next, Error> {
        match self.place.kind() {
            KindId::DataKey => Box::pin(self.reconcile_as::<DataKey>(slot)).await,
            KindId::DataKeyPair => Box::pin(self.reconcile_as::<DataKeyPair>(slot)).await,
        }
    }

    /// Reports in the condition that a reconcile panicked.
    async fn report_panic(self, slot: Slot) -> Result<Next, Error> {
        match self.place.kind() {
            KindId::DataKey => self.report_panic_as::<DataKey>(slot).await,
            KindId::DataKeyPair => self.report_panic_as::<DataKeyPair>(slot).await,
        }
    }

    async fn reconcile_as<K: KeyKind>(&self, slot: Slot) -> Result<Next, Error> {
        let Self { place, store, requeue, context } = self;
        match load::<K>(place, store, requeue, context).await? {
            Loaded::Key(key, read) => reconcile(key, slot, read, store, requeue, context).await,
            Loaded::Unreadable(metadata, unreadable) => {
                unreadable::report::<K>(&metadata, &unreadable, store, context).await
            }
            Loaded::Nothing => Ok(Next::OnChange),
        }
    }

    async fn report_panic_as<K: KeyKind>(&self, slot: Slot) -> Result<Next, Error> {
        let Self { place, store, requeue, context } = self;
        match load::<K>(place, store, requeue, context).await? {
            Loaded::Key(key, read) => reconcile::report_panic(key, slot, read, store, requeue, context).await,
            Loaded::Unreadable(..) => Err(Error::Panicked),
            Loaded::Nothing => Ok(Next::OnChange),
        }
    }
}

/// Runs a reconcile once there is a slot, on a task of its own: a panic ends this reconcile only.
async fn isolated<F>(
    slots: Slots,
    namespace: &str,
    has_offer: bool,
    work: impl FnOnce(Slot) -> F,
) -> Result<Next, Error>
where
    F: Future<Output = Result<Next, Error>> + Send + 'static,
{
    // `begin` returns no slot once the operator stops.
    let Some(slot) = slots.begin(namespace, has_offer).await else { return Ok(Next::OnChange) };
    // Boxed: a task copies its future when it starts and again when it ends, and this one has kilobytes.
    tokio::spawn(Box::pin(work(slot))).await.unwrap_or(Err(Error::Panicked))
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::data_key;
    use tokio::task::yield_now;

    use super::*;
    use crate::reconcile::tests::Fixture;

    #[tokio::test(start_paused = true)]
    async fn key_that_may_be_read_goes_before_its_namespace() {
        let mut key = data_key();
        let fixture = Fixture::new(&key, "http://127.0.0.1:9");
        key.metadata.name = Some("other".to_owned());
        key.metadata.uid = Some("b".to_owned());
        fixture.put(&key);
        let Fixture { context, store, requests, .. } = fixture;
        let (requeue, _requeued) = mpsc::unbounded();
        let places = ["other", "orders"].map(|name| Place::new(KindId::DataKey, "shop", name));

        let reads = &context.reads.queue;
        let uid = store.uid(&places[1]).unwrap();
        let permits: Vec<_> = (0..)
            .map_while(|number| context.reads.acquire_or_enqueue(&number.to_string(), &places[1], &requeue))
            .collect();
        assert!(context.reads.acquire_or_enqueue(&uid, &places[1], &requeue).is_none());
        drop(permits);
        assert!(timeout(Duration::from_secs(1), reads.run()).await.is_err());
        assert!(reads.has_offer(&uid));

        let slots = Slots::new(1);
        let taken = slots.begin("shop", false).await;
        let mut work = JoinSet::new();
        for place in places {
            let (store, requeue, context) = (Arc::clone(&store), requeue.clone(), Arc::clone(&context));
            work.spawn(Work { place, store, requeue, context }.run(slots.clone()));
            yield_now().await;
        }
        drop(taken);
        work.join_all().await;
        assert!(requests.lock()[0].ends_with("/datakeys/orders"), "{:?}", requests.lock());
    }
}
