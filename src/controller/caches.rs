//! What the watches of one scope have delivered: the `DataKey`s, their Secrets, and which `DataKey`s want which Secret.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};
use parking_lot::{Mutex, RwLock};

use super::{cache::Cached, own_writes::OwnWrites, secret_index::SecretIndex};
use datakey::{api::DataKey, secret::metadata::WatchedSecret};

/// The namespace and the name of a Secret.
type Place = (String, String);

/// The caches of one scope.
pub struct Caches {
    /// The `DataKey`s.
    pub keys: Store<Cached>,
    /// The Secrets of the operator.
    pub secrets: SecretIndex,
    renamed: RwLock<Renamed>,
    /// The claimed Secrets: for each of them, one `DataKey` may record its first data key now.
    recording: Mutex<HashSet<Place>>,
}

/// The `DataKey`s whose Secret has a different name. An entry may be out of date, so the name is compared with the `DataKey`
/// before it is used.
#[derive(Default)]
struct Renamed {
    /// The name of the Secret, by namespace and name of the `DataKey`.
    secrets: HashMap<Place, String>,
    /// The names of the `DataKey`s, by their Secret.
    keys: HashMap<Place, BTreeSet<String>>,
}

/// The exclusive right to record a first data key for a Secret, until it is dropped.
pub struct Claim<'a> {
    caches: &'a Caches,
    place: Place,
}

// === impl Caches ===

impl Caches {
    /// Nothing is known of Secrets yet.
    pub fn new(keys: Store<Cached>) -> Self {
        Self { keys, secrets: SecretIndex::default(), renamed: RwLock::default(), recording: Mutex::default() }
    }

    /// Applies an event of the `DataKey` watch, after the store has applied it. Returns the other `DataKey`s that the event
    /// concerns: those that want the Secret of a `DataKey` that is gone.
    pub fn key_changed(&self, event: &Event<Cached>) -> Vec<ObjectRef<DataKey>> {
        match event {
            Event::Apply(key) | Event::InitApply(key) => {
                let place = (key.namespace().unwrap_or_default(), key.name_any());
                self.renamed.write().set(place, &key.secret_name());
                Vec::new()
            }
            Event::Delete(gone) => {
                let namespace = gone.namespace().unwrap_or_default();
                self.forget_name(&namespace, &gone.name_any());
                let concerned = self.wanting(&namespace, &gone.secret_name());
                concerned.into_iter().map(|key| ObjectRef::from_obj(&*key).into_kind_unchecked(())).collect()
            }
            Event::InitDone => {
                // What is gone without an event of its own.
                let is_there =
                    |(namespace, name): &Place| self.keys.get(&ObjectRef::new(name).within(namespace)).is_some();
                self.renamed.write().retain(is_there);
                Vec::new()
            }
            Event::Init => Vec::new(),
        }
    }

