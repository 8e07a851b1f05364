//! Whether the user may change objects: asked before AWS KMS is called, because what it answers would be lost.

use std::{cell::RefCell, collections::BTreeMap};

use datakey::names::GROUP;
use serde_json::json;

use crate::{
    cluster::{Cluster, FetchedKey, Right},
    output::CommandError,
};

/// The rights of the user, by kind and namespace.
pub struct Rights<'a> {
    cluster: &'a Cluster,
    known: RefCell<BTreeMap<(&'static str, String), bool>>,
}

// === impl Rights ===

impl<'a> Rights<'a> {
    /// Asks nothing yet.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, known: RefCell::default() }
    }

    /// Checks whether the user may change this object.
    ///
    /// # Errors
    /// The user may not: the same message for each object of a kind and namespace.
    pub async fn check(&self, fetched: &FetchedKey) -> Result<(), CommandError> {
        let (kind, namespace) = (fetched.kind(), fetched.namespace());
        if self.may_change_all(fetched).await {
            return Ok(());
        }
        // A role can be about some names only.
        let nothing = json!({ "metadata": { "uid": fetched.key.metadata().uid } });
        match self.cluster.patch_unless_changed(fetched, &nothing, true).await {
            Err(CommandError::Forbidden(_)) => Err(CommandError::Forbidden(format!(
                "you may not patch {}.{GROUP} in namespace {namespace}: ask for that right, or choose another --context",
                kind.plural
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the user may change all objects of its kind and namespace. Where the API server does not say, it decides about each.
    async fn may_change_all(&self, fetched: &FetchedKey) -> bool {
        let scope = (fetched.kind().plural, fetched.namespace());
        let known = self.known.borrow().get(&scope).copied();
        if let Some(known) = known {
            return known;
        }
        let right = Right { verb: "patch", group: GROUP, resource: scope.0 };
        let may = self.cluster.may(right, Some(&scope.1)).await.unwrap_or(true);
        self.known.borrow_mut().insert(scope, may);
        may
    }
}
