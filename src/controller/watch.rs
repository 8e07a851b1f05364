//! Watches over `DataKey`s and Secrets: which `DataKey`s an event concerns, and when a watch lists again.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        controller::ReconcileRequest,
        reflector::{self, ObjectRef},
        watcher::{self, Event, watcher},
    },
};
use tokio::time::Duration;

use super::{
    cache::Cached,
    resync::is_settled,
    scope::{WatchScope, WatchTarget},
};
use crate::{
    api_server::{connectivity::Connectivity, keys},
    reconcile::Context,
};
use datakey::{names::SECRET_TYPE, secret::metadata::WatchedSecret};

/// First and longest wait before an interrupted watch is resumed. The jitter can double the wait.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// Objects in a page of a list. A page is in memory as a whole, and an object can have 1.5 MB: with kube's own 500, a tenant's
/// objects would take the operator over its memory limit at each start.
const PAGE: u32 = 50;

/// `DataKey`s that changed, with the store kept up to date.
pub(super) fn key_changes(
    scope: &Arc<WatchScope>,
    writer: reflector::store::Writer<Cached>,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<ReconcileRequest<Cached>, watcher::Error>> + Send + use<> {
    let WatchTarget { namespace, client } = &scope.target;
    let api: Api<Cached> = keys::api(client, namespace.as_deref());
    let (config, keys) = (watch_config(scope), scope.caches.keys.clone());
    let events = relisting_watch(move || watcher(api.clone(), config.clone()), scope.connectivity.clone()).map_ok(
        move |event| {
            match event {
                // A list after the first one contains mostly objects that the store has already.
                Event::InitApply(new) => {
                    let old = keys.get(&ObjectRef::from_obj(&new)).filter(|old| old.is_same(&new));
                    Event::InitApply(old.map_or(new, |old| (*old).clone()))
                }
                event => event,
            }
        },
    );
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
pub(super) fn secret_changes(
    scope: &WatchScope,
) -> impl Stream<Item = Result<ReconcileRequest<Cached>, watcher::Error>> + Send + use<> {
    let WatchTarget { namespace, client } = &scope.target;
    let api: Api<WatchedSecret> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let config = watch_config(scope).fields(&format!("type={SECRET_TYPE}"));
    let caches = Arc::clone(&scope.caches);
    relisting_watch(move || watcher(api.clone(), config.clone()), scope.connectivity.clone()).flat_map(move |event| {
        let changed = match event {
            Err(error) => vec![Err(error)],
            Ok(event) => {
                caches.secret_changed(event).into_iter().map(|key| Ok(key.into_kind_unchecked(()).into())).collect()
            }
        };
        stream::iter(changed)
    })
}

fn watch_config(scope: &WatchScope) -> watcher::Config {
    let config = watcher::Config::default().page_size(PAGE);
    match scope.connectivity.watch_timeout() {
        Some(seconds) => config.timeout(seconds),
        None => config,
    }
}

/// A watch that starts with a new list if the API server cannot resume it. kube's own watch resumes from the same resource
/// version forever, even if the API server has dropped that version (410), or does not have it yet because etcd was restored
/// from a backup.
fn relisting_watch<K, W>(
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
        if event.as_ref().is_err_and(needs_relist) {
            current = Box::pin(watch());
        }
        Some((event, (current, watch)))
    });
    events.inspect_err(move |_| connectivity.doubt()).backoff(backoff())
}

/// Whether the watch needs a new list. A refusal does not depend on the resource version, nor does an overloaded API server,
/// for which a list would be more expensive.
fn needs_relist(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if !matches!(status.code, 401 | 403 | 429))
}

/// kube's own delay grows to a minute with its jitter; a watch must be resumed sooner.
fn backoff() -> watcher::ExponentialBackoff {
    let delays = backon::ExponentialBuilder::default().with_min_delay(WATCH_AGAIN.0).with_max_delay(WATCH_AGAIN.1);
    delays.with_factor(2.0).with_jitter().without_max_times().into()
}
