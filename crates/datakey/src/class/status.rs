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
    let others = old.conditions.iter().flatten().filter(|condition| condition.type_ != ACCEPTED).cloned();
    DataKeyClassStatus {
        observed_generation: Some(class.generation),
        conditions: Some(std::iter::once(accepted).chain(others).collect()),
        in_use: Some(in_use),
    }
}
