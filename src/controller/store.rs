//! What is known of the objects and Secrets of one scope, and which of two states of an object is the newer one.
//!
//! Of every object and Secret the store has a row of less than 300 bytes. An object that is being worked on is also in the
//! [`WorkingSet`]; what is not there is read from the API server when it is needed.
//!
//! The watch decides what exists, and its order is that of the changes. It can be behind the answer to a request of our own: then
//! the answer is the newest state until the watch has delivered it. A decision on an older one would waste a call to KMS, because
//! the API server would refuse its record with 409.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::place::Place;
use claim::Claimed;
use compact::{Uid, Version};
use datakey::{
    api::{KindId, Object},
    condition::ReadyState,
    decode::Encoded,
    identity::Revision,
    secret::{known::KnownSecret, metadata::SecretMetadata},
};
use listed::Listed;
use row::{ByKind, KeyRow, List, Rows, Settlement, Source, revision_of};

pub use claim::Claim;
pub use facts::Facts;
pub use working_set::WorkingSet;
pub use wrapped::{Member, Reported};

mod claim;
mod compact;
mod counts;
mod facts;
mod listed;
mod row;
mod secrets;
#[cfg(test)]
mod tests;
mod working_set;
mod wrapped;
mod wrapping;

/// What is known of the objects of all kinds and the Secrets of one scope.
pub struct Store {
    rows: Mutex<Rows>,
    working_set: Arc<WorkingSet>,
    listed: watch::Sender<ByKind<Listed>>,
    /// The claimed Secrets: for each of them, one object may record its first data key now. Locked before `rows`.
    recording: Mutex<HashMap<Place, Claimed>>,
}

/// Whether there is something to do for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is, or that is not known.
    Open,
    /// Nothing, as long as its Secret has this revision; `None`: as long as the watch has no such Secret.
    SettledWith(Option<Revision>),
    /// Nothing, whatever its Secret does: it is being deleted, or cannot be decoded and that is reported.
    Settled,
}

/// How the watch delivers a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In a list.
    List,
    /// By an event.
    Event,
}

/// An object that is about to be reconciled.
pub enum Found {
    /// There is nothing to do for it. Its uid.
    Settled(String),
    /// Its newest state.
    Held(Arc<Encoded>),
    /// Its newest state must be read. Its uid.
    NotHeld(String),
}

/// What changed with a state that the watch delivered.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whether there is something to do for the object.
    pub is_open: bool,
    /// The uid of the object that had this name before. It is gone without an event of its own.
    pub replaced: Option<String>,
}

/// What an event of the object watch removed, and what that concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The uids of the objects that are gone.
    pub uids: Vec<String>,
    /// The objects to reconcile: those that want the Secret of one that is gone.
    pub concerned: Vec<Place>,
}

// === impl Store ===

impl Store {
    /// Nothing is known yet. These kinds are going to be watched.
    pub fn new(working_set: Arc<WorkingSet>, kinds: &[KindId]) -> Self {
        let mut listed = ByKind::<Listed>::default();
        for kind in kinds {
            listed[*kind].is_expected = true;
        }
        Self { rows: Mutex::default(), working_set, listed: watch::Sender::new(listed), recording: Mutex::default() }
    }

    // === from the watch of DataKeys ===

    /// Whether the watch delivers a state that the store does not have. Of others, decode nothing.
    pub fn is_news(&self, kind: KindId, metadata: &ObjectMeta, by: Delivery) -> bool {
        let (uid, version) = revision_of(metadata);
        let mut rows = self.rows.lock();
        let list = rows.key_list[kind];
        let Some(row) = rows.key_mut(&Place::of(kind, metadata)).filter(|row| row.uid == uid) else { return true };
        row.list = list;
        if row.version == version {
            row.source = Source::Watch;
            return false;
        }
        !(version.is_older_than(&row.version) && row.source.is_ahead_of_the_watch(by.list(list)))
    }

