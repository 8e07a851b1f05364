//! The wanted version is neither recorded nor pinned: the Secret holds it, or KMS issues it.

use super::{
    observed::{Observed, SecretState},
    size,
    step::{Source, Step},
};
use crate::{
    api::MAX_VERSIONS,
    class::Ask,
    reason::Reason,
    secret::{
        self,
        compare::{self, Comparison},
    },
};

/// The record has no data key of the wanted version. KMS is called only once it is certain what the Secret holds.
pub(super) fn issue(observed: &Observed<'_>) -> Step {
    let object = observed.object;
    if object.record().len() >= MAX_VERSIONS {
        return Step::ReportFailure(Reason::TooManyVersions.into());
    }
    if let (Some(wait), SecretState::Unwatched | SecretState::Watched(_)) =
        (observed.inputs.retry_after, observed.secret)
    {
        return Step::RequeueAfter(wait);
    }
    if let Some(rival) = observed.name_is_reserved_for() {
        return Step::reserved(object, rival);
    }
    match observed.secret {
        // Only with a permit: otherwise thousands of queued objects would each cost the API server a request.
        SecretState::Unwatched => with_permit(observed, |_| Step::GetSecretMetadata),
        SecretState::Watched(known) => match observed.published_projection() {
            Some(earlier) if known.holds(object, &earlier) => call_kms(observed),
            _ => Step::GetSecret,
        },
        SecretState::Present(metadata) => Step::get_if_managed(object, metadata),
        SecretState::Absent => call_kms(observed),
        SecretState::Loaded(secret) if object.record().is_empty() => match secret::adopt(object, secret) {
            Ok(versions) => Step::record(observed, versions, Source::Secret),
            // With neither record nor Secret, this object does not differ from a new one.
            Err(conflict) => Step::conflict(object, &conflict),
        },
        SecretState::Loaded(secret) => {
            // Recorded versions only: one that the Secret has beyond them is a conflict.
            let earlier = object.record().last().and_then(|last| observed.project(last.version));
            match earlier.map(|earlier| compare::compare(object, &earlier, secret)) {
                Some(Comparison::Conflict(conflict)) => Step::conflict(object, &conflict),
                _ => call_kms(observed),
            }
        }
    }
}

fn call_kms(observed: &Observed<'_>) -> Step {
    with_permit(observed, if observed.inputs.record_failed { Step::DryRunRecord } else { Step::CallKms })
}

/// A step on the way to KMS: only where a data key may be issued, the class allows it, and with a permit.
fn with_permit(observed: &Observed<'_>, step: impl FnOnce(Box<Ask>) -> Step) -> Step {
    let object = observed.object;
    if let Some(reason) = must_not_be_issued(observed) {
        return Step::ReportFailure(reason.into());
    }
    let ask = match observed.ask() {
        Ok(ask) => Box::new(ask),
        Err(refusal) => return Step::refused(observed, refusal),
    };
    let largest = size::largest(object, &ask, observed.inputs.default_region);
    match size::excess(object, &[largest]) {
        Some(failure) => Step::ReportFailure(failure),
        None if observed.has_permit => step(ask),
        None => Step::AcquirePermit(ask),
    }
}

/// Why a version that is neither recorded nor pinned nor in the Secret is not issued either.
fn must_not_be_issued(observed: &Observed<'_>) -> Option<Reason> {
    if observed.object.is_restored() {
        Some(Reason::RestoredWithoutKey)
    } else if observed.inputs.may_issue {
        None
    } else {
        Some(Reason::IssuingDisabled)
    }
}
