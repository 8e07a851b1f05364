//! The sessions in memory. One call of STS at a time opens a session, for all objects that wait for it.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use aws_credential_types::Credentials;
use datakey::class::Role;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Duration, Instant},
};

use crate::kms::errors::KmsFailure;

/// How long a session lasts. STS allows no more to a role that another role assumes (IAM User Guide, "Role chaining").
pub const SESSION_LENGTH: Duration = Duration::from_hours(1);

/// The part of a session in which it is not used any more: a call that begins then could end after the session.
const MARGIN: Duration = Duration::from_mins(1);

/// How long an unused session is kept. With the length of a session, this bounds the calls of STS for it: two in an hour, however it
/// is used.
const IDLE_TIMEOUT: Duration = Duration::from_mins(30);

/// How long the first refusal of STS counts for all objects that need the session. Each further one counts twice as long.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The longest time that a refusal counts.
pub const MAX_REFUSED_FOR: Duration = Duration::from_mins(2);

/// How long STS is not asked after it did not answer.
const AWAY_FOR: Duration = Duration::from_secs(5);

/// KMS rejects a session that is younger than this for a reason that has nothing to do with its age, and would reject the next one,
/// too. A tenant can cause that: AWS knows no credentials in a Region that the account has not enabled.
const YOUNG: Duration = Duration::from_mins(5);

/// The most calls of STS at the same time.
const MAX_CALLS: usize = 8;

/// Whose session it is. The role is part of it, because a class can have another role in a state of the same number: after etcd was
/// restored, or under another definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// `metadata.uid` of the class.
    pub class_uid: String,
    /// `metadata.generation` of the class.
    pub class_generation: i64,
    /// `metadata.uid` of the namespace.
    pub namespace_uid: String,
    role_arn: String,
    external_id: Option<String>,
    tags: BTreeMap<String, String>,
}

/// An open session.
pub struct Opened {
    /// Its credentials.
    pub credentials: Credentials,
    since: Instant,
    usable_until: Instant,
}

/// The sessions of all roles.
pub struct Sessions {
    entries: Mutex<LruCache<SessionKey, Entry>>,
    calls: Semaphore,
    sts: Mutex<Sts>,
}

/// Whether STS answers.
#[derive(Default)]
struct Sts {
    /// What the last call met, if it was not answered.
    unanswered: Option<(KmsFailure, Instant)>,
}

struct Entry {
    used: Instant,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Held by the one who calls STS.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    known: Known,
    /// The number of refusals in a row.
    refusals: u32,
}

#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Open(Arc<Opened>),
    Refused {
        failure: KmsFailure,
        until: Instant,
    },
}

// === impl SessionKey ===

impl SessionKey {
    /// The key of the sessions of a role in a namespace, by the uid of the namespace.
    pub fn new(role: &Role, namespace_uid: &str) -> Self {
        Self {
            class_uid: role.class.uid.clone(),
            class_generation: role.class.generation,
            namespace_uid: namespace_uid.to_owned(),
            role_arn: role.arn.clone(),
            external_id: role.external_id.clone(),
            tags: role.tags.clone(),
        }
    }
}

// === impl Opened ===

impl Opened {
    /// A session that STS opened `now` and that ends after `length`. Where that is too short, the clock of this machine is wrong, and
    /// the session is used for a minute nevertheless.
    pub fn new(credentials: Credentials, length: Duration, now: Instant) -> Self {
        let usable = length.min(SESSION_LENGTH).saturating_sub(MARGIN).max(MARGIN);
        Self { credentials, since: now, usable_until: now + usable }
    }

    /// Whether a call may begin with it.
    pub fn is_usable(&self, now: Instant) -> bool {
        now < self.usable_until
    }
}

// === impl Sessions ===

impl Sessions {
    /// Keeps at most this many sessions: the one that was used longest ago gives way.
    pub fn new(most: NonZeroUsize) -> Self {
        Self { entries: Mutex::new(LruCache::new(most)), calls: Semaphore::new(MAX_CALLS), sts: Mutex::default() }
    }

