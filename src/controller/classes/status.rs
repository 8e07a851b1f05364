//! The status of each class: whether it can be used, and how many objects use it.

use std::collections::BTreeMap;

use datakey::{
    api::{ACCEPTED, DataKeyClass, DataKeyClassStatus},
    class::{Class, DEFAULT_CLASS, wanted_status},
    names::FIELD_MANAGER,
    text::error_chain,
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::warn;

use super::ScopeOfClasses;
use crate::{
    api_server::outage::Repeats,
    classes::{Classes, Entry},
    reconcile::Context,
};

/// How often the status of all classes is compared with what it must be. In a burst the number of objects changes with each object,
/// so it is not written at once.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the status of all classes, until it is dropped.
pub(super) async fn keep_status(context: &Context, scopes: &[ScopeOfClasses]) {
    let mut logged = Repeats::default();
    for ScopeOfClasses { store, .. } in scopes {
        store.wait_until_listed().await;
    }
    loop {
        let all = context.classes.all();
        let counts = if all.is_empty() { BTreeMap::new() } else { counts(&context.classes, scopes) };
        for Entry { class, status } in all {
            let in_use = counts.get(class.name()).copied().unwrap_or_default();
            let wanted = wanted_status(&class, in_use, &status, Timestamp::now());
            if wanted == status {
                continue;
            }
            match write(context, &class, &wanted).await {
                Ok(()) => report(context, &class, &status, &wanted).await,
                Err(error) if logged.is_due(&error, Instant::now()) => {
                    warn!(class = class.name(), error, "the status of the DataKeyClass could not be written");
                }
                Err(_) => {}
            }
        }
        sleep(INTERVAL).await;
    }
}

/// How many objects use each class.
fn counts(classes: &Classes, scopes: &[ScopeOfClasses]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for ScopeOfClasses { store, .. } in scopes {
        for (name, count) in store.class_counts() {
            *counts.entry(name.to_string()).or_default() += count;
        }
        if classes.is_required() {
            *counts.entry(DEFAULT_CLASS.to_owned()).or_default() += store.count_without_class();
        }
    }
    counts
}

/// Writes the status of exactly this class.
async fn write(context: &Context, class: &Class, status: &DataKeyClassStatus) -> Result<(), String> {
    // A condition of another client stays that client's.
    let own = status.conditions.iter().flatten().filter(|condition| condition.type_ == ACCEPTED).cloned().collect();
    let status = DataKeyClassStatus { conditions: Some(own), ..status.clone() };
    let patch = json!({
        "apiVersion": DataKeyClass::api_version(&()),
        "kind": DataKeyClass::kind(&()),
        "metadata": { "name": class.name(), "uid": class.state().0 },
        "status": status,
    });
    let api: Api<DataKeyClass> = Api::all(context.client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(patch);
    let written = timeout(context.kube_timeout, api.patch_status(class.name(), &params, &patch)).await;
    match written {
        Ok(Ok(_)) => Ok(()),
        // It is gone, or another one has its name: the watch delivers that.
        Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => Ok(()),
        Ok(Err(error)) => Err(error_chain(&error)),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}

/// Writes an event where the class becomes usable or unusable.
async fn report(context: &Context, class: &Class, before: &DataKeyClassStatus, now: &DataKeyClassStatus) {
    let accepted = |status: &DataKeyClassStatus| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == ACCEPTED);
        condition.map(|condition| (condition.status.clone(), condition.message.clone()))
    };
    let (before, now) = (accepted(before), accepted(now));
    if before == now {
        return;
    }
    let about = ObjectReference {
        api_version: Some(DataKeyClass::api_version(&()).into_owned()),
        kind: Some(DataKeyClass::kind(&()).into_owned()),
        name: Some(class.name().to_owned()),
        uid: Some(class.state().0.to_owned()),
        ..ObjectReference::default()
    };
    match class.flaw() {
        Some(flaw) => context.emit(&about, EventType::Warning, "Invalid", flaw).await,
        // A new class that can be used needs no event.
        None if before.is_some() => context.emit(&about, EventType::Normal, ACCEPTED, "The class can be used").await,
        None => {}
    }
}
