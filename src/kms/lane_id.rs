//! Which lane of the queue a call takes.

use datakey::api::QuotaClass;

/// The account that calls, the Region of the call, and the quota that KMS counts it against there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// The Region to call.
    pub region: String,
    /// The quota that the call counts against.
    pub class: QuotaClass,
    /// The account that calls, unless it is known to be that of the operator. KMS has quotas for each account. The last field, so
    /// that the lanes of a group follow each other.
    pub account: Option<String>,
}

// === impl LaneId ===

impl LaneId {
    /// The lane of the operator's own calls of a class in a Region.
    pub fn new(region: &str, class: QuotaClass) -> Self {
        Self { region: region.to_owned(), class, account: None }
    }

    /// Whether both are of the same quota in the same Region, of whatever account.
    pub fn is_of_the_group(&self, other: &Self) -> bool {
        (&self.region, self.class) == (&other.region, other.class)
    }

    /// This lane for calls of another account; `None`: the operator's own.
    #[must_use]
    pub fn of_account(self, account: Option<String>) -> Self {
        Self { account, ..self }
    }
}
