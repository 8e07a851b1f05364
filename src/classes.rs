//! What is known of the classes of the cluster. Nothing here decides what a class allows: that is [`datakey::class`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datakey::{
    api::{DataKeyClassStatus, Object},
    class::{Class, DEFAULT_CLASS, Lookup, Tenancy, class_name},
    decode::Encoded,
};
use parking_lot::RwLock;

/// What is known of the classes.
pub struct Classes {
    is_required: bool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    listing: Listing,
    by_name: BTreeMap<String, Entry>,
    /// The names that the list under way has had.
    listed: Option<BTreeSet<String>>,
}

/// Whether classes are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Listing {
    #[default]
    NotYet,
    Refused(Arc<str>),
    Complete,
}

/// A class and the status that it has.
#[derive(Clone)]
pub struct Entry {
    /// The class.
    pub class: Arc<Class>,
    /// Its status, as the watch delivered it.
    pub status: DataKeyClassStatus,
}

/// The class of one object, as it was when the operator looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassInView {
    /// No class applies.
    None,
    /// Classes are not listed yet.
    Unlisted,
    /// Classes cannot be listed, for this reason.
    Unavailable(Arc<str>),
    /// There is no class of that name.
    Absent,
    /// The class.
    Found(Arc<Class>),
}

// === impl Classes ===

impl Classes {
    /// Nothing is known yet. `is_required`: each object needs a class.
    pub fn new(is_required: bool) -> Self {
        Self { is_required, known: RwLock::default() }
    }

    /// Whether each object needs a class.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// The class of an object.
    pub fn of<'a>(&self, object: impl Into<Object<'a>>) -> ClassInView {
        self.named(class_name(object, self.is_required))
    }

    /// The class of the objects whose spec has this as the name of their class.
    pub fn of_name(&self, in_the_spec: Option<&str>) -> ClassInView {
        self.named(in_the_spec.or_else(|| self.is_required.then_some(DEFAULT_CLASS)))
    }

    fn named(&self, name: Option<&str>) -> ClassInView {
        let Some(name) = name else { return ClassInView::None };
        let known = self.known.read();
        match (known.by_name.get(name), &known.listing) {
            (Some(entry), _) => ClassInView::Found(Arc::clone(&entry.class)),
            (None, Listing::Complete) => ClassInView::Absent,
            (None, Listing::Refused(why)) => ClassInView::Unavailable(Arc::clone(why)),
            (None, Listing::NotYet) => ClassInView::Unlisted,
        }
    }

    /// All classes.
    pub fn all(&self) -> Vec<Entry> {
        self.known.read().by_name.values().cloned().collect()
    }

    // === from the watch ===

    /// A list begins.
    pub fn list_begins(&self) {
        self.known.write().listed = Some(BTreeSet::new());
    }

    /// The watch delivers a class. Returns whether what it allows may have changed.
    pub fn put(&self, object: &Encoded) -> bool {
        let entry = Entry::of(object);
        let name = entry.class.name().to_owned();
        let mut known = self.known.write();
        if let Some(listed) = &mut known.listed {
            listed.insert(name.clone());
        }
        let state = entry.class.state();
        let is_same = known.by_name.get(&name).is_some_and(|before| before.class.state() == state);
        known.by_name.insert(name, entry);
        !is_same
    }

    /// A class is gone, unless another one has its name by now. Returns whether it is.
    pub fn remove(&self, object: &Encoded) -> bool {
        let (name, uid) = (object.metadata.name.as_deref().unwrap_or_default(), object.metadata.uid.as_deref());
        let mut known = self.known.write();
        let is_known = known.by_name.get(name).is_some_and(|entry| Some(entry.class.state().0) == uid);
        if is_known {
            known.by_name.remove(name);
        }
        is_known
    }

    /// The list is complete. Classes that it did not have are gone.
    pub fn list_ends(&self) {
        let mut known = self.known.write();
        if let Some(listed) = known.listed.take() {
            known.by_name.retain(|name, _| listed.contains(name));
        }
        known.listing = Listing::Complete;
    }

    /// The API server refuses to list classes, or to watch them. Returns whether that is new. What is known goes out of force: it
    /// could be narrowed or deleted by now.
    pub fn list_is_refused(&self, why: &str) -> bool {
        let mut known = self.known.write();
        let refused = Listing::Refused(why.into());
        let is_new = known.listing != refused;
        *known = Known { listing: refused, ..Known::default() };
        is_new
    }
}

