//! What every reconcile works with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datakey::{
    api::{Kind, KindId, Object},
    protocol::Inputs,
    secret::template::Reserved,
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, runtime::events::EventType};
use tracing::warn;

use super::{
    conflict_watches::ConflictWatches,
    reads::Reads,
    retry::{RetryBounds, RetryTable},
};
use crate::{
    api_server::{connectivity::Connectivity, events::Events},
    classes::Classes,
    controller::store::WorkingSet,
    key_check::KeyChecks,
    kms::Kms,
    metrics::Metrics,
};

/// What every reconcile works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// AWS KMS.
    pub kms: Kms,
    /// Whether the API server answers.
    pub connectivity: Connectivity,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What delays the next try of each object.
    pub retries: Arc<RetryTable>,
    /// Watches over foreign Secrets that hold the name of an object's Secret.
    pub conflicts: ConflictWatches,
    /// How often Secrets are read.
    pub reads: Reads,
    /// Whether the installed definition of `DataKey` keeps `status.secret`; the one of 0.1.0 drops it.
    pub keeps_revision: AtomicBool,
    /// The objects that are being worked on.
    pub working_set: Arc<WorkingSet>,
    /// Longest wait for one answer of the API server.
    pub kube_timeout: Duration,
    /// How often the objects that are not settled are queued without any event.
    pub resync: Duration,
    /// What is known of the classes.
    pub classes: Classes,
    /// What is known of the KMS keys.
    pub key_checks: KeyChecks,
    /// Whether data keys may be issued.
    pub may_issue: bool,
    /// Keys that the template of a Secret may not have.
    pub reserved: Reserved,
}

// === impl Context ===

impl Context {
    /// With these bounds of the delays between retries, and the defaults of the flags.
    pub fn new(client: Client, kms: Kms, metrics: Arc<Metrics>, retry_bounds: RetryBounds) -> Self {
        let retries = Arc::new(RetryTable::new(retry_bounds));
        Self {
            connectivity: Connectivity::default(),
            events: Events::new(client.clone()),
            conflicts: ConflictWatches::new(client.clone()),
            client,
            kms,
            metrics,
            reads: Reads::default(),
            retries,
            keeps_revision: AtomicBool::new(true),
            working_set: Arc::new(WorkingSet::new(8 << 20)),
            kube_timeout: Duration::from_secs(10),
            resync: Duration::from_hours(10),
            classes: Classes::new(false),
            key_checks: KeyChecks::new(Duration::ZERO, false),
            may_issue: true,
            reserved: Reserved::default(),
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.retries.forget(uid);
        self.conflicts.forget(uid);
        self.reads.queue.release(uid);
        self.kms.queue.release(uid);
    }

    /// Records that there is nothing to do for an object: nothing of it waits for a permit.
    pub fn settled(&self, uid: &str) {
        self.retries.settled(uid);
        self.kms.queue.release(uid);
        self.reads.queue.release(uid);
    }

    /// Writes an event about an object.
    pub async fn emit(&self, about: &ObjectReference, type_: EventType, reason: &str, note: &str) {
        self.events.emit(about, type_, reason, note, self.kube_timeout).await;
    }

    /// What every decision depends on besides the object, its Secret and its failures.
    pub(super) fn inputs(&self, kind: &Kind) -> Inputs<'_> {
        Inputs {
            default_region: self.kms.own_region(),
            keeps_revision: kind.id != KindId::DataKey || self.keeps_revision.load(Ordering::Relaxed),
            may_issue: self.may_issue,
            reserved: &self.reserved,
            ..Inputs::default()
        }
    }

    /// Notices whether the installed definition keeps `status.secret`. The definition of an older release drops it, and
    /// repeated writes would not help.
    pub(super) fn notice_the_definition(&self, sent: Object<'_>, stored: Object<'_>) {
        // Each definition of key pairs keeps it.
        if sent.kind.id != KindId::DataKey {
            return;
        }
        let has_revision = |key: Object<'_>| key.status.is_some_and(|status| status.secret.is_some());
        if !has_revision(sent) {
            return;
        }
        let kept = has_revision(stored);
        if self.keeps_revision.swap(kept, Ordering::Relaxed) && !kept {
            warn!(
                "the installed CustomResourceDefinition drops status.secret, so each start reads every Secret: apply the \
                 definition of this release"
            );
        }
    }
}
