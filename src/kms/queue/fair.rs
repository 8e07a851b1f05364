//! The waiting objects of one lane. Pure.

use std::collections::HashSet;

use crate::round_robin::RoundRobin;

/// Objects by uid, each at most once, served round robin by namespace.
pub struct FairQueue<T> {
    /// The uids of the objects that wait. An entry of another uid is void: removing an object removes its uid only, because to
    /// find its entry would mean to search the queue.
    waiting: HashSet<String>,
    entries: RoundRobin<(String, T)>,
}

// === impl FairQueue ===

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiting: HashSet::new(), entries: RoundRobin::default() }
    }
}

impl<T> FairQueue<T> {
    /// Adds an object after those of its namespace; false if it waits already.
    pub fn add(&mut self, namespace: &str, uid: &str, item: T) -> bool {
        let is_new = self.waiting.insert(uid.to_owned());
        if is_new {
            self.entries.add(namespace, (uid.to_owned(), item));
        }
        is_new
    }

    /// Removes the first object of the next namespace.
    pub fn next(&mut self) -> Option<(String, T)> {
        self.entries.next(|(uid, _)| self.waiting.remove(uid))
    }

    /// Removes an object; false if it does not wait.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.waiting.remove(uid)
    }

    /// The number of objects that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no object waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_waits_once_and_a_removed_one_is_skipped() {
        let mut queue = FairQueue::default();
        for uid in ["a-1", "a-2", "a-3"] {
            assert!(queue.add("a", uid, ()));
        }
        assert!(!queue.add("a", "a-1", ()) && queue.add("b", "b-1", ()));
        assert!(queue.remove("a-1") && !queue.remove("a-1"));
        assert_eq!(queue.len(), 3);
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).map(|(uid, ())| uid).collect();
        assert_eq!(order, ["a-2", "b-1", "a-3"]);
        assert!(queue.is_empty());
    }
}
