//! One reconcile under way: the attempt, and what the operator keeps for it.

use std::{sync::Arc, time::Duration};

use datakey::{
    api::{KeyKind, Object},
    protocol::{Answer, Attempt, Inputs, Restart, Rival, SecretState, Unrecorded},
    reason::{Failure, Reason},
    secret::{
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, runtime::events::EventType};
use tokio::time::timeout;

use super::{context::Context, error::Error, retry::FailureInputs};
use crate::{
    classes::ClassInView,
    controller::{
        slots::Slot,
        store::{Claim, Store},
    },
    kms::{
        queue::{CallInFlight, Permit, Requeue},
        roles::Session,
    },
    place::Place,
};

/// What a reconcile is queued for; the queue requeues the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// A permit to call KMS.
    Kms,
    /// A permit to read the Secret.
    Reads,
}

/// One reconcile under way.
pub(super) struct Reconciler<'a, K: KeyKind> {
    pub context: &'a Context,
    pub store: &'a Store,
    pub requeue: &'a Requeue,
    pub place: Place,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub attempt: Attempt<Arc<K>>,
    pub slot: Slot,
    /// The permit that the object was read with, until the Secret is read with it or something else is done.
    pub read: Option<CallInFlight>,
    /// What a failure depends on: when that changes, the next try does not wait.
    pub failure_inputs: FailureInputs,
    /// While this reconcile holds the claim, no other object records its first data key for the same Secret.
    pub claim: Option<Claim<'a>>,
    pub permit: Option<Permit>,
    /// The session of the role that the class names.
    pub session: Option<Session>,
    pub queued_for: Option<Queue>,
    /// Version and request ID of a data key that KMS issued, until the record has it.
    pub unrecorded: Option<(i32, Option<String>)>,
    /// What the event says of a version that KMS issued in this reconcile, until the version is published.
    pub issued: Option<String>,
    /// When a failure is tried again.
    pub retry: Option<Duration>,
    /// Whether a line of the log reports the failure.
    pub is_logged: bool,
    /// The error that the failure comes from, where the failure does not repeat it.
    pub error: Option<String>,
}

/// An answer to a step of the operator.
pub(super) type Learned<K> = Answer<Arc<K>, KnownSecret, SecretMetadata, Box<Secret>, Unrecorded, Failure>;

// === impl Reconciler ===

impl<'a, K: KeyKind> Reconciler<'a, K> {
    pub fn new(
        key: Arc<K>,
        slot: Slot,
        read: Option<CallInFlight>,
        store: &'a Store,
        requeue: &'a Requeue,
        context: &'a Context,
    ) -> Self {
        let namespace = key.namespace().unwrap_or_default();
        let place = Place::of(K::KIND.id, key.meta());
        let known = store.secret(&place.beside(key.as_object().secret_name()));
        Self {
            context,
            store,
            requeue,
            place,
            name: key.name_any(),
            uid: key.uid().unwrap_or_default(),
            failure_inputs: FailureInputs { secret: revision_of(known.as_ref()), ..failure_inputs(key.as_object()) },
            namespace,
            slot,
            read,
            attempt: Attempt::new(key, known),
            claim: None,
            permit: None,
            session: None,
            queued_for: None,
            unrecorded: None,
            issued: None,
            retry: None,
            is_logged: false,
            error: None,
        }
    }

    /// The object as it was last read or stored.
    pub fn key(&self) -> &Arc<K> {
        self.attempt.object()
    }

