//! Watches, queue and waits: when which `DataKey` is reconciled.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, channel::mpsc, future, stream};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        controller::{self, Action, Config, ReconcileRequest, applier},
        reflector::{self, ObjectRef},
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::Notify,
    task::{JoinSet, yield_now},
    time::{Duration, Instant, sleep, timeout},
};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::{
    api_server::{connectivity::Connectivity, keys},
    cache::Cached,
    caches::Caches,
    kms::{queue::Requeue, shares::Shares},
    metrics::State,
    reconcile::{self, Context, Error, reconcile},
    slots::{Slot, Slots},
    unreadable,
};
use datakey::{api::DataKey, names::SECRET_TYPE, secret::metadata::WatchedSecret, text::error_chain};

pub mod secret_index;

/// How often the operator lists `DataKey`s until that works, and how often it logs that it waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// First and longest wait before an interrupted watch is resumed, without the jitter: up to as much again.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// How many reconciles wait for a slot, where the namespaces take turns, at most. More wait in order before that, where each
/// takes less memory.
const WAITING: u16 = 8192;

/// How many `DataKey`s are looked at before others have their turn on the processor.
const AT_A_STRETCH: usize = 128;

/// After how long without another change the status names a revision that other clients made; how often that is looked for;
/// and at what pace such DataKeys are queued.
const SAVE_AFTER: Duration = Duration::from_hours(1);
const SAVE_CHECK: Duration = Duration::from_mins(1);
const SAVE_PACE: Duration = Duration::from_millis(100);

/// Objects in a page of a list. A page is in memory as a whole, and an object can have 1.5 MB: with kube's own 500, a tenant's
/// objects would take the operator over its memory limit at each start.
const PAGE: u32 = 50;

/// What is to be watched: a namespace, or all, by a client of its own.
pub struct Target {
    /// The namespace; `None` for all.
    pub namespace: Option<String>,
    /// The client of its watches.
    pub client: Client,
}

/// What is watched, in one namespace or in all.
pub struct Scope {
    target: Target,
    connectivity: Connectivity,
    caches: Arc<Caches>,
    /// A list of `DataKey`s is complete.
    listed: Notify,
}

/// How the queue is worked off, and for how long after a stop.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many `DataKey`s are reconciled at the same time.
    pub concurrency: u16,
    /// How long running reconciles may go on after the stop.
    pub grace: Duration,
}

/// What a scrape and a probe see of the scopes, once there are any.
#[derive(Clone, Default)]
pub struct View {
    work: Arc<OnceLock<Work>>,
    stands_by: Arc<AtomicBool>,
    /// Whether the API server answers.
    pub connectivity: Connectivity,
}

struct Work {
    scopes: Vec<Arc<Scope>>,
    context: Arc<Context>,
}

/// Waits until `DataKey`s can be listed: until the API server answers and the `CustomResourceDefinition` is there.
pub async fn wait_for_api(client: &Client, namespaces: &[String], limit: Duration) {
    let api: Api<Cached> = keys::api(client, namespaces.first().map(String::as_str));
    let mut warned: Option<Instant> = None;
    loop {
        let why = match timeout(limit, api.list(&ListParams::default().limit(1))).await {
            Ok(Ok(_)) => break,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                "the CustomResourceDefinition datakeys.datakey.dev is not installed: apply deploy/crd.yaml".to_owned()
            }
            Ok(Err(kube::Error::Api(status))) => format!("the API server refuses to list DataKeys: {}", status.message),
            Ok(Err(error)) => format!("the API server can't be reached: {}", error_chain(&error)),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            warn!("waiting: {why}");
            warned = Some(Instant::now());
        }
        sleep(PROBE_INTERVAL).await;
    }
    if warned.is_some() {
        info!("the wait is over: DataKeys can be listed");
    }
}

/// Reconciles until `stop`, then finishes what is running, within the grace.
pub async fn run(
    context: Arc<Context>,
    targets: Vec<Target>,
    settings: Settings,
    view: View,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let stop = future::FutureExt::shared(Box::pin(stop));
    let begun = targets.into_iter().map(|target| scope(target, &view, &context, settings, stop.clone()));
    let (scopes, runs): (Vec<_>, Vec<_>) = begun.unzip();
    // Set once: `run` is the only one who does, and it runs once.
    let _ = view.work.set(Work { scopes, context: Arc::clone(&context) });

    let mut work = Box::pin(future::join_all(runs));
    let queues = tokio::spawn({
        let context = Arc::clone(&context);
        async move { future::join(context.kms.run(), context.reads.queue.run()).await }
    });
    tokio::select! {
        _ = &mut work => return,
        () = stop => info!("stopping: finishing what is running"),
    }
    if timeout(settings.grace, work).await.is_err() {
        warn!("not everything was finished within {:?}; nothing is lost, it is repeated", settings.grace);
    }
    queues.abort();
}

