//! The steps of a reconcile.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use super::{
    observed::{Observed, Rival},
    size,
};
use crate::{
    api::{IssuedVersion, KeyStatus, Object, with_adopted, with_recorded},
    class::{Ask, Refusal},
    condition,
    reason::{Failure, Reason},
    secret::{
        conflict::{Conflict, Obstacle},
        digest::Digest,
        metadata::SecretMetadata,
        ownership,
    },
};

/// How long an object waits for its class while classes are not listed yet. The end of the list wakes it, too.
const CLASSES_AGAIN: Duration = Duration::from_secs(5);

/// One step of a reconcile, as `plan` decides on it.
#[derive(Clone, Debug)]
pub enum Step {
    /// Do nothing: status and Secret are up to date, or the failure is reported.
    Settled,
    /// Requeue after this delay; an earlier failure is still backing off.
    RequeueAfter(Duration),
    /// Get the Secret's metadata: is the name free, and if not, is the Secret managed by the operator?
    GetSecretMetadata,
    /// Get the whole Secret.
    GetSecret,
    /// Acquire a permit to ask KMS this, or queue for one.
    AcquirePermit(Box<Ask>),
    /// Write the record with a data key of the largest size, as a dry run: an admission policy that refuses every record must
    /// not cost a call to KMS for each try.
    DryRunRecord(Box<Ask>),
    /// Ask KMS this.
    CallKms(Box<Ask>),
    /// Write these versions into the record.
    Record(Record),
    /// Create the Secret. An existing one is never overwritten.
    CreateSecret(Box<Secret>),
    /// Replace the Secret that was read, if it is still the same; the text names what another client changed in it.
    ReplaceSecret(Box<Secret>, Option<String>),
    /// The Secret was read and matches the record: accept this revision of it, with this digest.
    AcceptRevision(SecretMetadata, Digest),
    /// Report this failure.
    ReportFailure(Failure),
    /// Write the status.
    PutStatus(Box<KeyStatus>),
}

/// Versions to record, and their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The versions that the record lacks.
    pub versions: Vec<IssuedVersion>,
    /// The source of the versions.
    pub source: Source,
}

/// The source of versions that are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// AWS KMS issued it for this object.
    Kms,
    /// The Secret of an object without a record holds it.
    Secret,
    /// The spec pins it. Versions from the Secret can accompany the pins.
    Pins,
}

// === impl Record ===

impl Record {
    /// The status of the object with these versions in its record.
    pub fn status<'a>(&self, object: impl Into<Object<'a>>) -> KeyStatus {
        match self.source {
            Source::Kms => with_recorded(object, self.versions.clone()),
            Source::Secret | Source::Pins => with_adopted(object, self.versions.clone()),
        }
    }
}

// === impl Step ===

impl Step {
    /// Writes this status, unless the object has it already.
    pub(super) fn put_status_if_changed(observed: &Observed<'_>, wanted: KeyStatus) -> Self {
        let Some(old) = observed.object.status else { return Self::PutStatus(Box::new(wanted)) };
        let is_written = if observed.inputs.keeps_revision || old.secret == wanted.secret {
            *old == wanted
        } else {
            *old == KeyStatus { secret: old.secret.clone(), ..wanted.clone() }
        };
        if is_written { Self::Settled } else { Self::PutStatus(Box::new(wanted)) }
    }

    /// Reports a failure that only a change of the spec can end, unless the status reports it already and it backs off.
    pub(super) fn report_once(observed: &Observed<'_>, failure: Failure) -> Self {
        match observed.inputs.retry_after {
            Some(wait) if condition::reported_failure(observed.object) == Some(failure.reason) => {
                Self::RequeueAfter(wait)
            }
            _ => Self::ReportFailure(failure),
        }
    }

    /// Reports that a class refuses something, or waits until the class is known.
    pub(super) fn refused(observed: &Observed<'_>, refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotYet => Self::RequeueAfter(CLASSES_AGAIN),
            Refusal::Failed(failure) => Self::report_once(observed, failure),
        }
    }

    /// Records these versions of pins or of a Secret, if the class allows them and Kubernetes can store what the record becomes.
    pub(super) fn record(observed: &Observed<'_>, versions: Vec<IssuedVersion>, source: Source) -> Self {
        let versions = match observed.admit(versions) {
            Ok(versions) => versions,
            Err(refusal) => return Self::refused(observed, refusal),
        };
        match size::excess(observed.object, &versions) {
            Some(failure) => Self::ReportFailure(failure),
            None => Self::Record(Record { versions, source }),
        }
    }

    /// Reads a Secret, unless its metadata say that it belongs to another owner.
    pub(super) fn get_if_managed(object: Object<'_>, metadata: &SecretMetadata) -> Self {
        match ownership::unmanaged_reason(metadata.is_managed) {
            None => Self::GetSecret,
            Some(conflict) => Self::conflict(object, &conflict),
        }
    }

    /// Reports that the Secret must not be overwritten.
    pub(super) fn conflict(object: Object<'_>, Conflict { why, obstacle }: &Conflict) -> Self {
        let failure = Failure::new(Reason::SecretConflict, format!("Secret {}: {why}", object.secret_name()));
        Self::ReportFailure(failure.with_advice(obstacle.advice(object)))
    }

    /// Reports that the name of the Secret is reserved for another object.
    pub(super) fn reserved(object: Object<'_>, Rival { kind, name }: Rival<'_>) -> Self {
        let why = format!("it belongs to {} {name}, which has recorded a {} for it", kind.name, kind.noun);
        Self::conflict(object, &Obstacle::OtherObject.because(why))
    }
}
