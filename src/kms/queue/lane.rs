//! One lane for each Region and quota of KMS: its rate, its calls in flight, its waiting objects and the permits that it offers
//! them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::channel::mpsc::UnboundedSender;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use super::{fair::FairQueue, rate::AdaptiveRate, window::CallWindow};
use crate::{
    kms::{
        lane_id::LaneId,
        rates::Rate,
        shares::{InUse, Own, Shares},
    },
    place::Place,
};

/// Where an object is sent when a permit is offered to it.
pub type Requeue = UnboundedSender<Place>;

/// A lane offers as many permits ahead of their calls as it has calls in this part of a second, so that a call is ready when
/// the rate allows it.
const PREFETCH: f64 = 0.16;

/// The most permits that a lane offers ahead. Each held permit occupies one of the concurrent reconciles.
const MAX_PREFETCH: u16 = 10;

/// How long before its call a permit is offered at most. At a rate below one call a second a permit that is offered earlier would
/// only be held: its object could not give up its place, and a change of the rate would come too late for it.
const LEAD: Duration = Duration::from_secs(2);

/// How long an offer stays open. An object does not take it if, for example, its spec names another Region now.
pub const OFFER_TIMEOUT: Duration = Duration::from_mins(1);

/// All lanes.
#[derive(Default)]
pub struct Lanes {
    by_id: Mutex<BTreeMap<LaneId, Lane>>,
    /// Notified when a lane may have a permit to offer.
    pub changed: Notify,
}

/// The lane of the calls that count against one quota in one Region.
pub struct Lane {
    rate: AdaptiveRate,
    window: CallWindow,
    waiting: FairQueue<Waiter>,
    /// The objects that have not taken their permit yet, by uid, with the time of the offer.
    offers: HashMap<String, Instant>,
    /// The number of permits that are held.
    held: usize,
    /// Whether the last call of any account was answered. False in the first lane of a Region: one that may not exist starts with the
    /// guaranteed calls.
    is_answering: bool,
}

/// An object that waits for a permit.
pub struct Waiter {
    /// The object, for the queue of the controller.
    pub object: Place,
    /// The queue of its controller.
    pub requeue: Requeue,
}

// === impl Lanes ===

impl Lanes {
    /// The lanes.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<LaneId, Lane>> {
        self.by_id.lock()
    }

    /// Applies this to a lane; `None` if there is none.
    pub fn with<T>(&self, id: &LaneId, change: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        self.lock().get_mut(id).map(change)
    }
}

// === impl Lane ===

impl Lane {
    /// A lane without objects and calls, at the full rate. `is_answering`: the last call of other accounts was answered.
    pub fn new(limit: Rate, is_answering: bool, now: Instant) -> Self {
        Self {
            rate: AdaptiveRate::new(limit, now),
            window: CallWindow::new(limit),
            waiting: FairQueue::default(),
            offers: HashMap::new(),
            held: 0,
            is_answering,
        }
    }

    /// Counts one more held permit if one was offered to the object, or if no other object waits and a permit is free. The calls are
    /// those of all lanes, and those of the group of this lane.
    pub fn acquire(&mut self, uid: &str, shares: Shares, (in_use, group): (InUse, usize), now: Instant) -> bool {
        let was_offered = self.offers.remove(uid).is_some();
        let is_acquired = was_offered || self.waiting.is_empty() && self.can_offer(shares, in_use, group, now);
        self.held += usize::from(is_acquired);
        is_acquired
    }

    /// Counts one more held permit for a call that no object waits for, if no object waits for its own or has one, and a permit is free.
    pub fn acquire_if_idle(&mut self, shares: Shares, (in_use, group): (InUse, usize), now: Instant) -> bool {
        let has_work = !self.waiting.is_empty() || !self.offers.is_empty() || self.held > 0;
        let is_acquired = !has_work && self.can_offer(shares, in_use, group, now);
        self.held += usize::from(is_acquired);
        is_acquired
    }

    /// Adds an object after those of its namespace; false if it waits already.
    pub fn enqueue(&mut self, uid: &str, waiter: Waiter) -> bool {
        let object = waiter.object.clone();
        self.waiting.add(object.namespace(), uid, waiter)
    }

