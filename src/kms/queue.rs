//! Decides when a call to KMS may start. Each account that calls has, in each Region and for each request quota of KMS there, a lane with a
//! [rate](super::rates) of its own, so that key pairs, whose quotas are small, do not delay data keys. A lane serves waiting objects round robin by
//! namespace, so that one namespace with thousands of new DataKeys does not delay the others.
//!
//! A reconcile acquires a [`Permit`], or else enqueues its object and ends. Once the lane has a permit for the object, it offers
//! the permit and requeues the object; the next reconcile takes the offer. Only a few permits per lane are offered or held at a
//! time, and only their reconciles send requests about their Secrets: otherwise thousands of waiting objects would each cost the
//! API server a request.
//!
//! The rate applies where the call starts and not where the permit is offered: delays in between would make a burst of calls
//! whose permits were offered one after the other. KMS never receives more calls in a second than the rate, however long each call
//! takes: a call counts until a second after its answer. At a rate below one call a second it counts for the time of one call. A
//! lane never has more calls in flight than its [share](super::shares).
//!
//! The quota of KMS is shared with everything else in the account, so the rate also adapts to KMS: it halves when KMS throttles
//! a call, and recovers.
//!
//! `reconcile::reads` limits the reads of objects with a queue of its own, in which all reads share one lane.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::{Instant, sleep_until};

use super::{lane_id::LaneId, rates::Rates, shares::Shares};
use crate::place::Place;
use lane::{Lane, Lanes, Waiter};

pub use lane::Requeue;
pub use permit::{CallInFlight, Permit};

mod fair;
mod lane;
mod permit;
mod rate;
mod window;

/// All lanes. An object has a place in one lane at most.
pub struct RateQueue {
    rates: Rates,
    shares: Shares,
    lanes: Arc<Lanes>,
}

/// The lanes of one quota in one Region: one for each account that calls.
struct Group {
    lanes: usize,
    /// Their calls in flight.
    calls: usize,
}

/// The groups of the lanes, in the order of the lanes.
fn groups(lanes: &BTreeMap<LaneId, Lane>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut last: Option<&LaneId> = None;
    for (id, lane) in lanes {
        match groups.last_mut().filter(|_| last.is_some_and(|last| last.is_of_the_group(id))) {
            Some(group) => {
                group.lanes += 1;
                group.calls += lane.in_flight();
            }
            None => groups.push(Group { lanes: 1, calls: lane.in_flight() }),
        }
        last = Some(id);
    }
    groups
}

// === impl RateQueue ===

impl RateQueue {
    /// A queue without lanes, which will have these rates.
    pub fn new(rates: Rates, shares: Shares) -> Self {
        Self { rates, shares, lanes: Arc::default() }
    }

    /// Returns a permit if one was offered to the object, or if one is free. Otherwise the object waits, in one place however
    /// often it asks, and is sent to `requeue` when a permit is offered to it.
    ///
    /// The object gives up its place in other lanes: its spec does not name those any more, and an offer there would not be taken.
    pub fn acquire_or_enqueue(&self, id: &LaneId, uid: &str, object: &Place, requeue: &Requeue) -> Option<Permit> {
        let mut lanes = self.lanes.lock();
        for (_, lane) in lanes.iter_mut().filter(|(of, _)| *of != id) {
            if lane.release(uid) {
                self.lanes.changed.notify_one();
            }
        }
        if self.try_acquire(&mut lanes, id, Some(uid)) {
            return Some(Permit::new(id.clone(), Arc::clone(&self.lanes)));
        }
        let lane = lanes.get_mut(id)?;
        if lane.enqueue(uid, Waiter { object: object.clone(), requeue: requeue.clone() }) {
            self.lanes.changed.notify_one();
        }
        None
    }

    /// Returns a permit for a call that no object waits for, if one is free and no object waits for its lane.
    pub fn acquire_if_idle(&self, id: &LaneId) -> Option<Permit> {
        let mut lanes = self.lanes.lock();
        let acquired = self.try_acquire(&mut lanes, id, None);
        acquired.then(|| Permit::new(id.clone(), Arc::clone(&self.lanes)))
    }

