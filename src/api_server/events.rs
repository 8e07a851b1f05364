//! Events: one more or less must not fail a reconcile, so errors are only logged.

use std::time::Duration;

use datakey::{names::FIELD_MANAGER, text::printable};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::timeout;
use tracing::debug;

use super::errors::describe;

/// Bound of an event's note (Kubernetes API reference, `events.k8s.io/v1`): 1 kB.
const MAX_NOTE: usize = 1000;

/// Writes events.
pub struct Events {
    recorder: Recorder,
}

// === impl Events ===

impl Events {
    /// Reports events in the name of the operator and, if the manifest sets `POD_NAME`, of its pod.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Writes one event about an object, and waits no longer than this for the API server.
    pub async fn emit(&self, about: &ObjectReference, type_: EventType, reason: &str, note: &str, limit: Duration) {
        let mut note = printable(note, MAX_NOTE);
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Reconcile".into(), secondary: None };
        let (namespace, name) = (&about.namespace, &about.name);
        match timeout(limit, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(namespace, name, reason, error = describe(&error), "the Event was not recorded"),
            Err(_) => debug!(namespace, name, reason, "the Event was not recorded in time"),
        }
    }
}