    /// What the verdict on an object depends on besides itself. Until Secrets are listed: the Secret at the revision that the
    /// status names, so that the verdict is made once, while the object is decoded.
    pub fn secret_of<'a>(&self, key: impl Into<Object<'a>>) -> Option<KnownSecret> {
        let key = key.into();
        let place = Place::of(key.kind.id, key.metadata);
        if self.listed.borrow()[key.kind.id].secrets {
            return self.secret(&place.beside(key.secret_name()));
        }
        let saved = key.status?.secret.as_ref()?;
        let revision = Revision { uid: saved.uid.clone(), resource_version: saved.resource_version.clone() };
        let metadata = SecretMetadata { revision, belongs_to: key.metadata.name.clone(), is_managed: true };
        Some(KnownSecret { metadata, verified: None })
    }

    /// Stores a state that the watch delivered; `None` if an answer of our own, which came meanwhile, is newer.
    pub fn put_watched(
        &self,
        kind: KindId,
        object: Encoded,
        by: Delivery,
        facts: Facts,
        verdict: Verdict,
    ) -> Option<Stored> {
        let place = Place::of(kind, &object.metadata);
        let (uid, version) = revision_of(&object.metadata);
        let mut rows = self.rows.lock();
        let listed = self.listed.borrow()[kind];
        let before = rows.key(&place);
        // An answer of our own may have come since the state was found to be new.
        if let Some(row) = before.filter(|row| row.uid == uid)
            && version.is_older_than(&row.version)
            && row.source.is_ahead_of_the_watch(by.list(rows.key_list[kind]))
        {
            return None;
        }
        let other = before.filter(|row| row.uid != uid);
        if let Some(other) = other {
            self.working_set.remove(&other.uid);
        }
        let replaced = other.map(|other| other.uid.to_string());
        let mut expects = None;
        let settlement = match verdict {
            Verdict::Open => Settlement::Open,
            Verdict::Settled => Settlement::Settled,
            Verdict::SettledWith(revision) => {
                let revision = revision.as_ref().map(compacted);
                if !listed.secrets {
                    expects = revision.map(Box::new);
                    Settlement::Expected
                } else if rows.is_at(&facts.row.secret_place(&place), revision.as_ref()) {
                    Settlement::SettledWithSecret
                } else {
                    Settlement::Open
                }
            }
        };
        let is_open = settlement == Settlement::Open;
        if is_open {
            self.working_set.put(&uid, Arc::new(object));
        } else {
            self.working_set.remove(&uid);
        }
        let list = rows.key_list[kind];
        let Facts { row: facts, class, key_arns } = facts;
        let row = KeyRow { uid, version, facts, settlement, expects, source: Source::Watch, list };
        rows.set_key(&place, row, class, &key_arns);
        Some(Stored { is_open, replaced })
    }

    /// Removes an object that is gone, unless another one has its name by now.
    pub fn remove(&self, kind: KindId, metadata: &ObjectMeta) -> Removed {
        let place = Place::of(kind, metadata);
        let (uid, _) = revision_of(metadata);
        let mut rows = self.rows.lock();
        let mut removed = Removed { uids: vec![uid.to_string()], concerned: Vec::new() };
        self.working_set.remove(&uid);
        if let Some(secret) = rows.key(&place).filter(|row| row.uid == uid).map(|row| row.facts.secret_place(&place)) {
            rows.remove_key(&place);
            removed.concerned = open_of(&rows, rows.wanting_name(&secret));
        }
        removed
    }

    /// A list of objects begins.
    pub fn key_list_begins(&self, kind: KindId) {
        let list = &mut self.rows.lock().key_list[kind];
        *list = list.wrapping_add(1);
    }

    /// A list of objects is complete. Removes those that it did not have: they are gone without an event of their own.
    pub fn key_list_ends(&self, kind: KindId) -> Removed {
        let mut rows = self.rows.lock();
        let list = rows.key_list[kind];
        let is_gone = |place: &Place, key: &KeyRow| place.kind() == kind && key.list != list;
        let gone = rows.keys().filter(|(place, key)| is_gone(place, key));
        let gone: Vec<_> = gone.map(|(place, _)| place.clone()).collect();
        let mut removed = Removed::default();
        let mut secrets = BTreeSet::new();
        for place in gone {
            let Some(key) = rows.remove_key(&place) else { continue };
            self.working_set.remove(&key.uid);
            removed.uids.push(key.uid.to_string());
            secrets.insert(key.facts.secret_place(&place));
        }
        let concerned: BTreeSet<_> = secrets.iter().flat_map(|secret| rows.wanting_name(secret)).collect();
        removed.concerned = open_of(&rows, concerned);
        self.listed.send_modify(|listed| listed[kind].keys = true);
        removed
    }

    // === from answers to requests of our own ===

    /// Stores a state that the API server answered, unless the store has a newer one.
    pub fn put_answer(&self, kind: KindId, object: &Arc<Encoded>, facts: Facts) {
        let place = Place::of(kind, &object.metadata);
        let (uid, version) = revision_of(&object.metadata);
        let mut rows = self.rows.lock();
        // What does not exist for the watch is not stored: the watch would never remove it.
        let Some(row) = rows.key(&place).filter(|row| row.uid == uid) else { return };
        if row.source != Source::Doubted {
            if row.version == version {
                if row.is_open() {
                    self.working_set.put(&uid, Arc::clone(object));
                }
                return;
            }
            if version.is_older_than(&row.version) {
                return;
            }
        }
        self.working_set.put(&uid, Arc::clone(object));
        let list = row.list;
        let (settlement, expects, source) = (Settlement::Open, None, Source::Answer(rows.key_list[kind]));
        let Facts { row: facts, class, key_arns } = facts;
        let row = KeyRow { uid, version, facts, settlement, expects, source, list };
        rows.set_key(&place, row, class, &key_arns);
    }

    /// Records that there is nothing to do for this state of an object beside this Secret, unless one of them has changed.
    pub fn settle<'a>(&self, key: impl Into<Object<'a>>, known: Option<&KnownSecret>) {
        let key = key.into();
        let place = Place::of(key.kind.id, key.metadata);
        let secret = place.beside(key.secret_name());
        let (uid, version) = revision_of(key.metadata);
        let revision = known.map(|known| compacted(&known.metadata.revision));
        let mut rows = self.rows.lock();
        let settlement = if key.metadata.deletion_timestamp.is_some() {
            Settlement::Settled
        } else if rows.is_at(&secret, revision.as_ref()) {
            Settlement::SettledWithSecret
        } else {
            return;
        };
        let Some(row) = rows.key_mut(&place).filter(|row| row.uid == uid && row.version == version) else {
            return;
        };
        row.settlement = settlement;
        self.working_set.remove(&uid);
        // The status names the revision, so the operator need not know more about it.
        if known.is_some_and(|known| known.saved_in(key).is_some())
            && let Some(row) = rows.by_place.get_mut(&secret).and_then(|row| row.secret_mut())
        {
            row.verified = None;
        }
    }

    /// Records that there is nothing to do for this state of an object, whatever its Secret does.
    pub fn settle_alone(&self, kind: KindId, metadata: &ObjectMeta) {
        let (uid, version) = revision_of(metadata);
        let mut rows = self.rows.lock();
        let row = rows.key_mut(&Place::of(kind, metadata));
        if let Some(row) = row.filter(|row| row.uid == uid && row.version == version) {
            row.settlement = Settlement::Settled;
            self.working_set.remove(&uid);
        }
    }

    /// Records that the API server refused a write on top of our last answer: it may have been restored to an earlier state,
    /// where that answer does not exist. The next reconcile reads the object.
    pub fn doubt_answer(&self, place: &Place) {
        let mut rows = self.rows.lock();
        if let Some(row) = rows.key_mut(place).filter(|row| matches!(row.source, Source::Answer(_))) {
            row.source = Source::Doubted;
            row.settlement = Settlement::Open;
            self.working_set.remove(&row.uid);
        }
    }

    // === for reconciles ===

    /// The object of this place; `None` if there is none.
    pub fn find(&self, place: &Place) -> Option<Found> {
        let rows = self.rows.lock();
        let row = rows.key(place)?;
        Some(match self.working_set.get(&row.uid).filter(|_| row.is_open()) {
            Some(object) => Found::Held(object),
            None if row.is_open() => Found::NotHeld(row.uid.to_string()),
            None => Found::Settled(row.uid.to_string()),
        })
    }

    /// The uid of the object of this place.
    pub fn uid(&self, place: &Place) -> Option<String> {
        self.rows.lock().key(place).map(|row| row.uid.to_string())
    }

    /// The objects for which there is something to do.
    pub fn open(&self) -> Vec<Place> {
        let rows = self.rows.lock();
        rows.keys().filter(|(_, key)| key.is_open()).map(|(place, _)| place.clone()).collect()
    }

    /// The objects for which there is something to do and that this concerns: the name of the class in the spec, and what the
    /// `Ready` condition says.
    pub fn open_where(&self, concerns: impl Fn(Option<&str>, ReadyState) -> bool) -> Vec<Place> {
        let rows = self.rows.lock();
        let class = |place| rows.class_of.get(place).map(|class| &**class);
        let open = rows.keys().filter(|(place, key)| key.is_open() && concerns(class(place), key.facts.state));
        open.map(|(place, _)| place.clone()).collect()
    }

    /// How many objects name each class.
    pub fn class_counts(&self) -> Vec<(Arc<str>, i64)> {
        let rows = self.rows.lock();
        rows.classes.iter().map(|(name, count)| (Arc::clone(name), *count)).collect()
    }

    /// How many objects name no class. It goes through all of them.
    pub fn count_without_class(&self) -> i64 {
        let rows = self.rows.lock();
        rows.keys().filter(|(place, _)| !rows.class_of.contains_key(*place)).map(|_| 1).sum()
    }

    /// Another object, of any kind, with a recorded data key or key pair that the Secret of `key` holds or must hold. The name of
    /// the Secret stays reserved while the Secret is deleted: nothing else may be created under that name.
    pub fn rival<'a>(&self, key: impl Into<Object<'a>>) -> Option<Place> {
        let key = key.into();
        let (uid, _) = revision_of(key.metadata);
        let rows = self.rows.lock();
        let secret = Place::of(key.kind.id, key.metadata).beside(key.secret_name());
        let has_record = |place: &Place| rows.key(place).is_some_and(|row| row.uid != uid && row.facts.has_record);
        rows.wanting_name(&secret).into_iter().find(has_record)
    }
}

// === impl Delivery ===

impl Delivery {
    /// The number of the list, if it is one.
    fn list(self, begun: List) -> Option<List> {
        (self == Self::List).then_some(begun)
    }
}

/// Those of these places for whose object there is something to do.
fn open_of(rows: &Rows, places: impl IntoIterator<Item = Place>) -> Vec<Place> {
    places.into_iter().filter(|place| rows.key(place).is_some_and(KeyRow::is_open)).collect()
}

fn compacted(revision: &Revision) -> (Uid, Version) {
    (revision.uid.as_str().into(), revision.resource_version.as_str().into())
}