    /// Counts one more held permit of a lane, which is made if it is missing. `uid`: of the object that asks; `None` for a call that no
    /// object waits for.
    fn try_acquire(&self, lanes: &mut BTreeMap<LaneId, Lane>, id: &LaneId, uid: Option<&str>) -> bool {
        let now = Instant::now();
        if !lanes.contains_key(id) {
            let is_answering = lanes.iter().any(|(of, lane)| of.is_of_the_group(id) && lane.is_answering());
            lanes.insert(id.clone(), Lane::new(self.rates.of(id), is_answering, now));
        }
        let in_use = self.shares.in_use(groups(lanes).into_iter().map(|group| group.calls));
        let of_the_group =
            lanes.iter().filter(|(of, _)| of.is_of_the_group(id)).map(|(_, lane)| lane.in_flight()).sum();
        let calls = (in_use, of_the_group);
        // Inserted above if it was missing.
        let Some(lane) = lanes.get_mut(id) else { return false };
        match uid {
            Some(uid) => lane.acquire(uid, self.shares, calls, now),
            None => lane.acquire_if_idle(self.shares, calls, now),
        }
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
    pub fn on_throttled(&self, id: &LaneId) {
        self.lanes.with(id, |lane| lane.on_throttled(Instant::now()));
    }

    /// Whether objects wait for a Region, or calls there are in flight.
    pub fn is_busy(&self, region: &str) -> bool {
        self.lanes.lock().iter().any(|(id, lane)| id.region == region && lane.is_busy())
    }

    /// The number of objects that wait.
    pub fn waiting(&self) -> usize {
        self.lanes.lock().values().map(Lane::waiting).sum()
    }

    /// Offers permits until it is dropped.
    pub async fn run(&self) {
        loop {
            let change = self.offer_permits(Instant::now());
            tokio::select! {
                () = self.lanes.changed.notified() => {}
                () = sleep_until(change.unwrap_or_else(Instant::now)), if change.is_some() => {}
            }
        }
    }

    /// Offers the permits that are free now, and drops idle lanes. Returns when it has to be called again although nothing changes.
    fn offer_permits(&self, now: Instant) -> Option<Instant> {
        let mut lanes = self.lanes.lock();
        for lane in lanes.values_mut() {
            lane.expire_offers(now);
        }
        // Counted once all lanes are up to date: they share a reserve.
        let groups = groups(&lanes);
        let mut in_use = self.shares.in_use(groups.iter().map(|group| group.calls));
        let mut all = lanes.values_mut();
        for Group { lanes, mut calls } in groups {
            for lane in all.by_ref().take(lanes) {
                lane.offer_permits(self.shares, &mut in_use, &mut calls, now);
            }
        }
        lanes.retain(|_, lane| !lane.is_idle(now));
        lanes.values_mut().filter_map(|lane| lane.next_change(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use datakey::api::{KindId, QuotaClass};
    use futures::{StreamExt, channel::mpsc};
    use tokio::time::{advance, timeout};

    use super::{lane::OFFER_TIMEOUT, *};
    use crate::kms::rates::Rate;

    /// This rate of symmetric calls.
    pub fn limit(rate: u32) -> Rates {
        Rates::new(NonZeroU32::new(rate).unwrap().into(), [])
    }

    /// The lane of symmetric calls in a Region.
    pub fn lane(region: &str) -> LaneId {
        LaneId::new(region, QuotaClass::Symmetric)
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
            queue.acquire_or_enqueue(&lane(region), &uid, &object, &requeue)
        };
        let acquire = |region| acquire_as(region, 1);
        let (first, second) = (acquire("eu-west-1").unwrap(), acquire("eu-west-1").unwrap());
        let _third = acquire("eu-west-1").unwrap();
        assert!(acquire("eu-west-1").is_none(), "permits for the calls of 0.16 seconds are offered ahead");
        assert!(acquire_as("eu-north-1", 2).is_some(), "another Region has its own rate");
        assert_eq!(first.start_call().await.lane().region, "eu-west-1");
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
            queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue)
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
                let permit = queue.acquire_or_enqueue(&lane("r"), object.name(), &object, &requeue).unwrap();
                assert!(
                    queue.acquire_or_enqueue(&lane("r"), object.name(), &object, &requeue).is_none(),
                    "and takes it once"
                );
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
            if let Some(permit) = queue.acquire_or_enqueue(&lane(region), &uid, &object, requeue) {
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
            let call = queue
                .acquire_or_enqueue(&lane("healthy"), object.name(), &object, &requeue)
                .unwrap()
                .start_call()
                .await;
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
                calls.push(
                    queue.acquire_or_enqueue(&lane("r"), object.name(), &object, &requeue).unwrap().start_call().await,
                );
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
    async fn accounts_have_a_rate_each_and_share_what_may_hang() {
        let queue = RateQueue::new(limit(20), Shares::DEFAULT);
        let (requeue, _requeued) = mpsc::unbounded();
        let of = |account: &str| lane("r").of_account(Some(account.to_owned()));
        let acquire = |lane: &LaneId, number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(lane, &uid, &object, &requeue)
        };
        let first: Vec<_> = (0..10).filter_map(|number| acquire(&of("111122223333"), number)).collect();
        assert_eq!(first.len(), 3, "what the rate offers ahead");
        let second: Vec<_> = (10..20).filter_map(|number| acquire(&of("444455556666"), number)).collect();
        assert_eq!(second.len(), 1, "the Region has four calls until one of them is answered");
        let call = first.into_iter().next().unwrap().start_call().await;
        call.complete(true);
        assert!(
            acquire(&of("777788889999"), 20).is_some(),
            "an account without a call has one where the Region answers"
        );
        queue.offer_permits(Instant::now());
        assert!((10..20).filter(|number| queue.has_offer(&object("shop", *number).0)).count() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn call_for_no_object_goes_after_all_objects() {
        let queue = RateQueue::new(limit(20), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue)
        };
        let idle = queue.acquire_if_idle(&lane("r")).unwrap();
        assert!(queue.acquire_if_idle(&lane("r")).is_none(), "one at a time");
        assert!(queue.acquire_if_idle(&lane("other")).is_some());
        drop(idle.start_call().await);
        let held: Vec<_> = (0..).map_while(acquire).collect();
        assert!(queue.acquire_if_idle(&lane("r")).is_none(), "objects hold permits");
        drop(held);
        assert!(queue.acquire_if_idle(&lane("r")).is_none(), "an object waits");
        advance(Duration::from_secs(2)).await;
        queue.offer_permits(Instant::now());
        assert!(queue.acquire_if_idle(&lane("r")).is_none(), "an object was offered a permit");
        let waited = requeued.next().await.unwrap();
        let permit = queue.acquire_or_enqueue(&lane("r"), waited.name(), &waited, &requeue).unwrap();
        drop(permit.start_call().await);
        advance(Duration::from_secs(2)).await;
        assert!(queue.acquire_if_idle(&lane("r")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn released_waiter_is_skipped_and_idle_lane_is_dropped() {
        let queue = RateQueue::new(limit(1), Shares::UNLIMITED);
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue)
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
            queue.acquire_or_enqueue(&lane("r"), &uid, &object, &requeue)
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
            queue.acquire_or_enqueue(&lane(region), &uid, &object, &requeue)
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
    /// The rates of key pairs are the defaults.
    fn pair_queue() -> RateQueue {
        RateQueue::new(limit(100), Shares::DEFAULT)
    }

    fn rsa() -> LaneId {
        LaneId::new("eu-west-1", QuotaClass::Rsa4096)
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_key_pairs_delay_no_other_quota_and_no_namespace() {
        let queue = pair_queue();
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |lane: &LaneId, namespace, number| {
            let (uid, object) = object(namespace, number);
            queue.acquire_or_enqueue(lane, &uid, &object, &requeue)
        };
        let first = acquire(&rsa(), "flood", 0).unwrap();
        assert!((1..=1000).all(|number| acquire(&rsa(), "flood", number).is_none()));
        let call = first.start_call().await;
        assert!(acquire(&rsa(), "shop", 0).is_none());
        assert_eq!(queue.waiting(), 1001);

        // Data keys, key pairs of other quotas and other Regions do not wait, while a call of the full lane is in flight.
        let begun = Instant::now();
        let others = [
            ("eu-west-1", QuotaClass::Symmetric),
            ("eu-west-1", QuotaClass::EllipticCurve),
            ("eu-north-1", QuotaClass::Rsa4096),
        ];
        for (number, (region, class)) in others.into_iter().enumerate() {
            let permit = acquire(&LaneId::new(region, class), "bank", number).unwrap();
            drop(permit.start_call().await);
        }
        assert_eq!(Instant::now(), begun);

        // The other namespace is second, although a thousand objects were there before.
        drop(call);
        let order = async {
            let mut order = Vec::new();
            while order.len() < 3 {
                let object = requeued.next().await.unwrap();
                let permit = queue.acquire_or_enqueue(&rsa(), object.name(), &object, &requeue).unwrap();
                permit.start_call().await;
                order.push((object.namespace().to_owned(), begun.elapsed().as_secs_f64().round()));
            }
            order
        };
        let order = tokio::select! {
            () = queue.run() => panic!("it ended"),
            order = order => order,
        };
        let namespaces: Vec<_> = order.iter().map(|(namespace, _)| namespace.as_str()).collect();
        assert!(namespaces[..2].contains(&"shop"), "{order:?}");
        assert_eq!(order.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [4.0, 8.0, 12.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_lane_offers_a_permit_only_just_before_its_call() {
        let queue = RateQueue::new(
            Rates::new(Rate::parse("100").unwrap(), [(QuotaClass::Rsa4096, Rate::parse("0.1").unwrap())]),
            Shares::DEFAULT,
        );
        let (requeue, mut requeued) = mpsc::unbounded();
        let acquire = |number| {
            let (uid, object) = object("shop", number);
            queue.acquire_or_enqueue(&rsa(), &uid, &object, &requeue)
        };
        let begun = Instant::now();
        // A call that takes long counts until ten seconds after its answer.
        let call = acquire(0).unwrap().start_call().await;
        assert!(acquire(1).is_none());
        let answered = async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            drop(call);
            std::future::pending::<()>().await;
        };
        let started = async {
            requeued.next().await.unwrap();
            let offered = begun.elapsed();
            acquire(1).unwrap().start_call().await;
            (offered.as_secs(), begun.elapsed().as_secs())
        };
        let started = tokio::select! {
            () = queue.run() => panic!("it ended"),
            () = answered => panic!("it ended"),
            started = started => started,
        };
        assert_eq!(started, (23, 25));
        // A third one waits again; what was released meanwhile leaves no offer.
        assert!(acquire(2).is_none() && !queue.has_offer("shop-2"));
        queue.release("shop-2");
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_key_pairs_leave_the_calls_of_data_keys() {
        let queue = pair_queue();
        let (requeue, _requeued) = mpsc::unbounded();
        let mut hanging = Vec::new();
        for class in QuotaClass::ALL.iter().filter(|class| **class != QuotaClass::Symmetric) {
            let lane = LaneId::new("eu-west-1", *class);
            for number in 0..100 {
                let (uid, object) = object(class.as_str(), number);
                let Some(permit) = queue.acquire_or_enqueue(&lane, &uid, &object, &requeue) else { break };
                // The permit of a lane that may have only one call waits for the end of that one.
                let Ok(call) = timeout(Duration::from_secs(1), permit.start_call()).await else { break };
                hanging.push(call);
            }
        }
        assert!((6..=6 * 4).contains(&hanging.len()), "{}", hanging.len());
        assert_eq!(start_calls(&queue, "eu-west-1", &requeue).await.len(), 4);
        assert!(queue.is_busy("eu-west-1") && !queue.is_busy("eu-north-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_of_one_quota_leaves_the_others_at_their_rate() {
        let queue = pair_queue();
        let lanes = [lane("eu-west-1"), LaneId::new("eu-west-1", QuotaClass::Rsa2048)];
        let (requeue, _requeued) = mpsc::unbounded();
        let mut acquire = |lane: &LaneId| {
            let (uid, object) = object("shop", 0);
            queue.acquire_or_enqueue(lane, &uid, &object, &requeue)
        };
        let permits = lanes.each_ref().map(&mut acquire);
        assert!(permits.iter().all(Option::is_some));
        let rates = || queue.lanes.lock().values().map(|lane| lane.current_rate(Instant::now())).collect::<Vec<_>>();
        assert_eq!(rates(), [100.0, 5.0]);
        queue.on_throttled(&lanes[1]);
        assert_eq!(rates(), [100.0, 2.5]);
    }
}
