//! Watches a namespace and compares every state that it sees with all earlier ones: no data key and no key pair ever changes or
//! vanishes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use datakey::api::{DataKey, DataKeyPair, KINDS, KeyKind};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::task::JoinHandle;

use super::TestNamespace;

#[derive(Default)]
struct Seen {
    /// Recorded blobs and public keys, by the uid of the object and the version.
    recorded: BTreeMap<(String, i32), Vec<u8>>,
    /// Published blobs and public keys, by Secret name and entry.
    published: BTreeMap<(String, String), Vec<u8>>,
    states: usize,
    violations: Vec<String>,
}

/// Watches the `DataKey`s, `DataKeyPair`s and Secrets of a namespace. Start it before the first object, and let no client but the
/// operator edit Secrets meanwhile.
pub struct InvariantWatch {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 3],
}

// === impl InvariantWatch ===

impl InvariantWatch {
    /// Watches the namespace of a test.
    pub fn of(test: &TestNamespace) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let tasks = [
            tokio::spawn(watch(test.keys(), Arc::clone(&seen), Seen::object::<DataKey>)),
            tokio::spawn(watch(
                Api::namespaced(test.client.clone(), &test.namespace),
                Arc::clone(&seen),
                Seen::object::<DataKeyPair>,
            )),
            tokio::spawn(watch(test.secrets(), Arc::clone(&seen), Seen::secret)),
        ];
        Self { seen, tasks }
    }

    /// Asserts that no recorded and no published data key ever changed or vanished. Returns how many states it saw.
    pub fn assert_held(self) -> usize {
        for task in &self.tasks {
            task.abort();
        }
        let seen = self.seen.lock().unwrap();
        assert!(seen.violations.is_empty(), "{:#?}", seen.violations);
        assert!(!seen.recorded.is_empty() && !seen.published.is_empty(), "it saw nothing at all");
        seen.states
    }
}

async fn watch<K>(api: Api<K>, seen: Arc<Mutex<Seen>>, record: impl Fn(&mut Seen, &K) + Send)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut states = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    while let Some(state) = states.next().await {
        // What it misses while the API server is away, it sees in the next list.
        if let Ok(object) = state {
            record(&mut seen.lock().unwrap(), &object);
        }
    }
}

// === impl Seen ===

impl Seen {
    fn object<K: KeyKind>(&mut self, key: &K) {
        self.states += 1;
        let (uid, name) = (key.uid().unwrap(), key.name_any());
        let record = key.as_object().record();
        for issued in record {
            let public_key = issued.public_key.iter().flat_map(|der| &der.0);
            let bytes: Vec<_> = issued.ciphertext_blob.0.iter().chain(public_key).copied().collect();
            let first = self.recorded.entry((uid.clone(), issued.version)).or_insert_with(|| bytes.clone());
            if *first != bytes {
                self.violations.push(format!("{name}: version {} was recorded again with other bytes", issued.version));
            }
        }
        let kept = self.recorded.range((uid.clone(), 0)..=(uid, i32::MAX)).count();
        if kept != record.len() {
            self.violations.push(format!("{name}: {kept} versions were recorded, {} are", record.len()));
        }
    }

    fn secret(&mut self, secret: &Secret) {
        if KINDS.iter().all(|kind| secret.type_.as_deref() != Some(kind.secret_type)) {
            return;
        }
        self.states += 1;
        let name = secret.name_any();
        let data = secret.data.clone().unwrap_or_default();
        let current = data.get("version").map(|version| String::from_utf8_lossy(&version.0).into_owned());
        for (mut entry, value) in data {
            let Some(of) = ["ciphertextBlob", "publicKey"].into_iter().find(|of| entry.starts_with(of)) else {
                continue;
            };
            // The plain entry is that of the version that is current.
            if entry == of {
                entry = format!("{of}.v{}", current.as_deref().unwrap_or_default());
            }
            let first = self.published.entry((name.clone(), entry.clone())).or_insert_with(|| value.0.clone());
            if *first != value.0 {
                self.violations.push(format!("Secret {name}: {entry} was published with other bytes"));
            }
        }
    }
}
