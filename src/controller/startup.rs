//! The wait until the objects of a kind can be listed: at the start for `DataKey`s, later for a kind that is not installed, and for
//! classes.

use std::fmt::Debug;

use datakey::api::{DataKey, KeyKind, KindId};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{info, warn};

use super::{WatchTarget, Watched, scope::WatchScope};
use crate::api_server::{
    errors::describe,
    keys,
    outage::{Repeats, in_seconds},
};

/// How often the operator lists `DataKey`s until that works.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How often the operator looks for the definition of another kind, which may never be installed.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Why the objects of a kind cannot be listed.
pub(super) enum Obstacle {
    /// The definition is not there, or the operator may not list its objects. The API server decided.
    Missing(String),
    /// The API server did not decide.
    Unknown(String),
}

/// Lists one object of a kind.
async fn probe<K: KeyKind>(client: &Client, namespace: Option<&str>, limit: Duration) -> Result<(), Obstacle> {
    let api: Api<Watched<K>> = keys::api(client, namespace);
    list_one(&api, &format!("{}s", K::KIND.name), limit).await
}

/// Lists one object; `objects` is what they are called.
pub(super) async fn list_one<T>(api: &Api<T>, objects: &str, limit: Duration) -> Result<(), Obstacle>
where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let plural = T::plural(&());
    match timeout(limit, api.list(&ListParams::default().limit(1))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Obstacle::Missing(format!(
            "the CustomResourceDefinition {plural}.datakey.dev is not installed: apply deploy/crd.yaml"
        ))),
        Ok(Err(kube::Error::Api(status))) => {
            let why = format!("the API server refuses to list {objects}: {}", status.message);
            Err(if status.code == 403 { Obstacle::Missing(why) } else { Obstacle::Unknown(why) })
        }
        Ok(Err(error)) => Err(Obstacle::Unknown(format!("the API server can't be reached: {}", describe(&error)))),
        Err(_) => Err(Obstacle::Unknown("the API server does not answer".to_owned())),
    }
}

/// Waits until `DataKey`s can be listed: until the API server answers and the `CustomResourceDefinition` is there.
pub async fn wait_until_listable(client: &Client, namespaces: &[String], limit: Duration) {
    let begun = Instant::now();
    let mut warned = Repeats::default();
    let mut has_warned = false;
    let namespace = namespaces.first().map(String::as_str);
    while let Err(Obstacle::Missing(why) | Obstacle::Unknown(why)) = probe::<DataKey>(client, namespace, limit).await {
        if warned.is_due(&why, Instant::now()) {
            warn!("waiting: {why}");
            has_warned = true;
        }
        sleep(PROBE_INTERVAL).await;
    }
    if has_warned {
        info!(lasted = in_seconds(begun.elapsed()), "the wait is over: DataKeys can be listed");
    }
}

/// Why the objects of a kind cannot be listed, which is logged; nothing if they can be. Waits until the API server decides, and until
/// `DataKey`s are listed: an API server that has just started can refuse what it allows a moment later.
pub(super) async fn obstacle_to_lists<K: KeyKind>(scope: &WatchScope, limit: Duration) -> Option<String> {
    let WatchTarget { namespace, client } = &scope.target;
    let mut warned = Repeats::default();
    let mut is_certain = false;
    loop {
        match probe::<K>(client, namespace.as_deref(), limit).await {
            Ok(()) => return None,
            Err(Obstacle::Missing(why)) if is_certain => {
                expect_no_list::<K>(scope, &why);
                return Some(why);
            }
            Err(Obstacle::Missing(_)) => {
                scope.store.wait_until_keys_are_listed(KindId::DataKey).await;
                is_certain = true;
            }
            Err(Obstacle::Unknown(why)) => {
                if warned.is_due(&why, Instant::now()) {
                    warn!(namespace, "waiting to know whether there are {}s: {why}", K::KIND.name);
                }
                sleep(PROBE_INTERVAL).await;
            }
        }
    }
}

/// Lets reconciles go on without the objects of a kind, and says why.
pub(super) fn expect_no_list<K: KeyKind>(scope: &WatchScope, why: &str) {
    let namespace = &scope.target.namespace;
    warn!(namespace, "{}s are not watched until they can be listed: {why}", K::KIND.name);
    scope.store.expect_no_list(K::KIND.id);
}

/// Waits until the objects of a kind can be listed that could not be at the start. `logged` is why they could not.
pub(super) async fn wait_for<K: KeyKind>(target: &WatchTarget, mut logged: String, limit: Duration) {
    let WatchTarget { namespace, client } = target;
    while let Err(obstacle) = probe::<K>(client, namespace.as_deref(), limit).await {
        if let Obstacle::Missing(why) = obstacle
            && why != logged
        {
            warn!(namespace, "{}s are still not watched: {why}", K::KIND.name);
            logged = why;
        }
        sleep(LOOK_INTERVAL).await;
    }
    info!(namespace, "{}s can be listed now, and are watched", K::KIND.name);
}