// === impl Entry ===

impl Entry {
    fn of(object: &Encoded) -> Self {
        Self { class: Arc::new(Class::of(object)), status: object.decode_status().unwrap_or_default() }
    }
}

// === impl ClassInView ===

impl ClassInView {
    /// The same for a decision.
    pub fn tenancy(&self, is_required: bool) -> Tenancy<'_> {
        let class = match self {
            Self::None | Self::Unlisted => Lookup::Unlisted,
            Self::Unavailable(why) => Lookup::Unavailable(why),
            Self::Absent => Lookup::Absent,
            Self::Found(class) => Lookup::Found(class),
        };
        Tenancy { is_required, class }
    }
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::data_key;
    use serde_json::json;

    use super::*;

    fn class(name: &str, uid: &str, generation: i64) -> Encoded {
        let object = json!({
            "metadata": { "name": name, "uid": uid, "generation": generation },
            "spec": { "namespaces": ["*"], "allow": [{ "keyIds": ["alias/orders"] }] },
        });
        serde_json::from_value(object).unwrap()
    }

    fn in_view(classes: &Classes, name: Option<&str>) -> ClassInView {
        let mut key = data_key();
        key.spec.class_name = name.map(str::to_owned);
        classes.of(&key)
    }

    #[test]
    fn object_without_a_class_waits_for_none() {
        let classes = Classes::new(false);
        assert_eq!(in_view(&classes, None), ClassInView::None);
        assert_eq!(in_view(&classes, Some("shop")), ClassInView::Unlisted);
        assert!(classes.list_is_refused("no definition") && !classes.list_is_refused("no definition"));
        assert_eq!(in_view(&classes, None), ClassInView::None);
        assert_eq!(in_view(&classes, Some("shop")), ClassInView::Unavailable("no definition".into()));
    }

    #[test]
    fn required_class_is_default_where_none_is_named() {
        let classes = Classes::new(true);
        classes.list_begins();
        classes.put(&class("default", "u", 1));
        classes.list_ends();
        assert!(matches!(in_view(&classes, None), ClassInView::Found(found) if found.name() == "default"));
        assert_eq!(in_view(&classes, Some("shop")), ClassInView::Absent);
    }

    #[test]
    fn only_another_state_is_a_change() {
        let classes = Classes::new(false);
        assert!(classes.put(&class("shop", "u", 1)));
        assert!(!classes.put(&class("shop", "u", 1)), "a write of the status");
        assert!(classes.put(&class("shop", "u", 2)));
        assert!(classes.put(&class("shop", "v", 2)), "another one of the same name");
        assert!(!classes.remove(&class("shop", "u", 1)), "the earlier one is gone already");
        assert!(classes.remove(&class("shop", "v", 2)));
    }

    #[test]
    fn class_that_a_list_lacks_is_gone_and_so_are_refused_ones() {
        let classes = Classes::new(false);
        for names in [["a", "b"], ["b", "c"]] {
            classes.list_begins();
            for name in names {
                classes.put(&class(name, name, 1));
            }
            classes.list_ends();
        }
        assert_eq!(in_view(&classes, Some("a")), ClassInView::Absent);
        assert!(matches!(in_view(&classes, Some("c")), ClassInView::Found(_)));
        // What was listed may be narrowed or deleted by now.
        assert!(classes.list_is_refused("forbidden"));
        assert_eq!(in_view(&classes, Some("c")), ClassInView::Unavailable("forbidden".into()));
        assert!(classes.all().is_empty());
    }
}
