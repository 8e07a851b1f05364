//! Events: one more or less must not fail a reconcile, so errors are only logged.

use std::{collections::BTreeMap, time::Duration};

use datakey::{names::FIELD_MANAGER, text::printable};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::errors::describe;

/// Bound of an event's note (Kubernetes API reference, `events.k8s.io/v1`): 1 kB.
const MAX_NOTE: usize = 1000;

/// How many events wait at most; further ones are dropped.
const MAX_WAITING: usize = 100;

/// How many events about one namespace wait at most, so that a namespace with many does not drop those of the others.
const MAX_WAITING_OF_ONE: usize = 20;

/// The least time between two queued events.
const INTERVAL: Duration = Duration::from_millis(100);

/// The time between two queued events while further ones arrive. Many `DataKey`s are issued then, and an event for each would
/// be one more request beside the four that each needs; the status has the same facts.
const INTERVAL_UNDER_LOAD: Duration = Duration::from_secs(1);

/// The load is over if no event has arrived for this time.
const QUIET: Duration = Duration::from_millis(200);

/// Writes events.
pub struct Events {
    client: Client,
    reporter: Reporter,
    waiting: mpsc::Sender<Waiting>,
    /// How many wait, by namespace.
    waiting_of: Mutex<BTreeMap<String, usize>>,
    /// When the last event was queued.
    queued_at: Mutex<Instant>,
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
        let waiting_of = Mutex::default();
        Self {
            client,
            reporter,
            waiting,
            waiting_of,
            queued_at: Mutex::new(Instant::now()),
            receiver: Mutex::new(Some(receiver)),
        }
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
        *self.queued_at.lock() = Instant::now();
        let mut waiting_of = self.waiting_of.lock();
        let (namespace, name) = (about.namespace.clone().unwrap_or_default(), about.name.clone());
        let of_one = waiting_of.get(&namespace).copied().unwrap_or_default();
        if of_one < MAX_WAITING_OF_ONE && self.waiting.try_send(Waiting(about, reason, note)).is_ok() {
            waiting_of.insert(namespace, of_one + 1);
        } else {
            debug!(namespace, name, reason, "the Event is dropped: too many wait");
        }
    }

    /// Takes note that one event about this namespace no longer waits.
    fn left(&self, namespace: &str) {
        let mut waiting_of = self.waiting_of.lock();
        let left = waiting_of.get(namespace).map_or(0, |count| count - 1);
        if left == 0 {
            waiting_of.remove(namespace);
        } else {
            waiting_of.insert(namespace.to_owned(), left);
        }
    }

    /// Writes the queued events, one after the other, until it is dropped.
    pub async fn run(&self, limit: Duration) {
        let Some(mut receiver) = self.receiver.lock().take() else { return };
        let mut written = None;
        while let Some(Waiting(about, reason, note)) = receiver.recv().await {
            self.left(about.namespace.as_deref().unwrap_or_default());
            if let Some(written) = written {
                self.wait_until_allowed(written).await;
            }
            self.emit(&about, EventType::Normal, reason, &note, limit).await;
            written = Some(Instant::now());
        }
    }

    /// Waits after an event that was written at this time until the next one may be written.
    async fn wait_until_allowed(&self, written: Instant) {
        loop {
            let quiet = *self.queued_at.lock() + QUIET;
            let at = quiet.min(written + INTERVAL_UNDER_LOAD).max(written + INTERVAL);
            if Instant::now() >= at {
                return;
            }
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::Body;
    use tokio::time::sleep;
    use tower::{BoxError, service_fn};

    use super::*;

    /// Events that are only counted.
    fn counted() -> (Events, Arc<Mutex<u32>>) {
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
        (Events::new(client), written)
    }

    fn enqueue(events: &Events, number: usize) {
        let about = ObjectReference { namespace: Some(format!("shop-{}", number % 10)), ..ObjectReference::default() };
        events.enqueue(about, "Issued", format!("version {number}"));
    }

    #[tokio::test(start_paused = true)]
    async fn queued_events_are_written_in_turn_and_no_more_than_fit() {
        let (events, written) = counted();
        (0..2 * MAX_WAITING).for_each(|number| enqueue(&events, number));
        let begun = Instant::now();
        let all = async {
            while *written.lock() < 100 {
                sleep(INTERVAL / 2).await;
            }
            assert!(begun.elapsed() >= 99 * INTERVAL, "{:?}", begun.elapsed());
            sleep(100 * INTERVAL).await;
        };
        tokio::select! {
            () = events.run(Duration::from_secs(1)) => panic!("it ended"),
            () = all => {}
        }
        assert_eq!(*written.lock(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn namespace_with_many_events_drops_none_of_the_others() {
        let (events, written) = counted();
        let about = |namespace: &str| ObjectReference { namespace: Some(namespace.into()), ..<_>::default() };
        for _ in 0..2 * MAX_WAITING {
            events.enqueue(about("flood"), "Issued", String::new());
        }
        events.enqueue(about("shop"), "Issued", String::new());
        assert_eq!(
            *events.waiting_of.lock(),
            [("flood".to_owned(), MAX_WAITING_OF_ONE), ("shop".to_owned(), 1)].into()
        );
        let all = async {
            while (*written.lock() as usize) <= MAX_WAITING_OF_ONE {
                sleep(INTERVAL / 2).await;
            }
        };
        tokio::select! {
            () = events.run(Duration::from_secs(1)) => panic!("it ended"),
            () = all => {}
        }
        assert!(events.waiting_of.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_event_a_second_is_written_while_others_arrive() {
        let (events, written) = counted();
        let load = async {
            for number in 0..200 {
                enqueue(&events, number);
                sleep(Duration::from_millis(50)).await;
            }
            assert!((10..=11).contains(&*written.lock()), "{} in 10 s", written.lock());
            sleep(QUIET + 100 * INTERVAL).await;
        };
        tokio::select! {
            () = events.run(Duration::from_secs(1)) => panic!("it ended"),
            () = load => {}
        }
        assert!(*written.lock() > 100, "{}", written.lock());
    }

    #[tokio::test(start_paused = true)]
    async fn single_event_is_written_at_once() {
        let (events, written) = counted();
        enqueue(&events, 1);
        let begun = Instant::now();
        let first = async {
            while *written.lock() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = events.run(Duration::from_secs(1)) => panic!("it ended"),
            () = first => {}
        }
        assert!(begun.elapsed() < INTERVAL, "{:?}", begun.elapsed());
    }
}
