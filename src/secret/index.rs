//! The Secrets of this operator as the watch tells them, reduced to [`Facts`].

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    core::PartialObjectMeta,
    runtime::{reflector::ObjectRef, watcher::Event},
};
use tokio::sync::watch;

use super::{Facts, Fingerprint};
use crate::api::DataKey;

type Key = (String, String);

/// A cache of [`Facts`] by namespace and name. Our own writes go in too, so that it is never older than they are.
pub struct SecretIndex {
    known: RwLock<HashMap<Key, Entry>>,
    relist: RwLock<HashMap<Key, Entry>>,
    ready: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
struct Entry {
    facts: Facts,
    verified: Option<Fingerprint>,
}

/// What the index knows of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its metadata.
    pub facts: Facts,
    /// The projection that this very resource version was read and found to hold, although its metadata can't tell:
    /// restored by a backup tool, which owns its fields, or owned by a second manager with equal values.
    pub verified: Option<Fingerprint>,
}

// === impl SecretIndex ===

impl Default for SecretIndex {
    fn default() -> Self {
        Self { known: RwLock::default(), relist: RwLock::default(), ready: watch::Sender::new(false) }
    }
}

impl SecretIndex {
    /// Waits until the first list is complete. Before that a Secret that is not here may well be there.
    pub async fn wait_until_ready(&self) {
        // It fails only when the sender is gone, and that lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// What is known of a Secret.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Known> {
        let entry = self.read().get(&(namespace.to_owned(), name.to_owned())).cloned()?;
        Some(Known { facts: entry.facts, verified: entry.verified })
    }

    /// Takes in what our own write or read answered.
    pub fn learn(&self, namespace: &str, name: &str, facts: Facts, verified: Option<Fingerprint>) {
        let mut known = self.write();
        let key = (namespace.to_owned(), name.to_owned());
        if known.get(&key).is_none_or(|old| !is_older(&facts, &old.facts)) {
            known.insert(key, Entry { facts, verified });
        }
    }

    /// Takes in an event of the watch; returns the `DataKey`s that it may concern.
    pub fn apply(&self, event: Event<PartialObjectMeta<Secret>>) -> Vec<ObjectRef<DataKey>> {
        match event {
            Event::Init => {
                self.relist.write().unwrap_or_else(PoisonError::into_inner).clear();
                Vec::new()
            }
            Event::InitApply(secret) => {
                let (key, facts) = reduce(&secret);
                let mut relist = self.relist.write().unwrap_or_else(PoisonError::into_inner);
                relist.insert(key, Entry { facts, verified: None });
                Vec::new()
            }
            Event::InitDone => self.swap(),
            Event::Apply(secret) => {
                let (key, facts) = reduce(&secret);
                let mut known = self.write();
                let old = known.get(&key).cloned();
                if old.as_ref().is_some_and(|old| old.facts == facts || is_older(&facts, &old.facts)) {
                    return Vec::new();
                }
                let concerned = concerned(&key, old.as_ref().map(|old| &old.facts), Some(&facts));
                known.insert(key, Entry { facts, verified: None });
                concerned
            }
            Event::Delete(secret) => {
                let (key, facts) = reduce(&secret);
                let mut known = self.write();
                // A Secret of the same name may have been created since.
                if known.get(&key).is_some_and(|old| old.facts.uid != facts.uid) {
                    return Vec::new();
                }
                known.remove(&key);
                concerned(&key, Some(&facts), None)
            }
        }
    }

