//! What metrics count.

use datakey::{
    api::KindId,
    condition::{
        ReadyState,
        key_usable::{Cause, Said},
    },
};

use super::Store;

// === impl Store ===

impl Store {
    /// What the `Ready` conditions say, by kind, and how many objects cannot be decoded.
    pub fn states(&self) -> (Vec<(KindId, ReadyState)>, usize) {
        let rows = self.rows.lock();
        let unreadable = rows.keys().filter(|(_, key)| !key.facts.is_readable).count();
        (rows.keys().map(|(place, key)| (place.kind(), key.facts.state)).collect(), unreadable)
    }

    /// What the conditions `KeyUsable` report: a cause for each object that has one, and its namespace.
    pub fn unusable(&self) -> Vec<(Cause, String)> {
        let rows = self.rows.lock();
        let unusable = rows.keys().filter_map(|(place, row)| match row.facts.unusable {
            Some(Said::Unusable(cause)) => Some((cause, place.namespace().to_owned())),
            Some(Said::Outdated) | None => None,
        });
        unusable.collect()
    }
}
