//! Whose turn it is to call KMS: a rate for each Region, given out in turn to the namespaces that wait. A DataKey that waits
//! holds nothing but a place here, so a namespace with thousands of new DataKeys holds up no other one. A lane, which is a
//! Region, never has more calls in flight than its [share](super::shares). A few have their
//! turn at a time, and look at their Secret meanwhile; the rate is kept where they call, so that what delays one of them on its
//! way never makes two calls out of one. However long a call is on its way, KMS never gets more calls in a second than the rate:
//! each holds its place until a second after its answer.
//!
//! The quota of KMS is shared with everything else in the account, so the rate also follows what KMS says: it halves when
//! KMS throttles, and grows back.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::shares::{Shares, Taken};
use crate::{api::DataKey, round_robin::RoundRobin};

/// How late a call may be let go without its turn being lost: what is late is made up for at once.
const LATE: Duration = Duration::from_millis(50);

/// What the limit counts the calls of.
const SECOND: Duration = Duration::from_secs(1);

/// How long a rate of nothing would take to grow back to the limit.
const RECOVERY: Duration = Duration::from_secs(50);

/// Calls that were under way when KMS throttled the first one say nothing new.
const SETTLE: Duration = Duration::from_secs(1);

/// The slowest rate, in calls a second: KMS has to be asked to find out that it takes calls again.
const SLOWEST: f64 = 0.5;

/// How long a turn is kept for an object that does not take it: its spec may name another Region now.
const UNCLAIMED: Duration = Duration::from_mins(1);

/// Where the object is sent whose turn has come.
pub type Wake = UnboundedSender<ObjectRef<DataKey>>;

/// For how much of a second's calls turns are given out ahead, and for how many at most: each of these looks at its Secret
/// meanwhile.
const AHEAD: (f64, u16) = (0.16, 10);

/// Permission for one call in one Region. Dropped, it is somebody else's.
pub struct Turn {
    region: String,
    shared: Arc<Shared>,
}

/// A call that is under way, until it is dropped: once KMS has answered, or nobody waits for its answer any more.
pub struct Call {
    region: String,
    shared: Arc<Shared>,
}

/// The turns of all Regions.
pub struct Turns {
    limit: NonZeroU32,
    shares: Shares,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lanes: Mutex<BTreeMap<String, Lane>>,
    changed: Notify,
}

/// The turns of one Region.
struct Lane {
    pace: Pace,
    calls: Calls,
    waiting: Waiting,
    /// Whose turn has come and who has not taken it yet, by uid.
    granted: HashMap<String, Instant>,
    /// How many turns are taken.
    taken: usize,
    /// Whether the last call that ended was answered. A new lane has to show it first.
    answers: bool,
}

/// Who waits.
#[derive(Default)]
struct Waiting {
    /// The uids of all who wait. A ticket of anybody else is void.
    members: HashSet<String>,
    tickets: RoundRobin<Ticket>,
}

struct Ticket {
    uid: String,
    object: ObjectRef<DataKey>,
    wake: Wake,
}

/// The calls that can be in a second together. KMS gets a call at some time between its start and its answer. Take all that it
/// gets in one second, and of these the one that was started last: when it was, none of the others had been answered for a
/// second. So no second has more than are counted here. Pure.
struct Calls {
    limit: usize,
    under_way: usize,
    /// When those ended whose second is not over.
    ended: VecDeque<Instant>,
}

/// A rate that halves and grows back. Pure.
struct Pace {
    /// Calls a second, at most.
    limit: f64,
    /// The rate that it was lowered to, and when.
    slowed: Option<(f64, Instant)>,
    /// When the calls that were let go would be used up at an even pace.
    used_until: Instant,
}

// === impl Turn ===

impl Turn {
    /// Waits until the rate lets the call go.
    pub async fn begin(self) -> Call {
        while let Err(later) = self.shared.take(&self.region, Instant::now()) {
            sleep_until(later).await;
        }
        Call { region: self.region.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lane) = self.shared.lanes.lock().get_mut(&self.region) {
            lane.taken = lane.taken.saturating_sub(1);
        }
        self.shared.changed.notify_one();
    }
}

// === impl Call ===

