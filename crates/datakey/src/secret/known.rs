//! What a process knows of a Secret: its metadata, and which content it vouches for.

use std::time::Instant;

use super::{digest::Digest, metadata::SecretMetadata};
use crate::{
    api::{DataKey, VerifiedSecret},
    identity::Revision,
};

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSecret {
    /// Its metadata.
    pub metadata: SecretMetadata,
    /// What exactly this revision holds, where this process wrote or read it.
    pub verified: Option<Verified>,
}

/// What a revision of a Secret was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The digest of it.
    pub digest: Digest,
    /// Where the digest is known from.
    pub origin: Origin,
}

/// Where this process knows the content of a revision from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It wrote this revision: the status must name it.
    Written,
    /// It read this revision, at this time, after another client had changed something. The status need not name it at once:
    /// labels of all Secrets may be changed in one sweep, and it is enough to read them once.
    Read(Instant),
    /// It read this revision so long ago that the status must name it: a restart should not have to read it again.
    Settled,
}

// === impl KnownSecret ===

impl KnownSecret {
    /// What the status says of this very revision.
    pub fn saved_in<'a>(&self, key: &'a DataKey) -> Option<&'a VerifiedSecret> {
        let Revision { uid, resource_version } = &self.metadata.revision;
        let saved = key.status.as_ref()?.secret.as_ref()?;
        (saved.uid == *uid && saved.resource_version == *resource_version).then_some(saved)
    }

    /// Whether the content of this revision is known, to this process or from the status.
    pub fn is_verified(&self, key: &DataKey) -> bool {
        self.verified.is_some() || self.saved_in(key).is_some()
    }
}

// === impl Verified ===

impl Verified {
    /// What was just written.
    pub fn written(digest: Digest) -> Self {
        Self { digest, origin: Origin::Written }
    }

    /// What was read at this time.
    pub fn read(digest: Digest, at: Instant) -> Self {
        Self { digest, origin: Origin::Read(at) }
    }
}
