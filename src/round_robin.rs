//! A queue that serves namespaces round robin, so that a namespace with many items does not delay the others. Pure.

use std::collections::{HashMap, VecDeque};

/// Items by namespace, in the order in which [`next`](Self::next) serves them.
pub struct RoundRobin<T> {
    /// A namespace without items has no entry, so the map is never larger than the queue.
    namespaces: HashMap<String, VecDeque<T>>,
    /// The next namespace first.
    order: VecDeque<String>,
}

// === impl RoundRobin ===

impl<T> Default for RoundRobin<T> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> RoundRobin<T> {
    /// Adds an item after those of its namespace.
    pub fn add(&mut self, namespace: &str, item: T) {
        self.queue(namespace).push_back(item);
    }

    /// Adds an item before those of its namespace. The order of the namespaces stays.
    pub fn add_first(&mut self, namespace: &str, item: T) {
        self.queue(namespace).push_front(item);
    }

    fn queue(&mut self, namespace: &str) -> &mut VecDeque<T> {
        if !self.namespaces.contains_key(namespace) {
            self.order.push_back(namespace.to_owned());
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    /// Removes the first valid item of the next namespace that has one. Drops the invalid items before it: to remove each of
    /// them when it becomes invalid would mean to search the queue for it.
    pub fn next(&mut self, mut is_valid: impl FnMut(&T) -> bool) -> Option<T> {
        while let Some(namespace) = self.order.pop_front() {
            let queue = self.namespaces.get_mut(&namespace)?;
            let first = std::iter::from_fn(|| queue.pop_front()).find(&mut is_valid);
            if queue.is_empty() {
                self.namespaces.remove(&namespace);
            } else {
                self.order.push_back(namespace);
            }
            if first.is_some() {
                return first;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_alternate_and_invalid_items_are_skipped() {
        let mut queue = RoundRobin::default();
        for (namespace, item) in [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 10), ("c", 20), ("b", 11)] {
            queue.add(namespace, item);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next(|item| ![1, 10].contains(item))).collect();
        assert_eq!(order, [2, 11, 20, 3, 4]);
        queue.add("a", 5);
        queue.add_first("a", 6);
        queue.add_first("b", 12);
        let order: Vec<_> = std::iter::from_fn(|| queue.next(|_| true)).collect();
        assert_eq!(order, [6, 12, 5]);
        assert!(queue.next(|_| true).is_none() && queue.namespaces.is_empty());
    }
}