/// The watches of one scope and the work on them.
fn scope(
    target: Target,
    view: &View,
    context: &Arc<Context>,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> (Arc<Scope>, impl Future<Output = ()>) {
    let (keys, writer) = reflector::store();
    let connectivity = view.connectivity.clone();
    let caches = Arc::new(Caches::new(keys));
    let scope = Arc::new(Scope { target, connectivity, caches: Arc::clone(&caches), listed: Notify::new() });
    let (wake, woken) = mpsc::unbounded();
    let woken = woken.map({
        let (keys, context) = (caches.keys.clone(), Arc::clone(context));
        move |key: ObjectRef<DataKey>| {
            let key: ObjectRef<Cached> = key.into_kind_unchecked(());
            let is_there = |uid| keys.get(&key).is_some_and(|now| now.meta().uid.as_ref() == Some(uid));
            // Gone without an event, in a list that the watch was resumed with.
            if let Some(gone) = key.extra.uid.as_ref().filter(|uid| !is_there(uid)) {
                context.forget(gone);
            }
            Ok(key.into())
        }
    });
    let changes = stream::select(key_changes(&scope, writer, context), secret_changes(&scope));
    let queue = stream::select(changes, woken);
    let slots = Slots::new(settings.concurrency);
    // Those that wait for KMS have no slot, and are never more than the shares permit.
    let begun = settings.concurrency.saturating_add(Shares::DEFAULT.all()).saturating_add(WAITING);
    let config = Config::default().concurrency(begun);
    let stop = stop.inspect({
        let slots = slots.clone();
        move |()| slots.close()
    });
    let keys = caches.keys.clone();
    let walks = walks(Arc::clone(&scope), Arc::clone(context), wake.clone());
    let saves = save_revisions(Arc::clone(&scope), wake.clone());
    let work = applier(
        move |key, context| {
            let (caches, wake) = (Arc::clone(&caches), wake.clone());
            let namespace = key.namespace().unwrap_or_default();
            let slots = slots.clone();
            Box::pin(async move {
                let work = {
                    let (key, caches, wake, context) =
                        (Arc::clone(&key), Arc::clone(&caches), wake.clone(), Arc::clone(&context));
                    move |slot| guarded(key, slot, caches, wake, context)
                };
                let has_permit = key.meta().uid.as_deref().is_some_and(|uid| context.kms.queue.has_offer(uid));
                match spawned(slots.clone(), &namespace, has_permit, work).await {
                    Err(Error::Panicked) => {
                        let work = move |slot| panicked(key, slot, caches, wake, context);
                        spawned(slots, &namespace, false, work).await
                    }
                    result => result,
                }
            })
        },
        |key, error, context| again(&key, error, &context),
        Arc::clone(context),
        keys,
        queue.take_until(stop),
        config,
    )
    .for_each(async |result| report(&result));
    let work = async move {
        // On a task of its own, which ends with this one.
        let _walks = JoinSet::from_iter([future::Either::Left(walks), future::Either::Right(saves)]);
        work.await;
    };
    (scope, work)
}

/// Looks at every `DataKey` after each list, and from time to time although nothing happened. Queues only those that are not
/// settled: a queue of all would take as much memory as the cache.
async fn walks(scope: Arc<Scope>, context: Arc<Context>, wake: Requeue) {
    scope.listed.notified().await;
    scope.caches.secrets.wait_until_ready().await;
    loop {
        for (number, key) in scope.caches.keys.state().into_iter().enumerate() {
            if !is_settled(&key, &scope.caches, &context) {
                // The receiver is gone only while the operator stops.
                let _ = wake.unbounded_send(ObjectRef::from_obj(&*key).into_kind_unchecked(()));
            }
            if number % AT_A_STRETCH == 0 {
                yield_now().await;
            }
        }
        context.metrics.resynced();
        // The next list, or the time: whichever is first.
        let _ = timeout(context.resync, scope.listed.notified()).await;
    }
}

/// Has the status name the revisions of Secrets that other clients changed without harm, once nothing more happens to them.
async fn save_revisions(scope: Arc<Scope>, wake: Requeue) {
    loop {
        sleep(SAVE_CHECK).await;
        for key in scope.caches.secrets.settle(SAVE_AFTER) {
            // The receiver is gone only while the operator stops.
            let _ = wake.unbounded_send(key);
            sleep(SAVE_PACE).await;
        }
    }
}

fn is_settled(key: &Cached, caches: &Caches, context: &Context) -> bool {
    match key.decode() {
        Ok(key) => reconcile::is_settled(&Arc::new(key), caches, context),
        Err(unreadable) => unreadable::wanted_status(key, &unreadable).is_none(),
    }
}

/// `DataKey`s that changed, with the store kept up to date.
fn key_changes(
    scope: &Arc<Scope>,
    writer: reflector::store::Writer<Cached>,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<ReconcileRequest<Cached>, watcher::Error>> + Send + use<> {
    let Target { namespace, client } = &scope.target;
    let api: Api<Cached> = keys::api(client, namespace.as_deref());
    let (config, keys) = (watch_config(scope), scope.caches.keys.clone());
    let events =
        resumed(move || watcher(api.clone(), config.clone()), scope.connectivity.clone()).map_ok(move |event| {
            match event {
                // A list after the first brings mostly what is there already.
                Event::InitApply(new) => {
                    let old = keys.get(&ObjectRef::from_obj(&new)).filter(|old| old.is_same(&new));
                    Event::InitApply(old.map_or(new, |old| (*old).clone()))
                }
                event => event,
            }
        });
    let (scope, context) = (Arc::clone(scope), Arc::clone(context));
    reflector::reflector(writer, events).flat_map(move |event| {
        let concerned = event.as_ref().map_or_else(|_| Vec::new(), |event| scope.caches.key_changed(event));
        let changed = match event {
            Err(error) => Some(Err(error)),
            // The watch also delivers the operator's own writes, after which most objects are settled.
            Ok(Event::Apply(key)) => {
                (!is_settled(&key, &scope.caches, &context)).then(|| Ok(ObjectRef::from_obj(&key).into()))
            }
            Ok(Event::Delete(gone)) => {
                if let Some(uid) = gone.meta().uid.as_deref() {
                    context.forget(uid);
                }
                None
            }
            Ok(Event::InitDone) => {
                scope.listed.notify_one();
                None
            }
            Ok(Event::Init | Event::InitApply(_)) => None,
        };
        let concerned = concerned.into_iter().map(|key| Ok(key.into_kind_unchecked(()).into()));
        stream::iter(changed.into_iter().chain(concerned).collect::<Vec<_>>())
    })
}

/// `DataKey`s whose Secret changed, with the index kept up to date. Only metadata come over the wire.
fn secret_changes(
    scope: &Scope,
) -> impl Stream<Item = Result<ReconcileRequest<Cached>, watcher::Error>> + Send + use<> {
    let Target { namespace, client } = &scope.target;
    let api: Api<WatchedSecret> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let config = watch_config(scope).fields(&format!("type={SECRET_TYPE}"));
    let caches = Arc::clone(&scope.caches);
    resumed(move || watcher(api.clone(), config.clone()), scope.connectivity.clone()).flat_map(move |event| {
        let changed = match event {
            Err(error) => vec![Err(error)],
            Ok(event) => {
                caches.secret_changed(event).into_iter().map(|key| Ok(key.into_kind_unchecked(()).into())).collect()
            }
        };
        stream::iter(changed)
    })
}

fn watch_config(scope: &Scope) -> watcher::Config {
    let config = watcher::Config::default().page_size(PAGE);
    match scope.connectivity.watch_timeout() {
        Some(seconds) => config.timeout(seconds),
        None => config,
    }
}

/// A watch that is listed again where the server can't resume it. kube's own resumes from the same resource version for
/// ever: one that the server has forgotten (410), or one of a future that a restored etcd never had.
fn resumed<K, W>(
    watch: impl Fn() -> W + Send,
    connectivity: Connectivity,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Send,
    W: Stream<Item = watcher::Result<Event<K>>> + Send,
{
    let first = Box::pin(watch());
    let events = stream::unfold((first, watch), |(mut current, watch)| async move {
        let event = current.next().await?;
        if event.as_ref().is_err_and(must_list_again) {
            current = Box::pin(watch());
        }
        Some((event, (current, watch)))
    });
    events.inspect_err(move |_| connectivity.doubt()).backoff(backoff())
}

/// A refusal has nothing to do with the resource version, and neither has an overloaded server: a list would cost it more.
fn must_list_again(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if !matches!(status.code, 401 | 403 | 429))
}

/// kube's own grows to a minute with its jitter; two watches are asked for sooner than that.
fn backoff() -> watcher::ExponentialBackoff {
    let delays = backon::ExponentialBuilder::default().with_min_delay(WATCH_AGAIN.0).with_max_delay(WATCH_AGAIN.1);
    delays.with_factor(2.0).with_jitter().without_max_times().into()
}

/// Begins the work once there is a slot, on a task of its own: a panic ends this reconcile only.
async fn spawned<F>(
    slots: Slots,
    namespace: &str,
    has_permit: bool,
    work: impl FnOnce(Slot) -> F,
) -> Result<Action, Error>
where
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    // Without one the operator stops.
    let Some(slot) = slots.begin(namespace, has_permit).await else { return Ok(Action::await_change()) };
    tokio::spawn(work(slot)).await.unwrap_or(Err(Error::Panicked))
}

/// The condition says that a reconcile panicked.
async fn panicked(
    key: Arc<Cached>,
    slot: Slot,
    caches: Arc<Caches>,
    wake: Requeue,
    context: Arc<Context>,
) -> Result<Action, Error> {
    match key.decode() {
        Ok(key) => {
            let key = context.written.newest(Arc::new(key), None);
            reconcile::report_panic(key, slot, &caches, &wake, &context).await
        }
        Err(_) => Err(Error::Panicked),
    }
}

async fn guarded(
    key: Arc<Cached>,
    slot: Slot,
    caches: Arc<Caches>,
    wake: Requeue,
    context: Arc<Context>,
) -> Result<Action, Error> {
    caches.secrets.wait_until_ready().await;
    let span = info_span!("reconcile", namespace = key.namespace().unwrap_or_default(), name = key.name_any());
    // The one at hand is of the time when this was queued; the watch may have brought our own last write since then.
    let before = key.meta().uid.as_deref().and_then(|uid| context.written.get(uid));
    let place = ObjectRef::from_obj(&*key);
    let Some(key) = caches.keys.get(&place) else {
        // It was deleted while it waited for a slot.
        return Ok(forgotten(&key, &context));
    };
    let result = match key.decode() {
        Ok(data_key) => {
            let data_key = context.written.newest(Arc::new(data_key), before);
            reconcile(data_key, slot, &caches, &wake, &context).instrument(span).await
        }
        Err(unreadable) => unreadable::report(&key, &unreadable, &context).instrument(span).await,
    };
    // The watch forgets what is deleted; what this did after that, it forgets itself. A DataKey that is gone would keep an
    // offered permit that others wait for.
    if caches.keys.get(&place).is_none_or(|now| now.meta().uid != key.meta().uid) {
        return Ok(forgotten(&key, &context));
    }
    result
}

fn forgotten(gone: &Cached, context: &Context) -> Action {
    context.forget(gone.meta().uid.as_deref().unwrap_or_default());
    Action::await_change()
}

fn again(key: &Cached, _: &Error, context: &Context) -> Action {
    Action::requeue(context.backoff.erred(key.meta().uid.as_deref().unwrap_or_default()))
}

fn report(result: &Result<(ObjectRef<Cached>, Action), controller::Error<Error, watcher::Error>>) {
    match result {
        // Each is logged where it is known what it means.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(controller::Error::ObjectNotFound(object)) => {
            debug!(%object, "gone before it was looked at");
        }
        Err(error) => warn!(error = error_chain(&error), "a watch was interrupted; it is resumed"),
    }
}

