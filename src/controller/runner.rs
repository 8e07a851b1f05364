//! Runs reconciles: each object at most once at a time, a bounded number in all, in the order in which they were queued. kube's
//! own controller needs every object in memory; this one needs the places of those that are queued.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    pin::pin,
};

use futures::{Stream, StreamExt, stream::FuturesUnordered};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::place::Place;

/// What is to be reconciled, and what is being reconciled. Pure.
#[derive(Default)]
struct Queue {
    ready: VecDeque<Place>,
    /// What `ready` has, so that it has each object once.
    is_ready: HashSet<Place>,
    /// When objects are due again, and the same by object.
    later: BTreeSet<(Instant, Place)>,
    due: HashMap<Place, Instant>,
    /// What is being reconciled, and whether it was queued meanwhile.
    running: HashMap<Place, bool>,
}

/// Reconciles what is queued until the stop, and then finishes what is running. Begins nothing before `ready`. `reconcile` returns
/// when the object is due again.
pub(super) async fn run<F>(
    queued: impl Stream<Item = Place>,
    most: usize,
    ready: impl Future<Output = ()>,
    stop: CancellationToken,
    mut reconcile: impl FnMut(Place) -> F,
) where
    F: Future<Output = Option<Duration>>,
{
    let mut queue = Queue::default();
    let mut queued = pin!(queued.fuse());
    let mut running = FuturesUnordered::new();
    let (mut ready, mut is_ready) = (pin!(ready), false);
    loop {
        while is_ready && let Some(place) = queue.begin(most) {
            let work = reconcile(place.clone());
            running.push(async move { (place, work.await) });
        }
        let due = queue.next_due();
        tokio::select! {
            () = stop.cancelled() => break,
            () = &mut ready, if !is_ready => is_ready = true,
            Some(place) = queued.next() => queue.add(place),
            Some((place, after)) = running.next() => queue.end(&place, after.map(|after| Instant::now() + after)),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => queue.expire(Instant::now()),
        }
    }
    while running.next().await.is_some() {}
}

// === impl Queue ===

impl Queue {
    /// Adds an object that is due now.
    fn add(&mut self, place: Place) {
        if let Some(is_queued) = self.running.get_mut(&place) {
            *is_queued = true;
        } else if self.is_ready.insert(place.clone()) {
            if let Some(due) = self.due.remove(&place) {
                self.later.remove(&(due, place.clone()));
            }
            self.ready.push_back(place);
        }
    }

    /// The next object to reconcile, unless so many are being reconciled.
    fn begin(&mut self, most: usize) -> Option<Place> {
        if self.running.len() >= most {
            return None;
        }
        let place = self.ready.pop_front()?;
        self.is_ready.remove(&place);
        self.running.insert(place.clone(), false);
        Some(place)
    }

    /// Records that an object was reconciled, and when it is due again. If it was queued meanwhile, it is due now.
    fn end(&mut self, place: &Place, due: Option<Instant>) {
        let is_queued = self.running.remove(place).unwrap_or_default();
        if is_queued {
            self.add(place.clone());
        } else if let Some(due) = due {
            self.due.insert(place.clone(), due);
            self.later.insert((due, place.clone()));
        }
    }

    /// When the next object is due again.
    fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Adds the objects that are due again by now.
    fn expire(&mut self, now: Instant) {
        while let Some((due, place)) = self.later.pop_first() {
            if due > now {
                self.later.insert((due, place));
                return;
            }
            self.due.remove(&place);
            self.add(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use datakey::api::KindId;
    use futures::channel::mpsc;
    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;

    struct Case {
        /// When each object is queued, in seconds.
        queued: Vec<(u64, &'static str)>,
        most: usize,
        takes: Duration,
        again: Option<Duration>,
        ready_after: Duration,
        stop_after: Duration,
    }

    const CASE: Case = Case {
        queued: Vec::new(),
        most: 9,
        takes: Duration::from_secs(5),
        again: None,
        ready_after: Duration::ZERO,
        stop_after: Duration::from_secs(100),
    };

    /// What began, with the time since the start in seconds.
    async fn begun(case: Case) -> Vec<(String, u64)> {
        let Case { queued: places, most, takes, again, ready_after, stop_after } = case;
        let (queue, queued) = mpsc::unbounded();
        let start = Instant::now();
        tokio::spawn(async move {
            for (second, name) in places {
                sleep_until(start + Duration::from_secs(second)).await;
                queue.unbounded_send(Place::new(KindId::DataKey, "shop", name)).unwrap();
            }
            // The queue stays open.
            pending::<()>().await;
        });
        let stop = CancellationToken::new();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                sleep(stop_after).await;
                stop.cancel();
            }
        });
        let order: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        run(queued, most, sleep(ready_after), stop, |place| {
            order.lock().push((place.name().to_owned(), start.elapsed().as_secs()));
            async move {
                sleep(takes).await;
                again
            }
        })
        .await;
        let mut order = order.lock().clone();
        order.sort();
        order
    }

    fn at<const N: usize>(begun: [(&str, u64); N]) -> Vec<(String, u64)> {
        begun.map(|(name, second)| (name.to_owned(), second)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn object_runs_once_at_a_time_and_again_if_queued_meanwhile() {
        let queued = vec![(0, "a"), (1, "a"), (2, "a"), (3, "b")];
        assert_eq!(begun(Case { queued, ..CASE }).await, at([("a", 0), ("a", 5), ("b", 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_run_than_the_bound_in_the_order_of_the_queue() {
        let case = Case { queued: vec![(0, "c"), (1, "a"), (2, "b"), (3, "a")], most: 1, ..CASE };
        assert_eq!(begun(case).await, at([("a", 5), ("b", 10), ("c", 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn object_runs_again_after_its_delay_or_earlier_if_it_is_queued() {
        let (again, stop_after) = (Some(Duration::from_secs(10)), Duration::from_secs(20));
        let case = Case { queued: vec![(0, "a"), (4, "a")], takes: Duration::ZERO, again, stop_after, ..CASE };
        assert_eq!(begun(case).await, at([("a", 0), ("a", 4), ("a", 14)]));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_before_it_is_ready() {
        let case = Case { queued: vec![(0, "a"), (9, "b")], ready_after: Duration::from_secs(7), ..CASE };
        assert_eq!(begun(case).await, at([("a", 7), ("b", 9)]));
    }

    #[tokio::test(start_paused = true)]
    async fn stop_finishes_what_runs_and_begins_nothing() {
        let case = Case { queued: vec![(0, "a"), (3, "b")], stop_after: Duration::from_secs(2), ..CASE };
        assert_eq!(begun(case).await, at([("a", 0)]));
    }
}
