//! Watches over foreign Secrets that are in the way of an object. The watch of the operator's own Secrets selects their type
//! and does not see them, and a conflict is retried rarely: without these watches a name that is free again would be noticed
//! after minutes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::sleep};

use super::retry::RetryTable;
use crate::{kms::queue::Requeue, place::Place};
use datakey::secret::metadata::WatchedSecret;

/// Bound of the watches. They share one connection, and an API server may serve no more than 100 requests of a connection at
/// the same time (k8s.io/apiserver, `SecureServingInfo.Serve`).
const MAX: usize = 100;

/// How long a name must be free before the object is reconciled. A client that creates and deletes a Secret in a loop
/// costs at most one reconcile each time.
const FREE_FOR: Duration = Duration::from_secs(1);

/// The watches, one for each object, by its uid.
pub struct ConflictWatches {
    client: Client,
    watches: Mutex<HashMap<String, Watch>>,
}

struct Watch {
    namespace: String,
    secret: String,
    task: JoinHandle<()>,
}

// === impl ConflictWatches ===

impl ConflictWatches {
    /// No watches yet. The client should have a connection of its own.
    pub fn new(client: Client) -> Self {
        Self { client, watches: Mutex::default() }
    }

    /// Watches the Secret that is in the way of an object. Once the Secret is gone, the object is queued and does not wait
    /// any longer. At the limit, the namespace with the most watches loses one, if it has more than this namespace would have.
    /// Otherwise the Secret is not watched, and the object is retried after its wait.
    pub fn watch(&self, uid: &str, object: &Place, secret: &str, retries: &Arc<RetryTable>, requeue: &Requeue) {
        let namespace = object.namespace().to_owned();
        let mut watches = self.watches.lock();
        if watches.get(uid).is_some_and(|watch| watch.secret == secret && !watch.task.is_finished()) {
            return;
        }
        watches.remove(uid);
        if watches.len() >= MAX {
            watches.retain(|_, watch| !watch.task.is_finished());
        }
        if watches.len() >= MAX {
            let Some(surplus) = surplus(&watches, &namespace) else { return };
            watches.remove(&surplus);
        }
        let secrets: Api<WatchedSecret> = Api::namespaced(self.client.clone(), &namespace);
        let (object, retries, requeue) = (object.clone(), Arc::clone(retries), requeue.clone());
        let (id, name) = (uid.to_owned(), secret.to_owned());
        let task = tokio::spawn(async move {
            until_gone(secrets, &name).await;
            sleep(FREE_FOR).await;
            retries.try_now(&id);
            // This fails only while the operator stops, when the receiver is gone.
            let _ = requeue.unbounded_send(object);
        });
        watches.insert(uid.to_owned(), Watch { namespace, secret: secret.to_owned(), task });
    }

    /// Ends the watch of an object that is gone, or whose conflict is over.
    pub fn forget(&self, uid: &str) {
        self.watches.lock().remove(uid);
    }
}

/// A watch of the namespace that has most of them, if that is more than this namespace would have with one more.
fn surplus(watches: &HashMap<String, Watch>, namespace: &str) -> Option<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for watch in watches.values() {
        *counts.entry(watch.namespace.as_str()).or_default() += 1;
    }
    let own = counts.get(namespace).copied().unwrap_or_default();
    let (most, count) = counts.into_iter().max_by_key(|&(_, count)| count)?;
    let surplus = watches.iter().find(|(_, watch)| watch.namespace == most);
    surplus.filter(|_| count > own + 1).map(|(uid, _)| uid.clone())
}

/// Waits until no Secret has this name.
async fn until_gone(secrets: Api<WatchedSecret>, name: &str) {
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(secrets, config).default_backoff().boxed();
    let mut is_there = false;
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => is_there = false,
            Ok(Some(Event::InitApply(_) | Event::Apply(_))) => is_there = true,
            Ok(Some(Event::InitDone)) if is_there => {}
            Ok(Some(Event::InitDone | Event::Delete(_)) | None) => return,
            // The stream goes on by itself, with its own back-off.
            Err(_) => {}
        }
    }
}

// === impl Watch ===

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(counts: &[(&str, usize)]) -> HashMap<String, Watch> {
        let watch = |namespace: &str| Watch {
            namespace: namespace.to_owned(),
            secret: "orders".to_owned(),
            task: tokio::spawn(std::future::pending()),
        };
        let named = |(namespace, count): &(&str, usize)| -> Vec<_> {
            (0..*count).map(|number| (format!("{namespace}/{number}"), watch(namespace))).collect()
        };
        counts.iter().flat_map(named).collect()
    }

    #[tokio::test]
    async fn namespace_with_most_watches_gives_one_up() {
        let all = watches(&[("crowd", 97), ("shop", 3)]);
        assert!(surplus(&all, "new").is_some_and(|uid| uid.starts_with("crowd/")));
        assert!(surplus(&all, "shop").is_some_and(|uid| uid.starts_with("crowd/")));
        assert_eq!(surplus(&all, "crowd"), None);
        assert_eq!(surplus(&watches(&[("one", 50), ("other", 50)]), "other"), None, "in equal shares");
        assert_eq!(surplus(&watches(&[("one", 50), ("other", 49)]), "other"), None, "it would be taken back");
    }
}
