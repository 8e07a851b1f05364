//! Where an object is: its namespace and its name.

use std::{fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name of an object, as the text `namespace/name`; neither has a slash. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Arc<str>);

// === impl Place ===

impl Place {
    /// The place of an object of this name in this namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self([namespace, "/", name].concat().into())
    }

    /// The place of an object with these metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The place of an object of this name in the same namespace.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        if name == self.name() { self.clone() } else { Self::new(self.namespace(), name) }
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    fn place_has_the_namespace_and_the_name() {
        let place = Place::new("shop", "orders.v1");
        assert_eq!(
            (place.namespace(), place.name(), place.to_string().as_str()),
            ("shop", "orders.v1", "shop/orders.v1")
        );
        assert_eq!((place.beside("other"), place.beside("orders.v1")), (Place::new("shop", "other"), place.clone()));
        let metadata =
            ObjectMeta { name: Some("orders.v1".into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
        assert_eq!(Place::of(&metadata), place);
    }
}
