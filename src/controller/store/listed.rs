//! Which watches have their first lists. Until then, an object that is not in the store may exist in the cluster.

use datakey::api::KindId;

use super::Store;

/// Which watches of a kind have their first list. Until then, an object that is not in the store may exist in the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    /// Whether there is something to wait for: the kind is watched, unless its definition is missing.
    pub is_expected: bool,
    pub keys: bool,
    pub secrets: bool,
}

// === impl Store ===

impl Store {
    /// Waits until the watches of the expected kinds have their first lists.
    pub async fn wait_until_listed(&self) {
        // It fails only when the sender is gone, and that lives as long as `self`.
        let _ = self.listed.subscribe().wait_for(|listed| listed.iter().all(|listed| listed.is_complete())).await;
    }

    /// Waits no longer for the lists of a kind: its objects cannot be listed yet.
    pub fn expect_no_list(&self, kind: KindId) {
        self.listed.send_modify(|listed| listed[kind].is_expected = false);
    }

    /// Waits until the Secrets of a kind are listed.
    pub async fn wait_until_secrets_are_listed(&self, kind: KindId) {
        // As above.
        let _ = self.listed.subscribe().wait_for(|listed| listed[kind].secrets).await;
    }

    /// Whether these watches have their first lists.
    pub fn is_listed(&self) -> bool {
        self.listed.borrow().iter().all(|listed| listed.is_complete())
    }
}

// === impl Listed ===

impl Listed {
    fn is_complete(self) -> bool {
        !self.is_expected || self.keys && self.secrets
    }
}