// === impl View ===

impl View {
    /// Another replica leads, and the API server says so: there is nothing more to get ready for.
    pub fn stand_by(&self) {
        self.stands_by.store(true, Ordering::Relaxed);
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.work.get().is_some()
    }

    /// How many `DataKey`s wait for a permit to call KMS.
    pub fn waiting(&self) -> usize {
        self.work.get().map_or(0, |work| work.context.kms.queue.waiting())
    }

    /// Whether the API server answers and every watch has its first list: what the caches don't have is not there. A replica
    /// that stands by is ready to take over.
    pub async fn is_ready(&self) -> bool {
        if self.connectivity.is_lost() {
            return false;
        }
        let Some(Work { scopes, .. }) = self.work.get() else {
            return self.stands_by.load(Ordering::Relaxed);
        };
        for scope in scopes {
            let listed = timeout(Duration::ZERO, scope.caches.keys.wait_until_ready()).await;
            if !scope.caches.secrets.is_ready() || !matches!(listed, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// What the `Ready` conditions say, and how many `DataKey`s cannot be decoded.
    pub fn states(&self) -> (Vec<State>, usize) {
        let scopes = self.work.get().into_iter().flat_map(|work| &work.scopes);
        let mut unreadable = 0;
        let states = scopes.flat_map(|scope| scope.caches.keys.state()).map(|key| {
            unreadable += usize::from(!key.is_readable());
            key.state()
        });
        (states.collect(), unreadable)
    }
}
