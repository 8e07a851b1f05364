//! With which AWS identity KMS is called for an object.

use std::collections::BTreeMap;

use super::Class;
use crate::{
    api::{ClassAws, ClassRef, SessionTag, TagSource},
    arn::RoleArn,
};

/// An AWS identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// That of the operator.
    #[default]
    Operator,
    /// A role that the operator assumes. If it cannot be assumed, KMS is not called: no other identity takes its place.
    Role(Box<Role>),
}

/// A role of a class, for the objects of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The ARN.
    pub arn: String,
    /// The external ID.
    pub external_id: Option<String>,
    /// The tags of the session.
    pub tags: BTreeMap<String, String>,
    /// The namespace of the objects.
    pub namespace: String,
    /// The class that names the role.
    pub class: ClassRef,
}

// === impl Identity ===

impl Identity {
    /// The role; `None` for the operator itself.
    pub fn role(&self) -> Option<&Role> {
        match self {
            Self::Operator => None,
            Self::Role(role) => Some(role),
        }
    }

    /// Whether KMS sees the same caller: the same role, external ID and tags. The class can be in another state.
    pub fn is_same_caller(&self, other: &Self) -> bool {
        match (self.role(), other.role()) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                (&one.arn, &one.external_id, &one.tags) == (&other.arn, &other.external_id, &other.tags)
            }
            _ => false,
        }
    }
}

// === impl Role ===

impl Role {
    /// The account of the role: 12 digits.
    pub fn account(&self) -> Option<&str> {
        RoleArn::parse(&self.arn).map(|role| role.account)
    }
}

// === impl Class ===

impl Class {
    /// With which identity KMS is called for the objects of a namespace.
    pub fn identity(&self, namespace: &str) -> Identity {
        let Some(ClassAws { role_arn, external_id, session_tags, .. }) = &self.spec().aws else {
            return Identity::Operator;
        };
        let tag = |tag: &SessionTag| {
            let value = match (&tag.value, tag.value_from) {
                (Some(value), _) => value,
                (None, Some(TagSource::Namespace)) => namespace,
                // Such a class is not accepted.
                (None, None) => return None,
            };
            Some((tag.key.clone(), value.to_owned()))
        };
        Identity::Role(Box::new(Role {
            arn: role_arn.clone(),
            external_id: external_id.clone(),
            tags: session_tags.iter().filter_map(tag).collect(),
            namespace: namespace.to_owned(),
            class: self.reference(),
        }))
    }
}
