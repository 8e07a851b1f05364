//! What stays in memory of an object and of the Secret of the same name: less than 300 bytes for both.

use std::{
    collections::{BTreeSet, HashMap},
    ops::{Index, IndexMut},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    compact::{Text, Uid, Version},
    facts::RowFacts,
    wrapping::Sets,
};
use crate::place::Place;
use datakey::{
    api::{KINDS, KindId},
    identity::Revision,
    secret::{
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};

/// The rows by place, and the number of the list that each watch has begun last.
#[derive(Default)]
pub(super) struct Rows {
    pub by_place: HashMap<Place, Box<Row>>,
    pub key_list: ByKind<List>,
    pub secret_list: ByKind<List>,
    /// How many objects name each class.
    pub classes: HashMap<Arc<str>, i64>,
    /// The class of each object that names one. They share the names.
    pub class_of: HashMap<Place, Arc<str>>,
    /// Which KMS keys wrapped the recorded versions.
    pub sets: Sets,
}

/// A value for each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByKind<T>([T; KINDS.len()]);

/// The number of a list of a watch. Each complete list renews that of every object, so that the numbers may start again.
pub(super) type List = u16;

/// Where the newest state of an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Watch,
    /// An answer to a request of our own, while this was the list of the watch that had begun last. The watch has not delivered the
    /// state yet.
    Answer(List),
    /// Such an answer, and the API server refused a write on top of it. What it answers next is the newest state.
    Doubted,
}

/// What is known under one name of a namespace.
#[derive(Default)]
pub(super) struct Row {
    pub key: Option<KeyRow>,
    secret: SecretEntry,
    /// The objects of other names whose Secret this is.
    pub wanted_by: Option<Box<Wishes>>,
}

/// The objects of other names whose Secret one is, at least one.
pub(super) struct Wishes(BTreeSet<Place>);

/// An object.
pub(super) struct KeyRow {
    pub uid: Uid,
    /// The newest state that is known.
    pub version: Version,
    pub facts: RowFacts,
    pub settlement: Settlement,
    /// The revision of its Secret that [`Settlement::Expected`] means.
    pub expects: Option<Box<(Uid, Version)>>,
    pub source: Source,
    /// The number of the last list of the watch that had it.
    pub list: List,
}

/// Whether there is something to do for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// There is, or it is not known.
    Open,
    /// Nothing, if its Secret has a certain revision or does not exist; Secrets are not listed yet.
    Expected,
    /// Nothing, until the object or its Secret changes.
    SettledWithSecret,
    /// Nothing, until the object changes.
    Settled,
}

/// What is known of the Secret of one name.
#[derive(Default)]
enum SecretEntry {
    #[default]
    Unknown,
    /// There is none since the one with this uid is gone. A late answer must not bring that back: the watch would not remove it
    /// again.
    Gone(Uid),
    Present(SecretRow),
}

/// A Secret of the operator.
pub(super) struct SecretRow {
    uid: Uid,
    version: Version,
    /// The name of the object in the label, where it is not that of the Secret.
    belongs_to: Option<Text>,
    /// Whether the label has the name of the Secret.
    belongs_to_same_name: bool,
    is_managed: bool,
    /// The content of this revision, if this process knows it and no status names it.
    pub verified: Option<Box<Verified>>,
    pub source: Source,
    /// The number of the last list of the watch that had it.
    pub list: List,
}

// === impl ByKind ===

