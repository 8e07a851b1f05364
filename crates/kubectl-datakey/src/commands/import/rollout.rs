//! `import --apply` of many: applies the DataKeys that are in a folder, and waits until they are Ready.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use datakey::api::{DataKey, KeyKind as _};
use futures::{StreamExt, stream};
use serde_json::Value;

use super::MANAGER;
use crate::{
    cluster::{Cluster, FetchedKey},
    commands::{
        apply, of_all,
        rollout::{Place, Rollout, health_of},
    },
    output::{CommandError, Terminal},
    progress::ProgressBar,
};

/// How many DataKeys are applied at the same time.
const CONCURRENT_WRITES: usize = 8;

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
            (Place { namespace: cluster.namespace.clone(), shown: name }, applied)
        })
        .buffer_unordered(CONCURRENT_WRITES);
    let mut waiting = BTreeMap::new();
    let mut bar = ProgressBar::of(terminal, total, "DataKeys");
    while let Some((place, applied)) = outcomes.next().await {
        match applied {
            Ok(fetched) => _ = waiting.insert(place, fetched.key.wanted_version()),
            Err(error) => rollout.fail(&place, error.to_string(), health_of(&error)),
        }
        bar.show(waiting.len() + rollout.failures.len(), &rollout.failures.progress(waiting.len(), "applied"));
    }
    drop(bar);
    if !waiting.is_empty() {
        terminal.notes([format!("{} applied; waiting until all are Ready", of_all(waiting.len(), total, "DataKeys"))]);
        let look = async || cluster.of_kind(DataKey::KIND).await;
        rollout.wait(look, terminal, waiting, "DataKeys", patience).await;
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
