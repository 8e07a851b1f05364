//! How many reconciles work at the same time, on the processor and at the API server; namespaces take turns. A reconcile that
//! waits for KMS does not work: a Region that does not answer must not keep the others from working.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::round::Round;

/// The slots of all reconciles.
#[derive(Clone)]
pub struct Slots(Arc<Mutex<State>>);

struct State {
    free: u16,
    is_closed: bool,
    waiting: Round<oneshot::Sender<Permit>>,
}

/// The slot of one reconcile. Dropped, it is another one's.
pub struct Slot {
    slots: Slots,
    namespace: String,
    permit: Option<Permit>,
}

struct Permit(Slots);

// === impl Slots ===

impl Slots {
    /// So many, all free.
    pub fn new(count: u16) -> Self {
        Self(Arc::new(Mutex::new(State { free: count, is_closed: false, waiting: Round::default() })))
    }

    /// Waits for a slot; `None` once no new work begins.
    pub async fn begin(&self, namespace: &str) -> Option<Slot> {
        let permit = self.acquire(namespace).await?;
        Some(Slot { slots: self.clone(), namespace: namespace.to_owned(), permit: Some(permit) })
    }

    /// From now on no new work begins, and what is running goes on without waiting for a slot.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.waiting = Round::default();
    }

    async fn acquire(&self, namespace: &str) -> Option<Permit> {
        let waits = {
            let mut state = self.lock();
            if state.is_closed {
                return None;
            }
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Some(Permit(self.clone()));
            }
            let (given, waits) = oneshot::channel();
            state.waiting.add(namespace, given);
            waits
        };
        waits.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere can't leave it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl Slot {
    /// Leaves the slot to others while this waits for something else, and takes one again then.
    pub async fn free_during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.permit = None;
        let result = wait.await;
        self.permit = self.slots.acquire(&self.namespace).await;
        result
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        match state.waiting.next(|next| !next.is_closed()) {
            Some(next) => {
                drop(state);
                // Where it waits no more, this comes back and is dropped again.
                let _ = next.send(Self(self.0.clone()));
            }
            None => state.free = state.free.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_free_while_its_reconcile_waits_for_kms() {
        let slots = Slots::new(1);
        let mut hanging = slots.begin("shop").await.unwrap();
        assert!(timeout(LONG, slots.begin("shop")).await.is_err(), "it is taken");
        let hangs = tokio::spawn(async move { hanging.free_during(pending::<()>()).await });
        assert!(timeout(LONG, slots.begin("shop")).await.is_ok());
        hangs.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_wait_a_reconcile_takes_a_slot_again() {
        let slots = Slots::new(1);
        let (answer, answered) = oneshot::channel::<()>();
        let mut waiting = slots.begin("shop").await.unwrap();
        let waits = tokio::spawn(async move {
            waiting.free_during(answered).await.unwrap();
            sleep(2 * LONG).await;
        });
        let other = slots.begin("shop").await.unwrap();
        answer.send(()).unwrap();
        sleep(LONG).await;
        drop(other);
        assert!(timeout(LONG, slots.begin("shop")).await.is_err(), "it is taken again");
        waits.await.unwrap();
        assert!(slots.begin("shop").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_at_the_slots() {
        let slots = Slots::new(1);
        let first = slots.begin("flood").await.unwrap();
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for namespace in std::iter::repeat_n("flood", 1000).chain(["shop"]) {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let _slot = slots.begin(namespace).await;
                order.send(namespace).unwrap();
            });
        }
        sleep(LONG).await;
        drop(first);
        let next = [served.recv().await, served.recv().await];
        assert_eq!(next, [Some("flood"), Some("shop")]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_slot_is_lost_with_a_reconcile_that_gives_up() {
        let slots = Slots::new(2);
        for _ in 0..10 {
            let taken = [slots.begin("a").await, slots.begin("a").await];
            let given_up: Vec<_> = (0..5).map(|_| Box::pin(slots.begin("b"))).collect();
            assert!(timeout(LONG, futures::future::join_all(given_up)).await.is_err());
            let mut late = Box::pin(slots.begin("c"));
            assert!(futures::poll!(late.as_mut()).is_pending());
            drop(taken);
            // It was given one, and never takes it.
            drop(late);
        }
        assert_eq!(slots.lock().free, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_stop_no_work_begins_and_what_runs_ends() {
        let slots = Slots::new(1);
        let mut running = slots.begin("shop").await.unwrap();
        let waits = tokio::spawn({
            let slots = slots.clone();
            async move { slots.begin("shop").await.is_some() }
        });
        sleep(LONG).await;
        slots.close();
        assert!(!waits.await.unwrap());
        assert!(slots.begin("shop").await.is_none());
        assert_eq!(timeout(LONG, running.free_during(async { 7 })).await, Ok(7));
    }
}
