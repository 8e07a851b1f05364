//! A namespace, or all of them, that the operator watches.

use std::sync::Arc;

use kube::Client;
use tokio::sync::Notify;

use super::store::Store;
use crate::api_server::connectivity::Connectivity;

/// A namespace to watch, or all of them, with a client of its own.
pub struct WatchTarget {
    /// The namespace; `None` for all.
    pub namespace: Option<String>,
    /// The client of its watches.
    pub client: Client,
}

/// The watches of a [`WatchTarget`], and what they have delivered.
pub(super) struct WatchScope {
    pub target: WatchTarget,
    pub connectivity: Connectivity,
    pub store: Arc<Store>,
    /// Notified when a list of objects is complete.
    pub listed: Notify,
}
