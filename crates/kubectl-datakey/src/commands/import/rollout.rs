//! `import --apply` of many: applies the DataKeys that are in a folder, and waits until they are Ready.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use datakey::api::{DataKey, KeyKind as _};
use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    MANAGER,
    report::{Failure, Failures},
};
use crate::{
    cluster::{Cluster, FetchedKey, Listing},
    commands::{Progress, apply, of_all, wait},
    output::{CommandError, Health, Terminal},
    progress::ProgressBar,
};

/// How many DataKeys are applied at the same time.
const CONCURRENT_WRITES: usize = 8;

/// What became of the DataKeys.
#[derive(Debug, Default)]
pub struct Rollout {
    /// How many are Ready.
    pub ready: usize,
    /// Those that were not applied, or are not Ready.
    pub failures: Failures,
    /// The worst of them.
    pub health: Health,
}

/// Applies these DataKeys, each with its name. A `DataKey` that is applied already is not changed, so an
/// interrupted run can be repeated.
///
/// `patience` is how long the wait may go on while none becomes Ready.
pub async fn run(
    cluster: &Cluster,
    terminal: &Terminal,
    manifests: Vec<(String, Value)>,
    patience: Duration,
) -> Rollout {
    let mut rollout = Rollout::default();
    let total = manifests.len();
    let forbidden = OnceLock::new();
    let mut outcomes = stream::iter(manifests)
        .map(async |(name, manifest)| {
            let applied = apply_one(cluster, &manifest, &forbidden).await;
            (name, applied)
        })
        .buffer_unordered(CONCURRENT_WRITES);
    let mut waiting = BTreeMap::new();
    let mut bar = ProgressBar::of(terminal, total);
    while let Some((name, applied)) = outcomes.next().await {
        match applied {
            Ok(fetched) => _ = waiting.insert(name, fetched.key.wanted_version()),
            Err(error) => rollout.fail(&name, error.to_string(), health_of(&error)),
        }
        bar.show(waiting.len() + rollout.failures.len(), &rollout.failures.progress(waiting.len(), "applied"));
    }
    drop(bar);
    if !waiting.is_empty() {
        terminal.notes([format!("{} applied; waiting until all are Ready", of_all(waiting.len(), total, "DataKeys"))]);
        rollout.wait(cluster, terminal, waiting, patience).await;
    }
    rollout
}

/// Where the user may not apply one, the others are left out.
async fn apply_one(
    cluster: &Cluster,
    manifest: &Value,
    forbidden: &OnceLock<CommandError>,
) -> Result<FetchedKey, CommandError> {
    if let Some(known) = forbidden.get() {
        return Err(known.clone());
    }
    match apply::apply(cluster, DataKey::KIND, manifest, MANAGER).await {
        Ok((fetched, _)) => Ok(fetched),
        Err(error @ CommandError::Forbidden(_)) => Err(forbidden.get_or_init(|| error).clone()),
        Err(error) => Err(error),
    }
}

const fn health_of(error: &CommandError) -> Health {
    match error {
        CommandError::NotReady(_) => Health::Unhealthy,
        _ => Health::Unknown,
    }
}

// === impl Rollout ===

impl Rollout {
    fn fail(&mut self, name: &str, why: String, health: Health) {
        self.failures.push(name.to_owned(), Failure::new(name, why));
        self.health = self.health.max(health);
    }

    fn done(&self) -> usize {
        self.ready + self.failures.len()
    }

    /// Waits until all are Ready, or have failed, or none became Ready for too long.
    async fn wait(
        &mut self,
        cluster: &Cluster,
        terminal: &Terminal,
        mut waiting: BTreeMap<String, i32>,
        patience: Duration,
    ) {
        let pause = wait::pause(waiting.len());
        let mut bar = ProgressBar::of(terminal, self.done() + waiting.len());
        let mut changed = Instant::now();
        loop {
            let listed = wait::answered(changed + patience, pause, async || cluster.of_kind(DataKey::KIND).await).await;
            let listing = match listed {
                Ok(listing) => listing,
                Err(error) => {
                    return waiting.keys().for_each(|name| self.fail(name, error.to_string(), health_of(&error)));
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
                for (name, why) in causes {
                    self.fail(&name, format!("not within {limit}; {why}"), Health::Unhealthy);
                }
                return;
            }
            sleep(pause).await;
        }
    }

    /// Removes what is Ready or has failed. Returns why each of the others waits.
    fn settle(&mut self, waiting: &mut BTreeMap<String, i32>, listing: &Listing) -> BTreeMap<String, String> {
        let found: BTreeMap<_, _> = listing.keys.iter().map(|fetched| (fetched.name(), fetched)).collect();
        // All are of one namespace.
        let unreadable: BTreeMap<_, _> = listing.unreadable.iter().map(|((_, name), why)| (name, why)).collect();
        let mut causes = BTreeMap::new();
        waiting.retain(|name, version| {
            if let Some(why) = unreadable.get(name) {
                self.fail(name, (*why).clone(), Health::Unknown);
                return false;
            }
            let gone = || Progress::Failed("it was deleted meanwhile".to_owned());
            match found.get(name).map_or_else(gone, |fetched| wait::progress(fetched, *version)) {
                Progress::Done => {
                    self.ready += 1;
                    false
                }
                Progress::Failed(why) => {
                    self.fail(name, why, Health::Unhealthy);
                    false
                }
                Progress::Pending(why) => {
                    causes.insert(name.clone(), why);
                    true
                }
            }
        });
        causes
    }
}

#[cfg(test)]
mod tests {
    use datakey::{condition::failed, reason::Reason};
    use serde_json::json;

    use super::*;
    use crate::fixtures::{at, edited, ready, recorded, with_status};

    #[test]
    fn ready_failed_and_waiting_keys_are_distinguished() {
        let named = |fetched, name: &str| edited(fetched, |value| value["metadata"]["name"] = json!(name));
        let conflict = with_status(recorded(&[]), |key| failed(key, &Reason::SecretConflict.into(), at(9)));
        let listing = Listing {
            keys: vec![named(ready(&[1]), "ready"), named(recorded(&[]), "new"), named(conflict, "conflict")],
            unlisted: Vec::new(),
            unreadable: [(("shop".to_owned(), "odd".to_owned()), "it can't be read".to_owned())].into(),
        };
        let mut waiting = ["ready", "new", "conflict", "gone", "odd"].map(|name| (name.to_owned(), 1)).into();
        let mut rollout = Rollout::default();
        let causes = rollout.settle(&mut waiting, &listing);
        assert_eq!((rollout.ready, rollout.done(), rollout.health), (1, 4, Health::Unknown));
        assert_eq!(waiting.keys().collect::<Vec<_>>(), ["new"]);
        assert!(causes["new"].starts_with("Pending: "), "{causes:?}");
        let text = rollout.failures.text();
        assert!(
            text.contains("gone: it was deleted meanwhile") && text.contains("conflict: SecretConflict: "),
            "{text}"
        );
        assert!(text.contains("odd: it can't be read"), "{text}");
    }
}