    /// The open session, or why STS has just refused it or not answered; `None` if STS must be asked.
    pub fn known(&self, key: &SessionKey, now: Instant) -> Option<Result<Arc<Opened>, KmsFailure>> {
        let slot = {
            let mut entries = self.entries.lock();
            entries.get_mut(key).map(|entry| {
                entry.used = now;
                Arc::clone(&entry.slot)
            })
        };
        slot.and_then(|slot| slot.known(now)).or_else(|| self.away(now).map(Err))
    }

    /// The open session, or why there is none. Asks STS by `call` where nothing is known.
    ///
    /// # Errors
    /// What `call` failed with: for this object, for another one of the same session, or for any other one if STS did not answer.
    pub async fn open(
        &self,
        key: &SessionKey,
        call: impl AsyncFnOnce() -> Result<Opened, KmsFailure>,
    ) -> Result<Arc<Opened>, KmsFailure> {
        let slot = self.slot(key, Instant::now());
        let _opening = slot.opening.lock().await;
        // Another object may have waited for the same.
        if let Some(known) = slot.known(Instant::now()) {
            return known;
        }
        // The semaphore is never closed.
        let _call = self.calls.acquire().await;
        // Those that waited behind calls without an answer do not wait for as long again.
        if let Some(away) = self.away(Instant::now()) {
            return Err(away);
        }
        let result = call().await.map(Arc::new);
        let now = Instant::now();
        let unanswered = result.as_ref().err().filter(|failure| is_unanswered(failure));
        self.sts.lock().unanswered = unanswered.map(|failure| (failure.clone(), now + AWAY_FOR));
        if unanswered.is_none() {
            slot.learn(&result, now);
        }
        result
    }

    /// Whether the last call of STS was answered.
    pub fn is_answering(&self) -> bool {
        self.sts.lock().unanswered.is_none()
    }

    /// KMS rejected the credentials of a session. `is_expired`: it says that they have expired.
    pub fn reject(&self, key: &SessionKey, rejected: &Arc<Opened>, is_expired: bool, now: Instant) {
        let age = now.saturating_duration_since(rejected.since);
        let Some(slot) = self.entries.lock().peek(key).map(|entry| Arc::clone(&entry.slot)) else { return };
        if age < REFUSED_FOR || age < YOUNG && !is_expired {
            return;
        }
        let mut state = slot.state.lock();
        if matches!(&state.known, Known::Open(open) if Arc::ptr_eq(open, rejected)) {
            state.known = Known::Nothing;
        }
    }

    /// Drops the sessions that have ended, and those that were not used for [`IDLE_TIMEOUT`].
    pub fn drop_idle(&self, now: Instant) {
        let mut entries = self.entries.lock();
        let is_idle =
            |entry: &Entry| now.saturating_duration_since(entry.used) >= IDLE_TIMEOUT || entry.slot.is_over(now);
        let idle: Vec<_> = entries.iter().filter(|(_, entry)| is_idle(entry)).map(|(key, _)| key.clone()).collect();
        for key in idle {
            entries.pop(&key);
        }
    }

    /// The number of sessions that are open.
    pub fn count(&self) -> usize {
        let now = Instant::now();
        let is_open = |entry: &Entry| matches!(entry.slot.known(now), Some(Ok(_)));
        self.entries.lock().iter().filter(|(_, entry)| is_open(entry)).count()
    }

    /// Why STS is not asked for the moment.
    fn away(&self, now: Instant) -> Option<KmsFailure> {
        let sts = self.sts.lock();
        sts.unanswered.as_ref().filter(|(_, until)| now < *until).map(|(failure, _)| failure.clone())
    }

    fn slot(&self, key: &SessionKey, now: Instant) -> Arc<Slot> {
        let mut entries = self.entries.lock();
        let entry = entries.get_or_insert_mut(key.clone(), || Entry { used: now, slot: Arc::default() });
        entry.used = now;
        Arc::clone(&entry.slot)
    }
}

/// Whether STS gave no answer at all: then it gives none for any other role either.
fn is_unanswered(failure: &KmsFailure) -> bool {
    matches!(failure.known_code, "Timeout" | "Unreachable")
}

// === impl Slot ===

impl Slot {
    fn known(&self, now: Instant) -> Option<Result<Arc<Opened>, KmsFailure>> {
        match &self.state.lock().known {
            Known::Open(opened) if opened.is_usable(now) => Some(Ok(Arc::clone(opened))),
            Known::Refused { failure, until } if now < *until => Some(Err(failure.clone())),
            Known::Nothing | Known::Open(_) | Known::Refused { .. } => None,
        }
    }