impl<T> ByKind<T> {
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<KindId> for ByKind<T> {
    type Output = T;

    fn index(&self, kind: KindId) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<KindId> for ByKind<T> {
    fn index_mut(&mut self, kind: KindId) -> &mut T {
        &mut self.0[kind as usize]
    }
}

// === impl Source ===

impl Source {
    /// Whether an older state that the watch delivers is to be ignored, because the watch is behind. `list`: that of the watch that
    /// had the state, if a list did. A list has every write from before it began; if it has an older state, then the API server was
    /// restored to that.
    pub fn is_ahead_of_the_watch(self, list: Option<List>) -> bool {
        match (self, list) {
            (Self::Watch, _) | (Self::Doubted, Some(_)) => false,
            (Self::Answer(_) | Self::Doubted, None) => true,
            (Self::Answer(during), Some(list)) => during == list,
        }
    }
}

// === impl KeyRow ===

impl KeyRow {
    pub fn is_open(&self) -> bool {
        self.settlement == Settlement::Open
    }
}

// === impl SecretRow ===

impl SecretRow {
    pub fn new(place: &Place, known: KnownSecret, source: Source, list: List) -> Self {
        let KnownSecret { metadata: SecretMetadata { revision, belongs_to, is_managed }, verified } = known;
        let belongs_to_same_name = belongs_to.as_deref() == Some(place.name());
        let Revision { uid, resource_version } = revision;
        Self {
            uid: uid.as_str().into(),
            version: resource_version.as_str().into(),
            belongs_to: belongs_to.filter(|_| !belongs_to_same_name).as_deref().map(Text::from),
            belongs_to_same_name,
            is_managed,
            verified: verified.map(Box::new),
            source,
            list,
        }
    }

    pub fn known(&self, place: &Place) -> KnownSecret {
        let revision = Revision { uid: self.uid.to_string(), resource_version: self.version.to_string() };
        let belongs_to = self.label(place).map(str::to_owned);
        let metadata = SecretMetadata { revision, belongs_to, is_managed: self.is_managed };
        KnownSecret { metadata, verified: self.verified.as_deref().copied() }
    }

    /// The name of the object in the label.
    pub fn label<'a>(&'a self, place: &'a Place) -> Option<&'a str> {
        if self.belongs_to_same_name { Some(place.name()) } else { self.belongs_to.as_deref() }
    }

    pub fn is_of_uid(&self, uid: &str) -> bool {
        self.uid == uid.into()
    }

    /// Whether both are the same revision of the same Secret.
    pub fn is_at(&self, revision: &(Uid, Version)) -> bool {
        (&self.uid, &self.version) == (&revision.0, &revision.1)
    }

    /// Whether this is an older state of the same Secret.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.uid == other.uid && self.version.is_older_than(&other.version)
    }

    /// Whether both have the same metadata.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { uid, version, belongs_to, belongs_to_same_name, is_managed, verified: _, source: _, list: _ } = self;
        (uid, version) == (&other.uid, &other.version)
            && (belongs_to, belongs_to_same_name) == (&other.belongs_to, &other.belongs_to_same_name)
            && *is_managed == other.is_managed
    }
}

// === impl Rows ===

impl Rows {
    /// All objects.
    pub fn keys(&self) -> impl Iterator<Item = (&Place, &KeyRow)> {
        self.by_place.iter().filter_map(|(place, row)| Some((place, row.key.as_ref()?)))
    }

    pub fn key(&self, place: &Place) -> Option<&KeyRow> {
        self.by_place.get(place)?.key.as_ref()
    }

    pub fn key_mut(&mut self, place: &Place) -> Option<&mut KeyRow> {
        self.by_place.get_mut(place)?.key.as_mut()
    }

    pub fn secret(&self, place: &Place) -> Option<&SecretRow> {
        self.by_place.get(place)?.secret()
    }

    /// The row of a place, with an empty one where there is none.
    pub fn row(&mut self, place: &Place) -> &mut Row {
        self.by_place.entry(place.clone()).or_default()
    }

    /// Stores an object in place of an earlier state of it or of another one.
    pub fn set_key(&mut self, place: &Place, mut key: KeyRow, class: Option<Arc<str>>, key_arns: &[Arc<str>]) {
        let before = self.key(place).and_then(|row| row.facts.wrapped_by);
        key.facts.wrapped_by = self.sets.add(key_arns);
        if let Some(before) = before {
            self.sets.remove(before);
        }
        let (before, now) = (self.wanted_elsewhere(place), key.facts.other_place(place));
        self.set_class(place, class);
        self.row(place).key = Some(key);
        if before != now {
            self.forget_wish(place, before);
            if let Some(secret) = now {
                let wishes = self.row(&secret).wanted_by.get_or_insert_with(|| Box::new(Wishes(BTreeSet::new())));
                wishes.0.insert(place.clone());
            }
        }
    }

    /// Removes an object, and returns it.
    pub fn remove_key(&mut self, place: &Place) -> Option<KeyRow> {
        let wanted = self.wanted_elsewhere(place);
        self.forget_wish(place, wanted);
        self.set_class(place, None);
        let gone = self.by_place.get_mut(place)?.key.take();
        if let Some(set) = gone.as_ref().and_then(|row| row.facts.wrapped_by) {
            self.sets.remove(set);
        }
        self.prune(place);
        gone
    }

