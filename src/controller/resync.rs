//! Which `DataKey`s are settled, and the periodic checks of all of them, in memory.

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use tokio::{
    task::yield_now,
    time::{Duration, sleep, timeout},
};

use super::{cache::Cached, caches::Caches, scope::WatchScope, unreadable};
use crate::{
    kms::queue::Requeue,
    reconcile::{self, Context},
};

/// How many `DataKey`s are checked before other tasks may run.
const RESYNC_BATCH: usize = 128;

/// For the revisions of Secrets that other clients made: how long such a revision must stay unchanged before the status names
/// it, how often the operator looks for such revisions, and the pause between two DataKeys that it queues for them.
const SAVE_AFTER: Duration = Duration::from_hours(1);
const SAVE_CHECK: Duration = Duration::from_mins(1);
const SAVE_PACE: Duration = Duration::from_millis(100);

/// Checks every `DataKey` after each list, and at intervals without any event. Queues only those that are not
/// settled: a queue of all would take as much memory as the cache.
pub(super) async fn resync(scope: Arc<WatchScope>, context: Arc<Context>, requeue: Requeue) {
    scope.listed.notified().await;
    scope.caches.secrets.wait_until_ready().await;
    loop {
        for (number, key) in scope.caches.keys.state().into_iter().enumerate() {
            if !is_settled(&key, &scope.caches, &context) {
                // The receiver is gone only while the operator stops.
                let _ = requeue.unbounded_send(ObjectRef::from_obj(&*key).into_kind_unchecked(()));
            }
            if number % RESYNC_BATCH == 0 {
                yield_now().await;
            }
        }
        context.metrics.resynced();
        // The next list, or the time: whichever is first.
        let _ = timeout(context.resync, scope.listed.notified()).await;
    }
}

/// Queues the `DataKey`s whose status must name a newer revision: another client changed the Secret without changing what the
/// operator manages, and the Secret has not changed since.
pub(super) async fn save_revisions(scope: Arc<WatchScope>, requeue: Requeue) {
    loop {
        sleep(SAVE_CHECK).await;
        for key in scope.caches.secrets.settle(SAVE_AFTER) {
            // The receiver is gone only while the operator stops.
            let _ = requeue.unbounded_send(key);
            sleep(SAVE_PACE).await;
        }
    }
}

/// Whether there is nothing to do for a `DataKey` as the caches have it.
pub(super) fn is_settled(key: &Cached, caches: &Caches, context: &Context) -> bool {
    match key.decode() {
        Ok(key) => reconcile::is_settled(&Arc::new(key), caches, context),
        Err(unreadable) => unreadable::wanted_status(key, &unreadable).is_none(),
    }
}
