//! The watch over classes, and what a change of one wakes.
//!
//! One watch serves all namespaces. Where classes cannot be listed, only objects that need one wait.

use std::sync::Arc;

use datakey::{api::DataKeyClass, class::DEFAULT_CLASS, condition::ReadyState, decode::Encoded};
use futures::{StreamExt, future};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    listing::listing_watch,
    startup::{LOOK_INTERVAL, Obstacle, PROBE_INTERVAL, list_one},
    store::Store,
    watched::Watched,
};
use crate::{
    api_server::{
        errors::{describe_watch, is_watch_unanswered, watch_refusal},
        outage::Repeats,
    },
    classes::Classes,
    kms::queue::Requeue,
    reconcile::Context,
};

use status::keep_status;

mod status;

/// The number of refusals in a row after which what is known of classes is out of force.
const MAX_REFUSALS: u32 = 5;

/// The objects of one watched namespace, or of all, and the queue of their reconciles.
pub(super) struct ScopeOfClasses {
    /// The objects.
    pub store: Arc<Store>,
    /// Their queue.
    pub requeue: Requeue,
}

/// Watches classes, wakes what a change concerns and, if `writes_status`, keeps their status, until it is dropped.
pub(super) async fn run(context: &Context, scopes: &[ScopeOfClasses], writes_status: bool) {
    let watched = watch(context, scopes);
    if writes_status {
        future::join(watched, keep_status(context, scopes)).await;
    } else {
        watched.await;
    }
}

async fn watch(context: &Context, scopes: &[ScopeOfClasses]) {
    let api: Api<Watched<DataKeyClass>> = Api::all(context.client.clone());
    let mut logged = Repeats::default();
    loop {
        wait_until_listable(&api, context, scopes, &mut logged).await;
        let why = follow(&api, context, scopes, &mut logged).await;
        let why = match list_one(&api, "DataKeyClasses", context.kube_timeout).await {
            // It says whether the definition is missing.
            Err(Obstacle::Missing(why)) => why,
            _ => why,
        };
        refused(&why, &context.classes, scopes);
        sleep(LOOK_INTERVAL).await;
    }
}

/// Follows the changes of classes until the API server refuses that. Returns why. The role or the definition can be removed, and
/// the right to watch can be missing beside that to list.
async fn follow(
    api: &Api<Watched<DataKeyClass>>,
    context: &Context,
    scopes: &[ScopeOfClasses],
    logged: &mut Repeats,
) -> String {
    let connectivity = context.connectivity.clone();
    let config = match connectivity.watch_timeout() {
        Some(seconds) => watcher::Config::default().timeout(seconds),
        None => watcher::Config::default(),
    };
    let mut events = Box::pin(listing_watch(|listing| watcher(api.clone(), listing.of(&config)), connectivity));
    let mut refusals = 0;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // The beginning of a list is not yet an answer.
                if !matches!(event, Event::Init) {
                    refusals = 0;
                }
                apply(event, &context.classes, scopes);
            }
            Err(error) => {
                log_interruption(&error, logged);
                refusals += u32::from(watch_refusal(&error).is_some());
                // An API server that has just started can refuse what it allows a moment later.
                if let Some(why) = watch_refusal(&error).filter(|_| refusals >= MAX_REFUSALS) {
                    return format!("the API server refuses to watch DataKeyClasses: {why}");
                }
            }
        }
    }
    "the watch over DataKeyClasses has ended".to_owned()
}

/// Waits until classes can be listed. Their definition may never be installed.
async fn wait_until_listable(
    api: &Api<Watched<DataKeyClass>>,
    context: &Context,
    scopes: &[ScopeOfClasses],
    logged: &mut Repeats,
) {
    let mut refusals = 0;
    loop {
        match list_one(api, "DataKeyClasses", context.kube_timeout).await {
            Ok(()) => return,
            Err(Obstacle::Unknown(why)) => {
                if logged.is_due(&why, Instant::now()) {
                    warn!("waiting to know whether there are DataKeyClasses: {why}");
                }
                sleep(PROBE_INTERVAL).await;
            }
            // An API server that has just started can refuse what it allows a moment later.
            Err(Obstacle::Missing(_)) if refusals == 0 => {
                refusals += 1;
                sleep(PROBE_INTERVAL).await;
            }
            Err(Obstacle::Missing(why)) => {
                refused(&why, &context.classes, scopes);
                sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

fn apply(event: Event<Watched<DataKeyClass>>, classes: &Classes, scopes: &[ScopeOfClasses]) {
    match event {
        Event::Init => classes.list_begins(),
        // What a list changes is woken at its end: a class can also be gone.
        Event::InitApply(Watched(object, _)) => _ = classes.put(&object),
        Event::InitDone => {
            classes.list_ends();
            wake_waiting(classes, scopes);
        }
        Event::Apply(Watched(object, _)) => {
            if classes.put(&object) {
                wake_refused(&object, classes, scopes);
            }
        }
        Event::Delete(Watched(object, _)) => {
            if classes.remove(&object) {
                wake_refused(&object, classes, scopes);
            }
        }
    }
}

/// Wakes the objects that a class refused, or that it was missing for.
fn wake_refused(object: &Encoded, classes: &Classes, scopes: &[ScopeOfClasses]) {
    let name = object.metadata.name.as_deref();
    let is_default = classes.is_required() && name == Some(DEFAULT_CLASS);
    wake(scopes, |class, state| waits_for_a_change(state) && (class == name || is_default && class.is_none()));
}

/// Wakes the objects that wait until classes are known, and those that any class refused.
fn wake_waiting(classes: &Classes, scopes: &[ScopeOfClasses]) {
    wake(scopes, |class, state| match state {
        ReadyState::Issued => false,
        ReadyState::Pending => class.is_some() || classes.is_required(),
        ReadyState::Failed(_) => waits_for_a_change(state) && (class.is_some() || classes.is_required()),
    });
}

/// Whether another class can end the failure: the class refused the object, or KMS refused a request that a class fills in.
fn waits_for_a_change(state: ReadyState) -> bool {
    matches!(state, ReadyState::Failed(reason) if reason.depends_on_class() || reason.depends_on_request())
}

/// Queues the objects that are not settled and that this concerns: by the name of the class in the spec, and by the state.
fn wake(scopes: &[ScopeOfClasses], concerns: impl Fn(Option<&str>, ReadyState) -> bool) {
    for ScopeOfClasses { store, requeue } in scopes {
        for place in store.open_where(&concerns) {
            // The receiver is gone only while the operator stops.
            let _ = requeue.unbounded_send(place);
        }
    }
}

fn refused(why: &str, classes: &Classes, scopes: &[ScopeOfClasses]) {
    if !classes.list_is_refused(why) {
        return;
    }
    if classes.is_required() {
        warn!("DataKeyClasses cannot be listed, so nothing is issued: {why}");
    } else {
        info!("DataKeyClasses cannot be listed; only objects with spec.className wait for them: {why}");
    }
    wake_waiting(classes, scopes);
}

fn log_interruption(error: &watcher::Error, logged: &mut Repeats) {
    let is_answered = !is_watch_unanswered(error);
    let error = describe_watch(error);
    if is_answered && logged.is_due(&error, Instant::now()) {
        warn!(error, "the watch over DataKeyClasses was interrupted; it is resumed");
    }
}
