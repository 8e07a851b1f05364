//! Watches a namespace and compares every state that it sees with all earlier ones: no data key ever changes or vanishes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::task::JoinHandle;

use super::{TestKind, TestNamespace};

#[derive(Default)]
struct Seen {
    /// Recorded blobs and public keys by uid and version.
    recorded: BTreeMap<(String, i32), (ByteString, Option<ByteString>)>,
    /// Published blobs and public keys by Secret name and entry.
    published: BTreeMap<(String, String), Vec<u8>>,
    states: usize,
    violations: Vec<String>,
}

/// Watches the objects of the kind and the Secrets of a namespace. Start it before the first object, and let no client but the operator
/// edit Secrets meanwhile.
pub struct InvariantWatch {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

// === impl InvariantWatch ===

impl InvariantWatch {
    /// Watches the namespace of a test.
    pub fn of<K: TestKind>(test: &TestNamespace<K>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let tasks = [
            tokio::spawn(watch(test.keys(), Arc::clone(&seen), Seen::object::<K>)),
            tokio::spawn(watch(test.secrets(), Arc::clone(&seen), |seen, secret| {
                seen.secret(secret, K::KIND.secret_type);
            })),
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
    fn object<K: TestKind>(&mut self, key: &K) {
        self.states += 1;
        let uid = key.uid().unwrap();
        for issued in key.as_object().record() {
            let bytes = (issued.ciphertext_blob.clone(), issued.public_key.clone());
            let first = self.recorded.entry((uid.clone(), issued.version)).or_insert_with(|| bytes.clone());
            if *first != bytes {
                self.violations.push(format!(
                    "{}: version {} was recorded again with other bytes",
                    key.name_any(),
                    issued.version
                ));
            }
        }
        let kept = self.recorded.range((uid.clone(), 0)..=(uid, i32::MAX)).count();
        if kept != key.as_object().record().len() {
            self.violations.push(format!(
                "{}: {kept} versions were recorded, {} are",
                key.name_any(),
                key.as_object().record().len()
            ));
        }
    }

    fn secret(&mut self, secret: &Secret, type_: &str) {
        if secret.type_.as_deref() != Some(type_) {
            return;
        }
        self.states += 1;
        let name = secret.name_any();
        let data = secret.data.clone().unwrap_or_default();
        let current = data.get("version").map(|version| String::from_utf8_lossy(&version.0).into_owned());
        for (entry, value) in data {
            // The plain entries are those of the version that is current.
            let is_plain = ["ciphertextBlob", "publicKey"].contains(&entry.as_str());
            let entry =
                current.as_ref().filter(|_| is_plain).map_or(entry.clone(), |version| format!("{entry}.v{version}"));
            if entry.starts_with("ciphertextBlob.v") || entry.starts_with("publicKey.v") {
                let first = self.published.entry((name.clone(), entry.clone())).or_insert_with(|| value.0.clone());
                if *first != value.0 {
                    self.violations.push(format!("Secret {name}: {entry} was published with other bytes"));
                }
            }
        }
    }
}
