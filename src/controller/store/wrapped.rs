//! Which objects depend on a KMS key, and what their conditions say of it.

use std::{collections::BTreeSet, sync::Arc};

use datakey::condition::key_usable::Said;

use super::{Store, wrapping::KeyArns};
use crate::place::Place;

/// An object that depends on a KMS key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The object.
    pub place: Place,
    /// The name of its class in the spec.
    pub class: Option<Arc<str>>,
    /// What its condition `KeyUsable` says, if it has that.
    pub unusable: Option<Said>,
    /// Whether it depends on other KMS keys, too.
    pub has_others: bool,
}

/// An object with a condition `KeyUsable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The object.
    pub place: Place,
    /// The name of its class in the spec.
    pub class: Option<Arc<str>>,
    /// What the condition says.
    pub said: Said,
    /// The KMS keys on which it depends; `None` if it has no record.
    pub arns: Option<KeyArns>,
}

// === impl Store ===

impl Store {
    /// The ARNs of all KMS keys on which objects depend.
    pub fn key_arns(&self) -> BTreeSet<Arc<str>> {
        self.rows.lock().sets.arns().cloned().collect()
    }

    /// The objects that depend on one of these KMS keys, once for each of them. It goes through all objects once.
    pub fn wrapped_by(&self, arns: &BTreeSet<Arc<str>>) -> Vec<(Arc<str>, Member)> {
        if arns.is_empty() {
            return Vec::new();
        }
        let rows = self.rows.lock();
        let members = rows.keys().filter_map(|(place, row)| Some((place, row, rows.sets.get(row.facts.wrapped_by?)?)));
        let of_arns = members.flat_map(|(place, row, set)| {
            let member = || Member {
                place: place.clone(),
                class: rows.class_of.get(place).cloned(),
                unusable: row.facts.unusable,
                has_others: set.len() > 1,
            };
            set.iter().filter(|arn| arns.contains(*arn)).map(move |arn| (Arc::clone(arn), member()))
        });
        of_arns.collect()
    }

    /// The objects with a condition `KeyUsable`.
    pub fn reported(&self) -> Vec<Reported> {
        let rows = self.rows.lock();
        let reported = rows.keys().filter_map(|(place, row)| {
            Some(Reported {
                place: place.clone(),
                class: rows.class_of.get(place).cloned(),
                said: row.facts.unusable?,
                arns: row.facts.wrapped_by.and_then(|set| rows.sets.get(set)).cloned(),
            })
        });
        reported.collect()
    }
}
