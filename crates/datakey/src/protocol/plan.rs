//! The order of the questions: from an object and what is known of its Secret to the next step.
//!
//! The order is the protocol: *the record first, the Secret second*. KMS answers every call with a new data key and keeps
//! none, so exactly one data key for each version comes from one guarded write: the record in `status.versions`. The Secret
//! is a function of the record: each write of it, at any time and by any replica, has the same bytes.

use k8s_openapi::jiff::Timestamp;

use super::{issue::issue, newer, observed::Observed, pin::pin, pins, publish::publish, step::Step};
use crate::{condition, reason::Reason, secret::template};

/// Decides on the next step.
pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Step {
    let object = observed.object;
    if object.metadata.deletion_timestamp.is_some() {
        // Nothing is issued, and the Secret is left alone: restoring it would work against the garbage collector. A finalizer
        // can hold the object for long, so Ready must not go on saying that the Secret holds the data key.
        return Step::put_status(observed, condition::failed(object, &Reason::Deleting.into(), now));
    }
    if let Some(failure) = observed.failure {
        return Step::put_status(observed, condition::failed(object, failure, now));
    }
    if let Some(failure) = newer::in_the_record(object) {
        // What such a version means for the Secret is not known, and the Secret holds all versions or none.
        return Step::report_once(observed, failure);
    }
    let newer = newer::in_the_spec(object);
    let refused = template::refused(object, observed.inputs.reserved);
    let pins = match (pins::unrecorded(object, observed.inputs.default_region), &newer) {
        (Ok(pins), Some(failure)) if !pins.is_empty() => Err(failure.clone()),
        (Ok(pins), _) => refused.map_or(Ok(pins), Err),
        (pins, _) => pins,
    };
    match (object.recorded_version(object.wanted_version()), observed.project(object.wanted_version())) {
        (Some(issued), Some(wanted)) => publish(observed, issued, &wanted, pins, now),
        _ => match (pins, newer) {
            (Err(failure), _) | (Ok(_), Some(failure)) => Step::report_once(observed, failure),
            (Ok(pins), None) if pins.is_empty() => issue(observed),
            (Ok(pins), None) => pin(observed, pins),
        },
    }
}

#[cfg(test)]
mod tests;
