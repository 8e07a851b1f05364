//! The claim of a Secret by an object that records its first data key or key pair.

use tokio::time::{Duration, Instant};

use super::{
    Store,
    compact::{Uid, Version},
};
use crate::place::Place;
use datakey::api::{KindId, Object};

/// The longest time for which a write can be carried out after its answer was awaited in vain: the API server ends each request
/// after 60 s (`--request-timeout` of kube-apiserver).
const LONGEST_WRITE: Duration = Duration::from_mins(1);

/// The exclusive right to record a first data key for a Secret, until it is dropped.
pub struct Claim<'a> {
    store: &'a Store,
    secret: Place,
    doubt: Option<Doubt>,
}

/// What is known of a claimed Secret.
pub(super) enum Claimed {
    /// A reconcile records for it now.
    Now,
    /// A reconcile has ended, and its record may have been written.
    InDoubt(Doubt),
}

/// A first record that may have been written, because no usable answer came.
pub(super) struct Doubt {
    key: Place,
    uid: Uid,
    /// The version that the write replaces.
    base: Version,
    since: Instant,
}

// === impl Store ===

impl Store {
    /// Claims a Secret for the first record of an object; `None` while another one has the claim, of whatever kind it is: two
    /// Secrets can't have one name.
    pub fn claim(&self, secret: &Place, uid: &str) -> Option<Claim<'_>> {
        let secret = secret.of_kind(KindId::DataKey);
        let mut recording = self.recording.lock();
        let is_free = match recording.get(&secret) {
            Some(Claimed::Now) => false,
            Some(Claimed::InDoubt(doubt)) => doubt.uid == uid.into() || !self.is_open(doubt),
            None => true,
        };
        if !is_free {
            return None;
        }
        let doubt = match recording.insert(secret.clone(), Claimed::Now) {
            Some(Claimed::InDoubt(doubt)) => Some(doubt),
            _ => None,
        };
        // Create the claim only if the Secret is free: dropping a claim frees the Secret.
        Some(Claim { store: self, secret, doubt })
    }

    /// Whether it is still unclear. A later state of the object shows whether it has the record, and no write that replaces an
    /// earlier one is accepted after it.
    fn is_open(&self, doubt: &Doubt) -> bool {
        let rows = self.rows.lock();
        let is_unchanged = |row: &super::KeyRow| row.uid == doubt.uid && !doubt.base.is_older_than(&row.version);
        doubt.since.elapsed() < LONGEST_WRITE && rows.key(&doubt.key).is_some_and(is_unchanged)
    }
}

// === impl Claim ===

impl Claim<'_> {
    /// Keeps the Secret claimed beyond this claim: no usable answer came to the write of the first record on top of this state.
    pub fn keep_in_doubt<'a>(&mut self, key: impl Into<Object<'a>>) {
        let key = key.into();
        let (uid, base) = super::revision_of(key.metadata);
        self.doubt = Some(Doubt { key: Place::of(key.kind.id, key.metadata), uid, base, since: Instant::now() });
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let doubt = self.doubt.take().filter(|doubt| self.store.is_open(doubt));
        let mut recording = self.store.recording.lock();
        recording.remove(&self.secret);
        recording.extend(doubt.map(|doubt| (self.secret.clone(), Claimed::InDoubt(doubt))));
    }
}
