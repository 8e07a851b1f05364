//! The knowledge of one operator process of a Secret: its metadata, and the digest of its content.

use std::time::Instant;

use super::{Projection, digest::Digest, metadata::SecretMetadata};
use crate::{
    api::{Object, VerifiedSecret},
    identity::Revision,
};

/// A watched Secret, with the digest of its content if this process wrote or read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSecret {
    /// The metadata of the Secret.
    pub metadata: SecretMetadata,
    /// The content of exactly this revision, if this process wrote or read it.
    pub verified: Option<Verified>,
}

/// The content of a revision of a Secret, by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The digest of the content.
    pub digest: Digest,
    /// How this process learned the digest.
    pub origin: Origin,
}

/// How this process learned the content of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It wrote this revision. The status must name it.
    Written,
    /// It read this revision, at this time, after another client changed the Secret. The status does not name it immediately:
    /// a client may label all Secrets in one sweep, and a status write for each of them would be too expensive.
    Read(Instant),
    /// It read this revision so long ago that the status must name it, so that it is not read again after a restart.
    Settled,
}

// === impl KnownSecret ===

impl KnownSecret {
    /// The entry of the status, if it names exactly this revision.
    pub fn saved_in<'a>(&self, object: impl Into<Object<'a>>) -> Option<&'a VerifiedSecret> {
        let Revision { uid, resource_version } = &self.metadata.revision;
        let saved = object.into().status?.secret.as_ref()?;
        (saved.uid == *uid && saved.resource_version == *resource_version).then_some(saved)
    }

    /// Whether the Secret holds exactly this projection: this process wrote or read this revision of it, or the status says so.
    /// The content of a revision never changes, so the knowledge of this process takes precedence over the status.
    pub fn holds<'a>(&self, object: impl Into<Object<'a>>, wanted: &Projection) -> bool {
        match &self.verified {
            Some(verified) => verified.digest == wanted.digest(),
            None => self.saved_in(object).is_some_and(|saved| saved.digest == wanted.digest().to_string()),
        }
    }

    /// Whether the content of this revision is known, to this process or from the status.
    pub fn is_verified<'a>(&self, object: impl Into<Object<'a>>) -> bool {
        self.verified.is_some() || self.saved_in(object).is_some()
    }
}

// === impl Verified ===

impl Verified {
    /// The content of a revision that this process wrote.
    pub fn written(digest: Digest) -> Self {
        Self { digest, origin: Origin::Written }
    }

    /// The content of a revision that this process read at this time.
    pub fn read(digest: Digest, at: Instant) -> Self {
        Self { digest, origin: Origin::Read(at) }
    }
}