    /// Applies an event of the Secret watch. Returns the `DataKey`s that it may concern.
    pub fn secret_changed(&self, event: Event<WatchedSecret>) -> Vec<ObjectRef<DataKey>> {
        let place = match &event {
            Event::Apply(secret) | Event::Delete(secret) => {
                let identity = secret.meta();
                Some((identity.namespace.clone().unwrap_or_default(), identity.name.clone().unwrap_or_default()))
            }
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let mut concerned = self.secrets.apply(event);
        if let Some((namespace, name)) = place.filter(|_| !concerned.is_empty()) {
            let wanting = self.wanting(&namespace, &name);
            concerned.extend(wanting.into_iter().map(|key| ObjectRef::from_obj(&*key).into_kind_unchecked(())));
        }
        let mut seen = HashSet::new();
        concerned
            .retain(|key| seen.insert(key.clone()) && self.keys.get(&key.clone().into_kind_unchecked(())).is_some());
        concerned
    }

    /// Another `DataKey` with a recorded data key that the Secret of `key` holds or must hold. The name of the Secret stays
    /// reserved while the Secret is deleted: no other data key may be created under that name.
    pub fn rival(&self, key: &DataKey, written: &OwnWrites) -> Option<String> {
        let namespace = key.metadata.namespace.as_deref().unwrap_or_default();
        let others = self.wanting(namespace, key.secret_name());
        let mut others = others.into_iter().filter(|other| other.meta().uid != key.metadata.uid);
        let rival = others.find(|other| {
            let uid = other.meta().uid.as_deref().unwrap_or_default();
            let is_written = written.get(uid).is_some_and(|written| !written.record().is_empty());
            // A write is forgotten only after the store has it, so read the store after the writes.
            is_written || self.keys.get(&ObjectRef::from_obj(&**other)).is_some_and(|other| other.has_record())
        })?;
        Some(rival.name_any())
    }

    /// Claims a Secret for the first record of a `DataKey`; `None` while another one has the claim.
    pub fn claim(&self, namespace: &str, secret: &str) -> Option<Claim<'_>> {
        let place = (namespace.to_owned(), secret.to_owned());
        let is_free = self.recording.lock().insert(place.clone());
        // Create the claim only if the Secret is free: dropping a claim frees the Secret.
        is_free.then(|| Claim { caches: self, place })
    }

    /// The `DataKey`s whose Secret this is.
    fn wanting(&self, namespace: &str, secret: &str) -> Vec<Arc<Cached>> {
        let renamed = self.renamed.read();
        let others =
            renamed.keys.get(&(namespace.to_owned(), secret.to_owned())).into_iter().flatten().map(String::as_str);
        let keys = others.chain([secret]).filter_map(|name| self.keys.get(&ObjectRef::new(name).within(namespace)));
        keys.filter(|key| key.secret_name() == secret).collect()
    }

    fn forget_name(&self, namespace: &str, name: &str) {
        // A `DataKey` of the same name may have been created since; its entry must stay.
        if self.keys.get(&ObjectRef::new(name).within(namespace)).is_none() {
            self.renamed.write().remove(&(namespace.to_owned(), name.to_owned()));
        }
    }
}

// === impl Renamed ===

impl Renamed {
    /// Sets the name of a `DataKey`'s Secret, and removes the earlier name: the user of a `DataKey` without a record can change
    /// the name any number of times.
    fn set(&mut self, key: Place, secret: &str) {
        if self.secrets.get(&key).map_or(key.1 == secret, |known| known == secret) {
            return;
        }
        self.remove(&key);
        if key.1 != secret {
            self.keys.entry((key.0.clone(), secret.to_owned())).or_default().insert(key.1.clone());
            self.secrets.insert(key, secret.to_owned());
        }
    }

    fn remove(&mut self, key: &Place) {
        let Some(secret) = self.secrets.remove(key) else { return };
        let secret = (key.0.clone(), secret);
        if let Some(names) = self.keys.get_mut(&secret) {
            names.remove(&key.1);
            if names.is_empty() {
                self.keys.remove(&secret);
            }
        }
    }

    fn retain(&mut self, is_there: impl Fn(&Place) -> bool) {
        let gone: Vec<_> = self.secrets.keys().filter(|key| !is_there(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

// === impl Claim ===

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.caches.recording.lock().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn last_owner_name_of_a_secret_is_kept() {
        let mut renamed = Renamed::default();
        for number in 0..1000 {
            renamed.set(place("orders"), &format!("secret-{number}"));
        }
        renamed.set(place("other"), "secret-999");
        assert_eq!((renamed.secrets.len(), renamed.keys.len()), (2, 1));
        assert_eq!(renamed.keys[&place("secret-999")], ["orders", "other"].map(str::to_owned).into());
        renamed.set(place("orders"), "orders");
        assert_eq!(renamed.keys[&place("secret-999")], ["other".to_owned()].into());
        renamed.retain(|_| false);
        assert_eq!((renamed.secrets.len(), renamed.keys.len()), (0, 0));
    }
}
