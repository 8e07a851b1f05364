//! Waits until many objects are Ready, and says what became of each.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Progress,
    report::{Failure, Failures},
    wait,
};
use crate::{
    cluster::{FetchedKey, Listing},
    output::{CommandError, Health, Terminal},
    progress::ProgressBar,
    reference::Reference,
};

/// The place of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The namespace.
    pub namespace: String,
    /// How messages name it.
    pub shown: String,
}

/// What became of the objects.
#[derive(Debug, Default)]
pub struct Rollout {
    /// How many are Ready.
    pub ready: usize,
    /// Those that were not changed, or are not Ready.
    pub failures: Failures,
    /// The worst of them.
    pub health: Health,
    /// Whether messages name the namespaces.
    pub with_namespaces: bool,
}

/// What an error says of an object.
pub const fn health_of(error: &CommandError) -> Health {
    match error {
        CommandError::NotReady(_) => Health::Unhealthy,
        _ => Health::Unknown,
    }
}

// === impl Place ===

impl Place {
    /// The place of this object.
    pub fn of(fetched: &FetchedKey) -> Self {
        Self { namespace: fetched.namespace(), shown: fetched.shown() }
    }
}

// === impl Rollout ===

impl Rollout {
    /// Counts a failure of an object.
    pub fn fail(&mut self, place: &Place, why: String, health: Health) {
        let Place { namespace, shown } = place;
        let name = if self.with_namespaces { format!("{namespace}/{shown}") } else { shown.clone() };
        self.failures.push(name.clone(), Failure::new(&name, why));
        self.health = self.health.max(health);
    }

    fn done(&self) -> usize {
        self.ready + self.failures.len()
    }

    /// Waits until all are Ready with these versions, or have failed, or none became Ready for too long. `look` lists them.
    pub async fn wait(
        &mut self,
        look: impl AsyncFn() -> Result<Listing, CommandError>,
        terminal: &Terminal,
        mut waiting: BTreeMap<Place, i32>,
        nouns: &str,
        patience: Duration,
    ) {
        let pause = wait::pause(waiting.len());
        let mut bar = ProgressBar::of(terminal, self.done() + waiting.len(), nouns);
        let mut changed = Instant::now();
        loop {
            let listed = wait::answered(changed + patience, pause, &look).await;
            let listing = match listed {
                Ok(listing) => listing,
                Err(error) => {
                    return waiting.keys().for_each(|place| self.fail(place, error.to_string(), health_of(&error)));
                }
            };
            let before = waiting.len();
            let causes = self.settle(&mut waiting, &listing);
            if waiting.is_empty() {
                return;
            }
            bar.show(self.done(), &self.failures.progress(self.ready, "Ready"));
            if waiting.len() < before {
                changed = Instant::now();
            }
            if changed.elapsed() + pause > patience {
                let limit = humantime::format_duration(patience);
                for (place, why) in causes {
                    self.fail(&place, format!("not within {limit}; {why}"), Health::Unhealthy);
                }
                return;
            }
            sleep(pause).await;
        }
    }

    /// Removes what is Ready or has failed. Returns why each of the others waits.
    fn settle(&mut self, waiting: &mut BTreeMap<Place, i32>, listing: &Listing) -> BTreeMap<Place, String> {
        let found: BTreeMap<_, _> = listing.keys.iter().map(|fetched| (Place::of(fetched), fetched)).collect();
        let mut causes = BTreeMap::new();
        waiting.retain(|place, version| {
            if let Some(why) = listing.unreadable.get(&(place.namespace.clone(), place.shown.clone())) {
                self.fail(place, why.clone(), Health::Unknown);
                return false;
            }
            let is_of_kind = |kind| Reference::parse(&place.shown).is_ok_and(|one| one.is_of(kind));
            let gone = || match listing.unlisted.iter().find(|unlisted| is_of_kind(unlisted.kind)) {
                // That says nothing about the object.
                Some(unlisted) => Progress::Pending(unlisted.note.clone()),
                None => Progress::Failed("it was deleted meanwhile".to_owned()),
            };
            match found.get(place).map_or_else(gone, |fetched| wait::progress(fetched, *version)) {
                Progress::Done => {
                    self.ready += 1;
                    false
                }
                Progress::Failed(why) => {
                    self.fail(place, why, Health::Unhealthy);
                    false
                }
                Progress::Pending(why) => {
                    causes.insert(place.clone(), why);
                    true
                }
            }
        });
        causes
    }
}

#[cfg(test)]
mod tests {
    use datakey::{
        api::{DataKeyPair, KeyKind as _},
        condition::failed,
        reason::Reason,
    };
    use serde_json::json;

    use super::*;
    use crate::{
        cluster::Unlisted,
        fixtures::{at, edited, ready, recorded, with_status},
    };

    fn place(shown: &str) -> Place {
        Place { namespace: "shop".to_owned(), shown: shown.to_owned() }
    }

    #[test]
    fn kind_that_is_not_listed_is_waited_for() {
        let note = "DataKeyPairs are left out".to_owned();
        let unlisted = vec![Unlisted { kind: DataKeyPair::KIND, has_no_definition: false, note }];
        let listing = Listing { unlisted, ..Listing::default() };
        let mut waiting = ["orders", "datakeypair/orders"].map(|shown| (place(shown), 1)).into();
        let mut rollout = Rollout::default();
        let causes = rollout.settle(&mut waiting, &listing);
        assert_eq!(waiting.into_keys().collect::<Vec<_>>(), [place("datakeypair/orders")]);
        assert_eq!(causes[&place("datakeypair/orders")], "DataKeyPairs are left out");
        assert!(rollout.failures.text("DataKeys").contains("orders: it was deleted meanwhile"));
    }

    #[test]
    fn ready_failed_and_waiting_keys_are_distinguished() {
        let named = |fetched, name: &str| edited(fetched, |value| value["metadata"]["name"] = json!(name));
        let conflict = with_status(recorded(&[]), |key| failed(key, &Reason::SecretConflict.into(), at(9)));
        let listing = Listing {
            keys: vec![named(ready(&[1]), "ready"), named(recorded(&[]), "new"), named(conflict, "conflict")],
            unlisted: Vec::new(),
            unreadable: [(("shop".to_owned(), "odd".to_owned()), "it can't be read".to_owned())].into(),
        };
        let mut waiting = ["ready", "new", "conflict", "gone", "odd"].map(|name| (place(name), 1)).into();
        let mut rollout = Rollout::default();
        let causes = rollout.settle(&mut waiting, &listing);
        assert_eq!((rollout.ready, rollout.done(), rollout.health), (1, 4, Health::Unknown));
        assert_eq!(waiting.into_keys().collect::<Vec<_>>(), [place("new")]);
        assert!(causes[&place("new")].starts_with("Pending: "), "{causes:?}");
        let text = rollout.failures.text("DataKeys");
        assert!(
            text.contains("gone: it was deleted meanwhile") && text.contains("conflict: SecretConflict: "),
            "{text}"
        );
        assert!(text.contains("odd: it can't be read"), "{text}");
    }
}
