//! The status of each class: whether it can be used, and how many objects use it.

use std::collections::BTreeMap;

use datakey::{
    api::{ACCEPTED, DataKeyClass, DataKeyClassStatus, ROLE_ASSUMED},
    class::{Class, DEFAULT_CLASS, wanted_status},
    names::FIELD_MANAGER,
    text::error_chain,
};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
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
    kms::roles::MAX_REFUSED_FOR,
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
    // Twice the longest time between two calls of STS for an object: what its own back-off and an earlier refusal delay.
    let refusals_count_for = 2 * (context.retries.longest_delay() + MAX_REFUSED_FOR);
    loop {
        let all = context.classes.all();
        let counts = if all.is_empty() { BTreeMap::new() } else { counts(&context.classes, scopes) };
        for Entry { class, status } in all {
            let in_use = counts.get(class.name()).copied().unwrap_or_default();
            let role = context.kms.roles.outcomes.of(class.state(), refusals_count_for, Instant::now());
            let wanted = wanted_status(&class, in_use, &role, &status, Timestamp::now());
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
    let is_own = |condition: &&Condition| [ACCEPTED, ROLE_ASSUMED].contains(&&*condition.type_);
    let own = status.conditions.iter().flatten().filter(is_own).cloned().collect();
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

/// Writes an event where the class becomes usable or unusable, and where its role does.
async fn report(context: &Context, class: &Class, before: &DataKeyClassStatus, now: &DataKeyClassStatus) {
    let about = ObjectReference {
        api_version: Some(DataKeyClass::api_version(&()).into_owned()),
        kind: Some(DataKeyClass::kind(&()).into_owned()),
        name: Some(class.name().to_owned()),
        uid: Some(class.state().0.to_owned()),
        ..ObjectReference::default()
    };
    let condition = |status: &DataKeyClassStatus, type_: &str| {
        status.conditions.iter().flatten().find(|condition| condition.type_ == type_).cloned()
    };
    let (was_accepted, is_accepted) = (condition(before, ACCEPTED), condition(now, ACCEPTED));
    let said = |condition: &Option<Condition>| condition.as_ref().map(|is| (is.status.clone(), is.message.clone()));
    if said(&was_accepted) != said(&is_accepted) {
        match class.flaw() {
            Some(flaw) => context.emit(&about, EventType::Warning, "Invalid", flaw).await,
            // A new class that can be used needs no event.
            None if was_accepted.is_some() => {
                context.emit(&about, EventType::Normal, ACCEPTED, "The class can be used").await;
            }
            None => {}
        }
    }
    // Not where only the number of namespaces changed. Events of a class are in the namespace default, so they do not name the role.
    let (was, is) = (condition(before, ROLE_ASSUMED), condition(now, ROLE_ASSUMED));
    let Some(is) = is.filter(|is| was.as_ref().is_none_or(|was| was.status != is.status)) else { return };
    if is.status == "False" {
        let note = "AWS STS refuses the role of the class; the condition RoleAssumed names it";
        context.emit(&about, EventType::Warning, "RoleRefused", note).await;
    } else if was.is_some() {
        context.emit(&about, EventType::Normal, ROLE_ASSUMED, "The operator can assume the role of the class").await;
    }
}
