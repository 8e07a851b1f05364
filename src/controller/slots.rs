//! How many reconciles work at the same time, on the processor and at the API server; namespaces take turns. A reconcile that
//! waits for KMS does not work: a Region that does not answer must not keep the others from working.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::round_robin::RoundRobin;

/// The slots of all reconciles.
#[derive(Clone)]
pub struct Slots(Arc<Mutex<Inner>>);

struct Inner {
    free: u16,
    is_closed: bool,
    waiting: RoundRobin<oneshot::Sender<HeldSlot>>,
}

/// The slot of one reconcile. Dropping it passes the slot on to another reconcile.
pub struct Slot {
    slots: Slots,
    namespace: String,
    permit: Option<HeldSlot>,
}

struct HeldSlot(Slots);

// === impl Slots ===

impl Slots {
    /// Creates this many slots, all of them free.
    pub fn new(count: u16) -> Self {
        Self(Arc::new(Mutex::new(Inner { free: count, is_closed: false, waiting: RoundRobin::default() })))
    }

    /// Waits for a slot; `None` once no new work begins. An object that was offered a permit goes before the others of its
    /// namespace: while it waits behind thousands of them, other namespaces cannot use the permit.
    pub async fn begin(&self, namespace: &str, has_offer: bool) -> Option<Slot> {
        let permit = self.acquire(namespace, has_offer).await?;
        Some(Slot { slots: self.clone(), namespace: namespace.to_owned(), permit: Some(permit) })
    }

    /// From now on no new work begins, and what is running goes on without waiting for a slot.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        state.waiting = RoundRobin::default();
    }

    async fn acquire(&self, namespace: &str, first: bool) -> Option<HeldSlot> {
        let waits = {
            let mut state = self.0.lock();
            if state.is_closed {
                return None;
            }
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Some(HeldSlot(self.clone()));
            }
            let (given, waits) = oneshot::channel();
            if first {
                state.waiting.add_first(namespace, given);
            } else {
                state.waiting.add(namespace, given);
            }
            waits
        };
        waits.await.ok()
    }
}

// === impl Slot ===

impl Slot {
    /// Frees the slot during `wait`, and waits for a slot again afterwards, before the others of its namespace because the
    /// reconcile can go on now.
    pub async fn free_during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.permit = None;
        let result = wait.await;
        self.permit = self.slots.acquire(&self.namespace, true).await;
        result
    }
}

// === impl HeldSlot ===

impl Drop for HeldSlot {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        match state.waiting.next(|next| !next.is_closed()) {
            Some(next) => {
                drop(state);
                // If the receiver is gone, `send` returns the slot, and dropping it passes it on again.
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
    async fn slot_is_free_while_its_reconcile_waits_for_kms() {
        let slots = Slots::new(1);
        let mut hanging = slots.begin("shop", false).await.unwrap();
        assert!(timeout(LONG, slots.begin("shop", false)).await.is_err(), "it is taken");
        let hangs = tokio::spawn(async move { hanging.free_during(pending::<()>()).await });
        assert!(timeout(LONG, slots.begin("shop", false)).await.is_ok());
        hangs.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn permit_holder_gets_a_slot_before_its_namespace() {
        let slots = Slots::new(1);
        let first = slots.begin("crowd", false).await.unwrap();
        let order: Arc<Mutex<Vec<&str>>> = Arc::default();
        let wait = |name: &'static str, namespace: &'static str, has_offer: bool| {
            let (slots, order) = (slots.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                let slot = slots.begin(namespace, has_offer).await.unwrap();
                order.lock().push(name);
                drop(slot);
            })
        };
        let mut waiting = Vec::new();
        for (name, namespace, has_offer) in
            [("one", "crowd", false), ("two", "crowd", false), ("shop", "shop", false), ("granted", "crowd", true)]
        {
            waiting.push(wait(name, namespace, has_offer));
            // It is in the queue before the next one.
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), ["granted", "shop", "one", "two"]);
    }

    #[tokio::test(start_paused = true)]
    async fn reconcile_takes_a_slot_again_after_its_wait() {
        let slots = Slots::new(1);
        let (answer, answered) = oneshot::channel::<()>();
        let mut waiting = slots.begin("shop", false).await.unwrap();
        let waits = tokio::spawn(async move {
            waiting.free_during(answered).await.unwrap();
            sleep(2 * LONG).await;
        });
        let other = slots.begin("shop", false).await.unwrap();
        answer.send(()).unwrap();
        sleep(LONG).await;
        drop(other);
        assert!(timeout(LONG, slots.begin("shop", false)).await.is_err(), "it is taken again");
        waits.await.unwrap();
        assert!(slots.begin("shop", false).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_given_to_namespaces_round_robin() {
        let slots = Slots::new(1);
        let first = slots.begin("flood", false).await.unwrap();
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for namespace in std::iter::repeat_n("flood", 1000).chain(["shop"]) {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let _slot = slots.begin(namespace, false).await;
                order.send(namespace).unwrap();
            });
        }
        sleep(LONG).await;
        drop(first);
        let next = [served.recv().await, served.recv().await];
        assert_eq!(next, [Some("flood"), Some("shop")]);
    }

    #[tokio::test(start_paused = true)]
    async fn canceled_reconcile_returns_its_slot() {
        let slots = Slots::new(2);
        for _ in 0..10 {
            let taken = [slots.begin("a", false).await, slots.begin("a", false).await];
            let given_up: Vec<_> = (0..5).map(|_| Box::pin(slots.begin("b", false))).collect();
            assert!(timeout(LONG, futures::future::join_all(given_up)).await.is_err());
            let mut late = Box::pin(slots.begin("c", false));
            assert!(futures::poll!(late.as_mut()).is_pending());
            drop(taken);
            // It was given one, and never takes it.
            drop(late);
        }
        assert_eq!(slots.0.lock().free, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_running_work_and_starts_none() {
        let slots = Slots::new(1);
        let mut running = slots.begin("shop", false).await.unwrap();
        let waits = tokio::spawn({
            let slots = slots.clone();
            async move { slots.begin("shop", false).await.is_some() }
        });
        sleep(LONG).await;
        slots.close();
        assert!(!waits.await.unwrap());
        assert!(slots.begin("shop", false).await.is_none());
        assert_eq!(timeout(LONG, running.free_during(async { 7 })).await, Ok(7));
    }
}
