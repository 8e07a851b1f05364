//! The wait at the start, until `DataKey`s can be listed.

use kube::{Api, Client, api::ListParams};
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{info, warn};

use super::WatchedKey;
use crate::api_server::{
    errors::describe,
    keys,
    outage::{Repeats, in_seconds},
};

/// How often the operator lists `DataKey`s until that works.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Waits until `DataKey`s can be listed: until the API server answers and the `CustomResourceDefinition` is there.
pub async fn wait_until_listable(client: &Client, namespaces: &[String], limit: Duration) {
    let api: Api<WatchedKey> = keys::api(client, namespaces.first().map(String::as_str));
    let begun = Instant::now();
    let mut warned = Repeats::default();
    let mut has_warned = false;
    loop {
        let why = match timeout(limit, api.list(&ListParams::default().limit(1))).await {
            Ok(Ok(_)) => break,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                "the CustomResourceDefinition datakeys.datakey.dev is not installed: apply deploy/crd.yaml".to_owned()
            }
            Ok(Err(kube::Error::Api(status))) => format!("the API server refuses to list DataKeys: {}", status.message),
            Ok(Err(error)) => format!("the API server can't be reached: {}", describe(&error)),
            Err(_) => "the API server does not answer".to_owned(),
        };
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
