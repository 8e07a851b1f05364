//! What probes and scrapes see of the watches.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::{scope::WatchScope, store::Store};
use crate::{api_server::connectivity::Connectivity, metrics::KmsKeyStates, reconcile::Context};
use datakey::{
    api::KindId,
    condition::{ReadyState, key_usable::Cause},
};

/// What probes and scrapes see of the watches, once this replica has begun to watch.
#[derive(Clone, Default)]
pub struct Readiness {
    watches: Arc<OnceLock<Watches>>,
    stands_by: Arc<AtomicBool>,
    /// Whether the API server answers.
    pub connectivity: Connectivity,
}

struct Watches {
    scopes: Vec<Arc<WatchScope>>,
    context: Arc<Context>,
}

// === impl Readiness ===

impl Readiness {
    /// This replica has begun to watch.
    pub(super) fn set_watches(&self, scopes: Vec<Arc<WatchScope>>, context: Arc<Context>) {
        // Never set before: `run` is the only caller, and the operator calls it once.
        let _ = self.watches.set(Watches { scopes, context });
    }

    /// Makes this replica ready as a standby: the API server reports that another replica leads.
    pub fn stand_by(&self) {
        self.stands_by.store(true, Ordering::Relaxed);
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.watches.get().is_some()
    }

    /// How many objects wait for a permit to call KMS.
    pub fn kms_queue_length(&self) -> usize {
        self.watches.get().map_or(0, |watches| watches.context.kms.queue.waiting())
    }

    /// How many sessions of roles are open.
    pub fn role_sessions(&self) -> usize {
        self.watches.get().map_or(0, |watches| watches.context.kms.roles.sessions.count())
    }

    /// Whether the API server answers and every watch has its first list, so that an object that is missing in the store does
    /// not exist. A standby replica is ready, too, because it can take over.
    pub fn is_ready(&self) -> bool {
        if self.connectivity.is_lost() {
            return false;
        }
        let Some(Watches { scopes, .. }) = self.watches.get() else {
            return self.stands_by.load(Ordering::Relaxed);
        };
        scopes.iter().all(|scope| scope.store.is_listed())
    }

    /// How many KMS keys wrapped recorded versions, by state; and a cause and namespace for each object whose condition `KeyUsable` is
    /// False.
    pub fn kms_keys(&self) -> (KmsKeyStates, Vec<(Cause, String)>) {
        let Some(watches) = self.watches.get() else { return Default::default() };
        let stores = || watches.scopes.iter().map(|scope| &*scope.store);
        let unusable = stores().flat_map(Store::unusable).collect();
        (watches.context.key_checks.states(stores()), unusable)
    }

    /// What the `Ready` conditions say, by kind, and how many objects cannot be decoded.
    pub fn states(&self) -> (Vec<(KindId, ReadyState)>, usize) {
        let scopes = self.watches.get().into_iter().flat_map(|watches| &watches.scopes);
        let (mut all, mut unreadable) = (Vec::new(), 0);
        for (states, more) in scopes.map(|scope| scope.store.states()) {
            all.extend(states);
            unreadable += more;
        }
        (all, unreadable)
    }
}
