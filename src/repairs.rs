//! How often a Secret was put right lately: another writer that fights for it meets a bounded rate, not a storm.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{backoff::Waits, status::Class};

/// How many repairs in a row are made at once. A person with kubectl hardly makes more.
const AT_ONCE: u32 = 10;

/// The repairs of all objects, by uid. In memory: after a restart the first ones are made at once again.
pub struct Repairs {
    waits: Waits,
    objects: Mutex<HashMap<String, Row>>,
}

/// Repairs in a row.
struct Row {
    length: u32,
    last: Instant,
    /// When the next one may be made.
    not_before: Instant,
}

// === impl Repairs ===

impl Repairs {
    /// Nothing was repaired.
    pub fn new(waits: Waits) -> Self {
        Self { waits, objects: Mutex::default() }
    }

    /// How long the Secret of an object is still left alone.
    pub fn wait(&self, uid: &str) -> Option<Duration> {
        let now = Instant::now();
        let wait = self.lock().get(uid)?.not_before.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Takes in a repair. A row ends when the Secret was left in peace for twice the longest wait.
    pub fn repaired(&self, uid: &str) {
        let now = Instant::now();
        let mut objects = self.lock();
        let row = objects.entry(uid.to_owned()).or_insert(Row { length: 0, last: now, not_before: now });
        let in_peace = now.saturating_duration_since(row.last) >= 2 * self.waits.max;
        row.length = if in_peace { 1 } else { row.length.saturating_add(1) };
        row.last = now;
        row.not_before = match row.length.checked_sub(AT_ONCE) {
            Some(over @ 1..) => now + self.waits.after(Class::RetrySlowly, over),
            _ => now,
        };
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Row>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits { min: Duration::from_secs(1), max: Duration::from_mins(10) };

    #[tokio::test(start_paused = true)]
    async fn ten_repairs_are_made_at_once_and_then_ever_more_rarely() {
        let repairs = Repairs::new(WAITS);
        for _ in 0..10 {
            assert_eq!(repairs.wait("a"), None);
            repairs.repaired("a");
        }
        assert_eq!(repairs.wait("a"), None, "the tenth is no reason to wait");
        let begun = Instant::now();
        let mut more = 0;
        while begun.elapsed() < Duration::from_hours(1) {
            if let Some(wait) = repairs.wait("a") {
                tokio::time::advance(wait).await;
            }
            repairs.repaired("a");
            more += 1;
        }
        // 15 s, 30 s, ... 8 min, then every 10 min, give or take a quarter.
        assert!((9..=15).contains(&more), "{more} in an hour");
        assert_eq!(repairs.wait("b"), None, "another object");
    }

    #[tokio::test(start_paused = true)]
    async fn peace_ends_the_row() {
        let repairs = Repairs::new(WAITS);
        for _ in 0..12 {
            repairs.repaired("a");
        }
        assert!(repairs.wait("a").is_some());
        tokio::time::advance(2 * WAITS.max).await;
        repairs.repaired("a");
        assert_eq!(repairs.wait("a"), None);
    }
}
