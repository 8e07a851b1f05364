//! Decides when a call to KMS may start. Each Region has a lane with a rate of its own. A lane serves waiting objects round robin
//! by namespace, so that one namespace with thousands of new DataKeys does not delay the others.
//!
//! A reconcile acquires a [`Permit`], or else enqueues its object and ends. Once the lane has a permit for the object, it offers
//! the permit and requeues the object; the next reconcile takes the offer. Only a few permits per lane are offered or held at a
//! time, and only their reconciles send requests about their Secrets: otherwise thousands of waiting objects would each cost the
//! API server a request.
//!
//! The rate applies where the call starts and not where the permit is offered: delays in between would make a burst of calls
//! whose permits were offered one after the other. KMS never receives more calls in a second than the rate, however long each call
//! takes: a call counts until a second after its answer. A lane never has more calls in flight than its
//! [share](super::shares).
//!
//! The quota of KMS is shared with everything else in the account, so the rate also adapts to KMS: it halves when KMS throttles
//! a call, and recovers.
//!
//! `reconcile::reads` limits the reads of objects with a queue of its own, in which all reads share one lane.

use std::{num::NonZeroU32, sync::Arc};

use tokio::time::{Instant, sleep_until};

use super::shares::Shares;
use crate::place::Place;
use lane::{Lane, Lanes, Waiter};

pub use lane::Requeue;
pub use permit::{CallInFlight, Permit};

mod fair;
mod lane;
mod permit;
mod rate;
mod window;

/// The lanes of all Regions. An object has a place in one lane at most.
pub struct RateQueue {
    limit: NonZeroU32,
    shares: Shares,
    lanes: Arc<Lanes>,
}

// === impl RateQueue ===

impl RateQueue {
    /// A queue without lanes. The limit is in calls per second and Region.
    pub fn new(limit: NonZeroU32, shares: Shares) -> Self {
        Self { limit, shares, lanes: Arc::default() }
    }

    /// Returns a permit if one was offered to the object, or if one is free. Otherwise the object waits, in one place however
    /// often it asks, and is sent to `requeue` when a permit is offered to it.
    ///
    /// The object gives up its place in the lanes of other Regions: its spec does not name those any more, and an offer there
    /// would not be taken.
    pub fn acquire_or_enqueue(&self, region: &str, uid: &str, object: &Place, requeue: &Requeue) -> Option<Permit> {
        let now = Instant::now();
        let mut lanes = self.lanes.lock();
        if !lanes.contains_key(region) {
            lanes.insert(region.to_owned(), Lane::new(self.limit, now));
        }
        for (_, lane) in lanes.iter_mut().filter(|(of, _)| *of != region) {
            if lane.release(uid) {
                self.lanes.changed.notify_one();
            }
        }
        let in_use = self.shares.in_use(lanes.values().map(Lane::in_flight));
        // Inserted above if it was missing.
        let lane = lanes.get_mut(region)?;
        if lane.acquire(uid, self.shares, in_use, now) {
            return Some(Permit::new(region, Arc::clone(&self.lanes)));
        }
        if lane.enqueue(uid, Waiter { object: object.clone(), requeue: requeue.clone() }) {
            self.lanes.changed.notify_one();
        }
        None
    }

    /// Removes an object that is deleted or does not need a permit any more, so that an offer to it goes to the next object.
    pub fn release(&self, uid: &str) {
        let mut was_released = false;
        for lane in self.lanes.lock().values_mut() {
            was_released |= lane.release(uid);
        }
        if was_released {
            self.lanes.changed.notify_one();
        }
    }

    /// Whether a permit is offered to an object.
    pub fn has_offer(&self, uid: &str) -> bool {
        self.lanes.lock().values().any(|lane| lane.has_offer(uid))
    }

    /// Records that KMS throttled a call.
    pub fn on_throttled(&self, region: &str) {
        self.lanes.with(region, |lane| lane.on_throttled(Instant::now()));
    }

    /// Whether objects wait for a Region, or calls there are in flight.
    pub fn is_busy(&self, region: &str) -> bool {
        self.lanes.lock().get(region).is_some_and(Lane::is_busy)
    }

    /// The number of objects that wait.
    pub fn waiting(&self) -> usize {
        self.lanes.lock().values().map(Lane::waiting).sum()
    }

