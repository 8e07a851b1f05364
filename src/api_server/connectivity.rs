//! Whether the API server answers: what requests and watches show, and a check where they leave it open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Version};
use hyper_util::client::legacy::connect::CaptureConnection;
use kube::{Client, client::Body};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    errors::describe,
    outage::{Notice, Outage, in_seconds},
};

/// How long one check waits for an answer, and the pause before the next one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// The duration of a watch that no PING can check, in seconds. If the watch does not end by itself within five more seconds,
/// kube treats the connection as dead.
const SHORT_WATCH: u32 = 20;

/// Whether the API server answers. All clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Connectivity(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Notified when a request or a watch fails, so that `run` starts a check.
    doubt: Notify,
    is_checked: AtomicBool,
    is_lost: AtomicBool,
    speaks_http1: AtomicBool,
}

/// A request that is not answered yet.
pub struct InFlight {
    connection: CaptureConnection,
    connectivity: Connectivity,
    is_answered: bool,
}

// === impl Connectivity ===

impl Connectivity {
    /// Whether a check found that the API server does not answer, and no request was answered since.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::Relaxed)
    }

    /// How long a watch may last, in seconds; `None` if PINGs check the connection, because kube's own limit is enough then.
    pub fn watch_timeout(&self) -> Option<u32> {
        self.0.speaks_http1.load(Ordering::Relaxed).then_some(SHORT_WATCH)
    }

    /// Requests a check whether the API server answers at all, after it left one request or watch without an answer.
    pub fn doubt(&self) {
        // While a check runs, a failed request does not start another check.
        if !self.0.is_checked.load(Ordering::Relaxed) {
            self.0.doubt.notify_one();
        }
    }

    fn answered(&self, version: Version) {
        self.0.is_lost.store(false, Ordering::Relaxed);
        self.0.speaks_http1.store(version < Version::HTTP_2, Ordering::Relaxed);
    }

    /// Checks the API server after each call of [`Self::doubt`], until the API server answers. The client must have its own
    /// connections.
    ///
    /// This is the only place that logs that the API server does not answer: watches, reconciles and the Lease meet the same
    /// outage, each many times.
    pub async fn run(self, client: Client) {
        loop {
            self.0.doubt.notified().await;
            self.0.is_checked.store(true, Ordering::Relaxed);
            let mut outage = Outage::default();
            while let Err(error) = check(&client).await {
                self.0.is_lost.store(true, Ordering::Relaxed);
                log(outage.unanswered(Instant::now()), &error);
                sleep(CHECK_PAUSE).await;
            }
            self.0.is_lost.store(false, Ordering::Relaxed);
            log(outage.answered(Instant::now()), "");
            self.0.is_checked.store(false, Ordering::Relaxed);
        }
    }
}

fn log(notice: Option<Notice>, error: &str) {
    match notice {
        Some(Notice::Begins) => warn!(error, "the API server can't be reached"),
        Some(Notice::Lasts(time)) => warn!(error, lasts = in_seconds(time), "the API server still can't be reached"),
        Some(Notice::Ends(time)) => info!(lasted = in_seconds(time), "the API server answers again"),
        None => {}
    }
}

/// Whether there is any answer. Every identity may read the version, and a refusal is an answer, too.
async fn check(client: &Client) -> Result<(), String> {
    let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    match timeout(CHECK_TIMEOUT, client.send(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err(format!("no answer within {CHECK_TIMEOUT:?}")),
    }
}

// === impl InFlight ===

impl InFlight {
    /// A request that goes over this connection.
    pub fn new(connection: CaptureConnection, connectivity: Connectivity) -> Self {
        Self { connection, connectivity, is_answered: false }
    }

    /// The API server answered, whatever it says.
    pub fn answered(mut self, version: Version) {
        self.is_answered = true;
        self.connectivity.answered(version);
    }
}

impl Drop for InFlight {
    /// Marks the connection as unusable if the API server did not answer: the request failed, or its sender stopped waiting.
    /// Requests share connections. The next request uses a new connection, and does not wait until this one is detected as
    /// dead.
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        if let Some(connection) = &*self.connection.connection_metadata() {
            connection.poison();
        }
        self.connectivity.doubt();
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tower::{BoxError, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connection_is_checked_until_the_server_answers() {
        let answers = Arc::new(AtomicBool::new(false));
        let client = Client::new(
            service_fn({
                let answers = Arc::clone(&answers);
                move |_: Request<Body>| {
                    let answer = answers.load(Ordering::Relaxed).then(|| Response::new(Body::empty()));
                    async move { answer.ok_or_else(|| BoxError::from("refused")) }
                }
            }),
            "default",
        );
        let connectivity = Connectivity::default();
        let task = tokio::spawn(connectivity.clone().run(client));
        sleep(CHECK_PAUSE).await;
        assert!(!connectivity.is_lost(), "there was no doubt");
        connectivity.doubt();
        sleep(CHECK_PAUSE).await;
        assert!(connectivity.is_lost());
        answers.store(true, Ordering::Relaxed);
        sleep(2 * CHECK_PAUSE).await;
        assert!(!connectivity.is_lost());
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn check_without_an_answer_times_out() {
        let client = Client::new(
            service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>()),
            "default",
        );
        assert_eq!(check(&client).await.unwrap_err(), "no answer within 5s");
    }

    #[test]
    fn watches_are_short_only_without_http2_pings() {
        let connectivity = Connectivity::default();
        connectivity.answered(Version::HTTP_2);
        assert_eq!(connectivity.watch_timeout(), None);
        connectivity.answered(Version::HTTP_11);
        assert_eq!(connectivity.watch_timeout(), Some(20));
    }
}
