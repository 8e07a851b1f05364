//! Decides which `DataKey` is reconciled when: from events of the watches, periodic checks, and retries.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, channel::mpsc, future, stream};
use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::{self, Action, Config, applier},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Duration, Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    api_server::{
        errors::{describe_watch, is_watch_unanswered},
        outage::Repeats,
    },
    kms::{queue::Requeue, shares::Shares},
    logging::warn_if,
    reconcile::{self, Context, Error, reconcile},
};
use datakey::{api::DataKey, text::error_chain};

use cache::Cached;
use caches::Caches;
use resync::{resync, save_revisions};
use scope::WatchScope;
use slots::{Slot, Slots};
use watch::{key_changes, secret_changes};

pub mod cache;
pub mod caches;
pub(crate) mod own_writes;
mod readiness;
mod resync;
mod scope;
pub mod secret_index;
pub mod slots;
mod startup;
mod unreadable;
mod watch;

pub use readiness::Readiness;
pub use scope::WatchTarget;
pub use startup::wait_until_listable;

/// The most reconciles that wait for a slot, where namespaces are served round robin. Further objects wait before that in the
/// order of their arrival, where each of them needs less memory.
const WAITING: u16 = 8192;

/// How many reconciles run at the same time, and how long they may go on after a stop.
#[derive(Clone, Copy, Debug)]
pub struct ControllerSettings {
    /// How many `DataKey`s are reconciled at the same time.
    pub concurrency: u16,
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
    let begun = targets.into_iter().map(|target| start_scope(target, &readiness, &context, settings, stop.clone()));
    let (scopes, runs): (Vec<_>, Vec<_>) = begun.unzip();
    readiness.set_watches(scopes, Arc::clone(&context));

