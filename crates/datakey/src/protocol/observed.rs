//! What a decision rests on.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::{
    api::DataKey,
    reason::Failure,
    secret::{Projection, known::KnownSecret, metadata::SecretMetadata, template::Reserved},
};

/// What a decision rests on: the object, its Secret, and what surrounds them.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The `DataKey`, from the cache or as the last write answered.
    pub object: &'a DataKey,
    /// What is known of the Secret of that name.
    pub secret: &'a SecretState,
    /// What just failed and is not yet in the status.
    pub failure: Option<&'a Failure>,
    /// Whether this object has a permit to call KMS.
    pub has_permit: bool,
    /// Whether the Secret that was read has the revision that this process or the status verified: no other client has
    /// changed it since.
    pub is_verified: bool,
    /// What surrounds them.
    pub inputs: Inputs<'a>,
}

/// What a decision rests on besides the object and its Secret: settings of the operator, and waits.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// How long an earlier failure delays the next try.
    pub retry_after: Option<Duration>,
    /// What another client last changed in the Secret, where the operator restored it so often that it waits now.
    pub restore_limited: Option<&'a str>,
    /// The operator's own Region, if it has one.
    pub default_region: Option<&'a str>,
    /// Whether the installed definition keeps `status.secret`; the one of 0.1.0 drops it.
    pub keeps_revision: bool,
    /// Whether the last write of a record failed: then a dry run comes before the next call to KMS.
    pub record_failed: bool,
    /// Whether data keys may be issued at all: not under `--issue=false`.
    pub may_issue: bool,
    /// Another `DataKey` whose recorded data key the Secret of that name holds or has to hold.
    pub rival: Option<&'a str>,
    /// Keys that the template of the Secret may not have.
    pub reserved: &'a Reserved,
}

/// What is known of the Secret of that name. The parameters are what is kept of a Secret that the watch delivers, of its
/// metadata, and of one that was read: the operator keeps the objects themselves, the model of the protocol their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretState<N = KnownSecret, M = SecretMetadata, L = Box<Secret>> {
    /// The watch does not have it, and no request has asked for it. A Secret of another type may exist.
    Unwatched,
    /// The watch has it: it is of the operator's type.
    Watched(N),
    /// The API server has none.
    Absent,
    /// The API server has one with these metadata.
    Present(M),
    /// The API server has this one.
    Loaded(L),
}

// === impl Inputs ===

impl Default for Inputs<'_> {
    /// No failure delays anything, and the operator may issue.
    fn default() -> Self {
        Self {
            retry_after: None,
            restore_limited: None,
            default_region: None,
            keeps_revision: true,
            record_failed: false,
            may_issue: true,
            rival: None,
            reserved: Reserved::ALWAYS,
        }
    }
}

// === impl Observed ===

impl<'a> Observed<'a> {
    /// Nothing failed, nothing is delayed, and there is no permit to call KMS.
    pub fn new(object: &'a DataKey, secret: &'a SecretState) -> Self {
        Self { object, secret, failure: None, has_permit: false, is_verified: false, inputs: Inputs::default() }
    }

    /// The Secret with these plain entries, if they are recorded.
    pub(super) fn project(&self, current: i32) -> Option<Projection> {
        Projection::with_reserved(self.object, current, self.inputs.reserved)
    }

    /// What the Secret holds as long as no other client changed it: the version that it was last published with.
    pub(super) fn published_projection(&self) -> Option<Projection> {
        self.project(self.object.status.as_ref()?.version?)
    }

    /// The other `DataKey` that the name of the Secret is reserved for, although no Secret exists: it was deleted, or is yet to
    /// be created. A data key of this object in its place would be another data key under a name that workloads use.
    pub(super) fn name_is_reserved_for(&self) -> Option<&'a str> {
        self.inputs.rival.filter(|_| self.object.record().is_empty())
    }
}
