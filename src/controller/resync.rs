//! The periodic checks of all objects, in memory.

use std::sync::Arc;

use tokio::time::{Duration, sleep, timeout};

use super::scope::WatchScope;
use crate::{kms::queue::Requeue, reconcile::Context};

/// For the revisions of Secrets that other clients made: how long such a revision must stay unchanged before the status names
/// it, how often the operator looks for such revisions, and the pause between two DataKeys that it queues for them.
const SAVE_AFTER: Duration = Duration::from_hours(1);
const SAVE_CHECK: Duration = Duration::from_mins(1);
const SAVE_PACE: Duration = Duration::from_millis(100);

/// Queues every object that is not settled, after each list, and at intervals without any event.
pub(super) async fn resync(scope: Arc<WatchScope>, context: Arc<Context>, requeue: Requeue) {
    scope.listed.notified().await;
    scope.store.wait_until_listed().await;
    loop {
        for place in scope.store.open() {
            // The receiver is gone only while the operator stops.
            let _ = requeue.unbounded_send(place);
        }
        context.metrics.resynced();
        // The next list, or the time: whichever is first.
        let _ = timeout(context.resync, scope.listed.notified()).await;
    }
}

/// Queues the objects whose status must name a newer revision: another client changed the Secret without changing what the
/// operator manages, and the Secret has not changed since.
pub(super) async fn save_revisions(scope: Arc<WatchScope>, requeue: Requeue) {
    loop {
        sleep(SAVE_CHECK).await;
        for key in scope.store.settle_reads(SAVE_AFTER) {
            // The receiver is gone only while the operator stops.
            let _ = requeue.unbounded_send(key);
            sleep(SAVE_PACE).await;
        }
    }
}