    fn swap(&self) -> Vec<ObjectRef<DataKey>> {
        let mut listed = std::mem::take(&mut *self.relist.write().unwrap_or_else(PoisonError::into_inner));
        let mut known = self.write();
        for (key, old) in known.iter() {
            if let Some(new) = listed.get_mut(key).filter(|new| new.facts == old.facts) {
                new.verified = old.verified;
            }
        }
        std::mem::swap(&mut *known, &mut listed);
        let old = listed;
        if !self.ready.send_replace(true) {
            // Every DataKey is looked at now in any case.
            return Vec::new();
        }
        let gone = old.iter().filter(|(key, _)| !known.contains_key(*key)).map(|(key, old)| (key, Some(old), None));
        let changed = known.iter().filter_map(|(key, new)| {
            let old = old.get(key);
            old.is_none_or(|old| old.facts != new.facts).then_some((key, old, Some(new)))
        });
        gone.chain(changed)
            .flat_map(|(key, old, new)| concerned(key, old.map(|old| &old.facts), new.map(|new| &new.facts)))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Key, Entry>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Key, Entry>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reduce(secret: &PartialObjectMeta<Secret>) -> (Key, Facts) {
    let metadata = &secret.metadata;
    let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    (key, Facts::of(metadata))
}

/// Whether `new` is an older state of the same Secret. Kubernetes compares resource versions as whole numbers since
/// 1.35, and etcd's always were; one that is no number is taken as new.
fn is_older(new: &Facts, old: &Facts) -> bool {
    let number = |facts: &Facts| facts.resource_version.parse::<u64>().ok();
    new.uid == old.uid && matches!((number(new), number(old)), (Some(new), Some(old)) if new < old)
}

/// The `DataKey`s that a change of a Secret may concern: those that its label names and named, and the one that has the
/// Secret's name, should the label be gone.
fn concerned((namespace, name): &Key, old: Option<&Facts>, new: Option<&Facts>) -> Vec<ObjectRef<DataKey>> {
    let labels = [old, new].into_iter().flatten().filter_map(|facts| facts.belongs_to.as_deref());
    let mut names: Vec<_> = labels.chain([name.as_str()]).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| ObjectRef::new(name).within(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn secret(name: &str, uid: &str, version: &str, belongs_to: &str) -> PartialObjectMeta<Secret> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("shop".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                labels: Some([(super::super::NAME.to_owned(), belongs_to.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn some() -> Fingerprint {
        reduce(&secret("s", "a", "1", "orders")).1.fingerprint
    }

    fn names(refs: &[ObjectRef<DataKey>]) -> Vec<&str> {
        refs.iter().map(|object| object.name.as_str()).collect()
    }

    fn listed(secrets: &[PartialObjectMeta<Secret>]) -> SecretIndex {
        let index = SecretIndex::default();
        relist(&index, secrets);
        index
    }

    fn relist(index: &SecretIndex, secrets: &[PartialObjectMeta<Secret>]) -> Vec<ObjectRef<DataKey>> {
        index.apply(Event::Init);
        for secret in secrets {
            assert!(index.apply(Event::InitApply(secret.clone())).is_empty());
        }
        index.apply(Event::InitDone)
    }

    #[test]
    fn it_is_ready_after_the_first_list_and_that_concerns_nobody() {
        let index = SecretIndex::default();
        assert!(!index.is_ready());
        assert!(relist(&index, &[secret("orders", "a", "1", "orders")]).is_empty());
        assert!(index.is_ready() && index.get("shop", "orders").is_some());
    }

    #[test]
    fn a_changed_label_concerns_the_old_and_the_new_data_key() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        assert_eq!(names(&index.apply(Event::Apply(secret("s", "a", "2", "invoices")))), ["invoices", "orders", "s"]);
    }

    #[test]
    fn a_deleted_secret_concerns_its_data_key() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        assert_eq!(names(&index.apply(Event::Delete(secret("s", "a", "2", "orders")))), ["orders", "s"]);
        assert_eq!(index.get("shop", "s"), None);
    }

    #[test]
    fn a_late_deletion_of_the_predecessor_does_not_hide_the_successor() {
        let index = listed(&[secret("s", "a", "1", "orders")]);
        index.learn("shop", "s", reduce(&secret("s", "b", "5", "orders")).1, None);
        assert!(index.apply(Event::Delete(secret("s", "a", "3", "orders"))).is_empty());
        assert_eq!(index.get("shop", "s").map(|known| known.facts.uid), Some("b".to_owned()));
    }

    #[test]
    fn an_event_older_than_our_own_write_is_passed_over() {
        let index = listed(&[]);
        index.learn("shop", "s", reduce(&secret("s", "a", "10", "orders")).1, Some(some()));
        assert!(index.apply(Event::Apply(secret("s", "a", "9", "orders"))).is_empty());
        assert!(index.apply(Event::Apply(secret("s", "a", "10", "orders"))).is_empty());
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_some()));
        assert!(!index.apply(Event::Apply(secret("s", "a", "11", "orders"))).is_empty());
        assert!(index.get("shop", "s").is_some_and(|known| known.verified.is_none()));
    }

    #[test]
    fn after_a_relist_exactly_the_changed_and_the_gone_concern_somebody() {
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
}
