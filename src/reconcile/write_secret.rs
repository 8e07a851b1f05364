//! Carries out the steps that read and write the Secret.

use datakey::{
    api::KeyKind,
    protocol::{Answer, SecretState},
    reason::{Failure, Reason},
    secret::{compare, digest::Digest, known::Verified, metadata::SecretMetadata},
};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::events::EventType;
use tracing::info;

use super::{
    Next,
    error::Error,
    reconciler::{Queue, Reconciler},
};
use crate::{
    api_server::{
        outcome::{WriteOutcome, classify_write},
        secrets::{self, RequestError},
    },
    metrics::SecretWrite,
};

impl<K: KeyKind> Reconciler<'_, K> {
    pub(super) async fn get_secret_metadata(&mut self) -> Result<(), Error> {
        let found = secrets::get_metadata(&self.context.client, &self.namespace, self.object().secret_name());
        let found = self.with_timeout(found).await??;
        self.learn(Answer::Metadata(found))
    }

    /// Reads the Secret, or returns when it may be read. The limits do not apply to a verified revision: that revision is read
    /// in order to write the Secret, not to verify a change. The rate does not apply to an object with a permit to call KMS either,
    /// which has a rate of its own: it would lose that permit while it waits.
    pub(super) async fn get_secret(&mut self) -> Result<Option<Next>, Error> {
        let verified = match self.attempt.secret() {
            SecretState::Watched(known) if known.is_verified(self.object()) => Some(known.metadata.revision.clone()),
            _ => None,
        };
        let is_verified = verified.is_some();
        if !is_verified && let Some(wait) = self.context.retries.read_wait(&self.uid) {
            return Ok(Some(Next::After(wait)));
        }
        let may_call_kms = self.permit.is_some() || self.context.kms.queue.has_offer(&self.uid);
        let permit = match self.read.take() {
            Some(read) => Some(read),
            None if is_verified || may_call_kms => None,
            None => {
                let permit = self.context.reads.acquire_or_enqueue(&self.uid, &self.place, self.requeue);
                let Some(permit) = permit else {
                    self.queued_for = Some(Queue::Reads);
                    return Ok(Some(Next::OnChange));
                };
                Some(permit.start_call().await)
            }
        };
        let read = secrets::get(&self.context.client, &self.namespace, self.object().secret_name());
        let answer = self.with_timeout(read).await;
        if let Some(permit) = permit {
            permit.complete(matches!(answer, Ok(Ok(_))));
        }
        if !is_verified {
            self.context.retries.secret_read(&self.uid);
        }
        let secret = answer??;
        let revision = secret.as_ref().map(|secret| SecretMetadata::of(&secret.metadata).revision);
        let is_verified = verified.is_some() && revision == verified;
        self.learn(Answer::Secret { secret: secret.map(Box::new), is_verified })?;
        Ok(None)
    }

    pub(super) async fn create_secret(&mut self, secret: &Secret) -> Result<(), Error> {
        let created = secrets::create(&self.context.client, &self.namespace, secret);
        match self.with_timeout(created).await? {
            Err(RequestError::Kube(kube::Error::Api(status))) if status.is_already_exists() => {
                self.get_secret_metadata().await
            }
            answer => self.after_secret_write(secret, answer, SecretWrite::Create, Some("it was deleted")).await,
        }
    }

    pub(super) async fn replace_secret(&mut self, secret: &Secret, changes: Option<&str>) -> Result<(), Error> {
        let replaced = secrets::replace(&self.context.client, &self.namespace, secret);
        let answer = self.with_timeout(replaced).await?;
        self.after_secret_write(secret, answer, SecretWrite::Update, changes).await
    }

    /// Handles the answer to a write of the Secret. `changes` describes what another client had changed in the Secret.
    async fn after_secret_write(
        &mut self,
        sent: &Secret,
        answer: Result<Secret, RequestError>,
        operation: SecretWrite,
        changes: Option<&str>,
    ) -> Result<(), Error> {
        let stored = match classify_write(answer, self.object())? {
            WriteOutcome::Accepted(stored) => stored,
            WriteOutcome::Rejected(message) => {
                let way_out = match operation {
                    SecretWrite::Create => "",
                    SecretWrite::Update => ". Once the Secret is deleted, the operator creates it from the record",
                };
                self.fail(Failure::new(Reason::WriteRejected, format!("the Secret: {message}{way_out}")));
                return Ok(());
            }
        };
        self.context.metrics.secret_written(operation);
        let secret = self.object().secret_name().to_owned();
        let metadata = SecretMetadata::of(&stored.metadata);
        // A failure below concerns the revision that was just written, so the watch event of this revision is no reason to
        // retry immediately.
        self.failure_inputs.secret = Some(metadata.revision.resource_version.clone());
        if stored.type_.as_deref() == Some(K::KIND.secret_type) {
            self.learn_revision(metadata, Verified::written(Digest::of(&stored)))?;
        }
        let (namespace, name, version) = (&self.namespace, &self.name, self.object().wanted_version());
        let altered = compare::stored_otherwise(sent, &stored).join(", ");
        info!(namespace, name, secret, version, ?operation, "wrote the Secret from the record");
        if !altered.is_empty() {
            self.context.retries.restored(&self.uid, &altered, self.failure_inputs.retry_at.as_deref());
            let detail = format!("an admission policy or webhook changed what the operator wrote: {altered}");
            self.fail(Failure::new(Reason::SecretContested, detail));
            return Ok(());
        }
        // The first publication of a version restores nothing.
        let published = self.object().status.and_then(|status| status.version);
        if let Some(changes) = changes.filter(|_| published == Some(version)) {
            self.context.retries.restored(&self.uid, changes, self.failure_inputs.retry_at.as_deref());
            let note = format!("Secret {secret} was changed or deleted: wrote it again from the record ({changes})");
            self.emit_event(EventType::Normal, "Restored", &note).await;
        }
        Ok(())
    }
}
