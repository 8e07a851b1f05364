//! The claim of a Secret by an object that records its first data key or key pair.

use super::Store;
use crate::place::Place;
use datakey::api::KindId;

/// The exclusive right to record a first data key for a Secret, until it is dropped.
pub struct Claim<'a> {
    store: &'a Store,
    secret: Place,
}

// === impl Store ===

impl Store {
    /// Claims a Secret for the first record of an object; `None` while another one has the claim, of whatever kind it is: two
    /// Secrets can't have one name.
    pub fn claim(&self, secret: &Place) -> Option<Claim<'_>> {
        let secret = secret.of_kind(KindId::DataKey);
        let is_free = self.recording.lock().insert(secret.clone());
        // Create the claim only if the Secret is free: dropping a claim frees the Secret.
        is_free.then(|| Claim { store: self, secret })
    }
}

// === impl Claim ===

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.recording.lock().remove(&self.secret);
    }
}
