//! How often something was done for an object in a row: a client that fights for a Secret meets a bounded rate, not a storm.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::retry::RetryBounds;
use datakey::reason::RetryPolicy;

/// How many restores of a row are done at once. A person with kubectl hardly makes more.
const RESTORES: u32 = 10;

/// How many reads of a row are done at once: more than restores, which need one each and are bounded by themselves.
const READS: u32 = 20;

/// How often a Secret is read while other clients keep changing it.
const READ_EVERY: Duration = Duration::from_secs(10);

/// How many rows are kept before those that ended are dropped.
const SWEEP_FROM: usize = 1024;

/// The delay of the next of a row, by how many were done beyond those that are done at once.
type Delay = Box<dyn Fn(u32) -> Duration + Send + Sync>;

/// Rows of all objects, by uid. In memory: after a restart the first ones are done at once again.
pub struct Streaks {
    at_once: u32,
    delay: Delay,
    /// A row ends after this time without another one.
    pause: Duration,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    rows: HashMap<String, Row>,
    sweep_at: usize,
}

struct Row {
    length: u32,
    last: Instant,
    /// When the next one may be done.
    not_before: Instant,
    /// What it was about.
    detail: String,
}

// === impl Streaks ===

impl Streaks {
    /// Restores of Secrets: at once first, then from 15 times the shortest wait up to the longest one.
    pub fn of_restores(bounds: RetryBounds) -> Self {
        Self::new(RESTORES, Box::new(move |over| bounds.delay(RetryPolicy::RetrySlowly, over)), 2 * bounds.max)
    }

    /// Reads of Secrets that other clients changed.
    pub fn of_reads() -> Self {
        Self::new(READS, Box::new(|_| READ_EVERY), 2 * READ_EVERY)
    }

    fn new(at_once: u32, delay: Delay, pause: Duration) -> Self {
        Self { at_once, delay, pause, objects: Mutex::default() }
    }

    /// How long the next one of an object still has to wait.
    pub fn wait(&self, uid: &str) -> Option<Duration> {
        let wait = self.objects.lock().rows.get(uid)?.not_before.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then_some(wait)
    }

    /// What the last one was about, while the next one has to wait.
    pub fn waiting_after(&self, uid: &str) -> Option<String> {
        let objects = self.objects.lock();
        let row = objects.rows.get(uid)?;
        (row.not_before > Instant::now()).then(|| row.detail.clone())
    }

    /// Takes in that one was done, and what it was about.
    pub fn done(&self, uid: &str, detail: impl Into<String>) {
        let now = Instant::now();
        let mut objects = self.objects.lock();
        if objects.rows.len() >= objects.sweep_at.max(SWEEP_FROM) {
            objects.rows.retain(|_, row| !row.has_ended(now, self.pause));
            objects.sweep_at = 2 * objects.rows.len();
        }
        let row = objects.rows.entry(uid.to_owned()).or_insert_with(|| Row::new(now));
        row.length = if row.has_ended(now, self.pause) { 1 } else { row.length.saturating_add(1) };
        row.last = now;
        row.detail = detail.into();
        row.not_before = match row.length.checked_sub(self.at_once) {
            Some(over @ 1..) => now + (self.delay)(over),
            _ => now,
        };
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.objects.lock().rows.remove(uid);
    }
}

// === impl Row ===

impl Row {
    fn new(now: Instant) -> Self {
        Self { length: 0, last: now, not_before: now, detail: String::new() }
    }

    fn has_ended(&self, now: Instant, pause: Duration) -> bool {
        now.saturating_duration_since(self.last) >= pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RetryBounds = RetryBounds { min: Duration::from_secs(1), max: Duration::from_mins(10) };

    #[tokio::test(start_paused = true)]
    async fn ten_restores_are_done_at_once_and_then_ever_fewer() {
        let restores = Streaks::of_restores(BOUNDS);
        for _ in 0..10 {
            assert_eq!(restores.wait("a"), None);
            restores.done("a", "");
        }
        assert_eq!(restores.wait("a"), None, "the tenth is no reason to wait");
        let begun = Instant::now();
        let mut more = 0;
        while begun.elapsed() < Duration::from_hours(1) {
            if let Some(wait) = restores.wait("a") {
                tokio::time::advance(wait).await;
            }
            restores.done("a", "");
            more += 1;
        }
        // 15 s, 30 s, ... 8 min, then every 10 min, give or take a quarter.
        assert!((9..=15).contains(&more), "{more} in an hour");
        assert_eq!(restores.wait("b"), None, "another object");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_the_row() {
        let restores = Streaks::of_restores(BOUNDS);
        for _ in 0..12 {
            restores.done("a", "entry keyId was changed");
        }
        assert!(restores.wait("a").is_some());
        assert_eq!(restores.waiting_after("a").as_deref(), Some("entry keyId was changed"));
        tokio::time::advance(2 * BOUNDS.max).await;
        restores.done("a", "");
        assert_eq!((restores.wait("a"), restores.waiting_after("a")), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_keeps_changing_is_read_every_ten_seconds() {
        let reads = Streaks::of_reads();
        for _ in 0..READS {
            reads.done("a", "");
        }
        for _ in 0..6 {
            reads.done("a", "");
            assert_eq!(reads.wait("a"), Some(READ_EVERY));
            tokio::time::advance(READ_EVERY).await;
        }
        assert_eq!(reads.wait("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_ended_are_dropped() {
        let reads = Streaks::of_reads();
        for number in 0..SWEEP_FROM {
            reads.done(&number.to_string(), "");
        }
        tokio::time::advance(3 * READ_EVERY).await;
        reads.done("one more", "");
        assert_eq!(reads.objects.lock().rows.len(), 1);
    }
}
