//! The Secrets of this operator as the watch delivers them, reduced to [`SecretMetadata`], and what this process knows of
//! their content.

use std::{collections::HashMap, time::Duration};

use kube::{
    Resource,
    runtime::{reflector::ObjectRef, watcher::Event},
};
use parking_lot::RwLock;
use tokio::{sync::watch, time::Instant};

use datakey::{
    api::DataKey,
    secret::{
        known::{KnownSecret, Origin, Verified},
        metadata::{SecretMetadata, WatchedSecret},
    },
};

type Key = (String, String);

/// What is known of Secrets, by namespace and name. Our own writes go in too, so that it is never older than they are.
pub struct SecretIndex {
    known: RwLock<HashMap<Key, KnownSecret>>,
    relist: RwLock<HashMap<Key, KnownSecret>>,
    ready: watch::Sender<bool>,
}

// === impl SecretIndex ===

impl Default for SecretIndex {
    fn default() -> Self {
        Self { known: RwLock::default(), relist: RwLock::default(), ready: watch::Sender::new(false) }
    }
}

impl SecretIndex {
    /// Waits until the first list is complete. Until then, a Secret that is not in the index may exist in the cluster.
    pub async fn wait_until_ready(&self) {
        // It fails only when the sender is gone, and that lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first list is complete.
    pub fn is_listed(&self) -> bool {
        *self.ready.borrow()
    }

    /// What is known of a Secret.
    pub fn get(&self, namespace: &str, name: &str) -> Option<KnownSecret> {
        self.known.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Stores the result of our own write or read, unless the index has a newer revision.
    pub fn store(&self, namespace: &str, name: &str, known: KnownSecret) {
        let mut all = self.known.write();
        let key = (namespace.to_owned(), name.to_owned());
        if all.get(&key).is_none_or(|old| !known.metadata.revision.is_older_than(&old.metadata.revision)) {
            all.insert(key, known);
        }
    }

    /// Returns the `DataKey`s of Secrets that were read at least this long ago and have not changed since: from now on the
    /// status must name these revisions. Returns each of them once.
    pub fn settle(&self, after: Duration) -> Vec<ObjectRef<DataKey>> {
        let now = Instant::now().into_std();
        let mut settled = Vec::new();
        for (key, known) in self.known.write().iter_mut() {
            if let Some(Verified { origin: origin @ Origin::Read(_), .. }) = &mut known.verified
                && matches!(*origin, Origin::Read(since) if now.saturating_duration_since(since) >= after)
            {
                *origin = Origin::Settled;
                settled.extend(concerned(key, None, Some(&known.metadata)));
            }
        }
        settled
    }

    /// Applies an event of the watch; returns the `DataKey`s that it may concern.
    pub fn apply(&self, event: Event<WatchedSecret>) -> Vec<ObjectRef<DataKey>> {
        match event {
            Event::Init => {
                self.relist.write().clear();
                Vec::new()
            }
            Event::InitApply(secret) => {
                let (key, known) = unread(secret);
                self.relist.write().insert(key, known);
                Vec::new()
            }
            Event::InitDone => self.swap(),
            Event::Apply(secret) => {
                let (key, new) = unread(secret);
                let mut all = self.known.write();
                let old = all.get(&key).map(|old| old.metadata.clone());
                if old
                    .as_ref()
                    .is_some_and(|old| *old == new.metadata || new.metadata.revision.is_older_than(&old.revision))
                {
                    return Vec::new();
                }
                let concerned = concerned(&key, old.as_ref(), Some(&new.metadata));
                all.insert(key, new);
                concerned
            }
            Event::Delete(secret) => {
                let (key, gone) = unread(secret);
                let mut all = self.known.write();
                // A Secret of the same name may have been created since.
                if all.get(&key).is_some_and(|old| old.metadata.revision.uid != gone.metadata.revision.uid) {
                    return Vec::new();
                }
                all.remove(&key);
                concerned(&key, Some(&gone.metadata), None)
            }
        }
    }

    fn swap(&self) -> Vec<ObjectRef<DataKey>> {
        let mut listed = std::mem::take(&mut *self.relist.write());
        let mut all = self.known.write();
        for (key, old) in all.iter() {
            if let Some(new) = listed.get_mut(key).filter(|new| new.metadata == old.metadata) {
                new.verified = old.verified;
            }
        }
        std::mem::swap(&mut *all, &mut listed);
        let old = listed;
        if !self.ready.send_replace(true) {
            // Every DataKey is compared now in any case.
            return Vec::new();
        }
        let gone = old.iter().filter(|(key, _)| !all.contains_key(*key)).map(|(key, old)| (key, Some(old), None));
        let changed = all.iter().filter_map(|(key, new)| {
            let old = old.get(key);
            old.is_none_or(|old| old.metadata != new.metadata).then_some((key, old, Some(new)))
        });
        gone.chain(changed)
            .flat_map(|(key, old, new)| concerned(key, old.map(|old| &old.metadata), new.map(|new| &new.metadata)))
            .collect()
    }
}

fn unread(secret: WatchedSecret) -> (Key, KnownSecret) {
    let identity = secret.meta();
    let key = (identity.namespace.clone().unwrap_or_default(), identity.name.clone().unwrap_or_default());
    (key, KnownSecret { metadata: secret.metadata, verified: None })
}

/// The `DataKey`s that a change of a Secret may concern: those that its label names and named, and the one that has the
/// Secret's name, should the label be gone.
fn concerned(
    (namespace, name): &Key,
    old: Option<&SecretMetadata>,
    new: Option<&SecretMetadata>,
) -> Vec<ObjectRef<DataKey>> {
    let labels = [old, new].into_iter().flatten().filter_map(|metadata| metadata.belongs_to.as_deref());
    let mut names: Vec<_> = labels.chain([name.as_str()]).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| ObjectRef::new(name).within(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use datakey::secret::digest::Digest;
    use serde_json::json;

    use super::*;

    fn secret(name: &str, uid: &str, version: &str, belongs_to: &str) -> WatchedSecret {
        let labels = json!({ datakey::names::NAME_LABEL: belongs_to });
        let metadata =
            json!({ "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version, "labels": labels });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn verified(secret: WatchedSecret) -> KnownSecret {
        let digest = Digest::of(&<_>::default());
        KnownSecret { verified: Some(Verified::read(digest, Instant::now().into_std())), ..unread(secret).1 }
    }

    fn names(refs: &[ObjectRef<DataKey>]) -> Vec<&str> {
        refs.iter().map(|object| object.name.as_str()).collect()
    }

    fn listed(secrets: &[WatchedSecret]) -> SecretIndex {
        let index = SecretIndex::default();
        relist(&index, secrets);
        index
    }

    fn relist(index: &SecretIndex, secrets: &[WatchedSecret]) -> Vec<ObjectRef<DataKey>> {
        index.apply(Event::Init);
        for secret in secrets {
            assert!(index.apply(Event::InitApply(secret.clone())).is_empty());
        }
        index.apply(Event::InitDone)
    }

    #[test]
    fn index_is_ready_after_the_first_list_and_wakes_no_key() {
        let index = SecretIndex::default();
        assert!(!index.is_listed());
        assert!(relist(&index, &[secret("orders", "a", "1", "orders")]).is_empty());
        assert!(index.is_listed() && index.get("shop", "orders").is_some());
    }

    #[test]
    fn changed_label_wakes_the_old_and_the_new_data_key() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        assert_eq!(names(&index.apply(Event::Apply(secret("s", "a", "2", "invoices")))), ["invoices", "orders", "s"]);
    }

    #[test]
    fn deleted_secret_wakes_its_data_key() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        assert_eq!(names(&index.apply(Event::Delete(secret("s", "a", "2", "orders")))), ["orders", "s"]);
        assert_eq!(index.get("shop", "s"), None);
    }

    #[test]
    fn late_deletion_event_keeps_the_recreated_secret() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        index.store("shop", "s", unread(secret("s", "b", "5", "orders")).1);
        assert!(index.apply(Event::Delete(secret("s", "a", "3", "orders"))).is_empty());
        assert_eq!(index.get("shop", "s").map(|known| known.metadata.revision.uid), Some("b".to_owned()));
    }

    #[test]
    fn event_older_than_an_own_write_is_ignored() {
        let index = listed(&[]);
        index.store("shop", "s", verified(secret("s", "a", "10", "orders")));
        assert!(index.apply(Event::Apply(secret("s", "a", "9", "orders"))).is_empty());
        assert!(index.apply(Event::Apply(secret("s", "a", "10", "orders"))).is_empty());
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_some()));
        assert!(!index.apply(Event::Apply(secret("s", "a", "11", "orders"))).is_empty());
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_none()));
    }

    #[test]
    fn verification_is_valid_for_one_revision() {
        let index = listed(&[secret("s", "a", "12", "orders")]);
        index.store("shop", "s", verified(secret("s", "a", "11", "orders")));
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_none()), "an older one was read");
        index.store("shop", "s", verified(secret("s", "a", "12", "orders")));
        relist(&index, &[secret("s", "a", "12", "orders")]);
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_some()), "the same after a list");
        relist(&index, &[secret("s", "b", "12", "orders")]);
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_none()), "another Secret");
    }

    #[test]
    fn relist_wakes_keys_of_changed_and_deleted_secrets() {
        let index = listed(&[
            secret("same", "a", "1", "same"),
            secret("gone", "b", "2", "gone"),
            secret("changed", "c", "3", "changed"),
        ]);
        let now =
            [secret("same", "a", "1", "same"), secret("changed", "c", "9", "changed"), secret("new", "d", "8", "new")];
        let mut concerned = relist(&index, &now);
        concerned.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(names(&concerned), ["changed", "gone", "new"]);
        assert_eq!(index.get("shop", "gone"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn revision_settles_once_after_its_quiet_time() {
        const HOUR: Duration = Duration::from_hours(1);
        let index = listed(&[]);
        index.store("shop", "read", verified(secret("read", "a", "1", "orders")));
        let written = Verified::written(Digest::of(&<_>::default()));
        index.store("shop", "own", KnownSecret { verified: Some(written), ..verified(secret("own", "b", "2", "own")) });
        index.apply(Event::Apply(secret("seen", "c", "3", "seen")));
        tokio::time::advance(HOUR / 2).await;
        assert!(index.settle(HOUR).is_empty());
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(names(&index.settle(HOUR)), ["orders", "read"]);
        assert!(index.settle(HOUR).is_empty());
        assert_eq!(index.get("shop", "read").unwrap().verified.unwrap().origin, Origin::Settled);
    }
}
