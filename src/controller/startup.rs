//! The wait at the start, until `DataKey`s can be listed.

use kube::{Api, Client, api::ListParams};
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{info, warn};

use super::cache::Cached;
use crate::api_server::keys;
use datakey::text::error_chain;

/// How often the operator lists `DataKey`s until that works, and how often it logs that it waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// Waits until `DataKey`s can be listed: until the API server answers and the `CustomResourceDefinition` is there.
pub async fn wait_until_listable(client: &Client, namespaces: &[String], limit: Duration) {
    let api: Api<Cached> = keys::api(client, namespaces.first().map(String::as_str));
    let mut warned: Option<Instant> = None;
    loop {
        let why = match timeout(limit, api.list(&ListParams::default().limit(1))).await {
            Ok(Ok(_)) => break,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                "the CustomResourceDefinition datakeys.datakey.dev is not installed: apply deploy/crd.yaml".to_owned()
            }
            Ok(Err(kube::Error::Api(status))) => format!("the API server refuses to list DataKeys: {}", status.message),
            Ok(Err(error)) => format!("the API server can't be reached: {}", error_chain(&error)),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            warn!("waiting: {why}");
            warned = Some(Instant::now());
        }
        sleep(PROBE_INTERVAL).await;
    }
    if warned.is_some() {
        info!("the wait is over: DataKeys can be listed");
    }
}
