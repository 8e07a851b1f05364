//! The next step while the spec pins data keys that are not recorded.

use super::{
    observed::{Observed, SecretState},
    pins,
    step::{Source, Step},
};
use crate::{api::IssuedVersion, secret::known::KnownSecret};

/// Decides on the next step while the spec pins unrecorded data keys. They are recorded once it is certain that no data key
/// of the Secret is lost by that.
pub(super) fn pin(observed: &Observed<'_>, pins: Vec<IssuedVersion>) -> Step {
    let object = observed.object;
    if let (Some(wait), SecretState::Unwatched | SecretState::Watched(_)) =
        (observed.inputs.retry_after, observed.secret)
    {
        return Step::RequeueAfter(wait);
    }
    let intact = |known: &KnownSecret| {
        let projections = [observed.published_projection(), observed.project(object.wanted_version())];
        projections.iter().flatten().any(|wanted| known.holds(object, wanted))
    };
    if let Some(rival) = observed.name_is_reserved_for() {
        return Step::reserved(object, rival);
    }
    match observed.secret {
        SecretState::Unwatched => Step::GetSecretMetadata,
        SecretState::Watched(known) if intact(known) => Step::record(observed, pins, Source::Pins),
        SecretState::Watched(_) => Step::GetSecret,
        SecretState::Present(metadata) => Step::get_if_managed(object, metadata),
        SecretState::Absent => Step::record(observed, pins, Source::Pins),
        SecretState::Loaded(secret) => match pins::merge_with_secret(object, pins, secret) {
            Ok(versions) => Step::record(observed, versions, Source::Pins),
            Err(conflict) => Step::conflict(object, &conflict),
        },
    }
}
