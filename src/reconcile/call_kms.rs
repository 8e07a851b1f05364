//! Carries out the steps up to the record: the permit, the call to KMS, the write of the record.

use std::sync::Arc;

use datakey::{
    api::{IssuedVersion, KeyKind, Material, Object, QuotaClass, Rest, truncate_to_seconds, with_recorded},
    class::Ask,
    protocol::{Answer, Change, Record, Source, Unrecorded, size},
    reason::{Failure, Reason},
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::runtime::events::EventType;
use tracing::info;

use super::{
    error::Error,
    reconciler::{Queue, Reconciler, failure_inputs, revision_of},
    retry::FailureInputs,
};
use crate::{
    api_server::{
        keys::{self, Fetched},
        outcome::{WriteOutcome, classify_write},
        secrets::RequestError,
    },
    controller::store::Facts,
    kms::lane_id::LaneId,
};

impl<K: KeyKind> Reconciler<'_, K> {
    /// Acquires a permit to call KMS, or queues for one. Returns whether the reconcile goes on: with the permit, or with the
    /// failure that no Region can be called.
    pub(super) fn acquire_permit(&mut self, ask: &Ask) -> Result<bool, Error> {
        match self.lane(ask) {
            Ok(lane) => {
                // One of another lane is returned first.
                self.permit = None;
                let queue = &self.context.kms.queue;
                self.permit = queue.acquire_or_enqueue(&lane, &self.uid, &self.place, self.requeue);
                if self.permit.is_none() {
                    self.queued_for = Some(Queue::Kms);
                    return Ok(false);
                }
                self.learn(Answer::Permit)?;
            }
            Err(failure) => self.fail(failure),
        }
        Ok(true)
    }

    /// Whether the permit is for another lane than that of the call: the class can name another Region since it was acquired.
    pub(super) fn has_permit_elsewhere(&self, ask: &Ask) -> bool {
        self.permit.as_ref().is_some_and(|permit| self.lane(ask).as_ref() != Ok(permit.lane()))
    }

    fn lane(&self, ask: &Ask) -> Result<LaneId, Failure> {
        let class = ask.request.material().map_or(QuotaClass::Symmetric, Material::quota_class);
        self.context.kms.lane(&ask.request, class, &ask.identity)
    }

    /// Calls KMS; no other function does. The issued data key is kept in memory until it is recorded, and dropped if it is
    /// unclear whether the record was written.
    pub(super) async fn call_kms(&mut self, ask: Ask) -> Result<(), Error> {
        // The session has ended meanwhile: the next step opens another one.
        let Some(caller) = self.caller(&ask) else { return Ok(()) };
        let Some(permit) = self.permit.take() else { return Ok(()) };
        let key = Arc::clone(self.key());
        let object = key.as_object();
        let Ask { request, as_written, class, identity } = ask;
        let version = object.wanted_version();
        let tokens = object.spec.grant_tokens;
        // KMS may answer slowly or never, so the slot is free meanwhile. Boxed, because the future of the AWS SDK would make that
        // of each reconcile twice as large, and most call no KMS.
        let call = Box::pin(self.context.kms.generate(permit, &caller, &request, tokens));
        let generated = match self.slot.free_during(call).await {
            Ok(generated) => generated,
            Err(failed) => {
                self.fail_at_kms(failed);
                return Ok(());
            }
        };
        // An earlier answer that the class no longer allows is not kept.
        self.log_dropped();
        let (namespace, name) = (&self.namespace, &self.name);
        let (arn, request_id) = (&generated.key_arn, &generated.request_id);
        info!(namespace, name, version, key = arn, request_id, "KMS issued a {}", K::KIND.noun);
        self.unrecorded = Some((version, request_id.clone()));
        let issued = IssuedVersion {
            version,
            request,
            ciphertext_blob: ByteString(generated.ciphertext_blob),
            public_key: generated.public_key.map(ByteString),
            key_id: generated.key_arn,
            key_material_id: generated.key_material_id,
            issued_at: issued_at(key.as_object()),
            request_id: generated.request_id,
            as_written,
            class,
            rewrap_of: None,
            rest: Rest::new(),
        };
        self.learn(Answer::Issued(Unrecorded { version: issued, identity }))
    }

    /// Writes versions into the record.
    pub(super) async fn record(&mut self, record: Record) -> Result<(), Error> {
        let status = record.status(self.object());
        let written = self.put_status(status).await;
        // A conflict does not predict the result of the next write. If the object is gone, no record can be written until the
        // watch catches up.
        if !matches!(written, Err(Error::Conflict)) {
            let is_written = matches!(written, Ok(WriteOutcome::Accepted(_)));
            self.context.retries.record_written(&self.uid, is_written);
        }
        match written {
            Ok(WriteOutcome::Accepted(key)) => {
                if record.source == Source::Kms {
                    self.unrecorded = None;
                    self.issued = record.versions.first().map(issued_note);
                }
                self.learn(Answer::Stored(key))?;
            }
            Ok(WriteOutcome::Rejected(message)) => {
                self.fail(Failure::new(Reason::WriteRejected, format!("the record: {message}")));
                return Ok(());
            }
            Err(Error::Conflict) if record.source == Source::Kms => return self.overtaken().await,
            Err(error) => {
                let is_refused = matches!(error, Error::Conflict | Error::Gone);
                let key = Arc::clone(self.key());
                if let Some(claim) = self.claim.as_mut().filter(|_| !is_refused) {
                    claim.keep_in_doubt(&*key);
                }
                return Err(error);
            }
        }
        if record.source != Source::Kms {
            self.report_taken_over(&record.versions).await;
        }
        Ok(())
    }

    /// The API server did not write the record, because another client changed the object meanwhile. To call KMS again for each
    /// such change would let one client, which only changes labels, use up the share of its namespace. So what KMS answered is
    /// kept, and the attempt goes on with the object as it is now.
    async fn overtaken(&mut self) -> Result<(), Error> {
        self.learn(Answer::Conflict)?;
        if self.attempt.failure().is_some() {
            return Ok(());
        }
        let fetched = keys::get::<K>(&self.context.client, &self.namespace, &self.name);
        let Some(fetched) = self.with_timeout(fetched).await?? else { return Err(Error::Gone) };
        let now: K = fetched.decode().map_err(|_| RequestError::Decode)?;
        self.store.put_answer(K::KIND.id, &Arc::new(fetched), Facts::of(&now));
        let change = Change::between(self.object(), &now, self.attempt.unrecorded_answer());
        let known = self.store.secret(&self.place.beside(now.as_object().secret_name()));
        let mut secret = self.failure_inputs.secret.take();
        if matches!(change, Change::Spec { .. }) {
            self.claim = None;
            secret = revision_of(known.as_ref());
        }
        self.failure_inputs = FailureInputs { secret, ..failure_inputs(now.as_object()) };
        self.learn(Answer::Overtaken { object: Arc::new(now), secret: known, change })?;
        if self.attempt.unrecorded_answer().is_none() {
            self.log_dropped();
        }
        Ok(())
    }

    /// Logs that the answer of KMS is dropped: the log line and the CloudTrail entry of that call belong to no data key that is
    /// in use.
    pub(super) fn log_dropped(&mut self) {
        let Some((version, request_id)) = self.unrecorded.take() else { return };
        let (namespace, name) = (&self.namespace, &self.name);
        info!(
            namespace,
            name,
            version,
            request_id,
            "the issued {} is dropped, unless the record has it: the write was not confirmed",
            K::KIND.noun
        );
    }

    /// Writes the record with a data key of the largest size, as a dry run.
    pub(super) async fn dry_run_record(&mut self, ask: &Ask) -> Result<(), Error> {
        let region = self.context.kms.own_region();
        let largest =
            IssuedVersion { issued_at: issued_at(self.object()), ..size::largest(self.object(), ask, region) };
        let object = self.key().with_status(with_recorded(self.object(), vec![largest]));
        let tried = keys::put_status(&self.context.client, &object, true);
        match classify_write(self.with_timeout(tried).await?, object.as_object())? {
            WriteOutcome::Accepted(Fetched { bytes, .. }) if bytes > size::MAX_STORED => {
                let detail = format!(
                    "the {} would have {bytes} bytes with its metadata; at most {} are possible. Remove labels, annotations \
                     or finalizers",
                    K::KIND.name,
                    size::MAX_STORED
                );
                self.fail(Failure::new(Reason::SecretTooLarge, detail));
                Ok(())
            }
            WriteOutcome::Accepted(_) => self.learn(Answer::DryRunAccepted),
            // A webhook without support for dry runs says nothing about the write itself. The operator tries the write, and
            // waits as after any failure.
            WriteOutcome::Rejected(message) if message.contains("does not support dry run") => {
                self.learn(Answer::DryRunAccepted)
            }
            WriteOutcome::Rejected(message) => {
                self.fail(Failure::new(Reason::WriteRejected, format!("the record: {message}")));
                Ok(())
            }
        }
    }

    /// Reports data keys that are recorded without a call to KMS.
    async fn report_taken_over(&self, versions: &[IssuedVersion]) {
        let is_pinned =
            |version: &&IssuedVersion| self.object().spec.pins.iter().any(|pin| pin.version == version.version);
        let noun = K::KIND.noun;
        let pinned = versions.iter().filter(is_pinned).count();
        let adopted = versions.len() - pinned;
        let (namespace, name) = (&self.namespace, &self.name);
        if pinned > 0 {
            info!(namespace, name, versions = pinned, "recorded the {noun}s that the spec pins");
            let note = format!("Recorded {} that spec.wrappedKeys pins", counted(pinned, noun));
            self.emit_event(EventType::Normal, "Pinned", &note).await;
        }
        if adopted > 0 {
            info!(namespace, name, versions = adopted, "recorded the {noun}s that the Secret already held");
            let secret = self.object().secret_name();
            let wanted = self.object().wanted_version();
            let note = format!(
                "Recorded {} that Secret {secret} held{}",
                counted(adopted, noun),
                now_current(versions, wanted)
            );
            self.emit_event(EventType::Normal, "Adopted", &note).await;
        }
    }
}