    let mut work = Box::pin(future::join_all(runs));
    let queues = tokio::spawn({
        let context = Arc::clone(&context);
        async move { future::join(context.kms.run(), context.reads.queue.run()).await }
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

/// Starts the watches of a target. Returns them, and the future that reconciles what they deliver.
fn start_scope(
    target: WatchTarget,
    readiness: &Readiness,
    context: &Arc<Context>,
    settings: ControllerSettings,
    stop: CancellationToken,
) -> (Arc<WatchScope>, impl Future<Output = ()>) {
    let (keys, writer) = reflector::store();
    let connectivity = readiness.connectivity.clone();
    let caches = Arc::new(Caches::new(keys));
    let scope = Arc::new(WatchScope { target, connectivity, caches: Arc::clone(&caches), listed: Notify::new() });
    let (requeue, woken) = mpsc::unbounded();
    let woken = woken.map({
        let (keys, context) = (caches.keys.clone(), Arc::clone(context));
        move |key: ObjectRef<DataKey>| {
            let key: ObjectRef<Cached> = key.into_kind_unchecked(());
            let is_there = |uid| keys.get(&key).is_some_and(|now| now.meta().uid.as_ref() == Some(uid));
            // The object was deleted without an event: the list after an interrupted watch did not contain it.
            if let Some(gone) = key.extra.uid.as_ref().filter(|uid| !is_there(uid)) {
                context.forget(gone);
            }
            Ok(key.into())
        }
    });
    let changes = stream::select(key_changes(&scope, writer, context), secret_changes(&scope));
    let queue = stream::select(changes, woken);
    let slots = Slots::new(settings.concurrency);
    // Reconciles that wait for KMS hold no slot; the shares bound their number.
    let begun = settings.concurrency.saturating_add(Shares::DEFAULT.all()).saturating_add(WAITING);
    let config = Config::default().concurrency(begun);
    let stop = stop.cancelled_owned().inspect({
        let slots = slots.clone();
        move |()| slots.close()
    });
    let keys = caches.keys.clone();
    let resync = resync(Arc::clone(&scope), Arc::clone(context), requeue.clone());
    let saves = save_revisions(Arc::clone(&scope), requeue.clone());
    let mut logged = Repeats::default();
    let work = applier(
        move |key, context| {
            let (caches, requeue) = (Arc::clone(&caches), requeue.clone());
            let namespace = key.namespace().unwrap_or_default();
            let slots = slots.clone();
            Box::pin(async move {
                let work = {
                    let (key, caches, requeue, context) =
                        (Arc::clone(&key), Arc::clone(&caches), requeue.clone(), Arc::clone(&context));
                    move |slot| reconcile_one(key, slot, caches, requeue, context)
                };
                let has_permit = key.meta().uid.as_deref().is_some_and(|uid| context.kms.queue.has_offer(uid));
                match isolated(slots.clone(), &namespace, has_permit, work).await {
                    Err(Error::Panicked) => {
                        let work = move |slot| report_panic(key, slot, caches, requeue, context);
                        isolated(slots, &namespace, false, work).await
                    }
                    result => result,
                }
            })
        },
        |key, error, context| error_policy(&key, error, &context),
        Arc::clone(context),
        keys,
        queue.take_until(stop),
        config,
    )
    .for_each(move |result| {
        log_result(&result, &mut logged);
        future::ready(())
    });
    let work = async move {
        // The two checks run as tasks that end together with this future.
        let _checks = JoinSet::from_iter([future::Either::Left(resync), future::Either::Right(saves)]);
        work.await;
    };
    (scope, work)
}

/// Runs a reconcile once there is a slot, on a task of its own: a panic ends this reconcile only.
async fn isolated<F>(
    slots: Slots,
    namespace: &str,
    has_permit: bool,
    work: impl FnOnce(Slot) -> F,
) -> Result<Action, Error>
where
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    // `begin` returns no slot once the operator stops.
    let Some(slot) = slots.begin(namespace, has_permit).await else { return Ok(Action::await_change()) };
    tokio::spawn(work(slot)).await.unwrap_or(Err(Error::Panicked))
}

/// Reports in the condition that a reconcile panicked.
async fn report_panic(
    key: Arc<Cached>,
    slot: Slot,
    caches: Arc<Caches>,
    requeue: Requeue,
    context: Arc<Context>,
) -> Result<Action, Error> {
    match key.decode() {
        Ok(key) => {
            let key = context.written.newest(Arc::new(key), None);
            reconcile::report_panic(key, slot, &caches, &requeue, &context).await
        }
        Err(_) => Err(Error::Panicked),
    }
}

/// Reconciles a `DataKey` as the caches have it now.
async fn reconcile_one(
    key: Arc<Cached>,
    slot: Slot,
    caches: Arc<Caches>,
    requeue: Requeue,
    context: Arc<Context>,
) -> Result<Action, Error> {
    caches.secrets.wait_until_ready().await;
    // `key` is the object as it was queued. The watch may have delivered our own last write since then and removed it from
    // `written`, so get that write before you read the cache.
    let before = key.meta().uid.as_deref().and_then(|uid| context.written.get(uid));
    let place = ObjectRef::from_obj(&*key);
    let Some(key) = caches.keys.get(&place) else {
        // It was deleted while it waited for a slot.
        return Ok(forgotten(&key, &context));
    };
    let result = match key.decode() {
        Ok(data_key) => {
            let data_key = context.written.newest(Arc::new(data_key), before);
            reconcile(data_key, slot, &caches, &requeue, &context).await
        }
        Err(unreadable) => unreadable::report(&key, &unreadable, &context).await,
    };
    // The watch event of a deletion makes the operator forget the DataKey, but this reconcile may have stored state after that
    // event. Forget it here, too: otherwise a deleted DataKey would keep an offered permit that other objects wait for.
    if caches.keys.get(&place).is_none_or(|now| now.meta().uid != key.meta().uid) {
        return Ok(forgotten(&key, &context));
    }
    result
}

fn forgotten(gone: &Cached, context: &Context) -> Action {
    context.forget(gone.meta().uid.as_deref().unwrap_or_default());
    Action::await_change()
}

/// When a `DataKey` is retried after an error.
fn error_policy(key: &Cached, _: &Error, context: &Context) -> Action {
    Action::requeue(context.retries.on_transient_error(key.meta().uid.as_deref().unwrap_or_default()))
}

fn log_result(
    result: &Result<(ObjectRef<Cached>, Action), controller::Error<Error, watcher::Error>>,
    logged: &mut Repeats,
) {
    match result {
        // A reconcile logs its own errors, where their meaning is known.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(object)) => {
            debug!(%object, "the DataKey was deleted before its reconcile");
        }
        Err(controller::Error::QueueError(error)) => {
            let is_answered = !is_watch_unanswered(error);
            let error = describe_watch(error);
            let is_due = is_answered && logged.is_due(&error, Instant::now());
            warn_if!(is_due, error, "a watch was interrupted; it is resumed");
        }
        Err(error) => warn!(error = error_chain(&error), "the queue failed"),
    }
}
