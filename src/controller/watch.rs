//! Watches over the objects of a kind and over their Secrets: which objects an event concerns.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::Instant;

use super::{
    listing::listing_watch,
    scope::{WatchScope, WatchTarget},
    startup,
    store::{Delivery, Facts, Store, Stored},
    unreadable,
    watched::Watched,
};
use crate::{
    api_server::{
        errors::{describe_watch, is_watch_unanswered, watch_refusal},
        keys,
        outage::Repeats,
    },
    logging::warn_if,
    place::Place,
    reconcile::{Context, verdict},
};
use datakey::{
    api::{KeyKind, Kind, KindId},
    decode::Encoded,
    secret::metadata::WatchedSecret,
};

/// Objects to reconcile because one of a kind changed, with the store kept up to date.
pub(super) fn key_changes<K: KeyKind>(
    scope: &Arc<WatchScope>,
    context: &Arc<Context>,
) -> impl Stream<Item = Place> + Send + use<K> {
    let WatchTarget { namespace, client } = &scope.target;
    let api: Api<Watched<K>> = keys::api(client, namespace.as_deref());
    let config = watch_config(scope);
    let events = listing_watch(move |listing| watcher(api.clone(), listing.of(&config)), scope.connectivity.clone());
    let events = events.inspect_err({
        let scope = Arc::clone(scope);
        // The right to watch can be missing beside that to list. DataKeys are what the operator is for, so it waits for them.
        move |error| {
            if let Some(why) = watch_refusal(error)
                && K::KIND.id != KindId::DataKey
                && scope.store.awaits_list(K::KIND.id)
            {
                startup::expect_no_list::<K>(&scope, why);
            }
        }
    });
    let (scope, context) = (Arc::clone(scope), Arc::clone(context));
    concerned(events, move |event| key_changed(event, &scope, &context))
}

/// Objects of a kind to reconcile because their Secret changed, with the store kept up to date. Only metadata come over the wire.
pub(super) fn secret_changes(scope: &WatchScope, kind: &'static Kind) -> impl Stream<Item = Place> + Send + use<> {
    let WatchTarget { namespace, client } = &scope.target;
    let api: Api<WatchedSecret> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let config = watch_config(scope).fields(&format!("type={}", kind.secret_type));
    let events = listing_watch(move |listing| watcher(api.clone(), listing.of(&config)), scope.connectivity.clone());
    let store = Arc::clone(&scope.store);
    concerned(events, move |event| store.secret_changed(kind.id, event))
}

/// The objects that the events of a watch concern. An interrupted watch is logged, and resumed.
fn concerned<K: Send>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    mut apply: impl FnMut(Event<K>) -> Vec<Place> + Send,
) -> impl Stream<Item = Place> + Send {
    let mut logged = Repeats::default();
    events.flat_map(move |event| {
        stream::iter(match event {
            Ok(event) => apply(event),
            Err(error) => {
                log_interruption(&error, &mut logged);
                Vec::new()
            }
        })
    })
}

/// Applies an event of the watch over a kind. Returns the objects to reconcile.
fn key_changed<K: KeyKind>(event: Event<Watched<K>>, scope: &WatchScope, context: &Context) -> Vec<Place> {
    let (store, kind) = (&scope.store, K::KIND.id);
    let removed = match event {
        Event::Init => {
            store.key_list_begins(kind);
            return Vec::new();
        }
        // What a list has, and is not settled, is queued once the list is complete.
        Event::InitApply(Watched(object, _)) => {
            put::<K>(object, Delivery::List, store, context);
            return Vec::new();
        }
        Event::Apply(Watched(object, _)) => {
            let place = Place::of(kind, &object.metadata);
            // The watch also delivers the operator's own writes, after which most objects are settled.
            return put::<K>(object, Delivery::Event, store, context).then_some(place).into_iter().collect();
        }
        Event::Delete(Watched(gone, _)) => store.remove(kind, &gone.metadata),
        Event::InitDone => {
            let removed = store.key_list_ends(kind);
            scope.listed.notify_one();
            removed
        }
    };
    for uid in &removed.uids {
        context.forget(uid);
    }
    removed.concerned
}

/// Stores what the watch delivered. Returns whether there is something to do for the object.
fn put<K: KeyKind>(object: Encoded, by: Delivery, store: &Store, context: &Context) -> bool {
    if !store.is_news(K::KIND.id, &object.metadata, by) {
        return false;
    }
    let (facts, verdict) = match object.decode::<K>() {
        Ok(key) => (Facts::of(&key), verdict(&key, store.secret_of(&key), context)),
        Err(unreadable) => (Facts::unreadable(&object), unreadable::verdict(K::KIND, &object.metadata, &unreadable)),
    };
    let uid = object.metadata.uid.clone().unwrap_or_default();
    // A newer answer is of a reconcile that goes on, and may have queued the object.
    let Some(Stored { is_open, replaced }) = store.put_watched(K::KIND.id, object, by, facts, verdict) else {
        return false;
    };
    if let Some(gone) = replaced {
        context.forget(&gone);
    }
    if !is_open {
        context.settled(&uid);
    }
    is_open
}

fn log_interruption(error: &watcher::Error, logged: &mut Repeats) {
    let is_answered = !is_watch_unanswered(error);
    let error = describe_watch(error);
    let is_due = is_answered && logged.is_due(&error, Instant::now());
    warn_if!(is_due, error, "a watch was interrupted; it is resumed");
}

fn watch_config(scope: &WatchScope) -> watcher::Config {
    let config = watcher::Config::default();
    match scope.connectivity.watch_timeout() {
        Some(seconds) => config.timeout(seconds),
        None => config,
    }
}

#[cfg(test)]
mod tests {
    use datakey::{
        api::{DataKey, KindId, QuotaClass},
        fixtures::data_key,
    };
    use futures::channel::mpsc;
    use http::{Request, Response};
    use kube::{Client, client::Body};
    use tokio::sync::Notify;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::{api_server::connectivity::Connectivity, kms::lane_id::LaneId, reconcile::tests::context};

    fn watched(uid: &str) -> Watched<DataKey> {
        let mut key = data_key();
        key.metadata.uid = Some(uid.to_owned());
        serde_json::from_value(serde_json::to_value(&key).unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn key_recreated_between_two_lists_leaves_the_queues() {
        let client =
            Client::new(service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::empty()))), "shop");
        let context = context(client.clone(), "http://127.0.0.1:9");
        let scope = WatchScope {
            target: WatchTarget { namespace: None, client },
            connectivity: Connectivity::default(),
            store: Arc::new(Store::new(Arc::clone(&context.working_set), &[KindId::DataKey])),
            listed: Notify::new(),
        };
        let relist = |uid| {
            for event in [Event::Init, Event::InitApply(watched(uid)), Event::InitDone] {
                assert!(key_changed(event, &scope, &context).is_empty());
            }
        };
        relist("a");
        let (requeue, _requeued) = mpsc::unbounded();
        let place = Place::new(KindId::DataKey, "shop", "orders");
        let lane = LaneId::new("eu-west-1", QuotaClass::Symmetric);
        let wait = |uid| context.kms.queue.acquire_or_enqueue(&lane, uid, &place, &requeue);
        let _held: Vec<_> = std::iter::from_fn(|| wait("a")).collect();
        assert_eq!(context.kms.queue.waiting(), 1);
        relist("b");
        assert_eq!(context.kms.queue.waiting(), 0);
    }
}
