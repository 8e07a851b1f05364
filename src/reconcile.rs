//! Carries out the steps that [`Attempt`] decides on: the only place that knows both KMS and Kubernetes.

use std::{sync::Arc, time::Duration};

use datakey::{
    api::DataKey,
    condition,
    protocol::{Attempt, MAX_STEPS, Step},
    reason::Reason,
    secret::known::Verified,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use crate::{
    controller::{caches::Caches, slots::Slot},
    kms::queue::Requeue,
    metrics::ReconcileOutcome,
};

use reconciler::{Queue, Reconciler};

mod call_kms;
mod conflict_watches;
mod context;
mod error;
mod reads;
mod reconciler;
mod report;
pub mod retry;
mod write_secret;

pub use conflict_watches::ConflictWatches;
pub use context::Context;
pub use error::Error;

/// How long an object waits while another object records a data key for the same Secret.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// Reconciles one `DataKey`, as it is now: the newest of what the watch delivered and what was written.
///
/// # Errors
/// A transient error. Failures that the user must know about are reported in the status instead.
pub async fn reconcile(
    key: Arc<DataKey>,
    slot: Slot,
    caches: &Caches,
    requeue: &Requeue,
    context: &Context,
) -> Result<Action, Error> {
    let begun = Instant::now();
    let mut reconciler = Reconciler::new(key, slot, caches, requeue, context);
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
                // If the API server was restored to an older state, our last write no longer exists there. Forget the write, so
                // that the next try uses the object of the watch.
                context.written.forget(&reconciler.uid);
            }
            ReconcileOutcome::Error
        }
    };
    if let Err(error) = result {
        result = reconciler.report(error).await;
        if let Err(error) = &result {
            reconciler.log_retry(error);
        }
    }
    context.metrics.reconciled(outcome, begun.elapsed());
    result
}

/// Reports that a reconcile of an object panicked.
///
/// # Errors
/// The panic cannot be reported either.
pub async fn report_panic(
    key: Arc<DataKey>,
    slot: Slot,
    caches: &Caches,
    requeue: &Requeue,
    context: &Context,
) -> Result<Action, Error> {
    Reconciler::new(key, slot, caches, requeue, context).report(Error::Panicked).await
}

/// Whether there is nothing to do for a `DataKey` as the caches have it.
pub fn is_settled(key: &Arc<DataKey>, caches: &Caches, context: &Context) -> bool {
    let key = context.written.newest(Arc::clone(key), None);
    let known = caches.secrets.get(key.metadata.namespace.as_deref().unwrap_or_default(), key.secret_name());
    let uid = key.metadata.uid.clone().unwrap_or_default();
    let is_settled = matches!(Attempt::new(key, known).next(context.inputs(), Timestamp::now()), Step::Settled);
    if is_settled {
        context.retries.settled(&uid);
        context.kms.queue.release(&uid);
        context.reads.queue.release(&uid);
    }
    is_settled
}

// === impl Reconciler ===

impl Reconciler<'_> {
    async fn run(&mut self) -> Result<Action, Error> {
        let Self { context, .. } = *self;
        for step in 0..MAX_STEPS {
            self.failure_inputs.rival = self.rival();
            let wait =
                context.retries.delay_left(&self.uid, &self.failure_inputs, condition::reported_failure(self.key()));
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
            match self.attempt.next(self.inputs(wait, restore_limited.as_deref()), Timestamp::now()) {
                Step::Settled => return Ok(self.settled()),
                Step::RequeueAfter(wait) => {
                    if condition::reported_failure(self.key()) == Some(Reason::SecretConflict) {
                        self.watch_the_conflict();
                    }
                    return Ok(Action::requeue(wait));
                }
                Step::GetSecretMetadata => self.get_secret_metadata().await?,
                Step::GetSecret => {
                    if let Some(later) = self.get_secret().await? {
                        return Ok(later);
                    }
                }
                Step::AcquirePermit => {
                    if !self.acquire_permit()? {
                        return Ok(Action::await_change());
                    }
                }
                Step::DryRunRecord => self.dry_run_record().await?,
                Step::CallKms | Step::Record(_) if self.needs_a_claim() => {
                    self.claim = self.caches.claim(&self.namespace, self.key().secret_name());
                    if self.claim.is_none() {
                        return Ok(Action::requeue(CLAIM_AGAIN));
                    }
                    // The next iteration decides again: another DataKey may have recorded its data key just before the claim.
                }
                Step::CallKms => self.call_kms().await?,
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

    fn settled(&self) -> Action {
        if let Some(retry) = self.retry {
            return Action::requeue(retry);
        }
        self.context.retries.settled(&self.uid);
        self.context.conflicts.forget(&self.uid);
        Action::await_change()
    }
}
