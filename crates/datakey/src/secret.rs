//! The Secret as a pure function of the record.
//!
//! A Secret is watched by its metadata only. The status keeps the revision (uid and resource version) at which the operator
//! last wrote or read the Secret, and the digest of what it then held: while the watch shows that revision, no byte of the
//! Secret has changed. Nothing that a client can choose, such as a field manager or a label, decides on that.

mod adopt;
pub mod compare;
pub mod conflict;
pub mod digest;
pub mod known;
pub mod metadata;
pub(crate) mod ownership;
mod projection;
mod reader;
pub mod template;
mod wire;

pub use adopt::adopt;
pub use digest::sha256;
pub(crate) use ownership::foreign_reason;
pub use projection::{Projection, VersionAnnotation, text_entries};
pub(crate) use reader::parse_version;
pub use wire::{NotASecret, decode};
