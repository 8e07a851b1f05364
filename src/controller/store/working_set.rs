//! The objects that are being worked on, as text, bounded by bytes. What leaves the set is read from the API server when it is
//! needed again.

use std::{num::NonZeroU32, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use datakey::decode::Encoded;

use super::compact::Uid;

/// The objects that are being worked on, of all watches together. Beyond its bound the object leaves that was not used for the
/// longest time.
pub struct WorkingSet {
    bound: usize,
    held: Mutex<Held>,
}

struct Held {
    objects: LruCache<Uid, Arc<Encoded>>,
    bytes: usize,
}

// === impl WorkingSet ===

impl WorkingSet {
    /// An empty set that holds this many bytes at most.
    pub fn new(bound: usize) -> Self {
        Self { bound, held: Mutex::new(Held { objects: LruCache::unbounded(), bytes: 0 }) }
    }

    /// An empty set that holds this many mebibytes at most.
    pub fn of_mebibytes(bound: NonZeroU32) -> Self {
        Self::new(usize::try_from(bound.get()).unwrap_or(usize::MAX).saturating_mul(1 << 20))
    }

    /// Keeps an object instead of an earlier state of it. One that is larger than the whole set is not kept.
    pub(super) fn put(&self, uid: &Uid, object: Arc<Encoded>) {
        let mut held = self.held.lock();
        held.remove(uid);
        let size = object.size();
        if size > self.bound {
            return;
        }
        held.bytes += size;
        held.objects.put(uid.clone(), object);
        while held.bytes > self.bound
            && let Some((_, oldest)) = held.objects.pop_lru()
        {
            held.bytes = held.bytes.saturating_sub(oldest.size());
        }
    }

    /// The object, if the set has it.
    pub(super) fn get(&self, uid: &Uid) -> Option<Arc<Encoded>> {
        self.held.lock().objects.get(uid).cloned()
    }

    /// Drops an object that is settled or gone.
    pub(super) fn remove(&self, uid: &Uid) {
        self.held.lock().remove(uid);
    }

    /// How many bytes the objects of the set take.
    pub fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

// === impl Held ===

impl Held {
    fn remove(&mut self, uid: &Uid) {
        if let Some(old) = self.objects.pop(uid) {
            self.bytes = self.bytes.saturating_sub(old.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::data_key;

    use super::*;

    fn object(extra: usize) -> Arc<Encoded> {
        let mut key = data_key();
        key.spec.secret_name = Some("x".repeat(extra));
        Arc::new(serde_json::from_value(serde_json::to_value(&key).unwrap()).unwrap())
    }

    fn uid(number: usize) -> Uid {
        number.to_string().as_str().into()
    }

    #[test]
    fn oldest_objects_leave_at_the_bound() {
        let size = object(0).size();
        let set = WorkingSet::new(3 * size);
        for number in 0..3 {
            set.put(&uid(number), object(0));
        }
        assert!(set.get(&uid(0)).is_some(), "it is used now");
        set.put(&uid(3), object(0));
        assert_eq!([0, 1, 2, 3].map(|number| set.get(&uid(number)).is_some()), [true, false, true, true]);
        assert_eq!(set.bytes(), 3 * size);
    }

    #[test]
    fn newer_state_replaces_the_earlier_one() {
        let set = WorkingSet::new(1 << 20);
        set.put(&uid(1), object(1000));
        set.put(&uid(1), object(10));
        assert_eq!(set.bytes(), object(10).size());
        set.remove(&uid(1));
        set.remove(&uid(1));
        assert_eq!((set.bytes(), set.get(&uid(1)).is_none()), (0, true));
    }

    #[test]
    fn object_larger_than_the_set_is_not_kept() {
        let set = WorkingSet::new(10_000);
        set.put(&uid(1), object(0));
        set.put(&uid(2), object(20_000));
        assert!(set.get(&uid(1)).is_some() && set.get(&uid(2)).is_none());
        set.put(&uid(1), object(20_000));
        assert_eq!((set.bytes(), set.get(&uid(1)).is_none()), (0, true), "the earlier state is not kept either");
    }
}
