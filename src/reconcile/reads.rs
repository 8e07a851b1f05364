//! How often Secrets are read to verify them, and `DataKey`s that are not in memory: other clients may change a label of every
//! Secret at once, or of one Secret all the time, and neither may cost the API server a read for each change.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::retry::RetryTable;
use crate::{
    kms::{
        queue::{Permit, RateQueue, Requeue},
        shares::Shares,
    },
    place::Place,
};

/// Reads a second, of all objects together; that of a `DataKey` and that of its Secret count as one. A kube-apiserver answers about 1,000 a second on two cores.
const RATE: NonZeroU32 = NonZeroU32::new(250).unwrap();

/// All reads share one lane.
const LANE: &str = "";

/// The reads of all objects. Namespaces are served in turn.
pub struct Reads {
    /// Objects that wait for their read.
    pub queue: RateQueue,
    retries: Arc<RetryTable>,
}

/// Whether a Secret may be read.
pub enum Permission {
    /// Now, within the rate.
    Granted(Permit),
    /// The object waits; it is queued again when it may read.
    Queued,
    /// The read must wait for this time, because the Secret was read very often recently.
    Later(Duration),
}

// === impl Reads ===

impl Reads {
    /// No reads yet. The table has how often each Secret was read lately.
    pub fn new(retries: Arc<RetryTable>) -> Self {
        Self { queue: RateQueue::new(RATE, Shares::DEFAULT), retries }
    }

    /// Asks for a read of the Secret of an object.
    pub fn request(&self, uid: &str, object: &Place, requeue: &Requeue) -> Permission {
        if let Some(wait) = self.retries.read_wait(uid) {
            return Permission::Later(wait);
        }
        self.acquire_or_enqueue(uid, object, requeue).map_or(Permission::Queued, Permission::Granted)
    }

    /// Asks for a read of an object; `None` if the object waits. It is queued again when it may be read.
    pub fn acquire_or_enqueue(&self, uid: &str, object: &Place, requeue: &Requeue) -> Option<Permit> {
        self.queue.acquire_or_enqueue(LANE, uid, object, requeue)
    }

    /// Records that the Secret was read.
    pub fn done(&self, uid: &str) {
        self.retries.secret_read(uid);
    }
}
