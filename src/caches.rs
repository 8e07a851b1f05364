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

use crate::{
    api::DataKey,
    cache::Cached,
    secret::{index::SecretIndex, metadata::WatchedSecret},
    written::Written,
};

/// The namespace and the name of a Secret.
type Place = (String, String);

/// The caches of one scope.
pub struct Caches {
    /// The `DataKey`s.
    pub keys: Store<Cached>,
    /// The Secrets of the operator.
    pub secrets: SecretIndex,
    /// The `DataKey`s whose Secret has another name than they have, by their Secret. A name here may be out of date: it is
    /// compared with the `DataKey` before it counts.
    renamed: RwLock<HashMap<Place, BTreeSet<String>>>,
    /// The Secrets for which a record is on its way.
    recording: Mutex<HashSet<Place>>,
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

    /// Takes in an event of the watch of `DataKey`s, after the store has it. Returns the other `DataKey`s that it concerns:
    /// those that want the Secret of one that is gone.
    pub fn key_changed(&self, event: &Event<Cached>) -> Vec<ObjectRef<DataKey>> {
        match event {
            Event::Apply(key) | Event::InitApply(key) => {
                if key.secret_name() != key.name_any() {
                    let place = (key.namespace().unwrap_or_default(), key.secret_name().into_owned());
                    let mut renamed = self.renamed.write();
                    renamed.entry(place).or_default().insert(key.name_any());
                }
                Vec::new()
            }
            Event::Delete(gone) => {
                let namespace = gone.namespace().unwrap_or_default();
                self.forget_name(&namespace, gone);
                let concerned = self.wanting(&namespace, &gone.secret_name());
                concerned.into_iter().map(|key| ObjectRef::from_obj(&*key).into_kind_unchecked(())).collect()
            }
            Event::InitDone => {
                self.forget_stale();
                Vec::new()
            }
            Event::Init => Vec::new(),
        }
    }

    /// Takes in an event of the watch of Secrets. Returns the `DataKey`s that it may concern.
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

    /// Another `DataKey` whose recorded data key this Secret holds or has to hold. Its name stays reserved while the Secret is
    /// deleted: what is created in its place must not be another data key.
    pub fn rival(&self, key: &DataKey, written: &Written) -> Option<String> {
        let namespace = key.metadata.namespace.as_deref().unwrap_or_default();
        let others = self.wanting(namespace, key.secret_name());
        let mut others = others.into_iter().filter(|other| other.meta().uid != key.metadata.uid);
        let rival = others.find(|other| {
            let uid = other.meta().uid.as_deref().unwrap_or_default();
            let is_written = written.get(uid).is_some_and(|written| !written.record().is_empty());
            // What is forgotten of our writes, the store has: so it is looked at afterwards.
            is_written || self.keys.get(&ObjectRef::from_obj(&**other)).is_some_and(|other| other.has_record())
        })?;
        Some(rival.name_any())
    }

    /// Claims a Secret for the first record of a `DataKey`; `None` while another one has the claim.
    pub fn claim(&self, namespace: &str, secret: &str) -> Option<Claim<'_>> {
        let place = (namespace.to_owned(), secret.to_owned());
        let is_free = self.recording.lock().insert(place.clone());
        // Made only then: a claim that is dropped frees the Secret.
        is_free.then(|| Claim { caches: self, place })
    }

    /// The `DataKey`s whose Secret this is.
    fn wanting(&self, namespace: &str, secret: &str) -> Vec<Arc<Cached>> {
        let renamed = self.renamed.read();
        let others = renamed.get(&(namespace.to_owned(), secret.to_owned())).into_iter().flatten().map(String::as_str);
        let keys = others.chain([secret]).filter_map(|name| self.keys.get(&ObjectRef::new(name).within(namespace)));
        keys.filter(|key| key.secret_name() == secret).collect()
    }

    fn forget_name(&self, namespace: &str, gone: &Cached) {
        let name = gone.name_any();
        // One of the same name may have been created since.
        if self.keys.get(&ObjectRef::new(&name).within(namespace)).is_some() {
            return;
        }
        let place = (namespace.to_owned(), gone.secret_name().into_owned());
        let mut renamed = self.renamed.write();
        if let Some(names) = renamed.get_mut(&place) {
            names.remove(&name);
            if names.is_empty() {
                renamed.remove(&place);
            }
        }
    }

    fn forget_stale(&self) {
        let mut renamed = self.renamed.write();
        renamed.retain(|(namespace, secret), names| {
            names.retain(|name| {
                let key = self.keys.get(&ObjectRef::new(name).within(namespace));
                key.is_some_and(|key| key.secret_name() == *secret)
            });
            !names.is_empty()
        });
    }
}

// === impl Claim ===

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.caches.recording.lock().remove(&self.place);
    }
}
