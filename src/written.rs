//! Our own last write of each `DataKey`, until the watch has it: a decision on an older state would end in a conflict,
//! and might have asked KMS in vain.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use datakey::{api::DataKey, identity};

/// Objects as the API server answered our writes, by uid.
#[derive(Default)]
pub struct Written {
    objects: Mutex<HashMap<String, Arc<DataKey>>>,
}

// === impl Written ===

impl Written {
    /// Takes in what our write answered.
    pub fn learn(&self, key: &Arc<DataKey>) {
        if let Some(uid) = &key.metadata.uid {
            self.objects.lock().insert(uid.clone(), Arc::clone(key));
        }
    }

    /// Our last write of an object, if the watch has not told it yet. Ask for it before you look into the cache, and hand it
    /// to [`Self::newest`]: what is forgotten in between, the cache has.
    pub fn get(&self, uid: &str) -> Option<Arc<DataKey>> {
        self.objects.lock().get(uid).map(Arc::clone)
    }

    /// The newest of what the watch told, what we wrote, and what we had written before the watch's was looked up. What the
    /// watch has is forgotten.
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

/// Where nothing is known of the two versions, the watch's is taken.
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
    fn our_write_stands_in_until_the_watch_has_it() {
        let written = Written::default();
        written.learn(&at_version("100"));
        assert_eq!(version(&written.newest(at_version("99"), None)), "100");
        assert_eq!(version(&written.newest(at_version("101"), None)), "101");
        assert_eq!(version(&written.newest(at_version("99"), None)), "99", "it was forgotten with the first newer one");
    }

    #[test]
    fn our_write_that_the_watch_brings_while_the_cache_is_looked_up_counts() {
        let written = Written::default();
        written.learn(&at_version("100"));
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
    fn versions_that_are_no_numbers_leave_it_to_the_watch() {
        let written = Written::default();
        written.learn(&at_version("b"));
        assert_eq!(version(&written.newest(at_version("a"), None)), "a");
    }
}
