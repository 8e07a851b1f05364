//! Revisions: which state of which object. Pure.

/// One state of one object: while both fields are the same, not a byte of the object has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// `metadata.uid`. Needed because an object that is restored in another cluster can have the same resource version.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// Whether a resource version is older than another one of the same object. Kubernetes defines resource versions as comparable
/// whole numbers since 1.35 (Kubernetes API concepts, "Resource versions"); those of etcd always were. A resource version that
/// is not a number is never older.
pub fn is_older(this: &str, other: &str) -> bool {
    matches!((this.parse::<u64>(), other.parse::<u64>()), (Ok(this), Ok(other)) if this < other)
}

// === impl Revision ===

impl Revision {
    /// Whether this is an older state of the same object.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.uid == other.uid && is_older(&self.resource_version, &other.resource_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numeric_versions_of_one_object_are_compared() {
        let at = |uid: &str, version: &str| Revision { uid: uid.into(), resource_version: version.into() };
        assert!(at("a", "9").is_older_than(&at("a", "10")));
        assert!(!at("a", "10").is_older_than(&at("a", "10")));
        assert!(!at("a", "9").is_older_than(&at("b", "10")));
        assert!(!at("a", "x").is_older_than(&at("a", "10")) && !at("a", "9").is_older_than(&at("a", "x")));
    }
}
