//! The input of `plan`: the object, its Secret, the operator's settings and delays.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::{
    api::{IssuedVersion, Kind, Object},
    class::{Ask, Refusal, Tenancy},
    reason::Failure,
    secret::{Projection, known::KnownSecret, metadata::SecretMetadata, template::Reserved},
};

/// The input of one decision of `plan`.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The object, from the cache or from the answer to the last write.
    pub object: Object<'a>,
    /// The operator's knowledge of its Secret.
    pub secret: &'a SecretState,
    /// The failure that the status does not report yet.
    pub failure: Option<&'a Failure>,
    /// Whether this object has a permit to call KMS.
    pub has_permit: bool,
    /// Whether the Secret that was read has the revision that this process or the status verified: no other client has
    /// changed it since.
    pub is_verified: bool,
    /// The operator's settings and delays.
    pub inputs: Inputs<'a>,
}

/// The operator's settings, and the delays that apply to one object.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The remaining back-off of an earlier failure.
    pub retry_after: Option<Duration>,
    /// The last changes of the Secret by another client, while the operator pauses because it restored the Secret too often.
    pub restore_limited: Option<&'a str>,
    /// The operator's own Region, if it has one.
    pub default_region: Option<&'a str>,
    /// Whether the installed definition keeps `status.secret`; that of 0.1.0 drops it.
    pub keeps_revision: bool,
    /// Whether the last write of a record failed: then a dry run precedes the next call to KMS.
    pub record_failed: bool,
    /// Whether data keys may be issued; false under `--issue=false`.
    pub may_issue: bool,
    /// The other object whose recorded data key the Secret of that name holds or must hold.
    pub rival: Option<Rival<'a>>,
    /// The keys that the template of the Secret must not have.
    pub reserved: &'a Reserved,
    /// What the installation and the class of the object say.
    pub tenancy: Tenancy<'a>,
}

/// Another object, of any kind, that a Secret is reserved for by its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its name.
    pub name: &'a str,
}

/// The operator's knowledge of the Secret of an object. The parameters are the types of a watched Secret, of metadata and of a
/// whole Secret: the operator uses objects, the model of the protocol numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretState<N = KnownSecret, M = SecretMetadata, L = Box<Secret>> {
    /// The watch has no such Secret, and no request was sent. A Secret of another type may exist.
    Unwatched,
    /// The watch has the Secret: it is of the operator's type.
    Watched(N),
    /// The API server has no such Secret.
    Absent,
    /// The API server has a Secret with these metadata.
    Present(M),
    /// The API server has this Secret.
    Loaded(L),
}

// === impl Inputs ===

impl Default for Inputs<'_> {
    /// Inputs without a delay, with which the operator may issue.
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
            tenancy: Tenancy::default(),
        }
    }
}

// === impl Observed ===

impl<'a> Observed<'a> {
    /// An observation without a failure, without a delay, and without a permit to call KMS.
    pub fn new(object: impl Into<Object<'a>>, secret: &'a SecretState) -> Self {
        Self {
            object: object.into(),
            secret,
            failure: None,
            has_permit: false,
            is_verified: false,
            inputs: Inputs::default(),
        }
    }

    /// The projection with this version in the plain entries, if it is recorded.
    pub(super) fn project(&self, current: i32) -> Option<Projection> {
        Projection::with_reserved(self.object, current, self.inputs.reserved)
    }

    /// The projection that the Secret was last published with. It holds this until another client changes it.
    pub(super) fn published_projection(&self) -> Option<Projection> {
        self.project(self.object.status?.version?)
    }

    /// What KMS is asked for the wanted version.
    pub(super) fn ask(&self) -> Result<Ask, Refusal> {
        self.inputs.tenancy.ask(self.object, self.inputs.default_region)
    }

    /// Versions of pins or of the Secret as they may be recorded.
    pub(super) fn admit(&self, versions: Vec<IssuedVersion>) -> Result<Vec<IssuedVersion>, Refusal> {
        self.inputs.tenancy.admit(self.object, self.inputs.default_region, versions)
    }

    /// The other object that the Secret is reserved for by a record. Until that object is gone, this one records nothing for the
    /// same Secret: it may not issue, adopt or pin, whatever the Secret and its labels say. A user who may edit DataKeys knows
    /// the pins of all of them, and one who may edit Secrets can set their labels. Otherwise workloads would read a data key of
    /// this object in the Secret of the other one.
    pub(super) fn name_is_reserved_for(&self) -> Option<Rival<'a>> {
        self.inputs.rival.filter(|_| self.object.record().is_empty())
    }
}
