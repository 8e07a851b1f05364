//! A wrapped data key that is to be imported, with what the user says of it.

use datakey::api::{EncryptionContext, FIRST_VERSION, KeySpec, Material};
use k8s_openapi::jiff::Timestamp;

use super::wrapped::Wrapped;
use crate::cli::import::Import;

/// One wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it comes from, in messages.
    pub place: String,
    /// The name of its DataKey.
    pub name: String,
    /// The version that it becomes.
    pub version: i32,
    /// The KMS key as the spec names it.
    pub key_id: Option<String>,
    /// The Region, where the key is named by no ARN.
    pub region: Option<String>,
    /// The encryption context; empty for none.
    pub encryption_context: EncryptionContext,
    /// The key spec, where it is given.
    pub key_spec: Option<KeySpec>,
    /// The length, where it is given.
    pub number_of_bytes: Option<i32>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// The wrapped data key.
    pub wrapped: Wrapped,
}

// === impl Candidate ===

impl Candidate {
    /// A candidate with the settings of the flags.
    pub fn of(args: &Import, name: &str, wrapped: Wrapped) -> Self {
        Self {
            place: name.to_owned(),
            name: name.to_owned(),
            version: args.version.unwrap_or(FIRST_VERSION),
            key_id: args.key_id.clone(),
            region: args.aws.region.clone(),
            encryption_context: args.encryption_context.clone().unwrap_or_default(),
            key_spec: args.key_spec,
            number_of_bytes: args.number_of_bytes,
            issued_at: args.issued_at,
            wrapped,
        }
    }

    /// What the data key is, where exactly one of key spec and length is given.
    pub fn material(&self) -> Option<Material> {
        Material::new(self.key_spec, self.number_of_bytes, None)
    }
}
