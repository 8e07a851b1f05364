//! How a watch begins: with a list of what exists, which the API server streams or answers in pages, and when it lists again.
//!
//! A streamed list (`sendInitialEvents`) costs the API server the same time for each object. In pages it goes through its cache
//! for each page, so the time grows with the square of their number. And a stream has one object in memory at a time, of up to
//! 1.5 MB, where a page has all of its objects. An API server without the feature gate `WatchList` refuses to stream
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>); it is on by default from Kubernetes 1.34 on.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::runtime::{
    WatchStreamExt,
    watcher::{self, Event},
};
use tokio::time::Duration;
use tracing::debug;

use crate::api_server::connectivity::Connectivity;

/// First and longest wait before an interrupted watch is resumed. The jitter can double the wait.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// Objects in a page of a list. A page is in memory as a whole: with kube's own 500, a tenant's objects would take the operator
/// over its memory limit at each start.
const PAGE: u32 = 50;

/// How a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Streamed,
    Paged,
}

/// What a watch does after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It goes on.
    GoOn,
    /// It begins with a list, now: the API server did not stream a whole one.
    Instead(Listing),
    /// It begins with a list, after the delay of an error.
    ListAgain(Listing),
}

/// How far a watch is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// How its list is read. If kube lists again by itself, it does so in the same way.
    listing: Listing,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The list has not begun.
    New,
    /// The list is not complete.
    Lists,
    /// The list is complete, and changes are delivered.
    Follows,
}

// === impl Listing ===

impl Listing {
    /// The configuration of a watch that begins with such a list.
    pub fn of(self, config: &watcher::Config) -> watcher::Config {
        match self {
            Self::Streamed => config.clone().streaming_lists(),
            Self::Paged => config.clone().page_size(PAGE),
        }
    }
}

// === impl Progress ===

impl Progress {
    const fn new(listing: Listing) -> Self {
        Self { listing, phase: Phase::New }
    }

    /// Takes note of an event of the watch.
    fn step<K>(&mut self, event: &watcher::Result<Event<K>>) -> Step {
        match (self.phase, event) {
            // kube begins another list where the stream ended before the list was complete: over a slow connection, or because
            // the API server closes the watch of a client that is slower than the changes. A page is complete by itself.
            (Phase::Lists, Ok(Event::Init)) if self.listing == Listing::Streamed => {
                return Step::Instead(Listing::Paged);
            }
            (_, Ok(Event::Init)) => self.phase = Phase::Lists,
            (_, Ok(Event::InitDone)) => self.phase = Phase::Follows,
            (phase, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status)))) => match (phase, status.code) {
                // A refusal does not depend on the resource version, nor does an overloaded API server, for which a list would be
                // more expensive.
                (_, 401 | 403 | 429) => {}
                (Phase::New, 400 | 422) if self.listing == Listing::Streamed => return Step::Instead(Listing::Paged),
                (Phase::Follows, _) => return Step::ListAgain(Listing::Streamed),
                _ => return Step::ListAgain(self.listing),
            },
            _ => {}
        }
        Step::GoOn
    }
}

/// A watch that starts with a list, and with a new one if the API server cannot resume it. kube's own watch resumes from the
/// same resource version forever, even if the API server has dropped that version (410), or does not have it yet because etcd
/// was restored from a backup.
pub fn listing_watch<K, W>(
    watch: impl Fn(Listing) -> W + Send,
    connectivity: Connectivity,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Send,
    W: Stream<Item = watcher::Result<Event<K>>> + Send,
{
    let first = Listing::Streamed;
    let start = (Box::pin(watch(first)), Progress::new(first), watch);
    let events = stream::unfold(start, |(mut current, mut progress, watch)| async move {
        loop {
            let event = current.next().await?;
            let (listing, is_instead) = match progress.step(&event) {
                Step::GoOn => return Some((event, (current, progress, watch))),
                Step::Instead(listing) => (listing, true),
                Step::ListAgain(listing) => (listing, false),
            };
            (current, progress) = (Box::pin(watch(listing)), Progress::new(listing));
            if !is_instead {
                return Some((event, (current, progress, watch)));
            }
            debug!(
                error = event.err().map(tracing::field::display),
                "the API server streams no whole list; it is read in pages"
            );
        }
    });
    events.inspect_err(move |_| connectivity.doubt()).backoff(backoff())
}

/// kube's own delay grows to a minute with its jitter; a watch must be resumed sooner.
fn backoff() -> watcher::ExponentialBackoff {
    let delays = backon::ExponentialBuilder::default().with_min_delay(WATCH_AGAIN.0).with_max_delay(WATCH_AGAIN.1);
    delays.with_factor(2.0).with_jitter().without_max_times().into()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    const FOLLOWS: Progress = Progress { listing: Listing::Streamed, phase: Phase::Follows };
    const LISTS: Progress = Progress { listing: Listing::Streamed, phase: Phase::Lists };

    fn refused(code: u16) -> watcher::Result<Event<()>> {
        let status = Status { code, ..Status::default() };
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn refused_stream_is_replaced_by_pages_at_once() {
        for code in [400, 422] {
            assert_eq!(Progress::new(Listing::Streamed).step(&refused(code)), Step::Instead(Listing::Paged));
            // A watch that cannot be resumed waits, else it would list again and again without a pause.
            let mut follows = FOLLOWS;
            assert_eq!(follows.step(&refused(code)), Step::ListAgain(Listing::Streamed));
            assert_eq!(Progress::new(Listing::Paged).step(&refused(code)), Step::ListAgain(Listing::Paged));
        }
    }

    #[test]
    fn a_refusal_of_the_user_or_of_the_rate_starts_no_list() {
        for code in [401, 403, 429] {
            for mut progress in [Progress::new(Listing::Streamed), LISTS, FOLLOWS] {
                assert_eq!(progress.step(&refused(code)), Step::GoOn, "{code} {progress:?}");
            }
        }
    }

    #[test]
    fn stream_that_ends_early_is_replaced_by_pages_once() {
        let mut progress = Progress::new(Listing::Streamed);
        assert_eq!(progress.step::<()>(&Ok(Event::Init)), Step::GoOn);
        assert_eq!(progress.step(&Ok(Event::InitApply(()))), Step::GoOn);
        assert_eq!(progress.step::<()>(&Ok(Event::Init)), Step::Instead(Listing::Paged));
        progress = Progress::new(Listing::Paged);
        for event in [Event::Init, Event::Init, Event::InitDone, Event::Init, Event::Init] {
            assert_eq!(progress.step::<()>(&Ok(event)), Step::GoOn);
        }
        progress = FOLLOWS;
        assert_eq!(progress.step::<()>(&Ok(Event::Init)), Step::GoOn);
        assert_eq!(progress.step::<()>(&Ok(Event::Init)), Step::Instead(Listing::Paged));
    }

    #[test]
    fn watch_that_cannot_be_resumed_lists_again() {
        for code in [410, 500, 504] {
            let mut follows = FOLLOWS;
            assert_eq!(follows.step(&refused(code)), Step::ListAgain(Listing::Streamed));
        }
        let interrupted: watcher::Result<Event<()>> = Err(watcher::Error::NoResourceVersion);
        let mut follows = FOLLOWS;
        assert_eq!(follows.step(&interrupted), Step::GoOn);
    }
}