impl Call {
    /// Where to call.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// KMS answered, with whatever, or it did not.
    pub fn ended(&self, answered: bool) {
        if let Some(lane) = self.shared.lanes.lock().get_mut(&self.region) {
            lane.answers = answered;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(lane) = self.shared.lanes.lock().get_mut(&self.region) {
            lane.calls.end(Instant::now());
        }
        self.shared.changed.notify_one();
    }
}

// === impl Turns ===

impl Turns {
    /// Nobody waits.
    pub fn new(limit: NonZeroU32, shares: Shares) -> Self {
        Self { limit, shares, shared: Arc::default() }
    }

    /// The turn of an object, if it has come. Otherwise the object waits for it, once however often it asks, and is sent
    /// to `wake` then. It waits for one Region: where its spec names another one now, nothing takes the turn of the former.
    pub fn enter(&self, region: &str, uid: &str, object: &ObjectRef<DataKey>, wake: &Wake) -> Option<Turn> {
        let now = Instant::now();
        let mut lanes = self.shared.lanes.lock();
        let (limit, shares) = (self.limit, self.shares);
        if !lanes.contains_key(region) {
            lanes.insert(region.to_owned(), Lane::new(limit, now));
        }
        for (_, lane) in lanes.iter_mut().filter(|(of, _)| *of != region) {
            if lane.leave(uid) {
                self.shared.changed.notify_one();
            }
        }
        let taken = shares.taken(lanes.values().map(Lane::in_flight));
        // It was inserted where it was missing.
        let lane = lanes.get_mut(region)?;
        let granted = lane.granted.remove(uid).is_some();
        if granted || lane.waiting.is_empty() && lane.has_room(shares, taken, now) {
            lane.taken += 1;
            return Some(Turn { region: region.to_owned(), shared: Arc::clone(&self.shared) });
        }
        let ticket = Ticket { uid: uid.to_owned(), object: object.clone(), wake: wake.clone() };
        if lane.waiting.add(ticket) {
            self.shared.changed.notify_one();
        }
        None
    }

    /// Whether a turn of an object has come that it has not taken yet.
    pub fn is_granted(&self, uid: &str) -> bool {
        self.shared.lanes.lock().values().any(|lane| lane.granted.contains_key(uid))
    }

    /// An object is gone, or needs no turn (any more): where it waits or was granted one, that is somebody else's.
    pub fn leave(&self, uid: &str) {
        let mut left = false;
        for lane in self.shared.lanes.lock().values_mut() {
            left |= lane.leave(uid);
        }
        if left {
            self.shared.changed.notify_one();
        }
    }

    /// KMS throttled a call.
    pub fn throttled(&self, region: &str) {
        if let Some(lane) = self.shared.lanes.lock().get_mut(region) {
            lane.pace.slow_down(Instant::now());
        }
    }

    /// Whether objects wait for a Region, or calls there are in flight.
    pub fn is_busy(&self, region: &str) -> bool {
        self.shared.lanes.lock().get(region).is_some_and(|lane| !lane.waiting.is_empty() || lane.in_flight() > 0)
    }

    /// How many objects wait.
    pub fn waiting(&self) -> usize {
        self.shared.lanes.lock().values().map(|lane| lane.waiting.members.len()).sum()
    }

