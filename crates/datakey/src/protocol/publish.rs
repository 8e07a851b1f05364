//! The next step while the wanted version is recorded: the Secret must hold the record, and `Ready` must say so.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};

use super::{
    observed::{Observed, SecretState},
    pin::pin,
    step::Step,
};
use crate::{
    api::{IssuedVersion, Object, VerifiedSecret},
    class::Refusal,
    condition,
    reason::{Failure, Reason},
    secret::{
        Projection,
        compare::{self, Comparison},
        digest::Digest,
        known::{KnownSecret, Origin},
        metadata::SecretMetadata,
    },
};

/// Decides on the next step while the wanted version is recorded. The Secret must hold it even if further pins cannot be
/// recorded.
pub(super) fn publish(
    observed: &Observed<'_>,
    issued: &IssuedVersion,
    wanted: &Projection,
    pins: Result<Vec<IssuedVersion>, Refusal>,
    now: Timestamp,
) -> Step {
    let object = observed.object;
    match observed.secret {
        SecretState::Watched(known) if known.holds(object, wanted) => match pins {
            Ok(pins) if pins.is_empty() => {
                Step::put_status_if_changed(observed, condition::ready(object, issued, to_save(object, known), now))
            }
            Ok(pins) => pin(observed, pins),
            Err(refusal) => Step::refused(observed, refusal),
        },
        SecretState::Watched(_) => restore(observed, || Step::GetSecret),
        SecretState::Unwatched => {
            restore(observed, || Step::CreateSecret(Box::new(wanted.clone().into_secret(object))))
        }
        SecretState::Absent => Step::CreateSecret(Box::new(wanted.clone().into_secret(object))),
        SecretState::Present(metadata) => Step::get_if_managed(object, metadata),
        SecretState::Loaded(secret) => match compare::compare(object, wanted, secret) {
            Comparison::InSync => Step::AcceptRevision(SecretMetadata::of(&secret.metadata), wanted.digest()),
            Comparison::Restorable => replace(observed, wanted, secret),
            Comparison::Conflict(conflict) => match pins {
                // The versions that the Secret holds beyond the record can be the pinned ones.
                Ok(pins) if !pins.is_empty() => pin(observed, pins),
                _ => Step::conflict(object, &conflict),
            },
        },
    }
}

/// Takes this step to restore the Secret, unless another client changes the Secret again after each restore.
fn restore(observed: &Observed<'_>, step: impl FnOnce() -> Step) -> Step {
    if let Some(wait) = observed.inputs.retry_after {
        return Step::RequeueAfter(wait);
    }
    match observed.inputs.restore_limited {
        None => step(),
        Some(changes) => Step::ReportFailure(Failure::new(Reason::SecretContested, changes)),
    }
}

/// Replaces a Secret that was read: another client changed it, or the record grew, or the template changed.
fn replace(observed: &Observed<'_>, wanted: &Projection, secret: &Secret) -> Step {
    let changes = compare::changes(wanted, secret).join(", ");
    if secret.immutable == Some(true) && secret.data.as_ref() != Some(&wanted.data) {
        return Step::ReportFailure(Failure::new(Reason::SecretImmutable, changes));
    }
    // After another client changed labels of its own, the status names an earlier revision, but the same digest.
    let saved = observed.object.status.and_then(|status| status.secret.as_ref());
    let is_untouched =
        observed.is_verified || saved.is_some_and(|saved| saved.digest == Digest::of(secret).to_string());
    Step::ReplaceSecret(Box::new(wanted.clone().restore_into(secret.clone())), (!is_untouched).then_some(changes))
}

/// The revision that the status names for an intact Secret. A revision that differs only in metadata of other clients is saved
/// later: a client that labels all Secrets would otherwise cost one status write for each of them.
fn to_save(object: Object<'_>, known: &KnownSecret) -> Option<VerifiedSecret> {
    let saved = object.status.and_then(|status| status.secret.as_ref());
    let Some(verified) = known.verified else { return saved.cloned() };
    let revision = &known.metadata.revision;
    let now = VerifiedSecret {
        uid: revision.uid.clone(),
        resource_version: revision.resource_version.clone(),
        digest: verified.digest.to_string(),
    };
    let is_enough = |saved: &&VerifiedSecret| {
        matches!(verified.origin, Origin::Read(_)) && saved.uid == now.uid && saved.digest == now.digest
    };
    Some(saved.filter(is_enough).cloned().unwrap_or(now))
}
