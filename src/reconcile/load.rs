//! The newest state of the object that is reconciled: from memory, or read.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::{Context, Error, report::log_retry};
use crate::{
    api_server::keys,
    controller::store::{Facts, Found, Store},
    kms::queue::{CallInFlight, Requeue},
    metrics::ReconcileOutcome,
    place::Place,
};
use datakey::{api::DataKey, decode::Encoded};

/// What there is to reconcile.
pub enum Loaded {
    /// The object.
    Object {
        /// Its newest state.
        object: Arc<Encoded>,
        /// The permit that it was read with, which covers a read of its Secret, too.
        read: Option<CallInFlight>,
    },
    /// Nothing now: the object is gone, there is nothing to do for it, or it waits for its turn to be read.
    Nothing,
}

/// Takes the object from memory, or reads it. An object that has a permit to call KMS is read immediately; others share the rate of
/// reads with each other.
///
/// # Errors
/// No usable answer, or the object is another one now and the watch does not know it yet. The error is logged.
pub async fn load(place: &Place, store: &Store, requeue: &Requeue, context: &Context) -> Result<Loaded, Error> {
    let begun = Instant::now();
    let loaded = find_or_read(place, store, requeue, context).await;
    if let Err(error) = &loaded {
        log_retry(place.namespace(), place.name(), error);
        context.metrics.reconciled(ReconcileOutcome::Error, begun.elapsed());
    }
    loaded
}

async fn find_or_read(place: &Place, store: &Store, requeue: &Requeue, context: &Context) -> Result<Loaded, Error> {
    let uid = match store.find(place) {
        None => return Ok(Loaded::Nothing),
        Some(Found::Settled) => {
            if let Some(uid) = store.uid(place) {
                context.settled(&uid);
            }
            return Ok(Loaded::Nothing);
        }
        Some(Found::Held(object)) => return Ok(Loaded::Object { object, read: None }),
        Some(Found::NotHeld(uid)) => uid,
    };
    let permit = if context.kms.queue.has_offer(&uid) {
        None
    } else {
        match context.reads.acquire_or_enqueue(&uid, place, requeue) {
            Some(permit) => Some(permit.start_call().await),
            None => return Ok(Loaded::Nothing),
        }
    };
    let limit = context.kube_timeout;
    let read = timeout(limit, keys::get(&context.client, place.namespace(), place.name())).await;
    if let Some(permit) = &permit {
        permit.complete(matches!(read, Ok(Ok(_))));
    }
    let found = read.map_err(|_| Error::Timeout(limit))??.ok_or(Error::Gone)?;
    if found.metadata.uid.as_deref() != Some(&uid) {
        return Err(Error::Gone);
    }
    let facts = found.decode::<DataKey>().map_or_else(
        |_| Facts::unreadable(),
        |(spec, status)| Facts::of(&DataKey { metadata: found.metadata.clone(), spec, status }),
    );
    let object = Arc::new(found);
    store.put_answer(&object, facts);
    Ok(Loaded::Object { object, read: permit })
}
