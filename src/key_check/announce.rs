//! Writes the condition `KeyUsable` of objects, at a pace that delays nothing else: thousands of objects can depend on one KMS key.

use std::{collections::HashSet, sync::Arc, time::Duration};

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind, KindId},
    condition::key_usable::{self, Unusable, Verdict},
};
use futures::{
    StreamExt,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::{
    api_server::{
        keys,
        outcome::{Undecided, WriteOutcome, classify_write},
        secrets::RequestError,
    },
    place::Place,
    reconcile::Context,
};

/// The least time between two objects: at most 20 a second.
const PACE: Duration = Duration::from_millis(50);

/// How often a write is repeated because another client wrote the object meanwhile.
const ATTEMPTS: usize = 5;

/// Where objects are sent whose condition may have to change. Each waits once, however often it is sent.
pub struct Announcements {
    sender: UnboundedSender<Place>,
    waiting: Waiting,
}

/// The objects that wait, in their order.
pub struct Announced {
    receiver: UnboundedReceiver<Place>,
    waiting: Waiting,
}

type Waiting = Arc<Mutex<HashSet<Place>>>;

/// A queue without objects.
pub fn queue() -> (Announcements, Announced) {
    let ((sender, receiver), waiting) = (mpsc::unbounded(), Waiting::default());
    (Announcements { sender, waiting: Arc::clone(&waiting) }, Announced { receiver, waiting })
}

// === impl Announcements ===

impl Announcements {
    /// Sends an object.
    pub fn send(&self, place: Place) {
        if self.waiting.lock().insert(place.clone()) {
            // The receiver is gone only while the operator stops.
            let _ = self.sender.unbounded_send(place);
        }
    }
}

/// Writes the conditions of these objects, one after the other.
pub async fn run(context: &Context, mut places: Announced) {
    while let Some(place) = places.receiver.next().await {
        places.waiting.lock().remove(&place);
        let written = match place.kind() {
            KindId::DataKey => keep::<DataKey>(context, &place).await,
            KindId::DataKeyPair => keep::<DataKeyPair>(context, &place).await,
        };
        if let Err(error) = written {
            let (namespace, name) = (place.namespace(), place.name());
            // The next answer about the KMS key finds it again.
            warn!(namespace, name, error, "the condition KeyUsable could not be written");
        }
        sleep(PACE).await;
    }
}

/// Writes the condition of an object if it must be another one.
async fn keep<K: KeyKind>(context: &Context, place: &Place) -> Result<(), String> {
    for _ in 0..ATTEMPTS {
        match keep_once::<K>(context, place).await {
            Err(None) => sleep(PACE).await,
            Err(Some(why)) => return Err(why),
            Ok(()) => return Ok(()),
        }
    }
    Err("other clients keep writing the object".to_owned())
}

/// The same; the error is `None` if another client wrote the object meanwhile.
async fn keep_once<K: KeyKind>(context: &Context, place: &Place) -> Result<(), Option<String>> {
    let too_late = |_| Some("the API server does not answer".to_owned());
    let unanswered = |error: RequestError| Some(error.to_string());
    let read = keys::get::<K>(&context.client, place.namespace(), place.name());
    let Some(found) = timeout(context.kube_timeout, read).await.map_err(too_late)?.map_err(unanswered)? else {
        return Ok(());
    };
    // One that cannot be decoded has its own report.
    let Ok(key) = found.decode::<K>() else { return Ok(()) };
    let object = key.as_object();
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let class = context.classes.of(object);
    let tenancy = class.tenancy(context.classes.is_required());
    let known = |arn: &str| context.key_checks.verdict(&tenancy, context.kms.own_region(), object, arn);
    let Some(status) = key_usable::wanted(object, known, Timestamp::now()) else { return Ok(()) };
    let sent = key.with_status(status);
    let write = timeout(context.kube_timeout, keys::put_status(&context.client, &sent, false)).await;
    match classify_write(write.map_err(too_late)?, object) {
        Ok(WriteOutcome::Accepted(stored)) => {
            let is_proven = |arn: &str| context.key_checks.is_asking() && known(arn) == Some(Verdict::Usable);
            let is_all_clear = is_all_clear(&key_usable::reported(object), is_proven);
            report(context, &key, &stored.key, is_all_clear).await;
            Ok(())
        }
        Ok(WriteOutcome::Rejected(why)) => Err(Some(why)),
        Err(Undecided::Conflict) => Err(None),
        Err(Undecided::Gone) => Ok(()),
        Err(Undecided::Server(code, why)) => Err(Some(format!("the API server answers {code}: {why}"))),
        Err(Undecided::Request(error)) => Err(unanswered(error)),
    }
}

/// Whether each KMS key that a condition reported is proven to be usable again. A condition that cannot be read, or that reports only KMS
/// keys on which the object does not depend any more, reports nothing that an answer could prove.
fn is_all_clear(reported: &[Unusable], is_proven: impl Fn(&str) -> bool) -> bool {
    !reported.is_empty() && reported.iter().all(|unusable| is_proven(&unusable.key_arn))
}

/// Writes an event for what is new. `is_all_clear`: whether AWS KMS has answered that it uses what was reported. The condition also ends
/// after a rewrap, and where the watch is turned off.
async fn report<K: KeyKind>(context: &Context, before: &K, now: &K, is_all_clear: bool) {
    let entries = |key: &K| -> Vec<_> {
        let reported = key_usable::reported(key.as_object()).into_iter();
        reported.map(|Unusable { key_arn, cause, .. }| (key_arn, cause)).collect()
    };
    let said = entries(before);
    let is_new = entries(now).iter().any(|entry| !said.contains(entry));
    let condition = now.status().and_then(|status| status.conditions.key_usable());
    let about = before.object_ref(&());
    match condition {
        Some(condition) if is_new => {
            context.emit(&about, EventType::Warning, "KeyUnusable", &condition.message).await;
        }
        None if is_all_clear => {
            context.emit(&about, EventType::Normal, "KeyUsable", "AWS KMS uses the reported KMS keys again").await;
        }
        Some(_) | None => debug!(namespace = about.namespace, name = about.name, "the condition KeyUsable has changed"),
    }
}

#[cfg(test)]
mod tests {
    use datakey::{condition::key_usable::Cause, fixtures::at};

    use super::*;

    #[test]
    fn all_clear_needs_an_answer_about_each_reported_key() {
        let unusable = |arn: &str| Unusable { key_arn: arn.to_owned(), cause: Cause::DisabledException, since: at(1) };
        let both = [unusable("a"), unusable("b")];
        assert!(is_all_clear(&both, |_| true));
        assert!(!is_all_clear(&both, |arn| arn == "a"));
        assert!(!is_all_clear(&[], |_| true), "nothing was reported that this release can read");
    }
}
