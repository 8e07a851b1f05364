//! Carries out the steps that [`Attempt`] decides on: the only place that knows both KMS and Kubernetes.

use std::{sync::Arc, time::Duration};

use datakey::{
    api::KeyKind,
    condition,
    protocol::{Attempt, MAX_STEPS, SecretState, Step},
    reason::Reason,
    secret::known::{KnownSecret, Verified},
};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    controller::{
        slots::Slot,
        store::{Store, Verdict},
    },
    kms::queue::{CallInFlight, Requeue},
    metrics::ReconcileOutcome,
};

use reconciler::{Queue, Reconciler};

mod call_kms;
mod caller;
mod conflict_watches;
mod context;
mod error;
mod load;
mod reads;
mod reconciler;
mod report;
pub mod retry;
#[cfg(test)]
pub(crate) mod tests;
mod write_secret;

pub use conflict_watches::ConflictWatches;
pub use context::Context;
pub use error::Error;
pub use load::{Loaded, load};

/// How long an object waits while another object records a data key for the same Secret.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// When an object is reconciled again, unless it is queued earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When it or its Secret changes.
    OnChange,
    /// After this time.
    After(Duration),
}

/// Reconciles one object, as it is now.
///
/// # Errors
/// A transient error. Failures that the user must know about are reported in the status instead.
pub async fn reconcile<K: KeyKind>(
    key: Arc<K>,
    slot: Slot,
    read: Option<CallInFlight>,
    store: &Store,
    requeue: &Requeue,
    context: &Context,
) -> Result<Next, Error> {
    let begun = Instant::now();
    let mut reconciler = Reconciler::new(key, slot, read, store, requeue, context);
    let mut result = reconciler.run().await;
    reconciler.log_dropped();
    // Another operator may have done the work that needed the permit. Release a permit that is not needed, so that no other
    // object waits for it.
    if reconciler.queued_for != Some(Queue::Kms) {
        context.kms.queue.release(&reconciler.uid);
    }
    if reconciler.queued_for != Some(Queue::Reads) {
        context.reads.queue.release(&reconciler.uid);
    }
    let outcome = match &result {
        Ok(_) => ReconcileOutcome::Success,
        Err(error) => {
            if matches!(error, Error::Conflict | Error::Gone) {
                // If the API server was restored to an older state, our last write no longer exists there.
                store.doubt_answer(&reconciler.place);
            }
            ReconcileOutcome::Error
        }
    };
    if let Err(error) = result {
        result = reconciler.report(error).await;
        if let Err(error) = &result {
            report::log_retry(&reconciler.place, error);
        }
    }
    if result.is_ok() && reconciler.has_missed_its_class() {
        result = Ok(Next::After(Duration::ZERO));
    }
    context.metrics.reconciled(outcome, begun.elapsed());
    result
}

/// Reports that a reconcile of an object panicked.
///
/// # Errors
/// The panic cannot be reported either.
pub async fn report_panic<K: KeyKind>(
    key: Arc<K>,
    slot: Slot,
    read: Option<CallInFlight>,
    store: &Store,
    requeue: &Requeue,
    context: &Context,
) -> Result<Next, Error> {
    Reconciler::new(key, slot, read, store, requeue, context).report(Error::Panicked).await
}

/// Whether there is something to do for an object beside this Secret.
pub fn verdict<K: KeyKind>(key: &K, known: Option<KnownSecret>, context: &Context) -> Verdict {
    let revision = known.as_ref().map(|known| known.metadata.revision.clone());
    match Attempt::new(key, known).next(context.inputs(K::KIND), Timestamp::now()) {
        Step::Settled if key.meta().deletion_timestamp.is_some() => Verdict::Settled,
        Step::Settled => Verdict::SettledWith(revision),
        _ => Verdict::Open,
    }
}

// === impl Reconciler ===