    /// Offers permits until it is dropped.
    pub async fn run(&self) {
        loop {
            let expiry = self.offer_permits(Instant::now());
            tokio::select! {
                () = self.lanes.changed.notified() => {}
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {}
            }
        }
    }

    /// Offers the permits that are free now, and drops idle lanes. Returns when the first offer expires.
    fn offer_permits(&self, now: Instant) -> Option<Instant> {
        let mut lanes = self.lanes.lock();
        for lane in lanes.values_mut() {
            lane.expire_offers(now);
        }
        // Counted once all lanes are up to date: they share a reserve.
        let mut in_use = self.shares.in_use(lanes.values().map(Lane::in_flight));
        for lane in lanes.values_mut() {
            lane.offer_permits(self.shares, &mut in_use, now);
        }
        lanes.retain(|_, lane| !lane.is_idle(now));
        lanes.values().filter_map(Lane::next_expiry).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datakey::api::KindId;

    use futures::{StreamExt, channel::mpsc};
    use tokio::time::advance;

    use super::{lane::OFFER_TIMEOUT, *};

    fn limit(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    /// An object, with its uid.
    pub fn object(namespace: &str, number: usize) -> (String, Place) {
        let name = format!("{namespace}-{number}");
        (name.clone(), Place::new(KindId::DataKey, namespace, &name))
    }

    #[tokio::test(start_paused = true)]
    async fn first_objects_get_a_permit_at_once() {
        let queue = RateQueue::new(limit(20), Shares::UNLIMITED);
        let (requeue, _requeued) = mpsc::unbounded();
        let acquire_as = |region, number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(region, &uid, &object, &requeue)
        };
        let acquire = |region| acquire_as(region, 1);
        let (first, second) = (acquire("eu-west-1").unwrap(), acquire("eu-west-1").unwrap());
        let _third = acquire("eu-west-1").unwrap();
        assert!(acquire("eu-west-1").is_none(), "permits for the calls of 0.16 seconds are offered ahead");
        assert!(acquire_as("eu-north-1", 2).is_some(), "another Region has its own rate");
        assert_eq!(first.start_call().await.region(), "eu-west-1");
        drop(second);
        assert!(queue.offer_permits(Instant::now()).is_some(), "the one that waits");
        assert!(acquire("eu-west-1").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_are_served_round_robin() {
        let queue = RateQueue::new(limit(10), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |namespace, number| {
            let (uid, object) = object(namespace, number);
            queue.acquire_or_enqueue("r", &uid, &object, &requeue)
        };
        let first: Vec<_> = (0..1000).filter_map(|number| acquire("flood", number)).collect();
        for namespace in ["shop", "bank"] {
            assert!(acquire(namespace, 0).is_none());
            assert!(acquire(namespace, 0).is_none(), "it waits once");
        }
        let begun = Instant::now();
        let work = async {
            for permit in first {
                permit.start_call().await;
            }
            let mut order = Vec::new();
            while order.len() < 10 {
                let object = requeued.next().await.unwrap();
                let namespace = object.namespace().to_owned();
                let permit = queue.acquire_or_enqueue("r", object.name(), &object, &requeue).unwrap();
                assert!(queue.acquire_or_enqueue("r", object.name(), &object, &requeue).is_none(), "and takes it once");
                queue.release(object.name());
                permit.start_call().await;
                order.push(namespace);
            }
            order
        };
        let order = tokio::select! {
            () = queue.run() => panic!("it ended"),
            order = work => order,
        };
        for namespace in ["shop", "bank"] {
            assert!(order.iter().take(5).any(|of| of == namespace), "{order:?}");
        }
        assert!(begun.elapsed() < Duration::from_millis(1300), "{:?}", begun.elapsed());
    }

    /// Asks for permits in a Region, and starts a call with each.
    async fn start_calls(queue: &RateQueue, region: &str, requeue: &Requeue) -> Vec<CallInFlight> {
        let mut calls = Vec::new();
        for number in 0..200 {
            let (uid, object) = object(region, number);
            if let Some(permit) = queue.acquire_or_enqueue(region, &uid, &object, requeue) {
                calls.push(permit.start_call().await);
            }
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_regions_do_not_block_a_healthy_region() {
        let queue = RateQueue::new(limit(100), Shares::DEFAULT);
        let (requeue, mut requeued) = mpsc::unbounded();
        let mut hanging = Vec::new();
        for region in 0..48 {
            let calls = start_calls(&queue, &format!("hangs-{region}"), &requeue).await;
            assert_eq!(calls.len(), 4);
            hanging.extend(calls);
        }
        let healthy = start_calls(&queue, "healthy", &requeue).await;
        assert_eq!(healthy.len(), 4);
        for call in &healthy {
            call.complete(true);
        }
        drop(healthy);
        let begun = Instant::now();
        for served in 0..196 {
            queue.offer_permits(Instant::now());
            let object = requeued.try_recv().unwrap();
            assert_eq!(object.namespace(), "healthy", "{served}");
            let call =
                queue.acquire_or_enqueue("healthy", object.name(), &object, &requeue).unwrap().start_call().await;
            call.complete(true);
            drop(call);
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(hanging);
    }

    #[tokio::test(start_paused = true)]
    async fn answering_region_has_more_calls_in_flight() {
        let queue = RateQueue::new(limit(100), Shares::DEFAULT);
        let (requeue, mut requeued) = mpsc::unbounded();
        let mut calls = start_calls(&queue, "r", &requeue).await;
        assert_eq!((calls.len(), queue.waiting()), (4, 196));
        let mut start_more = async |calls: &mut Vec<CallInFlight>| {
            loop {
                queue.offer_permits(Instant::now());
                let Ok(object) = requeued.try_recv() else { return calls.len() };
                calls.push(queue.acquire_or_enqueue("r", object.name(), &object, &requeue).unwrap().start_call().await);
            }
        };
        calls.pop().unwrap().complete(true);
        assert_eq!(start_more(&mut calls).await, 64);
        calls.pop().unwrap().complete(false);
        assert_eq!(start_more(&mut calls).await, 63, "it does not answer any more");
        calls.truncate(3);
        assert_eq!(start_more(&mut calls).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn released_waiter_is_skipped_and_idle_lane_is_dropped() {
        let queue = RateQueue::new(limit(1), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue("r", &uid, &object, &requeue)
        };
        let permit = acquire(0).unwrap();
        assert!(acquire(1).is_none() && acquire(2).is_none());
        queue.release("shop-1");
        assert_eq!(queue.waiting(), 1);
        queue.offer_permits(Instant::now());
        assert!(requeued.try_recv().is_err(), "one at a time, at this rate");
        drop(permit);
        queue.offer_permits(Instant::now());
        assert_eq!(requeued.next().await, Some(object("shop", 2).1));
        advance(OFFER_TIMEOUT).await;
        queue.offer_permits(Instant::now());
        assert!(queue.lanes.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn released_offer_goes_to_the_next_waiter() {
        let queue = RateQueue::new(limit(1), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue("r", &uid, &object, &requeue)
        };
        let permit = acquire(0).unwrap();
        assert!(acquire(1).is_none() && acquire(2).is_none());
        drop(permit);
        queue.offer_permits(Instant::now());
        assert_eq!(requeued.next().await, Some(object("shop", 1).1));
        queue.release("shop-1");
        queue.offer_permits(Instant::now());
        assert_eq!(requeued.next().await, Some(object("shop", 2).1));
    }

    #[tokio::test(start_paused = true)]
    async fn object_waits_for_kms_in_one_region_only() {
        let queue = RateQueue::new(limit(1), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |region, number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(region, &uid, &object, &requeue)
        };
        let permits = ["a", "b"].map(|region| acquire(region, 0).unwrap());
        // In the former Region, one object waits and another one has an offer.
        assert!([1, 2, 3].map(|number| acquire("a", number)).iter().all(Option::is_none));
        assert!(acquire("b", 1).is_none());
        assert_eq!(queue.waiting(), 3, "it waits once");
        drop(permits);
        queue.offer_permits(Instant::now());
        let mut offered = [requeued.next().await.unwrap(), requeued.next().await.unwrap()];
        offered.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        assert_eq!(offered, [object("shop", 1).1, object("shop", 2).1]);
        assert!(acquire("b", 2).is_none());
        queue.offer_permits(Instant::now());
        assert_eq!(requeued.next().await, Some(object("shop", 3).1));
    }
}
