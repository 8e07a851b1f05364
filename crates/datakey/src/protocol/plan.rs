//! The decision: from an object and the knowledge of its Secret to the next step.
//!
//! The order is the protocol: *the record first, the Secret second*. KMS answers every call with a new data key and keeps
//! none, so exactly one data key for each version comes from one guarded write: the record in `status.versions`. The Secret
//! is a function of the record: each write of it, at any time and by any replica, has the same bytes.

use k8s_openapi::jiff::Timestamp;

use super::{issue::issue, newer, observed::Observed, pin::pin, pins, publish::publish, step::Step};
use crate::{class::Refusal, condition, reason::Reason, secret::template};

/// Decides on the next step of the reconcile of one object.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Step {
    let object = observed.object;
    if object.metadata.deletion_timestamp.is_some() {
        // The operator issues nothing and leaves the Secret alone: restoring it would work against the garbage collector. A
        // finalizer can keep the object for a long time, so Ready must not stay True.
        return Step::put_status_if_changed(observed, condition::failed(object, &Reason::Deleting.into(), now));
    }
    if let Some(failure) = observed.failure {
        return Step::put_status_if_changed(observed, condition::failed(object, failure, now));
    }
    if let Some(failure) = newer::in_the_record(object) {
        // A Secret holds all versions or none, and this release cannot project such a version.
        return Step::report_once(observed, failure);
    }
    let newer = newer::in_the_spec(object);
    let refused = template::refused(object, observed.inputs.reserved);
    let pins = match (pins::unrecorded(object, observed.inputs.default_region), &newer) {
        (Ok(pins), Some(failure)) if !pins.is_empty() => Err(Refusal::Failed(failure.clone())),
        (Ok(_), _) if refused.is_some() => refused.map_or(Ok(Vec::new()), |failure| Err(Refusal::Failed(failure))),
        (Ok(pins), _) if pins.is_empty() => Ok(pins),
        (Ok(pins), _) => observed.admit(pins),
        (Err(failure), _) => Err(Refusal::Failed(failure)),
    };
    match (object.recorded_version(object.wanted_version()), observed.project(object.wanted_version())) {
        (Some(issued), Some(wanted)) => publish(observed, issued, &wanted, pins, now),
        _ => match (pins, newer) {
            (Err(refusal), _) => Step::refused(observed, refusal),
            (Ok(_), Some(failure)) => Step::report_once(observed, failure),
            (Ok(pins), None) if pins.is_empty() => issue(observed),
            (Ok(pins), None) => pin(observed, pins),
        },
    }
}

#[cfg(test)]
mod tests;
