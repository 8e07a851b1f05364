//! The status of a class.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::Class;
use crate::api::{ACCEPTED, DataKeyClassStatus, truncate_to_seconds};

/// The status that a class must have, for this number of objects that use it; `old` is the present one.
pub fn wanted_status(class: &Class, in_use: i64, old: &DataKeyClassStatus, now: Timestamp) -> DataKeyClassStatus {
    let (status, reason, message) = match class.flaw() {
        None => ("True", ACCEPTED, "the class can be used".to_owned()),
        Some(flaw) => ("False", "Invalid", format!("the class allows nothing: {flaw}")),
    };
    let same = old.conditions.iter().flatten().find(|old| old.type_ == ACCEPTED && old.status == status);
    let accepted = Condition {
        type_: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        // Kubernetes API conventions: the time is that of the last change of `status`, not of the last write.
        last_transition_time: same.map_or_else(|| truncate_to_seconds(now), |old| old.last_transition_time.clone()),
        observed_generation: Some(class.generation),
    };
    // Their order stays: otherwise a condition of another client before this one would make each status differ from the stored one.
    let mut conditions = old.conditions.clone().unwrap_or_default();
    match conditions.iter_mut().find(|condition| condition.type_ == ACCEPTED) {
        Some(old) => *old = accepted,
        None => conditions.push(accepted),
    }
    DataKeyClassStatus {
        observed_generation: Some(class.generation),
        conditions: Some(conditions),
        in_use: Some(in_use),
    }
}