/// How many versions, as an event says it.
fn counted(versions: usize, noun: &str) -> String {
    if versions == 1 { format!("1 {noun} version") } else { format!("{versions} {noun} versions") }
}

/// What an event says of a version that KMS issued.
fn issued_note(issued: &IssuedVersion) -> String {
    let request = issued.request_id.as_deref().map_or_else(String::new, |id| format!(", request ID {id}"));
    format!("Issued version {}: KMS key {}{request}", issued.version, issued.key_id)
}

/// A warning for an object that wants an earlier version than the newest that was taken over: its manifest may be older than the
/// last rotation, and data would be encrypted under the earlier data key again.
fn now_current(versions: &[IssuedVersion], wanted: i32) -> String {
    let newest = versions.iter().map(|version| version.version).max().filter(|newest| *newest > wanted);
    newest.map_or_else(String::new, |newest| {
        format!(". Version {wanted} is current, because the spec asks for it (version 1 if it names none), and not the newest, {newest}")
    })
}

/// The current time, but not before the creation time of the object, whichever clock set that: a data key that is older than
/// the object would count as issued by another object.
fn issued_at(key: Object<'_>) -> Time {
    let now = Timestamp::now();
    let created = key.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    truncate_to_seconds(now.max(created))
}

#[cfg(test)]
mod tests {
    use datakey::fixtures::issued;

    use super::*;

    #[test]
    fn number_of_versions_agrees_with_its_noun() {
        assert_eq!([1, 2].map(|versions| counted(versions, "data key")), ["1 data key version", "2 data key versions"]);
    }

    #[test]
    fn adoption_warns_where_an_earlier_version_becomes_current() {
        let versions = [issued(1), issued(2)];
        assert_eq!(now_current(&versions, 2), "");
        assert_eq!(now_current(&versions, 3), "");
        let warning = now_current(&versions, 1);
        assert!(warning.contains("Version 1 is current") && warning.ends_with("and not the newest, 2"), "{warning}");
    }
}
