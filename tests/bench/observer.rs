//! Records by a watch of its own when a DataKey becomes ready or a Secret is created, and opens watches like the
//! operator's whose events are discarded.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{Method, StatusCode, body::Bytes, header::HeaderValue};
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::bare::{Bare, JSON, METADATA};

/// The Secrets of the operator.
const OUR_TYPE: &str = "&fieldSelector=type%3Ddatakey.dev/wrapped-key";

/// Watches a namespace until it is dropped.
pub struct Observer {
    seen: mpsc::UnboundedReceiver<(String, Instant)>,
    task: JoinHandle<()>,
}

/// Watches that are open as long as this lives.
pub struct Drain(Vec<JoinHandle<()>>);

#[derive(Deserialize)]
struct WatchEvent {
    #[serde(rename = "type")]
    type_: String,
    object: Object,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    generation: Option<i64>,
    resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    version: Option<i32>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    status: String,
    observed_generation: Option<i64>,
}

// === impl WatchEvent ===

impl WatchEvent {
    fn is_ready_at(&self, version: i32) -> bool {
        let Object { metadata, status } = &self.object;
        status.version == Some(version)
            && status
                .conditions
                .first()
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == metadata.generation)
    }
}

// === impl Observer ===

impl Observer {
    /// Begins to watch for DataKeys that become ready at this version.
    pub async fn keys(bare: &Bare, namespace: &str, version: i32) -> Self {
        Self::start(bare, keys(namespace), JSON, move |event| event.is_ready_at(version)).await
    }

    /// Begins to watch for Secrets that are created.
    pub async fn secrets(bare: &Bare, namespace: &str) -> Self {
        Self::start(bare, secrets(namespace), METADATA, |event| event.type_ == "ADDED").await
    }

    /// Objects that are there already are not reported.
    async fn start(
        bare: &Bare,
        path: String,
        accept: HeaderValue,
        counts: impl Fn(&WatchEvent) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let bare = bare.clone();
        let mut version = now(&bare, &path).await;
        let task = tokio::spawn(async move {
            // The server ends a watch that it thinks too slow; nothing is missed.
            loop {
                let watch = format!("{path}?watch=1&timeoutSeconds=7200&resourceVersion={version}");
                follow(&bare, &watch, accept.clone(), |line| {
                    let event: WatchEvent = serde_json::from_slice(line).expect("an event");
                    version.clone_from(&event.object.metadata.resource_version);
                    if let (true, Some(name)) = (counts(&event), event.object.metadata.name) {
                        // Once the observer is dropped, the channel has no receiver.
                        let _ = sender.send((name, Instant::now()));
                    }
                    ControlFlow::Continue(())
                })
                .await;
            }
        });
        Self { seen, task }
    }

    /// Waits until so many different ones were seen, and when each was seen first.
    pub async fn seen(&mut self, count: usize) -> HashMap<String, Instant> {
        let mut all = HashMap::new();
        while all.len() < count {
            let (name, at) = self.seen.recv().await.expect("the watch goes on");
            all.entry(name).or_insert(at);
        }
        all
    }

    /// Waits until so many different ones were seen; when the last one was.
    pub async fn last(&mut self, count: usize) -> Instant {
        self.seen(count).await.into_values().max().expect("there is one")
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Drain ===

impl Drain {
    /// Opens the two watches of an operator on this namespace.
    pub async fn open(bare: &Bare, namespace: &str) -> Self {
        let mut tasks = Vec::new();
        for (path, selector, accept) in [(keys(namespace), "", JSON), (secrets(namespace), OUR_TYPE, METADATA)] {
            let bare = bare.clone();
            let version = now(&bare, &path).await;
            tasks.push(tokio::spawn(async move {
                let watch = format!(
                    "{path}?watch=1&timeoutSeconds=7200&allowWatchBookmarks=true&resourceVersion={version}{selector}"
                );
                follow(&bare, &watch, accept, |_| ControlFlow::Continue(())).await;
            }));
        }
        Self(tasks)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The path of the DataKeys of a namespace.
pub fn keys(namespace: &str) -> String {
    format!("/apis/datakey.dev/v1alpha1/namespaces/{namespace}/datakeys")
}

/// The path of the Secrets of a namespace.
pub fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

/// Reads the lists that an operator reads at its start, both at the same time; what the answers say is not looked at. Returns how
/// long that takes.
pub async fn read_lists(bare: &Bare, namespace: &str) -> Duration {
    let begun = Instant::now();
    tokio::join!(list(bare, keys(namespace), "", JSON), list(bare, secrets(namespace), OUR_TYPE, METADATA));
    begun.elapsed()
}

/// Reads a streamed list.
async fn list(bare: &Bare, path: String, selector: &str, accept: HeaderValue) {
    let watch = format!(
        "{path}?watch=1&timeoutSeconds=7200&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan{selector}"
    );
    let mut is_whole = false;
    follow(bare, &watch, accept, |line| {
        is_whole = line.starts_with(b"{\"type\":\"BOOKMARK\"");
        if is_whole { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    assert!(is_whole, "the list of {path} is not complete");
}

/// The resource version of now.
async fn now(bare: &Bare, path: &str) -> String {
    let list = bare.get(&format!("{path}?limit=1")).await;
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Reads a watch line by line, to its end.
async fn follow(bare: &Bare, path: &str, accept: HeaderValue, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) {
    let response = bare.send(Method::GET, path, accept, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.expect("the watch goes on").into_data() else { continue };
        rest.extend_from_slice(&data);
        let mut begin = 0;
        while let Some(end) = rest[begin..].iter().position(|byte| *byte == b'\n') {
            if each(&rest[begin..begin + end]).is_break() {
                return;
            }
            begin += end + 1;
        }
        rest.drain(..begin);
    }
}