    fn learn(&self, result: &Result<Arc<Opened>, KmsFailure>, now: Instant) {
        let mut state = self.state.lock();
        *state = match result {
            Ok(opened) => State { known: Known::Open(Arc::clone(opened)), refusals: 0 },
            Err(failure) => {
                let hold = REFUSED_FOR.saturating_mul(2_u32.saturating_pow(state.refusals)).min(MAX_REFUSED_FOR);
                let known = Known::Refused { failure: failure.clone(), until: now + hold };
                State { known, refusals: state.refusals.saturating_add(1) }
            }
        };
    }

    /// Whether nothing is known of it that counts, it was not refused, and no call is under way.
    fn is_over(&self, now: Instant) -> bool {
        self.known(now).is_none() && self.state.lock().refusals == 0 && self.opening.try_lock().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use datakey::{
        api::{ClassRef, Rest},
        reason::{Failure, Reason},
    };
    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const MOST: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn key(number: usize) -> SessionKey {
        SessionKey::new(&role("shop"), &number.to_string())
    }

    fn role(name: &str) -> Role {
        Role {
            arn: format!("arn:aws:iam::444455556666:role/{name}"),
            external_id: None,
            tags: BTreeMap::new(),
            namespace: "shop".to_owned(),
            class: ClassRef { name: "team".to_owned(), uid: "class".to_owned(), generation: 1, rest: Rest::new() },
        }
    }

    fn denied() -> KmsFailure {
        KmsFailure::not_called(Failure::new(Reason::CredentialsRejected, "denied"))
    }

    /// Calls of STS that are counted, each of which takes a second.
    #[derive(Default)]
    struct Counted {
        calls: AtomicUsize,
        refuses: std::sync::atomic::AtomicBool,
    }

    impl Counted {
        async fn open(&self, sessions: &Sessions, number: usize) -> Result<Arc<Opened>, KmsFailure> {
            let call = async || {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                if self.refuses.load(Ordering::Relaxed) {
                    return Err(denied());
                }
                let credentials = Credentials::new(format!("ASIA{call}"), "secret", None, None, "test");
                Ok(Opened::new(credentials, SESSION_LENGTH, Instant::now()))
            };
            match sessions.known(&key(number), Instant::now()) {
                Some(known) => known,
                None => sessions.open(&key(number), call).await,
            }
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn objects_that_wait_for_a_session_cost_one_call() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        let all = join_all((0..100).map(|_| sts.open(&sessions, 1))).await;
        let ids: std::collections::BTreeSet<_> =
            all.iter().map(|opened| opened.as_ref().ok().unwrap().credentials.access_key_id().to_owned()).collect();
        assert_eq!((sts.calls(), ids.len(), sessions.count()), (1, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn session_costs_at_most_two_calls_an_hour() {
        // Used without a pause, and at every interval that could miss the session each time.
        for pause in [1, 29 * 60, 30 * 60, 31 * 60, 59 * 60] {
            let (sessions, sts) = (Sessions::new(MOST), Counted::default());
            let begun = Instant::now();
            let mut calls_at = Vec::new();
            while begun.elapsed() < Duration::from_hours(5) {
                let before = sts.calls();
                sts.open(&sessions, 1).await.ok().unwrap();
                if sts.calls() > before {
                    calls_at.push(begun.elapsed());
                }
                advance(Duration::from_secs(pause)).await;
                sessions.drop_idle(Instant::now());
            }
            for window in calls_at.windows(3) {
                assert!(window[2] > window[0] + Duration::from_secs(3_500), "{pause}: {calls_at:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn session_is_not_used_in_its_last_minute() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        let first = sts.open(&sessions, 1).await.ok().unwrap();
        advance(Duration::from_mins(59) - Duration::from_secs(1)).await;
        assert!(Arc::ptr_eq(&first, &sts.open(&sessions, 1).await.ok().unwrap()));
        advance(Duration::from_secs(1)).await;
        assert!(!Arc::ptr_eq(&first, &sts.open(&sessions, 1).await.ok().unwrap()));
        // An end that the clock of this machine puts into the past.
        assert!(Opened::new(first.credentials.clone(), Duration::ZERO, Instant::now()).is_usable(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_counts_for_all_objects_for_a_while() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        sts.refuses.store(true, Ordering::Relaxed);
        let all = join_all((0..100).map(|_| sts.open(&sessions, 1))).await;
        assert!(all.iter().all(Result::is_err) && sts.calls() == 1);
        advance(REFUSED_FOR / 2).await;
        assert!(sts.open(&sessions, 1).await.is_err() && sts.calls() == 1);
        sts.refuses.store(false, Ordering::Relaxed);
        advance(REFUSED_FOR / 2).await;
        assert!(sts.open(&sessions, 1).await.is_ok() && sts.calls() == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn further_refusals_count_longer() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        sts.refuses.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_hours(1) {
            assert!(sts.open(&sessions, 1).await.is_err());
            advance(Duration::from_secs(1)).await;
            sessions.drop_idle(Instant::now());
        }
        assert!((30..=40).contains(&sts.calls()), "{}", sts.calls());
        sts.refuses.store(false, Ordering::Relaxed);
        advance(MAX_REFUSED_FOR).await;
        assert!(sts.open(&sessions, 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_session_is_opened_again_but_not_at_once() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        let first = sts.open(&sessions, 1).await.ok().unwrap();
        let reject = |opened: &Arc<Opened>| sessions.reject(&key(1), opened, true, Instant::now());
        advance(REFUSED_FOR).await;
        reject(&first);
        let second = sts.open(&sessions, 1).await.ok().unwrap();
        assert!(!Arc::ptr_eq(&first, &second) && sts.calls() == 2);
        // The answer to a call with the earlier one.
        reject(&first);
        reject(&second);
        assert!(Arc::ptr_eq(&second, &sts.open(&sessions, 1).await.ok().unwrap()), "another would be rejected, too");
    }

    #[tokio::test(start_paused = true)]
    async fn rejection_of_one_object_leaves_the_session_to_the_others() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        let opened = sts.open(&sessions, 1).await.ok().unwrap();
        // KMS answers so in a Region that the account has not enabled. Any tenant can name one in spec.region.
        for _ in 0..20 {
            sessions.reject(&key(1), &opened, false, Instant::now());
            advance(Duration::from_secs(14)).await;
            assert!(Arc::ptr_eq(&opened, &sts.open(&sessions, 1).await.ok().unwrap()));
        }
        advance(YOUNG).await;
        sessions.reject(&key(1), &opened, false, Instant::now());
        assert!(sts.open(&sessions, 1).await.is_ok() && sts.calls() == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_sessions_is_bounded_and_unused_ones_are_dropped() {
        let (sessions, sts) = (Sessions::new(MOST), Counted::default());
        for number in 0..10 {
            sts.open(&sessions, number).await.ok().unwrap();
        }
        assert_eq!((sts.calls(), sessions.count()), (10, MOST.get()));
        sts.open(&sessions, 9).await.ok().unwrap();
        assert_eq!(sts.calls(), 10);
        advance(IDLE_TIMEOUT).await;
        sessions.drop_idle(Instant::now());
        assert!(sessions.entries.lock().is_empty());
    }

    #[test]
    fn nothing_that_is_created_again_finds_an_old_session() {
        let again = SessionKey { class_uid: "again".to_owned(), ..key(1) };
        // After a restore of etcd, the same uid and generation can have another role.
        let other = SessionKey::new(&role("bank"), "1");
        let mut tagged = role("shop");
        tagged.tags = [("team".to_owned(), "shop".to_owned())].into();
        let mut foreign = role("shop");
        foreign.external_id = Some("id".to_owned());
        let [tagged, foreign] = [tagged, foreign].map(|role| SessionKey::new(&role, "1"));
        let next = SessionKey { class_generation: 2, ..key(1) };
        let all: std::collections::HashSet<_> = [key(1), key(2), next, again, other, tagged, foreign].into();
        assert_eq!(all.len(), 7);
    }

    /// Objects that wait for permits, each of a namespace of its own: the rounds of `reconcile` around a session, with the real queue.
    /// Returns the keys that were issued and the calls of STS.
    async fn bulk(namespaces: usize, keys: usize, most: usize, rate: &str, limit: Duration) -> (usize, usize) {
        use datakey::api::{KindId, QuotaClass};
        use futures::{StreamExt as _, channel::mpsc, stream::FuturesUnordered};

        use crate::{
            kms::{
                lane_id::LaneId,
                queue::RateQueue,
                rates::{Rate, Rates},
                shares::Shares,
            },
            place::Place,
        };

        let queue = RateQueue::new(Rates::new(Rate::parse(rate).unwrap(), []), Shares::DEFAULT);
        let (sessions, sts) = (Sessions::new(NonZeroUsize::new(most).unwrap()), Counted::default());
        let lane = LaneId::new("eu-west-1", QuotaClass::Symmetric);
        let (requeue, mut requeued) = mpsc::unbounded();
        let issued = AtomicUsize::new(0);
        let reconcile = async |place: Place| {
            let number: usize = place.namespace().parse().unwrap();
            let acquire = || queue.acquire_or_enqueue(&lane, place.name(), &place, &requeue);
            let Some(permit) = acquire() else { return };
            let mut permit = Some(permit);
            // The uid of the namespace.
            sleep(Duration::from_millis(5)).await;
            if sessions.known(&key(number), Instant::now()).is_none() {
                if !sessions.is_answering() {
                    permit = None;
                }
                let call = async || {
                    sts.calls.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(30)).await;
                    Ok(Opened::new(
                        Credentials::new("ASIA", "secret", None, None, "test"),
                        SESSION_LENGTH,
                        Instant::now(),
                    ))
                };
                sessions.open(&key(number), call).await.ok().unwrap();
                if permit.is_none() {
                    permit = acquire();
                }
            }
            let Some(permit) = permit else { return };
            let call = permit.start_call().await;
            sleep(Duration::from_millis(20)).await;
            call.complete(true);
            issued.fetch_add(1, Ordering::Relaxed);
        };
        for number in 0..namespaces * keys {
            let place = Place::new(KindId::DataKey, &(number % namespaces).to_string(), &format!("k{number}"));
            requeue.unbounded_send(place).unwrap();
        }
        let work = async {
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(place) = requeued.next() => running.push(reconcile(place)),
                    Some(()) = running.next(), if !running.is_empty() => {}
                }
                if issued.load(Ordering::Relaxed) == namespaces * keys {
                    return;
                }
            }
        };
        tokio::select! {
            () = queue.run() => {}
            () = work => {}
            () = sleep(limit) => {}
        }
        (issued.load(Ordering::Relaxed), sts.calls())
    }

    #[tokio::test(start_paused = true)]
    async fn more_namespaces_than_sessions_cost_one_call_for_each_key() {
        for (namespaces, keys, rate, most_calls) in
            [(900, 2, "50", 900), (1100, 3, "10", 3300), (1100, 10, "25", 11_000), (2000, 3, "100", 6000)]
        {
            let (issued, calls) = bulk(namespaces, keys, 1024, rate, Duration::from_mins(20)).await;
            assert_eq!(issued, namespaces * keys);
            assert!(calls <= most_calls, "{namespaces} x {keys} at {rate}/s: {calls}");
        }
    }

    /// STS hangs, and the objects of many namespaces wait for it, eight at a time. One that came last learns it after all others.
    #[tokio::test(start_paused = true)]
    async fn hanging_sts_fails_each_object_within_two_time_limits() {
        const LIMIT: Duration = Duration::from_secs(10);
        let sessions = Sessions::new(NonZeroUsize::new(1024).unwrap());
        let begun = Instant::now();
        let all = join_all((0..400).map(|number| {
            let sessions = &sessions;
            async move {
                let hangs = async || {
                    sleep(LIMIT).await;
                    let failure = KmsFailure::not_called(Failure::new(Reason::KmsTimeout, "slow"));
                    Err(KmsFailure { known_code: "Timeout", ..failure })
                };
                let opened = sessions.open(&key(number), hangs).await;
                assert!(opened.is_err());
                begun.elapsed()
            }
        }));
        let longest = all.await.into_iter().max().unwrap();
        assert!(longest <= 2 * LIMIT, "{longest:?}");
    }
}
