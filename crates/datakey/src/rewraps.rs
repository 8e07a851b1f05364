//! Which versions have the same data key, because AWS KMS wrapped it once more (`ReEncrypt`). Pure.
//!
//! Each version can name an earlier one, whose data key it is (`rewrapOf`). Versions that lead to the same one have the same data
//! key, so each of them unwraps in place of another one whose KMS key is gone. That is a claim of the pins, and of any client that can write
//! the Secret; only a comparison of the plaintexts proves it.

use std::collections::BTreeMap;

use crate::api::IssuedVersion;

/// The versions of one object, each with the one that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewraps(BTreeMap<i32, Option<i32>>);

// === impl Rewraps ===

impl Rewraps {
    /// The versions of a record, or pins. One that names a version of another kind, length or public key contradicts itself: its name
    /// counts for nothing.
    pub fn of<'a>(versions: impl IntoIterator<Item = &'a IssuedVersion>) -> Self {
        let versions: BTreeMap<_, _> = versions.into_iter().map(|issued| (issued.version, issued)).collect();
        let is_possible = |issued: &IssuedVersion, named: i32| {
            let of = |issued: &IssuedVersion| (issued.request.material(), issued.public_key.clone());
            versions.get(&named).is_none_or(|named| of(named) == of(issued))
        };
        let named = |issued: &IssuedVersion| {
            let named = issued.rewrap_of.as_ref().map(|rewrap_of| rewrap_of.version);
            named.filter(|named| is_possible(issued, *named))
        };
        versions.values().map(|issued| (issued.version, named(issued))).collect()
    }

    /// The version that the data key was issued as: the end of the chain of names. It may be one that these versions do not
    /// include.
    pub fn root(&self, version: i32) -> i32 {
        let mut root = version;
        // Only an earlier version can be named, so the chain has no circle, whatever a Secret says.
        while let Some(earlier) = self.0.get(&root).copied().flatten().filter(|earlier| *earlier < root) {
            root = earlier;
        }
        root
    }

    /// The other versions with the same data key, in ascending order: what is recorded never changes, so a later version that names the
    /// data key falsely does not take the place of an earlier one.
    pub fn same_as(&self, version: i32) -> impl Iterator<Item = i32> {
        let root = self.root(version);
        self.0.keys().copied().filter(move |other| *other != version && self.root(*other) == root)
    }
}

impl FromIterator<(i32, Option<i32>)> for Rewraps {
    fn from_iter<T: IntoIterator<Item = (i32, Option<i32>)>>(links: T) -> Self {
        Self(links.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::{
        api::{KeySpec, Rest, RewrapOf},
        fixtures::issued,
    };

    fn same_as(rewraps: &Rewraps, version: i32) -> Vec<i32> {
        rewraps.same_as(version).collect()
    }

    #[test]
    fn versions_of_one_root_have_the_same_data_key() {
        let rewraps = Rewraps::from_iter([(1, None), (2, None), (3, Some(1)), (4, Some(2)), (6, Some(3)), (7, None)]);
        assert_eq!(same_as(&rewraps, 1), [3, 6]);
        assert_eq!(same_as(&rewraps, 3), [1, 6]);
        assert_eq!(same_as(&rewraps, 6), [1, 3]);
        assert_eq!(same_as(&rewraps, 2), [4]);
        assert_eq!(same_as(&rewraps, 7), [0; 0]);
        assert_eq!((rewraps.root(6), rewraps.root(7)), (1, 7));
    }

    #[test]
    fn rewraps_of_an_unknown_version_are_the_same() {
        let rewraps = Rewraps::from_iter([(2, Some(1)), (5, Some(1)), (6, Some(4))]);
        assert_eq!((same_as(&rewraps, 2), same_as(&rewraps, 6)), (vec![5], vec![]));
    }

    #[test]
    fn name_of_a_version_of_another_kind_counts_for_nothing() {
        let rewrap = |change: fn(&mut IssuedVersion)| {
            let mut rewrap = issued(2);
            rewrap.rewrap_of = Some(RewrapOf { version: 1, request_id: None, rest: Rest::new() });
            change(&mut rewrap);
            same_as(&Rewraps::of(&[issued(1), rewrap]), 1)
        };
        assert_eq!(rewrap(|_| {}), [2]);
        assert_eq!(rewrap(|rewrap| rewrap.request.key_spec = Some(KeySpec::Aes128)), [0; 0]);
        assert_eq!(rewrap(|rewrap| rewrap.public_key = Some(ByteString(vec![0]))), [0; 0]);
    }

    #[test]
    fn later_versions_cannot_be_named() {
        let rewraps = Rewraps::from_iter([(1, Some(2)), (2, Some(1)), (3, Some(3)), (4, Some(i32::MAX))]);
        assert_eq!((rewraps.root(1), rewraps.root(2), rewraps.root(3), rewraps.root(4)), (1, 1, 3, 4));
        assert_eq!(same_as(&rewraps, 3), [0; 0]);
    }
}
