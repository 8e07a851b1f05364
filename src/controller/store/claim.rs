//! The claim of a Secret by a `DataKey` that records its first data key.

use super::Store;
use crate::place::Place;

/// The exclusive right to record a first data key for a Secret, until it is dropped.
pub struct Claim<'a> {
    store: &'a Store,
    secret: Place,
}

// === impl Store ===

impl Store {
    /// Claims a Secret for the first record of a `DataKey`; `None` while another one has the claim.
    pub fn claim(&self, secret: Place) -> Option<Claim<'_>> {
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