    /// What the protocol reads of it.
    pub fn object(&self) -> Object<'_> {
        self.key().as_object()
    }

    /// Passes the answer to a step on to the attempt.
    pub fn learn(&mut self, answer: Learned<K>) -> Result<(), Error> {
        match self.attempt.learn(answer) {
            Ok(()) => Ok(()),
            Err(Restart::Gone) => Err(Error::Gone),
            Err(Restart::TooManyConflicts(conflicts)) => {
                self.context.retries.record_written(&self.uid, false);
                let detail = format!(
                    "another client changes the {kind} faster than the operator can record a {noun}: {conflicts} writes of the \
                     record in a row failed because the {kind} had changed. The operator does not use this {noun}, and \
                     calls KMS again later",
                    kind = K::KIND.name,
                    noun = K::KIND.noun
                );
                self.fail(Failure::new(Reason::ApiServerFailed, detail));
                Ok(())
            }
        }
    }

    /// Stores what a revision of the Secret holds, in the index and in the attempt.
    pub fn learn_revision(&mut self, metadata: SecretMetadata, verified: Verified) -> Result<(), Error> {
        let known = KnownSecret { metadata, verified: Some(verified) };
        self.store.put_secret(&self.secret_place(), known.clone());
        self.learn(Answer::Revision(known))
    }

    /// Records a failure: the next step reports it, and the next try waits.
    pub fn fail(&mut self, failure: Failure) {
        if failure.reason == Reason::SecretConflict {
            self.watch_the_conflict();
        } else {
            self.context.conflicts.forget(&self.uid);
        }
        self.retry = Some(self.context.retries.on_failure(&self.uid, self.failure_inputs.clone(), &failure));
        self.fail_without_backoff(failure);
    }

    /// Records a failure without a longer wait: the operator tried nothing, so nothing failed again.
    pub fn fail_without_backoff(&mut self, failure: Failure) {
        // A failure never ends an attempt.
        let _ = self.attempt.learn(Answer::Failed(failure));
    }

    /// The inputs of a decision. Their texts are borrowed from `restore_limited` and `failure_inputs`.
    pub fn inputs<'b>(&'b self, retry_after: Option<Duration>, restore_limited: Option<&'b str>) -> Inputs<'b> {
        Inputs {
            retry_after,
            restore_limited,
            record_failed: self.context.retries.has_failed_record(&self.uid),
            rival: self
                .failure_inputs
                .rival
                .as_ref()
                .map(|rival| Rival { kind: rival.kind().kind(), name: rival.name() }),
            tenancy: self.failure_inputs.class.tenancy(self.context.classes.is_required()),
            ..self.context.inputs(K::KIND)
        }
    }

    /// Whether the reconcile must claim the Secret: without a claim, another object could write its first record for the
    /// same Secret at the same time.
    pub fn needs_a_claim(&self) -> bool {
        self.claim.is_none() && self.object().record().is_empty()
    }

    /// The other object that the name of the Secret is reserved for.
    pub fn rival(&self) -> Option<Place> {
        let has_no_record = self.object().record().is_empty();
        has_no_record.then(|| self.store.rival(self.object())).flatten()
    }

    /// Whether the object waits for its class, and that has changed since the decision. The change may have come before the status
    /// said so, and then it has woken nothing.
    pub fn has_missed_its_class(&self) -> bool {
        let waits = match self.attempt.failure() {
            Some(failure) => failure.reason.depends_on_class() || failure.reason.depends_on_request(),
            None => self.failure_inputs.class == ClassInView::Unlisted,
        };
        waits && self.context.classes.of(self.object()) != self.failure_inputs.class
    }

    /// The place of the Secret.
    pub fn secret_place(&self) -> Place {
        self.place.beside(self.object().secret_name())
    }

    /// Watches a foreign Secret that holds the name, until that Secret is gone. The Secret watch covers those of the
    /// kind's own type in any case.
    pub fn watch_the_conflict(&self) {
        let Context { conflicts, retries, .. } = self.context;
        let is_foreign = match self.attempt.secret() {
            SecretState::Present(_) => true,
            SecretState::Loaded(secret) => secret.type_.as_deref() != Some(K::KIND.secret_type),
            // The state after a restart. If the name is reserved for another object, there may be no Secret.
            SecretState::Unwatched => self.failure_inputs.rival.is_none(),
            SecretState::Watched(_) | SecretState::Absent => false,
        };
        if is_foreign {
            conflicts.watch(&self.uid, &self.place, self.object().secret_name(), retries, self.requeue);
        }
    }

    /// Writes an event about the object.
    pub async fn emit_event(&self, type_: EventType, reason: &str, note: &str) {
        self.context.emit(&self.key().object_ref(&()), type_, reason, note).await;
    }

    /// Waits for an answer of the API server.
    pub async fn with_timeout<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.context.kube_timeout;
        timeout(limit, request).await.map_err(|_| Error::Timeout(limit))
    }
}

/// The resource version of the Secret that the watch knows.
pub(super) fn revision_of(known: Option<&KnownSecret>) -> Option<String> {
    known.map(|known| known.metadata.revision.resource_version.clone())
}

/// What a failure of this object depends on, except its Secret, its rival and its class.
pub(super) fn failure_inputs(key: Object<'_>) -> FailureInputs {
    FailureInputs {
        generation: key.metadata.generation,
        restored: key.is_restored(),
        recorded: key.recorded_version(key.wanted_version()).is_some(),
        secret: None,
        rival: None,
        class: ClassInView::None,
        retry_at: key.retry_at().map(str::to_owned),
    }
}
