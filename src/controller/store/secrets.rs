//! The Secrets in the store: their metadata as the watch delivers them, and what this process knows of their content. Answers to
//! requests of our own go in too, so that the store is never older than they are.

use std::{collections::BTreeSet, time::Duration};

use kube::{Resource, runtime::watcher::Event};
use tokio::time::Instant;

use super::{
    Delivery, Store, open_of,
    row::{KeyRow, Rows, SecretRow, Settlement, Source},
};
use crate::place::Place;
use datakey::{
    api::KindId,
    secret::{
        known::{KnownSecret, Origin, Verified},
        metadata::WatchedSecret,
    },
};

impl Store {
    /// What is known of a Secret.
    pub fn secret(&self, place: &Place) -> Option<KnownSecret> {
        self.rows.lock().secret(place).map(|secret| secret.known(place))
    }

    /// Stores the result of our own write or read, unless the store has a newer revision, or the Secret is gone by now.
    pub fn put_secret(&self, place: &Place, known: KnownSecret) {
        let mut rows = self.rows.lock();
        // It counts as present only once the watch has it, too: a list that is under way may show that it is gone.
        let old = rows.secret(place);
        let begun = rows.secret_list[place.kind()];
        let list = old.map_or_else(|| begun.wrapping_sub(1), |old| old.list);
        let new = SecretRow::new(place, known, Source::Answer(begun), list);
        if old.is_some_and(|old| new.is_older_than(old)) {
            return;
        }
        let is_same = old.is_some_and(|old| old.is_same(&new));
        // Without a row no DataKey wants the Secret any more.
        let Some(row) = rows.by_place.get_mut(place).filter(|row| !row.has_lost(&new)) else { return };
        row.set_secret(new);
        if !is_same {
            // Until the caller has decided on this revision, too.
            open_wanting(&mut rows, place);
        }
    }

    /// Applies an event of the watch over the Secrets of a kind. Returns the objects to reconcile.
    pub fn secret_changed(&self, kind: KindId, event: Event<WatchedSecret>) -> Vec<Place> {
        match event {
            Event::Init => {
                let list = &mut self.rows.lock().secret_list[kind];
                *list = list.wrapping_add(1);
                Vec::new()
            }
            Event::InitApply(secret) => self.apply(kind, secret, Delivery::List),
            Event::Apply(secret) => self.apply(kind, secret, Delivery::Event),
            Event::Delete(secret) => {
                let place = Place::of(kind, secret.meta());
                let uid = &secret.metadata.revision.uid;
                let mut rows = self.rows.lock();
                // A Secret of the same name may have been created since.
                if rows.secret(&place).is_some_and(|known| !known.is_of_uid(uid)) {
                    return Vec::new();
                }
                let gone = rows.remove_secret(&place);
                Self::concerned(&mut rows, &place, gone.as_ref())
            }
            Event::InitDone => self.secret_list_ends(kind),
        }
    }

    /// Returns the objects of Secrets that were read at least this long ago and have not changed since: from now on the
    /// status must name these revisions. Returns each of them once.
    pub fn settle_reads(&self, after: Duration) -> Vec<Place> {
        let now = Instant::now().into_std();
        let mut rows = self.rows.lock();
        let mut due = Vec::new();
        for (place, row) in &mut rows.by_place {
            let verified = row.secret_mut().and_then(|secret| secret.verified.as_deref_mut());
            if let Some(Verified { origin: origin @ Origin::Read(_), .. }) = verified
                && matches!(*origin, Origin::Read(since) if now.saturating_duration_since(since) >= after)
            {
                *origin = Origin::Settled;
                due.push(place.clone());
            }
        }
        due.iter().flat_map(|place| Self::concerned(&mut rows, place, None)).collect()
    }

