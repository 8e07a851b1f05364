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
    match (observed.secret, observed.name_is_reserved_for()) {
        (SecretState::Unwatched | SecretState::Absent, Some(rival)) => Step::reserved(object, rival),
        (SecretState::Unwatched, None) => Step::GetSecretMetadata,
        (SecretState::Watched(known), _) if intact(known) => Step::record(object, pins, Source::Pins),
        (SecretState::Watched(_), _) => Step::GetSecret,
        (SecretState::Present(metadata), _) => Step::get_if_managed(object, metadata),
        (SecretState::Absent, None) => Step::record(object, pins, Source::Pins),
        (SecretState::Loaded(secret), _) => match pins::merge_with_secret(object, pins, secret) {
            Ok(versions) => Step::record(object, versions, Source::Pins),
            Err(conflict) => Step::conflict(object, &conflict),
        },
    }
}
