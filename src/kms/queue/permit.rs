//! What a reconcile holds around a call. Both types count against the share of their lane until they are dropped, so a
//! reconcile that fails or is cancelled does not keep its permit.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::lane::{Lane, Lanes};
use crate::kms::lane_id::LaneId;

/// Permission to start one call of one lane.
pub struct Permit {
    lane: LaneId,
    lanes: Arc<Lanes>,
}

/// A call that has started. It ends when this is dropped: after the answer, or when its reconcile is cancelled.
pub struct CallInFlight {
    lane: LaneId,
    lanes: Arc<Lanes>,
}

// === impl Permit ===

impl Permit {
    /// A permit that its lane has counted as held.
    pub(super) fn new(lane: LaneId, lanes: Arc<Lanes>) -> Self {
        Self { lane, lanes }
    }

    /// The lane of the call.
    pub fn lane(&self) -> &LaneId {
        &self.lane
    }

    /// Waits until the rate allows the call.
    pub async fn start_call(self) -> CallInFlight {
        // There is a lane as long as one of its permits is held.
        while let Some(Err(later)) = self.lanes.with(&self.lane, |lane| lane.start_call(Instant::now())) {
            sleep_until(later).await;
        }
        CallInFlight { lane: self.lane.clone(), lanes: Arc::clone(&self.lanes) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lanes.with(&self.lane, Lane::return_permit);
        self.lanes.changed.notify_one();
    }
}

// === impl CallInFlight ===

impl CallInFlight {
    /// The lane of the call.
    pub fn lane(&self) -> &LaneId {
        &self.lane
    }

    /// Records whether the server answered, with success or an error. Lanes that answer may have more calls in flight. It is the same
    /// server for all accounts.
    pub fn complete(&self, was_answered: bool) {
        for (id, lane) in self.lanes.lock().iter_mut() {
            if id.is_of_the_group(&self.lane) {
                lane.set_answering(was_answered);
            }
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.lanes.with(&self.lane, |lane| lane.end_call(Instant::now()));
        self.lanes.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::channel::mpsc;
    use tokio::{
        task::JoinSet,
        time::{advance, sleep},
    };

    use super::*;
    use crate::kms::{
        queue::{
            RateQueue,
            tests::{lane, limit, object},
        },
        shares::Shares,
    };

    const MILLI: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn queue(rate: u32) -> RateQueue {
        RateQueue::new(limit(rate), Shares::UNLIMITED)
    }

    /// When KMS receives the calls of 20 seconds, each with these delays before and after that.
    async fn arrivals(rate: u32, before: impl Fn() -> Duration, after: Duration) -> Vec<Instant> {
        let queue = queue(rate);
        let (requeue, _requeued) = mpsc::unbounded();
        let end = Instant::now() + Duration::from_secs(20);
        let mut calls = JoinSet::new();
        for number in 0.. {
            let (uid, object) = object("shop", number);
            let call = queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue).unwrap().start_call().await;
            if Instant::now() >= end {
                break;
            }
            let before = before();
            calls.spawn(async move {
                sleep(before).await;
                let arrived = Instant::now();
                sleep(after).await;
                drop(call);
                arrived
            });
        }
        let mut arrivals = calls.join_all().await;
        arrivals.sort_unstable();
        arrivals
    }

    #[tokio::test(start_paused = true)]
    async fn calls_use_the_rate_and_exceed_it_in_no_second() {
        for rate in [1, 5, 50, 100, 1000] {
            for (jitter, after, least) in [(2, MILLI, 97), (25, 5 * MILLI, 95), (400, MILLI, 70)] {
                let arrivals = arrivals(rate, || fastrand::u32(0..=jitter) * MILLI, after).await;
                let a_second_later = arrivals.iter().skip(rate as usize);
                assert!(
                    arrivals.iter().zip(a_second_later).all(|(one, later)| *later - *one >= SECOND),
                    "{rate} with {jitter} ms"
                );
                let used = 100 * arrivals.len() / (20 * rate as usize);
                assert!(used >= least, "{rate} with {jitter} ms: {used} %");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unanswered_calls_delay_the_next_call() {
        let queue = queue(2);
        let call = async |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(&lane("r"), &uid, &object, &mpsc::unbounded().0).unwrap().start_call().await
        };
        let (first, _second) = (call(1).await, call(2).await);
        let begun = Instant::now();
        let third = async {
            call(3).await;
            begun.elapsed()
        };
        let answered = async {
            sleep(Duration::from_secs(5)).await;
            drop(first);
        };
        let (took, ()) = tokio::join!(third, answered);
        assert!((6000..6100).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_permit_holders_start_their_calls_at_the_rate() {
        let queue = queue(100);
        let (requeue, _requeued) = mpsc::unbounded();
        let permits: Vec<_> = (0..50)
            .filter_map(|number| {
                let (uid, object) = object("shop", number);
                queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue)
            })
            .collect();
        assert_eq!((permits.len(), queue.waiting()), (10, 40));
        // After a delay that all of them share, they do not call all at once.
        advance(Duration::from_secs(5)).await;
        let begun = Instant::now();
        futures::future::join_all(permits.into_iter().map(Permit::start_call)).await;
        let took = begun.elapsed();
        assert!((Duration::from_millis(40)..Duration::from_millis(45)).contains(&took), "{took:?}");
    }
}
