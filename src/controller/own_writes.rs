//! The operator's last write of each `DataKey`, until the watch delivers it. A decision on the older state would waste a call
//! to KMS: the API server would refuse its record with 409.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use datakey::{api::DataKey, identity};

/// Objects as the API server answered our writes, by uid.
#[derive(Default)]
pub struct OwnWrites {
    objects: Mutex<HashMap<String, Arc<DataKey>>>,
}

// === impl OwnWrites ===

impl OwnWrites {
    /// Stores the object that the API server returned for our write.
    pub fn store(&self, key: &Arc<DataKey>) {
        if let Some(uid) = &key.metadata.uid {
            self.objects.lock().insert(uid.clone(), Arc::clone(key));
        }
    }

    /// Our last write of an object, if the watch has not delivered it yet. Call it before you read the cache, and pass
    /// the result to [`Self::newest`]: a write that is forgotten in between is in the cache.
    pub fn get(&self, uid: &str) -> Option<Arc<DataKey>> {
        self.objects.lock().get(uid).map(Arc::clone)
    }

    /// The newest of three: the object of the watch, the operator's last write, and its last write before the cache was read.
    /// Forgets a write that the watch has delivered.
    pub fn newest(&self, cached: Arc<DataKey>, before: Option<Arc<DataKey>>) -> Arc<DataKey> {
        let newest = self.newer(cached);
        before
            .filter(|before| before.metadata.uid == newest.metadata.uid && is_older(&newest, before))
            .unwrap_or(newest)
    }

    fn newer(&self, cached: Arc<DataKey>) -> Arc<DataKey> {
        let Some(uid) = &cached.metadata.uid else {
            return cached;
        };
        let mut objects = self.objects.lock();
        match objects.get(uid) {
            Some(written) if is_older(&cached, written) => Arc::clone(written),
            Some(_) => {
                objects.remove(uid);
                cached
            }
            None => cached,
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.objects.lock().remove(uid);
    }
}

/// Whether the object of the watch is older than our write. False if the two versions cannot be compared, so that the object of
/// the watch is used.
fn is_older(cached: &DataKey, written: &DataKey) -> bool {
    let versions = cached.metadata.resource_version.as_deref().zip(written.metadata.resource_version.as_deref());
    versions.is_some_and(|(cached, written)| identity::is_older(cached, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datakey::fixtures::data_key;

    fn at_version(version: &str) -> Arc<DataKey> {
        let mut key = data_key();
        key.metadata.resource_version = Some(version.to_owned());
        Arc::new(key)
    }

    fn version(key: &DataKey) -> &str {
        key.metadata.resource_version.as_deref().unwrap()
    }

    #[test]
    fn own_write_counts_until_the_watch_delivers_it() {
        let written = OwnWrites::default();
        written.store(&at_version("100"));
        assert_eq!(version(&written.newest(at_version("99"), None)), "100");
        assert_eq!(version(&written.newest(at_version("101"), None)), "101");
        assert_eq!(version(&written.newest(at_version("99"), None)), "99", "it was forgotten with the first newer one");
    }

    #[test]
    fn own_write_delivered_during_the_cache_lookup_counts() {
        let written = OwnWrites::default();
        written.store(&at_version("100"));
        let before = written.get(data_key().metadata.uid.as_deref().unwrap());
        // Looked up before the watch brought it, and forgotten by then.
        let cached = at_version("99");
        written.newest(at_version("100"), None);
        assert_eq!(version(&written.newest(cached, before.clone())), "100");
        assert_eq!(version(&written.newest(at_version("101"), before.clone())), "101");
        let mut other = DataKey::clone(&at_version("99"));
        other.metadata.uid = Some("another".to_owned());
        assert_eq!(version(&written.newest(Arc::new(other), before)), "99", "of another object of the same name");
    }

    #[test]
    fn watch_replaces_an_own_write_without_a_numeric_revision() {
        let written = OwnWrites::default();
        written.store(&at_version("b"));
        assert_eq!(version(&written.newest(at_version("a"), None)), "a");
    }
}
