//! A queue in which namespaces take turns, however many each has waiting. Pure.

use std::collections::{HashMap, VecDeque};

/// What waits: by namespace, and the namespaces in turn.
pub struct Round<T> {
    namespaces: HashMap<String, VecDeque<T>>,
    order: VecDeque<String>,
}

// === impl Round ===

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Round<T> {
    /// Adds an item behind those of its namespace.
    pub fn add(&mut self, namespace: &str, item: T) {
        self.queue(namespace).push_back(item);
    }

    /// Adds an item before those of its namespace.
    pub fn add_first(&mut self, namespace: &str, item: T) {
        self.queue(namespace).push_front(item);
    }

    fn queue(&mut self, namespace: &str) -> &mut VecDeque<T> {
        if !self.namespaces.contains_key(namespace) {
            self.order.push_back(namespace.to_owned());
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    /// The first item of the next namespace that has one which still counts. Those before it that do not are dropped.
    pub fn next(&mut self, mut counts: impl FnMut(&T) -> bool) -> Option<T> {
        while let Some(namespace) = self.order.pop_front() {
            let queue = self.namespaces.get_mut(&namespace)?;
            let first = std::iter::from_fn(|| queue.pop_front()).find(&mut counts);
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
    fn namespaces_take_turns_and_what_does_not_count_costs_none() {
        let mut round = Round::default();
        for (namespace, item) in [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 10), ("c", 20), ("b", 11)] {
            round.add(namespace, item);
        }
        let order: Vec<_> = std::iter::from_fn(|| round.next(|item| ![1, 10].contains(item))).collect();
        assert_eq!(order, [2, 11, 20, 3, 4]);
        round.add("a", 5);
        round.add_first("a", 6);
        round.add_first("b", 12);
        let order: Vec<_> = std::iter::from_fn(|| round.next(|_| true)).collect();
        assert_eq!(order, [6, 12, 5]);
        assert!(round.next(|_| true).is_none() && round.namespaces.is_empty());
    }
}