    /// Removes an object that waits or was offered a permit; false if it did neither.
    pub fn release(&mut self, uid: &str) -> bool {
        let was_offered = self.offers.remove(uid).is_some();
        self.waiting.remove(uid) || was_offered
    }

    /// Records that a held permit was dropped.
    pub fn return_permit(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Starts a call, or returns the time at which to try again.
    pub fn start_call(&mut self, now: Instant) -> Result<(), Instant> {
        self.window.admit(now)?;
        self.rate.schedule(now)?;
        self.window.start();
        Ok(())
    }

    /// Whether the last call was answered.
    pub fn is_answering(&self) -> bool {
        self.is_answering
    }

    /// Records whether the last call was answered.
    pub fn set_answering(&mut self, is_answering: bool) {
        self.is_answering = is_answering;
    }

    /// Records that KMS throttled a call.
    pub fn on_throttled(&mut self, now: Instant) {
        self.rate.halve(now);
    }

    /// The current rate, in calls per second.
    #[cfg(test)]
    pub fn current_rate(&self, now: Instant) -> f64 {
        self.rate.current(now)
    }

    /// Records that a call ended.
    pub fn end_call(&mut self, now: Instant) {
        self.window.end(now);
    }

    /// Whether a permit is offered to an object.
    pub fn has_offer(&self, uid: &str) -> bool {
        self.offers.contains_key(uid)
    }

    /// Whether objects wait or calls are in flight.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.in_flight() > 0
    }

    /// The number of objects that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What counts against the share of the lane: calls, and permits for calls that are about to start.
    pub fn in_flight(&self) -> usize {
        self.offers.len() + self.held + self.window.in_flight()
    }

    /// Whether another permit may be offered.
    fn can_offer(&mut self, shares: Shares, in_use: InUse, group: usize, now: Instant) -> bool {
        let calls = self.rate.current(now) * PREFETCH;
        // At least one: at a low rate, no whole call fits into that time.
        let ahead = (1..=MAX_PREFETCH).rev().find(|ahead| f64::from(*ahead) <= calls).unwrap_or(1);
        self.offers.len() + self.held < usize::from(ahead)
            && shares.allow(in_use, self.own(group))
            && self.next_start(now) <= now + LEAD
    }

    /// The earliest time at which a call may start: now, or later.
    fn next_start(&mut self, now: Instant) -> Instant {
        let admitted = self.window.admit(now).err().unwrap_or(now);
        admitted.max(self.rate.next_start(now))
    }

    fn own(&self, group: usize) -> Own {
        Own { lane: self.in_flight(), group, is_answering: self.is_answering }
    }

    /// Offers permits to waiting objects as long as there are permits. `group`: the calls of its group.
    pub fn offer_permits(&mut self, shares: Shares, in_use: &mut InUse, group: &mut usize, now: Instant) {
        while self.can_offer(shares, *in_use, *group, now)
            && let Some((uid, Waiter { object, requeue })) = self.waiting.next()
        {
            shares.count_one_more(in_use, self.own(*group));
            *group += 1;
            self.offers.insert(uid, now);
            // Fails only while the operator stops, when no controller receives any more.
            let _ = requeue.unbounded_send(object);
        }
    }

    /// Withdraws the offers that were not taken in time.
    pub fn expire_offers(&mut self, now: Instant) {
        self.offers.retain(|_, since| now.saturating_duration_since(*since) < OFFER_TIMEOUT);
    }

    /// When there is something to do although nothing changes: the first offer expires, or it is early enough for the next offer.
    pub fn next_change(&mut self, now: Instant) -> Option<Instant> {
        let expiry = self.offers.values().min().map(|since| *since + OFFER_TIMEOUT);
        let offer = (!self.waiting.is_empty()).then(|| self.next_start(now)).and_then(|start| start.checked_sub(LEAD));
        // If the time is there, the lane waits for something else, which wakes the queue.
        expiry.into_iter().chain(offer.filter(|at| *at > now)).min()
    }

    /// Whether a new lane would behave in the same way. Idle lanes are dropped, because specs can name any number of Regions
    /// over time.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.waiting.is_empty()
            && self.offers.is_empty()
            && self.held == 0
            && self.window.is_drained(now)
            && self.rate.is_recovered(now)
    }
}
