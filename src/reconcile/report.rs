//! What the status says, and what an event says where the status cannot be written.

use std::sync::Arc;

use datakey::{
    api::{KeyKind, KeyStatus, READY},
    condition,
    protocol::Answer,
    reason::{Failure, Reason},
    text::error_chain,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;
use tracing::{debug, info, warn};

use super::{Next, error::Error, reconciler::Reconciler};
use crate::{
    api_server::{
        keys::{self, Fetched},
        outcome::{WriteOutcome, classify_write},
        secrets::RequestError,
    },
    controller::store::Facts,
    kms::KmsFailure,
    place::Place,
};

impl<K: KeyKind> Reconciler<'_, K> {
    /// Reports an error that does not pass by itself: in the status, and where that cannot be written, by an event.
    pub(super) async fn report(&mut self, error: Error) -> Result<Next, Error> {
        let retries = &self.context.retries;
        let Some(cause) = error.failure() else { return Err(error) };
        // Nothing can be reported while the API server does not answer, and once it does, this failure is past.
        if error.is_unanswered() && self.context.connectivity.is_lost() {
            return Err(error);
        }
        let is_certain = error.is_certain() || matches!(cause.reason, Reason::WriteRejected | Reason::SecretTooLarge);
        if !is_certain && !retries.is_worth_reporting(&self.uid) {
            return Err(error);
        }
        // If the status of an earlier failure cannot be written, report that earlier failure.
        let failure = self.attempt.failure().cloned().unwrap_or_else(|| cause.clone());
        let is_in_detail = |error: &RequestError| matches!(error, RequestError::Kube(kube::Error::Api(_)));
        if matches!(&error, Error::Request(request) if !is_in_detail(request)) {
            self.error = Some(error_chain(&error));
        }
        let has_room = cause.reason != Reason::SecretTooLarge;
        self.fail(cause);
        let retry = Next::After(self.retry.unwrap_or_default());
        let wanted = condition::failed(self.object(), &failure, Timestamp::now());
        let brief = condition::failed_briefly(self.object(), failure.reason, Timestamp::now());
        let is_written = [&wanted, &brief].into_iter().any(|status| self.object().status == Some(status));
        self.fail_without_backoff(failure.clone());
        let may_be_written = !matches!(error, Error::StatusRejected(_));
        if is_written
            || may_be_written && self.set_status(wanted).await.is_ok()
            || may_be_written && !has_room && self.set_status(brief).await.is_ok()
        {
            return Ok(retry);
        }
        if retries.announce(&self.uid, failure.reason) {
            if !self.context.connectivity.is_lost() {
                self.log_not_ready(&failure);
            }
            let note =
                format!("{}. The status could not be written: {}", failure.message(K::KIND), error_chain(&error));
            self.emit_event(EventType::Warning, failure.reason.as_str(), &note).await;
        }
        Ok(retry)
    }

    /// Records that KMS issued no data key. Logs each such call with its request ID, even if the status stays the same; the
    /// write of the status then logs nothing.
    pub(super) fn fail_at_kms(&mut self, failed: KmsFailure) {
        let KmsFailure { failure, code, message: kms_message, request_id, .. } = failed;
        let (namespace, name, version) = (&self.namespace, &self.name, self.object().wanted_version());
        let reason = failure.reason.as_str();
        warn!(namespace, name, version, reason, code, request_id, kms_message, "the {} is not ready", K::KIND.name);
        self.fail(*failure);
        self.is_logged = true;
        self.context.retries.logged(&self.uid);
    }

    fn log_not_ready(&self, failure: &Failure) {
        let (namespace, name, version) = (&self.namespace, &self.name, self.object().wanted_version());
        let (reason, detail, error) = (failure.reason.as_str(), &failure.detail, &self.error);
        warn!(namespace, name, version, reason, detail, error, "the {} is not ready", K::KIND.name);
    }

    /// Writes the status that a decision says.
    pub(super) async fn set_status(&mut self, status: KeyStatus) -> Result<(), Error> {
        let reason = |key: &K| condition::find(key, READY).map(|ready| ready.reason.clone());
        let before = reason(self.key());
        match self.put_status(status).await? {
            WriteOutcome::Accepted(key) => self.learn(Answer::Stored(key))?,
            WriteOutcome::Rejected(message) => return Err(Error::StatusRejected(message)),
        }
        self.context.retries.reported(&self.uid);
        let is_ready = condition::find(self.object(), READY).is_some_and(|ready| ready.status == "True");
        if is_ready && let Some(note) = self.issued.take() {
            self.context.events.enqueue(self.key().object_ref(&()), condition::ISSUED, note);
        }
        if before == reason(self.key()) {
            return Ok(());
        }
        let (namespace, name, version) = (&self.namespace, &self.name, self.object().wanted_version());
        if let Some(failure) = self.attempt.failure() {
            if !self.is_logged {
                self.log_not_ready(failure);
            }
            let note = failure.message(K::KIND);
            self.emit_event(EventType::Warning, failure.reason.as_str(), &note).await;
        } else if is_ready {
            info!(namespace, name, version, secret = self.object().secret_name(), "the {} is ready", K::KIND.name);
        } else {
            info!(namespace, name, version, "the {} is being deleted", K::KIND.name);
        }
        Ok(())
    }

    /// Writes the status of exactly the object that the decision used: the request has its uid and resource version.
    pub(super) async fn put_status(&self, status: KeyStatus) -> Result<WriteOutcome<Arc<K>>, Error> {
        let object = self.key().with_status(status);
        let written = self.with_timeout(keys::put_status(&self.context.client, &object, false)).await?;
        Ok(match classify_write(written, object.as_object())? {
            WriteOutcome::Accepted(Fetched { key, encoded, .. }) => {
                self.context.notice_the_definition(object.as_object(), key.as_object());
                self.store.put_answer(K::KIND.id, &Arc::new(encoded), Facts::of(&key));
                WriteOutcome::Accepted(Arc::new(key))
            }
            WriteOutcome::Rejected(message) => WriteOutcome::Rejected(message),
        })
    }
}

/// Logs an error that is not reported in the status, and only repeats the reconcile.
pub(super) fn log_retry(place: &Place, error: &Error) {
    let (namespace, name) = (place.namespace(), place.name());
    match error {
        Error::Conflict | Error::Gone => {
            debug!(namespace, name, "the {} or its Secret was changed meanwhile; repeating", place.kind().kind().name);
        }
        // Where the API server does not answer, that is logged once for all objects.
        error if error.is_unanswered() => {
            debug!(namespace, name, error = error_chain(error), "reconcile failed; repeating");
        }
        error => warn!(namespace, name, error = error_chain(error), "reconcile failed; repeating"),
    }
}
