//! The newest state of the object that is reconciled: from memory, or read.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::{Instant, timeout};

use super::{Context, Error, report::log_retry};
use crate::{
    api_server::keys,
    controller::store::{Facts, Found, Store},
    kms::queue::{CallInFlight, Requeue},
    metrics::ReconcileOutcome,
    place::Place,
};
use datakey::{
    api::KeyKind,
    decode::{Encoded, Unreadable},
};

/// What there is to reconcile.
pub enum Loaded<K> {
    /// The newest state of the object, and the permit that it was read with, which covers a read of its Secret, too.
    Key(Arc<K>, Option<CallInFlight>),
    /// An object that cannot be decoded: its metadata, and why.
    Unreadable(Box<ObjectMeta>, Unreadable),
    /// Nothing now: the object is gone, there is nothing to do for it, or it waits for its turn to be read.
    Nothing,
}

/// Takes the object from memory, or reads it. An object that has a permit to call KMS is read immediately; others share the rate of
/// reads with each other.
///
/// # Errors
/// No usable answer, or the object is another one now and the watch does not know it yet. The error is logged.
pub async fn load<K: KeyKind>(
    place: &Place,
    store: &Store,
    requeue: &Requeue,
    context: &Context,
) -> Result<Loaded<K>, Error> {
    let begun = Instant::now();
    let loaded = find_or_read(place, store, requeue, context).await;
    if let Err(error) = &loaded {
        log_retry(place, error);
        context.metrics.reconciled(ReconcileOutcome::Error, begun.elapsed());
    }
    loaded
}

async fn find_or_read<K: KeyKind>(
    place: &Place,
    store: &Store,
    requeue: &Requeue,
    context: &Context,
) -> Result<Loaded<K>, Error> {
    let uid = match store.find(place) {
        None => return Ok(Loaded::Nothing),
        Some(Found::Settled(uid)) => {
            context.settled(&uid);
            return Ok(Loaded::Nothing);
        }
        Some(Found::Held(object)) => return Ok(Loaded::new(&object, object.decode(), None)),
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
    let read = timeout(limit, keys::get::<K>(&context.client, place.namespace(), place.name())).await;
    if let Some(permit) = &permit {
        permit.complete(matches!(read, Ok(Ok(_))));
    }
    let found = read.map_err(|_| Error::Timeout(limit))??.ok_or(Error::Gone)?;
    if found.metadata.uid.as_deref() != Some(&uid) {
        return Err(Error::Gone);
    }
    let decoded = found.decode::<K>();
    let facts = decoded.as_ref().map_or_else(|_| Facts::unreadable(&found), Facts::of);
    let object = Arc::new(found);
    store.put_answer(K::KIND.id, &object, facts);
    Ok(Loaded::new(&object, decoded, permit))
}

// === impl Loaded ===

impl<K> Loaded<K> {
    fn new(object: &Encoded, decoded: Result<K, Unreadable>, read: Option<CallInFlight>) -> Self {
        match decoded {
            Ok(key) => Self::Key(Arc::new(key), read),
            Err(unreadable) => Self::Unreadable(Box::new(object.metadata.clone()), unreadable),
        }
    }
}