    fn apply(&self, kind: KindId, secret: WatchedSecret, by: Delivery) -> Vec<Place> {
        let place = Place::of(kind, secret.meta());
        let mut rows = self.rows.lock();
        let list = rows.secret_list[kind];
        let known = KnownSecret { metadata: secret.metadata, verified: None };
        let new = SecretRow::new(&place, known, Source::Watch, list);
        let row = rows.row(&place);
        if let Some(old) = row.secret_mut() {
            let is_same = old.is_same(&new);
            if is_same {
                old.source = Source::Watch;
            }
            if is_same || new.is_older_than(old) && old.source.is_ahead_of_the_watch(by.list(list)) {
                old.list = list;
                return Self::others_concerned(&rows, &place);
            }
        }
        let old = row.set_secret(new);
        // Before that every DataKey is compared in any case.
        if !self.listed.borrow()[kind].secrets {
            return Vec::new();
        }
        Self::concerned(&mut rows, &place, old.as_ref())
    }

    fn secret_list_ends(&self, kind: KindId) -> Vec<Place> {
        let mut rows = self.rows.lock();
        let list = rows.secret_list[kind];
        let of_the_kind = rows.by_place.iter().filter(|(place, _)| place.kind() == kind);
        let with_secrets = of_the_kind.filter_map(|(place, row)| Some((place, row.secret()?)));
        let gone: Vec<_> = with_secrets.filter(|(_, row)| row.list != list).map(|(place, _)| place.clone()).collect();
        let mut concerned = BTreeSet::new();
        for place in gone {
            let gone = rows.remove_secret(&place);
            concerned.extend(Self::concerned(&mut rows, &place, gone.as_ref()));
        }
        if !self.listed.borrow()[kind].secrets {
            Self::meet_expectations(&mut rows, kind);
            // The rows are still locked, so no object is stored as expected after this.
            self.listed.send_modify(|listed| listed[kind].secrets = true);
        }
        concerned.into_iter().collect()
    }

    /// Decides on the objects of a kind that were judged before its Secrets were listed.
    fn meet_expectations(rows: &mut Rows, kind: KindId) {
        let of_the_kind = rows.keys().filter(|(place, _)| place.kind() == kind);
        let expecting = of_the_kind.filter(|(_, key)| key.settlement == Settlement::Expected);
        let is_met = |place, key: &KeyRow| rows.is_at(&key.facts.secret_place(place), key.expects.as_deref());
        let judged: Vec<_> = expecting.map(|(place, key)| (place.clone(), is_met(place, key))).collect();
        for (place, is_met) in judged {
            if let Some(key) = rows.key_mut(&place) {
                key.expects = None;
                key.settlement = if is_met { Settlement::SettledWithSecret } else { Settlement::Open };
            }
        }
    }

    /// The objects to reconcile after a write of our own that the watch delivers now. The one that wrote has decided on it; if
    /// there are others that want the same Secret, they have not.
    fn others_concerned(rows: &Rows, place: &Place) -> Vec<Place> {
        let wanting: Vec<_> = rows.wanting(place).cloned().collect();
        if wanting.len() < 2 { Vec::new() } else { open_of(rows, wanting) }
    }

    /// The objects to reconcile after a change of a Secret: those whose Secret it is, and those that its label names or named.
    fn concerned(rows: &mut Rows, place: &Place, old: Option<&SecretRow>) -> Vec<Place> {
        let mut concerned: BTreeSet<_> = open_wanting(rows, place).into_iter().collect();
        let labels = old.into_iter().chain(rows.secret(place)).filter_map(|secret| secret.label(place));
        concerned.extend(labels.map(|name| place.beside(name)));
        open_of(rows, concerned)
    }
}

/// Opens the objects whose Secret this is: they were settled with another revision of it. Returns all that want the Secret.
fn open_wanting(rows: &mut Rows, place: &Place) -> Vec<Place> {
    let wanting: Vec<_> = rows.wanting(place).cloned().collect();
    for key in &wanting {
        if let Some(key) = rows.key_mut(key).filter(|key| key.settlement == Settlement::SettledWithSecret) {
            key.settlement = Settlement::Open;
        }
    }
    wanting
}