impl<K: KeyKind> Reconciler<'_, K> {
    async fn run(&mut self) -> Result<Next, Error> {
        let Self { context, .. } = *self;
        for step in 0..MAX_STEPS {
            self.failure_inputs.rival = self.rival();
            // A failure depends on the class that it was decided with. While the failure is written, the class can change, and that
            // wakes nothing yet.
            if self.attempt.failure().is_none() {
                self.failure_inputs.class = context.classes.of(self.object());
            }
            context.retries.retry_requested(&self.uid, self.failure_inputs.retry_at.as_deref());
            let wait =
                context.retries.delay_left(&self.uid, &self.failure_inputs, condition::reported_failure(self.object()));
            if step == 0 && wait.is_some() {
                // The last write of the status may have met a conflict. Report the failure now, because the next try is far
                // away.
                self.retry = wait;
                if let Some(failure) = context.retries.unreported(&self.uid) {
                    self.is_logged = context.retries.is_logged(&self.uid);
                    self.fail_without_backoff(failure);
                }
            }
            let restore_limited = context.retries.restore_limited(&self.uid);
            let next = self.attempt.next(self.inputs(wait, restore_limited.as_deref()), Timestamp::now());
            // KMS or a webhook that hangs must not count as a read: all objects share one lane of reads.
            if !matches!(next, Step::GetSecretMetadata | Step::GetSecret) {
                self.read = None;
            }
            match next {
                Step::Settled => return Ok(self.settled()),
                Step::RequeueAfter(wait) => {
                    if condition::reported_failure(self.object()) == Some(Reason::SecretConflict) {
                        self.watch_the_conflict();
                    }
                    return Ok(Next::After(wait));
                }
                Step::GetSecretMetadata => self.get_secret_metadata().await?,
                Step::GetSecret => {
                    if let Some(later) = self.get_secret().await? {
                        return Ok(later);
                    }
                }
                Step::AcquirePermit(ask) => {
                    if !self.acquire_permit(&ask)? {
                        return Ok(Next::OnChange);
                    }
                }
                Step::DryRunRecord(ask) => self.dry_run_record(&ask).await?,
                Step::CallKms(ask) if self.caller(&ask).is_none() => {
                    if !self.open_session(&ask).await? {
                        return Ok(Next::OnChange);
                    }
                }
                Step::CallKms(_) | Step::Record(_) if self.needs_a_claim() => {
                    self.claim = self.store.claim(&self.secret_place(), &self.uid);
                    if self.claim.is_none() {
                        return Ok(Next::After(CLAIM_AGAIN));
                    }
                    // The next iteration decides again: another object may have recorded its data key just before the claim.
                }
                Step::CallKms(ask) if self.has_permit_elsewhere(&ask) => {
                    if !self.acquire_permit(&ask)? {
                        return Ok(Next::OnChange);
                    }
                }
                Step::CallKms(ask) => self.call_kms(*ask).await?,
                Step::Record(record) => self.record(record).await?,
                Step::CreateSecret(secret) => self.create_secret(&secret).await?,
                Step::ReplaceSecret(secret, changes) => self.replace_secret(&secret, changes.as_deref()).await?,
                Step::AcceptRevision(metadata, digest) => {
                    self.learn_revision(metadata, Verified::read(digest, Instant::now().into_std()))?;
                }
                // Nothing was tried, and so nothing failed again.
                Step::ReportFailure(failure) if failure.reason == Reason::SecretContested => {
                    self.retry = context.retries.restore_wait(&self.uid).or(Some(Duration::ZERO));
                    self.fail_without_backoff(failure);
                }
                Step::ReportFailure(failure) => self.fail(failure),
                Step::PutStatus(status) => self.set_status(*status).await?,
            }
        }
        Err(Error::TooManySteps)
    }

    fn settled(&self) -> Next {
        if let Some(retry) = self.retry {
            return Next::After(retry);
        }
        let known = match self.attempt.secret() {
            SecretState::Watched(known) => Some(known),
            _ => None,
        };
        self.store.settle(self.object(), known);
        self.context.retries.settled(&self.uid);
        self.context.conflicts.forget(&self.uid);
        Next::OnChange
    }
}
