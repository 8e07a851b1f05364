//! Events: one more or less must not fail a reconcile, so errors are only logged.

use std::time::Duration;

use datakey::{names::FIELD_MANAGER, text::printable};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::debug;

use super::errors::describe;

/// Bound of an event's note (Kubernetes API reference, `events.k8s.io/v1`): 1 kB.
const MAX_NOTE: usize = 1000;

/// How many events wait at most; further ones are dropped.
const MAX_WAITING: usize = 100;

/// The time between two events that waited. Where many `DataKey`s are issued at once, an event for each would take the API
/// server a fifth of the time of the `DataKey` itself, and the status says the same.
const INTERVAL: Duration = Duration::from_millis(100);

/// Writes events.
pub struct Events {
    client: Client,
    reporter: Reporter,
    waiting: mpsc::Sender<Waiting>,
    /// Taken by [`Self::run`].
    receiver: Mutex<Option<mpsc::Receiver<Waiting>>>,
}

/// An event that waits to be written: what it is about, its reason, its note.
struct Waiting(ObjectReference, &'static str, String);

// === impl Events ===

impl Events {
    /// Reports events in the name of the operator and, if the manifest sets `POD_NAME`, of its pod.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() };
        let (waiting, receiver) = mpsc::channel(MAX_WAITING);
        Self { client, reporter, waiting, receiver: Mutex::new(Some(receiver)) }
    }

    /// Writes one event about an object, and waits no longer than this for the API server.
    pub async fn emit(&self, about: &ObjectReference, type_: EventType, reason: &str, note: &str, limit: Duration) {
        let mut note = printable(note, MAX_NOTE);
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Reconcile".into(), secondary: None };
        let (namespace, name) = (&about.namespace, &about.name);
        // A recorder for each event: one that is kept holds every event for six minutes, and goes through all of them for the
        // next one. It would count repeated events in a series, and the operator writes an event only where a reason changes.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        match timeout(limit, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(namespace, name, reason, error = describe(&error), "the Event was not recorded"),
            Err(_) => debug!(namespace, name, reason, "the Event was not recorded in time"),
        }
    }

    /// Queues a Normal event. It is dropped if too many wait.
    pub fn enqueue(&self, about: ObjectReference, reason: &'static str, note: String) {
        if let Err(error) = self.waiting.try_send(Waiting(about, reason, note)) {
            let Waiting(about, reason, _) = error.into_inner();
            debug!(namespace = about.namespace, name = about.name, reason, "the Event is dropped: too many wait");
        }
    }

    /// Writes the queued events, one after the other, until it is dropped.
    pub async fn run(&self, limit: Duration) {
        let Some(mut receiver) = self.receiver.lock().take() else { return };
        while let Some(Waiting(about, reason, note)) = receiver.recv().await {
            self.emit(&about, EventType::Normal, reason, &note, limit).await;
            sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::Body;
    use tokio::time::Instant;
    use tower::{BoxError, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queued_events_are_written_slowly_and_no_more_than_fit() {
        let written = Arc::new(Mutex::new(0_u32));
        let client = Client::new(
            service_fn({
                let written = Arc::clone(&written);
                move |_: Request<Body>| {
                    *written.lock() += 1;
                    async { Ok::<_, BoxError>(Response::new(Body::from(b"{}".to_vec()))) }
                }
            }),
            "shop",
        );
        let events = Events::new(client);
        for number in 0..2 * MAX_WAITING {
            events.enqueue(ObjectReference::default(), "Issued", format!("version {number}"));
        }
        let begun = Instant::now();
        tokio::select! {
            () = events.run(Duration::from_secs(1)) => panic!("it ended"),
            () = async {
                while *written.lock() < 100 {
                    sleep(INTERVAL / 2).await;
                }
                assert!(begun.elapsed() >= 99 * INTERVAL);
                sleep(100 * INTERVAL).await;
            } => {}
        }
        assert_eq!(*written.lock(), 100);
    }
}