    /// Gives turns out, until it is dropped.
    pub async fn give_out(&self) {
        loop {
            let next = self.shared.grant(self.shares, Instant::now());
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Lets a call of somebody who has a turn go, or tells when it may be tried again.
    fn take(&self, region: &str, now: Instant) -> Result<(), Instant> {
        // As long as somebody has a turn in it, a lane is there.
        self.lanes.lock().get_mut(region).map_or(Ok(()), |lane| lane.take(now))
    }

    /// Grants what can be granted now; when to look again though nobody gave a turn back, if somebody has one.
    fn grant(&self, shares: Shares, now: Instant) -> Option<Instant> {
        let mut lanes = self.lanes.lock();
        for lane in lanes.values_mut() {
            lane.granted.retain(|_, since| now.saturating_duration_since(*since) < UNCLAIMED);
        }
        let mut taken = shares.taken(lanes.values().map(Lane::in_flight));
        for lane in lanes.values_mut() {
            lane.grant(shares, &mut taken, now);
        }
        lanes.retain(|_, lane| !lane.is_idle(now));
        lanes.values().flat_map(|lane| lane.granted.values()).min().map(|since| *since + UNCLAIMED)
    }
}

// === impl Lane ===

impl Lane {
    fn new(limit: NonZeroU32, now: Instant) -> Self {
        Self {
            pace: Pace::new(limit, now),
            calls: Calls::new(limit),
            waiting: Waiting::default(),
            granted: HashMap::new(),
            taken: 0,
            answers: false,
        }
    }

    /// An object neither waits nor has a turn any more; false if it did neither.
    fn leave(&mut self, uid: &str) -> bool {
        let was_granted = self.granted.remove(uid).is_some();
        self.waiting.remove(uid) || was_granted
    }

    /// Lets one call go, or tells when it may be tried again.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.calls.room(now)?;
        self.pace.take(now)?;
        self.calls.under_way += 1;
        Ok(())
    }

    /// The places of its share that are taken: by calls, and by those that are about to call.
    fn in_flight(&self) -> usize {
        self.granted.len() + self.taken + self.calls.under_way
    }

    /// Whether another turn may be given out.
    fn has_room(&self, shares: Shares, taken: Taken, now: Instant) -> bool {
        let (part, most) = AHEAD;
        // A part of a call is none, and nobody would ever have a turn.
        let ahead = (1..=most).rev().find(|ahead| f64::from(*ahead) <= self.pace.rate(now) * part).unwrap_or(1);
        self.granted.len() + self.taken < usize::from(ahead) && shares.permits(taken, self.in_flight(), self.answers)
    }

    fn grant(&mut self, shares: Shares, taken: &mut Taken, now: Instant) {
        while self.has_room(shares, *taken, now)
            && let Some(Ticket { uid, object, wake }) = self.waiting.next()
        {
            shares.take(taken, self.in_flight());
            self.granted.insert(uid, now);
            // Nobody listens any more only while the operator stops.
            let _ = wake.unbounded_send(object);
        }
    }

    /// Nothing to remember. A spec can name Regions that don't exist.
    fn is_idle(&self, now: Instant) -> bool {
        self.waiting.is_empty()
            && self.granted.is_empty()
            && self.taken == 0
            && self.calls.are_over(now)
            && self.pace.is_at_rest(now)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Adds an object behind those of its namespace; false if it waits already.
    fn add(&mut self, ticket: Ticket) -> bool {
        if !self.members.insert(ticket.uid.clone()) {
            return false;
        }
        let namespace = ticket.object.namespace.clone().unwrap_or_default();
        self.tickets.add(&namespace, ticket);
        true
    }

    /// The first of the namespace whose turn it is.
    fn next(&mut self) -> Option<Ticket> {
        self.tickets.next(|ticket| self.members.remove(&ticket.uid))
    }

    fn remove(&mut self, uid: &str) -> bool {
        self.members.remove(uid)
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

// === impl Calls ===

impl Calls {
    fn new(limit: NonZeroU32) -> Self {
        let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
        Self { limit, under_way: 0, ended: VecDeque::new() }
    }

    /// Whether there is room for another one, or when there may be.
    fn room(&mut self, now: Instant) -> Result<(), Instant> {
        while self.ended.pop_front_if(|ended| now.saturating_duration_since(*ended) >= SECOND).is_some() {}
        if self.under_way + self.ended.len() < self.limit {
            return Ok(());
        }
        // Where all of them are under way, none can be over sooner than in a second.
        Err(self.ended.front().map_or(now, |first| *first) + SECOND)
    }

    fn end(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.ended.push_back(now);
    }

    fn are_over(&self, now: Instant) -> bool {
        self.under_way == 0 && self.ended.iter().all(|ended| now.saturating_duration_since(*ended) >= SECOND)
    }
}

// === impl Pace ===

impl Pace {
    fn new(limit: NonZeroU32, now: Instant) -> Self {
        Self { limit: f64::from(limit.get()), slowed: None, used_until: now }
    }

    /// Calls a second at this time.
    fn rate(&self, now: Instant) -> f64 {
        let Some((rate, since)) = self.slowed else { return self.limit };
        let grown = now.saturating_duration_since(since).div_duration_f64(RECOVERY) * self.limit;
        (rate + grown).min(self.limit)
    }

    /// Lets one call go, or tells when the next one may.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let rate = self.rate(now);
        let interval = SECOND.div_f64(rate);
        match self.used_until.checked_duration_since(now + LATE) {
            Some(early) if !early.is_zero() => Err(now + early),
            _ => {
                self.used_until = self.used_until.max(now) + interval;
                Ok(())
            }
        }
    }

    fn slow_down(&mut self, now: Instant) {
        if self.slowed.is_none_or(|(_, since)| now.saturating_duration_since(since) >= SETTLE) {
            let rate = (self.rate(now) / 2.0).max(SLOWEST.min(self.limit));
            self.slowed = Some((rate, now));
        }
    }

    /// Whether it is as new.
    fn is_at_rest(&self, now: Instant) -> bool {
        self.rate(now) >= self.limit && self.used_until <= now
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, channel::mpsc};
    use tokio::{
        task::JoinSet,
        time::{advance, sleep},
    };

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn limit(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    fn object(namespace: &str, number: usize) -> (String, ObjectRef<DataKey>) {
        let name = format!("{namespace}-{number}");
        (name.clone(), ObjectRef::new(&name).within(namespace))
    }

    /// How many calls a pace lets go within a time.
    async fn let_go(pace: &mut Pace, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut calls = 0;
        while Instant::now() < end {
            while pace.take(Instant::now()).is_ok() {
                calls += 1;
            }
            advance(MILLI).await;
        }
        calls
    }

    /// When KMS gets the calls of 20 seconds, each so long on its way there and back.
    async fn arrivals(rate: u32, there: impl Fn() -> Duration, back: Duration) -> Vec<Instant> {
        let turns = Turns::new(limit(rate), Shares::UNLIMITED);
        let (wake, _woken) = mpsc::unbounded();
        let end = Instant::now() + Duration::from_secs(20);
        let mut calls = JoinSet::new();
        for number in 0.. {
            let (uid, object) = object("shop", number);
            let call = turns.enter("r", &uid, &object, &wake).unwrap().begin().await;
            if Instant::now() >= end {
                break;
            }
            let there = there();
            calls.spawn(async move {
                sleep(there).await;
                let arrived = Instant::now();
                sleep(back).await;
                drop(call);
                arrived
            });
        }
        let mut arrivals = calls.join_all().await;
        arrivals.sort_unstable();
        arrivals
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_used_and_in_no_second_kms_gets_more_calls() {
        for rate in [1, 5, 50, 100, 1000] {
            for (jitter, back, least) in [(2, MILLI, 97), (25, 5 * MILLI, 95), (400, MILLI, 70)] {
                let arrivals = arrivals(rate, || fastrand::u32(0..=jitter) * MILLI, back).await;
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
    async fn calls_that_kms_does_not_answer_keep_the_others_waiting() {
        let turns = Turns::new(limit(2), Shares::UNLIMITED);
        let call = async |number| {
            let (uid, object) = object("shop", number);
            turns.enter("r", &uid, &object, &mpsc::unbounded().0).unwrap().begin().await
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
    async fn calls_that_are_late_are_made_up_for() {
        let mut pace = Pace::new(limit(100), Instant::now());
        advance(Duration::from_hours(1)).await;
        let at_once = std::iter::repeat_with(|| pace.take(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 6);
        advance(Duration::from_millis(40)).await;
        let at_once = std::iter::repeat_with(|| pace.take(Instant::now())).take_while(Result::is_ok).count();
        assert_eq!(at_once, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_rate_once_a_second_and_it_grows_back() {
        let mut pace = Pace::new(limit(100), Instant::now());
        for _ in 0..9 {
            pace.slow_down(Instant::now());
        }
        let calls = let_go(&mut pace, SECOND).await;
        assert!((50..=54).contains(&calls), "{calls}");
        pace.slow_down(Instant::now());
        assert!((25.0..27.0).contains(&pace.rate(Instant::now())));
        advance(Duration::from_secs(20)).await;
        assert!((65.0..67.0).contains(&pace.rate(Instant::now())));
        advance(RECOVERY).await;
        assert!(pace.rate(Instant::now()) >= 100.0 && pace.is_at_rest(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_kms_throttles_it_is_asked_again() {
        let mut pace = Pace::new(limit(100), Instant::now());
        for _ in 0..30 {
            pace.slow_down(Instant::now());
            advance(SETTLE).await;
        }
        assert!(let_go(&mut pace, Duration::from_secs(4)).await > 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_nobody_is_before_has_its_turn_at_once() {
        let turns = Turns::new(limit(20), Shares::UNLIMITED);
        let (wake, _woken) = mpsc::unbounded();
        let enter_as = |region, number| {
            let (uid, object) = object("shop", number);
            turns.enter(region, &uid, &object, &wake)
        };
        let enter = |region| enter_as(region, 1);
        let (first, second) = (enter("eu-west-1").unwrap(), enter("eu-west-1").unwrap());
        let _third = enter("eu-west-1").unwrap();
        assert!(enter("eu-west-1").is_none(), "those of 0.16 seconds are given out ahead");
        assert!(enter_as("eu-north-1", 2).is_some(), "another Region has its own rate");
        assert_eq!(first.begin().await.region(), "eu-west-1");
        drop(second);
        assert!(turns.shared.grant(Shares::UNLIMITED, Instant::now()).is_some(), "the one that waits");
        assert!(enter("eu-west-1").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_turn_calls_when_the_rate_lets_it_however_many_have_one() {
        let turns = Turns::new(limit(100), Shares::UNLIMITED);
        let (wake, _woken) = mpsc::unbounded();
        let taken: Vec<_> = (0..50)
            .filter_map(|number| {
                let (uid, object) = object("shop", number);
                turns.enter("r", &uid, &object, &wake)
            })
            .collect();
        assert_eq!((taken.len(), turns.waiting()), (10, 40));
        // Whatever held them up, they don't call all at once.
        advance(Duration::from_secs(5)).await;
        let begun = Instant::now();
        futures::future::join_all(taken.into_iter().map(Turn::begin)).await;
        let took = begun.elapsed();
        assert!((Duration::from_millis(40)..Duration::from_millis(45)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_however_many_objects_each_has() {
        let turns = Turns::new(limit(10), Shares::UNLIMITED);
        let (wake, mut woken) = mpsc::unbounded();
        let enter = |namespace, number| {
            let (uid, object) = object(namespace, number);
            turns.enter("r", &uid, &object, &wake)
        };
        let first: Vec<_> = (0..1000).filter_map(|number| enter("flood", number)).collect();
        for namespace in ["shop", "bank"] {
            assert!(enter(namespace, 0).is_none());
            assert!(enter(namespace, 0).is_none(), "it waits once");
        }
        let begun = Instant::now();
        let work = async {
            for turn in first {
                turn.begin().await;
            }
            let mut order = Vec::new();
            while order.len() < 10 {
                let object = woken.next().await.unwrap();
                let namespace = object.namespace.clone().unwrap();
                let turn = turns.enter("r", &object.name, &object, &wake).unwrap();
                assert!(turns.enter("r", &object.name, &object, &wake).is_none(), "and takes it once");
                turns.leave(&object.name);
                turn.begin().await;
                order.push(namespace);
            }
            order
        };
        let order = tokio::select! {
            () = turns.give_out() => panic!("it ended"),
            order = work => order,
        };
        for namespace in ["shop", "bank"] {
            assert!(order.iter().take(5).any(|of| of == namespace), "{order:?}");
        }
        assert!(begun.elapsed() < Duration::from_millis(1300), "{:?}", begun.elapsed());
    }

    /// Takes turns in a Region until there is none left, and calls.
    async fn call_as_often_as_possible(turns: &Turns, region: &str, wake: &Wake) -> Vec<Call> {
        let mut calls = Vec::new();
        for number in 0..200 {
            let (uid, object) = object(region, number);
            if let Some(turn) = turns.enter(region, &uid, &object, wake) {
                calls.push(turn.begin().await);
            }
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn regions_that_hang_take_no_place_of_another_region() {
        let turns = Turns::new(limit(100), Shares::DEFAULT);
        let (wake, mut woken) = mpsc::unbounded();
        let mut hanging = Vec::new();
        for region in 0..48 {
            let calls = call_as_often_as_possible(&turns, &format!("hangs-{region}"), &wake).await;
            assert_eq!(calls.len(), 4);
            hanging.extend(calls);
        }
        let healthy = call_as_often_as_possible(&turns, "healthy", &wake).await;
        assert_eq!(healthy.len(), 4);
        for call in &healthy {
            call.ended(true);
        }
        drop(healthy);
        let begun = Instant::now();
        for served in 0..196 {
            turns.shared.grant(Shares::DEFAULT, Instant::now());
            let object = woken.try_recv().unwrap();
            assert_eq!(object.namespace.as_deref(), Some("healthy"), "{served}");
            let call = turns.enter("healthy", &object.name, &object, &wake).unwrap().begin().await;
            call.ended(true);
            drop(call);
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(hanging);
    }

    #[tokio::test(start_paused = true)]
    async fn a_region_that_answers_has_more_calls_in_flight() {
        let turns = Turns::new(limit(100), Shares::DEFAULT);
        let (wake, mut woken) = mpsc::unbounded();
        let mut calls = call_as_often_as_possible(&turns, "r", &wake).await;
        assert_eq!((calls.len(), turns.waiting()), (4, 196));
        let mut go_on = async |calls: &mut Vec<Call>| {
            loop {
                turns.shared.grant(Shares::DEFAULT, Instant::now());
                let Ok(object) = woken.try_recv() else { return calls.len() };
                calls.push(turns.enter("r", &object.name, &object, &wake).unwrap().begin().await);
            }
        };
        calls.pop().unwrap().ended(true);
        assert_eq!(go_on(&mut calls).await, 64);
        calls.pop().unwrap().ended(false);
        assert_eq!(go_on(&mut calls).await, 63, "it does not answer any more");
        calls.truncate(3);
        assert_eq!(go_on(&mut calls).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_is_passed_over_and_an_idle_region_is_forgotten() {
        let turns = Turns::new(limit(1), Shares::UNLIMITED);
        let (wake, mut woken) = mpsc::unbounded();
        let enter = |number| {
            let (uid, object) = object("shop", number);
            turns.enter("r", &uid, &object, &wake)
        };
        let turn = enter(0).unwrap();
        assert!(enter(1).is_none() && enter(2).is_none());
        turns.leave("shop-1");
        assert_eq!(turns.waiting(), 1);
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert!(woken.try_recv().is_err(), "one at a time, at this rate");
        drop(turn);
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert_eq!(woken.next().await, Some(object("shop", 2).1));
        advance(UNCLAIMED).await;
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert!(turns.shared.lanes.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_no_turn_any_more_leaves_the_granted_one_to_others() {
        let turns = Turns::new(limit(1), Shares::UNLIMITED);
        let (wake, mut woken) = mpsc::unbounded();
        let enter = |number| {
            let (uid, object) = object("shop", number);
            turns.enter("r", &uid, &object, &wake)
        };
        let turn = enter(0).unwrap();
        assert!(enter(1).is_none() && enter(2).is_none());
        drop(turn);
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert_eq!(woken.next().await, Some(object("shop", 1).1));
        turns.leave("shop-1");
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert_eq!(woken.next().await, Some(object("shop", 2).1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_waits_for_kms_in_one_region_only() {
        let turns = Turns::new(limit(1), Shares::UNLIMITED);
        let (wake, mut woken) = mpsc::unbounded();
        let enter = |region, number| {
            let (uid, object) = object("shop", number);
            turns.enter(region, &uid, &object, &wake)
        };
        let turns_taken = ["a", "b"].map(|region| enter(region, 0).unwrap());
        // One waits in the former Region, another one has a turn there.
        assert!([1, 2, 3].map(|number| enter("a", number)).iter().all(Option::is_none));
        assert!(enter("b", 1).is_none());
        assert_eq!(turns.waiting(), 3, "it waits once");
        drop(turns_taken);
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        let mut granted = [woken.next().await.unwrap(), woken.next().await.unwrap()];
        granted.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(granted, [object("shop", 1).1, object("shop", 2).1]);
        assert!(enter("b", 2).is_none());
        turns.shared.grant(Shares::UNLIMITED, Instant::now());
        assert_eq!(woken.next().await, Some(object("shop", 3).1));
    }
}