    /// Removes a Secret, and returns it.
    pub fn remove_secret(&mut self, place: &Place) -> Option<SecretRow> {
        let gone = self.by_place.get_mut(place)?.remove_secret();
        self.prune(place);
        gone
    }

    /// The objects of all kinds that want a Secret of this name, whatever the kind of the place is: one Secret can't be that of
    /// two of them.
    pub fn wanting_name(&self, secret: &Place) -> Vec<Place> {
        KINDS.into_iter().flat_map(|kind| self.wanting(&secret.of_kind(kind.id)).cloned().collect::<Vec<_>>()).collect()
    }

    /// The objects of the kind of this place whose Secret it is.
    pub fn wanting(&self, secret: &Place) -> impl Iterator<Item = &Place> {
        let row = self.by_place.get_key_value(secret).into_iter();
        row.flat_map(|(place, row)| {
            let own = row.key.as_ref().filter(|key| key.facts.secret_name.is_none()).map(|_| place);
            own.into_iter().chain(row.wanted_by.iter().flat_map(|wishes| &wishes.0))
        })
    }

    /// Whether the Secret of an object has the revision of this verdict, or is as absent as it says.
    pub fn is_at(&self, secret: &Place, revision: Option<&(Uid, Version)>) -> bool {
        match (self.secret(secret), revision) {
            (Some(secret), Some(revision)) => secret.is_at(revision),
            (None, None) => true,
            _ => false,
        }
    }

    /// Stores the class that an object names, or that it names none.
    fn set_class(&mut self, place: &Place, class: Option<Arc<str>>) {
        if let Some(before) = self.class_of.remove(place)
            && let Some(count) = self.classes.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.classes.remove(&before);
            }
        }
        let Some(class) = class else { return };
        let shared = self.classes.get_key_value(&class).map_or(class, |(shared, _)| Arc::clone(shared));
        *self.classes.entry(Arc::clone(&shared)).or_default() += 1;
        self.class_of.insert(place.clone(), shared);
    }

    fn wanted_elsewhere(&self, place: &Place) -> Option<Place> {
        self.key(place)?.facts.other_place(place)
    }

    fn forget_wish(&mut self, place: &Place, secret: Option<Place>) {
        let Some(secret) = secret else { return };
        if let Some(row) = self.by_place.get_mut(&secret) {
            row.wanted_by.take_if(|wishes| {
                wishes.0.remove(place);
                wishes.0.is_empty()
            });
        }
        self.prune(&secret);
    }

    fn prune(&mut self, place: &Place) {
        if self.by_place.get(place).is_some_and(|row| row.is_empty()) {
            self.by_place.remove(place);
        }
    }
}

// === impl Row ===

impl Row {
    pub fn secret(&self) -> Option<&SecretRow> {
        if let SecretEntry::Present(secret) = &self.secret { Some(secret) } else { None }
    }

    pub fn secret_mut(&mut self) -> Option<&mut SecretRow> {
        if let SecretEntry::Present(secret) = &mut self.secret { Some(secret) } else { None }
    }

    /// Whether this Secret is gone. A uid is never used again.
    pub fn has_lost(&self, secret: &SecretRow) -> bool {
        matches!(&self.secret, SecretEntry::Gone(uid) if *uid == secret.uid)
    }

    /// Stores a Secret, and returns the earlier state of it or of another one.
    pub fn set_secret(&mut self, secret: SecretRow) -> Option<SecretRow> {
        match std::mem::replace(&mut self.secret, SecretEntry::Present(secret)) {
            SecretEntry::Present(before) => Some(before),
            SecretEntry::Unknown | SecretEntry::Gone(_) => None,
        }
    }

    fn remove_secret(&mut self) -> Option<SecretRow> {
        let uid = self.secret()?.uid.clone();
        match std::mem::replace(&mut self.secret, SecretEntry::Gone(uid)) {
            SecretEntry::Present(gone) => Some(gone),
            SecretEntry::Unknown | SecretEntry::Gone(_) => None,
        }
    }

    fn is_empty(&self) -> bool {
        self.key.is_none() && self.secret().is_none() && self.wanted_by.is_none()
    }
}

/// Uid and resource version of an object.
pub(super) fn revision_of(metadata: &ObjectMeta) -> (Uid, Version) {
    let ObjectMeta { uid, resource_version, .. } = metadata;
    (uid.as_deref().unwrap_or_default().into(), resource_version.as_deref().unwrap_or_default().into())
}
