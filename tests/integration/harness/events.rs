//! Events about `DataKey`s.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use testbed::eventually;

use super::{SOON, TestKind, TestNamespace};

// === impl TestNamespace ===

impl<K: TestKind> TestNamespace<K> {
    /// The events of a `DataKey` with this reason.
    pub async fn events(&self, name: &str, reason: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name)
                && event.reason.as_deref() == Some(reason)
        };
        all.items.into_iter().filter(about).collect()
    }

    /// Waits until an event of a `DataKey` with this reason contains this text.
    pub async fn event_contains(&self, name: &str, reason: &str, words: &str) {
        eventually(SOON, &format!("an Event {reason} says {words}"), async || {
            let events = self.events(name, reason).await;
            events.iter().any(|event| event.note.as_ref().is_some_and(|note| note.contains(words)))
        })
        .await;
    }
}
