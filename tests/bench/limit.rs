//! The limit: exactly the requests that one DataKey needs, sent by a bare loop. Bodies are made before the time is taken.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use datakey::{
    api::{DataKey, IssuedVersion, Rest, VerifiedSecret, with_recorded},
    condition,
    secret::{Projection, digest::Digest},
};
use hyper::{Method, StatusCode, body::Bytes};
use k8s_openapi::{ByteString, jiff::Timestamp};
use kube::core::ObjectMeta;
use tokio::task::JoinSet;

use crate::{
    bare::{Bare, JSON, METADATA},
    observer,
};

/// In place of a resource version that is known only later.
const LATER: &str = "@resource-version@";

const MANAGER: &str = "fieldManager=datakey-operator";

/// What one DataKey needs.
pub struct Work {
    look: String,
    status: String,
    secrets: String,
    record: Bytes,
    secret: Bytes,
    ready: String,
}

// === impl Work ===

impl Work {
    /// Makes the bodies that the operator would send for a new DataKey, with a blob of the usual size.
    pub fn new(key: &DataKey) -> Self {
        let now = Timestamp::now();
        let issued = IssuedVersion {
            version: key.wanted_version(),
            request: key.spec.request().unwrap(),
            ciphertext_blob: ByteString(std::iter::repeat_with(|| fastrand::u8(..)).take(184).collect()),
            public_key: None,
            key_id: "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
            key_material_id: None,
            issued_at: datakey::api::truncate_to_seconds(now),
            request_id: Some(format!("{:032x}", fastrand::u128(..))),
            as_written: None,
            rewrap_of: None,
            class: None,
            rest: Rest::new(),
        };
        let mut recorded = key.clone();
        recorded.status = Some(with_recorded(key, vec![issued.clone()]));
        let secret = Projection::of(&recorded, key.wanted_version()).unwrap().into_secret(&recorded);
        let mut ready = recorded.clone();
        // As long as the real ones, which are known only later.
        let saved = VerifiedSecret {
            uid: "7c3c8f7e-5b0a-4c62-9d5e-000000000000".to_owned(),
            resource_version: "1000000".to_owned(),
            digest: Digest::of(&secret).to_string(),
        };
        ready.status = Some(condition::ready(&recorded, &issued, Some(saved), now));
        ready.metadata.resource_version = Some(LATER.to_owned());

        let (namespace, name) = (key.metadata.namespace.as_deref().unwrap(), key.metadata.name.as_deref().unwrap());
        let secrets = observer::secrets(namespace);
        Self {
            look: format!("{secrets}/{name}"),
            status: format!("{}/{name}/status?{MANAGER}", observer::keys(namespace)),
            secrets: format!("{secrets}?{MANAGER}"),
            record: serde_json::to_vec(&sent(recorded)).unwrap().into(),
            secret: serde_json::to_vec(&secret).unwrap().into(),
            ready: serde_json::to_string(&sent(ready)).unwrap(),
        }
    }

    /// Sends the four requests, one after the other.
    pub async fn done(&self, bare: &Bare) {
        bare.ask(Method::GET, &self.look, METADATA, Bytes::new()).await.must_be(StatusCode::NOT_FOUND);
        let answer = bare.ask(Method::PUT, &self.status, METADATA, self.record.clone()).await;
        answer.must_be(StatusCode::OK);
        let ready = self.ready.replace(LATER, answer.resource_version());
        self.publish(bare).await;
        bare.ask(Method::PUT, &self.status, METADATA, ready.into()).await.must_be(StatusCode::OK);
    }

    /// Creates the Secret alone.
    pub async fn publish(&self, bare: &Bare) {
        bare.ask(Method::POST, &self.secrets, JSON, self.secret.clone()).await.must_be(StatusCode::CREATED);
    }
}

/// The object as the operator sends it: of the metadata only what identifies it.
fn sent(key: DataKey) -> DataKey {
    let metadata = key.metadata;
    DataKey {
        metadata: ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            ..ObjectMeta::default()
        },
        ..key
    }
}

/// Does something with each, so many at a time; how long it took in all.
pub async fn each<T, F>(items: Vec<T>, concurrency: usize, work: impl Fn(T) -> F + Send + Sync + 'static) -> Duration
where
    T: Send + 'static,
    F: Future<Output = ()> + Send,
{
    let shared = Arc::new((Mutex::new(items.into_iter()), work));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let shared = Arc::clone(&shared);
        workers.spawn(async move {
            let next = || shared.0.lock().unwrap().next();
            while let Some(item) = next() {
                (shared.1)(item).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    begun.elapsed()
}
