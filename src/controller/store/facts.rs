//! What the store knows of an object without its content.

use std::sync::Arc;

use super::{compact::Text, wrapping::SetId};
use crate::place::Place;
use datakey::{
    api::Object,
    condition::{
        ReadyState,
        key_usable::{self, Said},
    },
    decode::{Encoded, Remains},
    reason::Reason,
};

/// What is known of an object without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What its row has.
    pub row: RowFacts,
    /// The name of its class in the spec. It is beside the row, because objects without a class take no memory for it.
    pub class: Option<Arc<str>>,
    /// The ARNs of the KMS keys on which it depends, in ascending order. The store keeps each set of them once.
    pub key_arns: Vec<Arc<str>>,
}

/// What the row of each object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFacts {
    /// The name of its Secret, where it is not that of the object.
    pub secret_name: Option<Text>,
    /// What the `Ready` condition says.
    pub state: ReadyState,
    /// Whether its record holds a data key. Also true where it can hold one, because its status cannot be decoded.
    pub has_record: bool,
    /// Whether it can be decoded.
    pub is_readable: bool,
    /// What its condition `KeyUsable` says, if it has that.
    pub unusable: Option<Said>,
    /// On which KMS keys it depends. The store sets it, by [`Facts::key_arns`]. It is here because the bytes around it are
    /// free here.
    pub(super) wrapped_by: Option<SetId>,
}

// === impl Facts ===

impl Facts {
    /// What is known of a decoded object.
    pub fn of<'a>(key: impl Into<Object<'a>>) -> Self {
        let key = key.into();
        let name = Some(key.secret_name()).filter(|name| Some(*name) != key.name());
        let row = RowFacts {
            secret_name: name.map(Text::from),
            state: ReadyState::of(key.status),
            has_record: !key.record().is_empty(),
            is_readable: true,
            unusable: key_usable::said(key),
            wrapped_by: None,
        };
        let key_arns = key_usable::dependencies(key).into_keys().map(Arc::from).collect();
        Self { row, class: key.spec.class_name.map(Arc::from), key_arns }
    }

    /// What is known of an object that cannot be decoded. It keeps the name of its Secret reserved, as any other.
    pub fn unreadable(object: &Encoded) -> Self {
        let Remains { secret_name, may_have_record } = object.remains();
        let row = RowFacts {
            secret_name: secret_name
                .filter(|name| Some(name) != object.metadata.name.as_ref())
                .as_deref()
                .map(Text::from),
            state: ReadyState::Failed(Reason::SpecInvalid),
            has_record: may_have_record,
            is_readable: false,
            unusable: None,
            wrapped_by: None,
        };
        Self { row, class: None, key_arns: Vec::new() }
    }
}

// === impl RowFacts ===

impl RowFacts {
    /// The place of its Secret, from its own place.
    pub(super) fn secret_place(&self, place: &Place) -> Place {
        self.other_place(place).unwrap_or_else(|| place.clone())
    }

    /// The same, where it is not its own place.
    pub(super) fn other_place(&self, place: &Place) -> Option<Place> {
        self.secret_name.as_deref().map(|name| place.beside(name))
    }
}
