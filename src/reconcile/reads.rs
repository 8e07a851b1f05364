//! How often Secrets are read to verify them, and objects that are not in memory: other clients may change a label of every
//! Secret at once, or of one Secret all the time, and neither may cost the API server a read for each change.

use std::num::NonZeroU64;

use datakey::api::QuotaClass;

use crate::{
    kms::{
        lane_id::LaneId,
        queue::{Permit, RateQueue, Requeue},
        rates::{Rate, Rates},
        shares::Shares,
    },
    place::Place,
};

/// Reads a second, of all objects together; that of an object and that of its Secret count as one. A kube-apiserver answers about
/// 1,000 a second on two cores.
const RATE: Rate = Rate::new(NonZeroU64::new(250).unwrap());

/// All reads share one lane, which is none of KMS.
const LANE: LaneId = LaneId { region: String::new(), class: QuotaClass::Symmetric, account: None };

/// The reads of all objects. Namespaces are served in turn.
pub struct Reads {
    /// Objects that wait for their read.
    pub queue: RateQueue,
}

// === impl Reads ===

impl Default for Reads {
    /// No reads yet.
    fn default() -> Self {
        Self { queue: RateQueue::new(Rates::new(RATE, []), Shares::DEFAULT) }
    }
}

impl Reads {
    /// Asks for a read of an object; `None` if the object waits. It is queued again when it may be read.
    pub fn acquire_or_enqueue(&self, uid: &str, object: &Place, requeue: &Requeue) -> Option<Permit> {
        self.queue.acquire_or_enqueue(&LANE, uid, object, requeue)
    }
}
