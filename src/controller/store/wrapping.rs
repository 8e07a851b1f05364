//! Which KMS keys wrapped the recorded versions of each object. Nearly all objects share a set of ARNs with others, so each set is kept
//! once, and a row has its number.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

/// The ARNs of the KMS keys of one record, in ascending order, each once, at least one.
pub type KeyArns = Arc<[Arc<str>]>;

/// The number of a set of ARNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(NonZeroU32);

/// The sets of ARNs that objects have.
#[derive(Default)]
pub(super) struct Sets {
    ids: HashMap<KeyArns, SetId>,
    /// By number, which counts from 1: the set, and how many objects have it.
    slots: Vec<Option<(KeyArns, usize)>>,
    free: Vec<SetId>,
    /// How many sets have each ARN.
    arns: BTreeMap<Arc<str>, usize>,
}

// === impl SetId ===

impl SetId {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

// === impl Sets ===

impl Sets {
    /// The number of a set for one more object; `None` for an empty one.
    pub fn add(&mut self, arns: &[Arc<str>]) -> Option<SetId> {
        if arns.is_empty() {
            return None;
        }
        if let Some(id) = self.ids.get(arns) {
            if let Some((_, objects)) = self.slots.get_mut(id.index()).and_then(Option::as_mut) {
                *objects += 1;
            }
            return Some(*id);
        }
        let shared =
            |arn: &Arc<str>| self.arns.get_key_value(arn).map_or_else(|| Arc::clone(arn), |(arn, _)| Arc::clone(arn));
        let set: KeyArns = arns.iter().map(shared).collect();
        let id = match self.free.pop() {
            Some(id) => id,
            // There are fewer objects than numbers.
            None => SetId(NonZeroU32::new(u32::try_from(self.slots.len()).ok()?.checked_add(1)?)?),
        };
        if self.slots.len() <= id.index() {
            self.slots.push(None);
        }
        *self.slots.get_mut(id.index())? = Some((Arc::clone(&set), 1));
        for arn in &*set {
            *self.arns.entry(Arc::clone(arn)).or_default() += 1;
        }
        self.ids.insert(set, id);
        Some(id)
    }

    /// One object fewer has this set.
    pub fn remove(&mut self, id: SetId) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        let Some((_, objects)) = slot else { return };
        *objects -= 1;
        if *objects > 0 {
            return;
        }
        let Some((set, _)) = slot.take() else { return };
        self.ids.remove(&set);
        self.free.push(id);
        for arn in &*set {
            if let Some(sets) = self.arns.get_mut(arn) {
                *sets -= 1;
                if *sets == 0 {
                    self.arns.remove(arn);
                }
            }
        }
    }

    /// The set of this number.
    pub fn get(&self, id: SetId) -> Option<&KeyArns> {
        self.slots.get(id.index())?.as_ref().map(|(set, _)| set)
    }

    /// All ARNs.
    pub fn arns(&self) -> impl Iterator<Item = &Arc<str>> {
        self.arns.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arns(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn each_set_is_kept_once_while_an_object_has_it() {
        let mut sets = Sets::default();
        let all = |sets: &Sets| sets.arns().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(sets.add(&[]), None);
        let one = sets.add(&arns(&["a"])).unwrap();
        assert_eq!(sets.add(&arns(&["a"])), Some(one));
        let both = sets.add(&arns(&["a", "b"])).unwrap();
        assert_ne!(one, both);
        assert_eq!((all(&sets), sets.get(both).unwrap().len()), (vec!["a".to_owned(), "b".to_owned()], 2));
        sets.remove(one);
        assert!(sets.get(one).is_some(), "another object has it");
        sets.remove(one);
        assert!(sets.get(one).is_none() && all(&sets) == ["a", "b"]);
        sets.remove(both);
        assert!(all(&sets).is_empty() && sets.ids.is_empty());
        // The numbers are used again.
        let again = [sets.add(&arns(&["c"])).unwrap(), sets.add(&arns(&["d"])).unwrap()];
        assert!(again.contains(&one) && again.contains(&both) && sets.slots.len() == 2);
    }
}
