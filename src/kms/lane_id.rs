//! Which lane of the queue a call takes.

use datakey::api::QuotaClass;

/// The Region of a call, and the quota that KMS counts it against there. All calls are made by the account of the operator, so the
/// account is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// The Region to call.
    pub region: String,
    /// The quota that the call counts against.
    pub class: QuotaClass,
}

// === impl LaneId ===

impl LaneId {
    /// The lane of a class in a Region.
    pub fn new(region: &str, class: QuotaClass) -> Self {
        Self { region: region.to_owned(), class }
    }
}
