//! The wanted version is recorded: the Secret holds what is recorded, and Ready says so.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};

use super::{
    observed::{Observed, SecretState},
    pin::pin,
    step::Step,
};
use crate::{
    api::{DataKey, IssuedVersion, VerifiedSecret},
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

/// The record has the data key: the Secret must hold it, also where further pins cannot be recorded.
pub(super) fn publish(
    observed: &Observed<'_>,
    issued: &IssuedVersion,
    wanted: &Projection,
    pins: Result<Vec<IssuedVersion>, Failure>,
    now: Timestamp,
) -> Step {
    let object = observed.object;
    match observed.secret {
        SecretState::Watched(known) if is_intact(object, known, wanted) => match pins {
            Ok(pins) if pins.is_empty() => {
                Step::put_status(observed, condition::ready(object, issued, to_save(object, known), now))
            }
            Ok(pins) => pin(observed, pins),
            Err(failure) => Step::report_once(observed, failure),
        },
        SecretState::Watched(_) => restore(observed, || Step::GetSecret),
        SecretState::Unwatched => {
            restore(observed, || Step::CreateSecret(Box::new(wanted.clone().into_secret(object))))
        }
        SecretState::Absent => Step::CreateSecret(Box::new(wanted.clone().into_secret(object))),
        SecretState::Present(metadata) => Step::get_if_managed(metadata),
        SecretState::Loaded(secret) => match compare::compare(object, wanted, secret) {
            Comparison::InSync => Step::AcceptRevision(SecretMetadata::of(&secret.metadata), wanted.digest()),
            Comparison::Restorable => replace(observed, wanted, secret),
            Comparison::Conflict(why) => match pins {
                // What it holds beyond the record can be what is pinned.
                Ok(pins) if !pins.is_empty() => pin(observed, pins),
                _ => Step::conflict(object, &why),
            },
        },
    }
}

/// The Secret does not hold what it should. A client that changes it may do so again and again.
fn restore(observed: &Observed<'_>, step: impl FnOnce() -> Step) -> Step {
    if let Some(wait) = observed.inputs.retry_after {
        return Step::RequeueAfter(wait);
    }
    match observed.inputs.restore_limited {
        None => step(),
        Some(changes) => Step::ReportFailure(Failure::new(Reason::SecretContested, changes)),
    }
}

/// The Secret was read, and another client changed it, or the record grew, or the template changed.
fn replace(observed: &Observed<'_>, wanted: &Projection, secret: &Secret) -> Step {
    let changes = compare::changes(wanted, secret).join(", ");
    if secret.immutable == Some(true) && secret.data.as_ref() != Some(&wanted.data) {
        return Step::ReportFailure(Failure::new(Reason::SecretImmutable, changes));
    }
    // Of a revision in which others changed labels of their own, the status may name the digest alone.
    let saved = observed.object.status.as_ref().and_then(|status| status.secret.as_ref());
    let is_untouched =
        observed.is_verified || saved.is_some_and(|saved| saved.digest == Digest::of(secret).to_string());
    Step::ReplaceSecret(Box::new(wanted.clone().restore_into(secret.clone())), (!is_untouched).then_some(changes))
}

/// Whether the Secret holds exactly this: this process wrote or read this revision of it, or the status says so. Content
/// never changes within a revision, so what this process knows itself goes first.
pub(super) fn is_intact(object: &DataKey, known: &KnownSecret, wanted: &Projection) -> bool {
    match &known.verified {
        Some(verified) => verified.digest == wanted.digest(),
        None => known.saved_in(object).is_some_and(|saved| saved.digest == wanted.digest().to_string()),
    }
}

/// What the status says of a Secret that is intact. A revision that differs only in what others changed, labels for
/// example, is saved later: a sweep over the labels of all Secrets would cost a write for each.
fn to_save(object: &DataKey, known: &KnownSecret) -> Option<VerifiedSecret> {
    let saved = object.status.as_ref().and_then(|status| status.secret.as_ref());
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
