//! Where an object is: its kind, its namespace and its name.

use std::{fmt, sync::Arc};

use datakey::api::{KINDS, KindId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Kind, namespace and name of an object, or of the Secret of an object of this kind. Clones share the text: `namespace/name`, and
/// for another kind than the first a slash and its number. Neither namespace nor name has a slash, and a text of its own for the
/// kind costs no memory where there is one kind only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Arc<str>);

// === impl Place ===

impl Place {
    /// The place of an object of this kind and name in this namespace.
    pub fn new(kind: KindId, namespace: &str, name: &str) -> Self {
        match kind as usize {
            0 => Self([namespace, "/", name].concat().into()),
            number => Self(format!("{namespace}/{name}/{number}").into()),
        }
    }

    /// The place of an object of this kind with these metadata.
    pub fn of(kind: KindId, metadata: &ObjectMeta) -> Self {
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        Self::new(kind, namespace.unwrap_or_default(), name.unwrap_or_default())
    }

    /// The kind.
    pub fn kind(&self) -> KindId {
        let number = self.0.split('/').nth(2).and_then(|number| number.parse::<usize>().ok());
        KINDS.get(number.unwrap_or_default()).map_or(KindId::DataKey, |kind| kind.id)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The place of an object of the same kind and this name in the same namespace.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        if name == self.name() { self.clone() } else { Self::new(self.kind(), self.namespace(), name) }
    }

    /// The place of an object of this kind with the same namespace and name.
    #[must_use]
    pub fn of_kind(&self, kind: KindId) -> Self {
        if kind == self.kind() { self.clone() } else { Self::new(kind, self.namespace(), self.name()) }
    }

    fn parts(&self) -> (&str, &str) {
        let (namespace, rest) = self.0.split_once('/').unwrap_or_default();
        (namespace, rest.split_once('/').map_or(rest, |(name, _)| name))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.parts();
        write!(f, "{namespace}/{name}")
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_has_the_kind_the_namespace_and_the_name() {
        for kind in KINDS {
            let place = Place::new(kind.id, "shop", "orders.v1");
            assert_eq!((place.kind(), place.namespace(), place.name()), (kind.id, "shop", "orders.v1"));
            assert_eq!(place.to_string(), "shop/orders.v1");
            assert_eq!(place.beside("other"), Place::new(kind.id, "shop", "other"));
            assert_eq!(place.beside("orders.v1"), place);
            for other in KINDS {
                let of_kind = place.of_kind(other.id);
                assert_eq!((of_kind.kind(), of_kind.name()), (other.id, "orders.v1"));
                assert_eq!(of_kind == place, other == kind);
            }
            let metadata =
                ObjectMeta { name: Some("orders.v1".into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
            assert_eq!(Place::of(kind.id, &metadata), place);
        }
    }
}
