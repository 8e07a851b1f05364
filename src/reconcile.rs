//! Carries the steps out that [`crate::plan`] decides on: the only place that knows both KMS and Kubernetes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ObjectReference, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{GetParams, PostParams},
    core::{ObjectMeta, request::Request},
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        reflector::ObjectRef,
    },
};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::{
    api::{DataKey, DataKeyStatus, IssuedVersion, Rest},
    api_server::secrets::{self as requests, RequestError},
    backoff::{Backoff, Subject, Waits},
    caches::{Caches, Claim},
    conflicts::Conflicts,
    decode::Wire,
    kms::{
        Kms, KmsFailure,
        queue::{Permit, Requeue},
    },
    metrics::{Metrics, Operation, Outcome},
    plan::{SecretView, Step, World, plan},
    reads::{Permission, Reads},
    secret::{
        MANAGER, TYPE, content,
        digest::Digest,
        known::{Known, Verified},
        metadata::SecretMetadata,
    },
    size,
    slots::Slot,
    status::{self, Failure, Reason},
    streaks::Streaks,
    template::Reserved,
    text::{error_chain, printable, redact},
    written::Written,
};

/// More steps than any way through the protocol has; reached only when another client writes all the while.
const MAX_STEPS: usize = 14 + RECORD_AGAIN;

/// How often a record that met another write of its `DataKey` is written again, with what KMS answered the first time.
const RECORD_AGAIN: usize = 5;

/// When a `DataKey` is looked at again while another one records a data key for the same Secret.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// Bound of an event's note (Kubernetes API reference, `events.k8s.io/v1`): 1 kB.
const MAX_NOTE: usize = 1000;

/// What every reconcile works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// AWS KMS.
    pub kms: Kms,
    /// Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Waits after failures.
    pub backoff: Arc<Backoff>,
    /// Watches over foreign Secrets that are in the way.
    pub conflicts: Conflicts,
    /// How often Secrets were restored.
    pub restores: Streaks,
    /// How often Secrets are read.
    pub reads: Reads,
    /// Whether the installed definition keeps `status.secret`; one of 0.1.0 drops it.
    pub revision_is_kept: AtomicBool,
    /// Our own last writes.
    pub written: Written,
    /// Longest wait for one answer of the API server.
    pub kube_timeout: Duration,
    /// How often an object is looked at without any event, in the caches only.
    pub resync: Duration,
    /// Whether data keys may be issued.
    pub may_issue: bool,
    /// Keys that the template of a Secret may not have.
    pub reserved: Reserved,
}

/// Something passing was in the way; the object is reconciled again soon.
#[derive(Debug, Error)]
pub enum Error {
    /// The object was written by somebody else meanwhile. What was not recorded is dropped.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// The object is not there, and the watch has yet to say so.
    #[error("the object is gone")]
    Gone,
    /// The API server did not answer in time; the write may have happened.
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    /// The API server refused to write the status.
    #[error("the API server refused to write the status: {0}")]
    StatusRefused(String),
    /// The API server failed to carry out a write.
    #[error("the API server answers {0}: {1}")]
    Server(u16, String),
    /// No usable answer of the API server.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Somebody else writes all the while.
    #[error("the DataKey and its Secret did not come to rest")]
    Unsettled,
    /// A defect of the operator; the runtime has logged where.
    #[error("the reconcile panicked")]
    Panicked,
}

/// A write that the API server answered.
enum Answer<T> {
    Done(T),
    /// The server's own words.
    Refused(String),
}

// === impl Error ===

impl Error {
    /// As the user sees it; `None` for what is only repeated.
    fn failure(&self) -> Option<Failure> {
        let of_status = |code: u16, message: &str| match code {
            401 | 403 => Failure::new(Reason::Refused, message),
            // Of etcd, and of the API server's client of etcd, which answer with 500. The sizes were computed beforehand, but
            // not those of what other clients write into the object.
            _ if message.contains("request is too large") || message.contains("message larger than max") => {
                Failure::new(Reason::SecretTooLarge, format!("etcd cannot store the object: {message}"))
            }
            _ if message.contains("failed calling webhook") => Failure::new(Reason::AdmissionUnavailable, message),
            _ => Failure::new(Reason::ApiServerFailed, format!("it answers {code}: {message}")),
        };
        Some(match self {
            Self::Conflict | Self::Gone => return None,
            Self::Timeout(limit) => Failure::new(
                Reason::ApiServerFailed,
                format!("no answer within {limit:?}; a slow admission webhook can be the cause"),
            ),
            Self::StatusRefused(message) => Failure::new(Reason::Refused, format!("the status: {message}")),
            Self::Server(code, message) => of_status(*code, message),
            Self::Request(RequestError::Kube(kube::Error::Api(status))) => of_status(status.code, &status.message),
            Self::Request(_) => Failure::new(Reason::ApiServerFailed, "no usable answer"),
            Self::Unsettled => {
                Failure::new(Reason::ApiServerFailed, "the DataKey or its Secret changes with every request")
            }
            Self::Panicked => Reason::InternalError.into(),
        })
    }
}

// === impl Context ===

impl Context {
    /// With these waits, and what the flags' defaults say.
    pub fn new(client: Client, kms: Kms, metrics: Arc<Metrics>, waits: Waits) -> Self {
        // The pod's name, where the manifest hands it on.
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: std::env::var("POD_NAME").ok() };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            conflicts: Conflicts::new(client.clone()),
            client,
            kms,
            metrics,
            backoff: Arc::new(Backoff::new(waits)),
            restores: Streaks::of_restores(waits),
            reads: Reads::default(),
            revision_is_kept: AtomicBool::new(true),
            written: Written::default(),
            kube_timeout: Duration::from_secs(10),
            resync: Duration::from_hours(10),
            may_issue: true,
            reserved: Reserved::default(),
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.backoff.forget(uid);
        self.conflicts.forget(uid);
        self.restores.forget(uid);
        self.reads.forget(uid);
        self.written.forget(uid);
        self.kms.queue.release(uid);
    }

    /// Publishes an event. One more or less must not fail a reconcile.
    pub async fn tell(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        let mut note = printable(&note, MAX_NOTE);
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Reconcile".into(), secondary: None };
        let (namespace, name) = (&about.namespace, &about.name);
        match timeout(self.kube_timeout, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(namespace, name, reason, error = error_chain(&error), "the event was not taken"),
            Err(_) => debug!(namespace, name, reason, "the event was not taken in time"),
        }
    }
}

/// Reconciles one `DataKey`, as it is now: the newest of what the watch told and what was written.
///
/// # Errors
/// What passes by itself. Failures that the user has to know of are told in the status instead.
pub async fn reconcile(
    key: Arc<DataKey>,
    slot: Slot,
    caches: &Caches,
    wake: &Requeue,
    context: &Context,
) -> Result<Action, Error> {
    let begun = Instant::now();
    let mut run = Run::new(key, slot, caches, wake, context);
    let mut result = run.steps().await;
    // Another operator may have done what a permit was granted for: no other object has to wait for one that is not needed.
    if run.waits != Some(Queue::Kms) {
        context.kms.queue.release(&run.uid);
    }
    if run.waits != Some(Queue::Reads) {
        context.reads.queue.release(&run.uid);
    }
    let (namespace, name) = (&run.namespace, &run.name);
    let outcome = match &result {
        Ok(_) => Outcome::Success,
        Err(Error::Conflict | Error::Gone) => {
            // Where the API server went back to an older state, our own last write is of a future that never came.
            context.written.forget(&run.uid);
            debug!(namespace, name, "the DataKey or its Secret was changed meanwhile; repeating");
            Outcome::Error
        }
        Err(error) => {
            warn!(namespace, name, error = error_chain(error), "reconcile failed; repeating");
            Outcome::Error
        }
    };
    if let Err(error) = result {
        result = run.report(error).await;
    }
    context.metrics.reconciled(outcome, begun.elapsed());
    result
}

/// Reports that a reconcile of an object panicked.
///
/// # Errors
/// Where that cannot be reported either.
pub async fn report_panic(
    key: Arc<DataKey>,
    slot: Slot,
    caches: &Caches,
    wake: &Requeue,
    context: &Context,
) -> Result<Action, Error> {
    Run::new(key, slot, caches, wake, context).report(Error::Panicked).await
}

/// Whether there is nothing to do for a `DataKey` as the caches have it.
pub fn is_at_rest(key: &Arc<DataKey>, caches: &Caches, context: &Context) -> bool {
    let key = context.written.newest(Arc::clone(key), None);
    let known = caches.secrets.get(key.metadata.namespace.as_deref().unwrap_or_default(), key.secret_name());
    let secret = known.map_or(SecretView::NotCached, SecretView::Cached);
    let world = World {
        region: context.kms.own_region(),
        revision_is_kept: context.revision_is_kept.load(Ordering::Relaxed),
        may_issue: context.may_issue,
        reserved: &context.reserved,
        ..World::new(&key, &secret)
    };
    let at_rest = matches!(plan(&world, Timestamp::now()), Step::Done);
    if at_rest {
        let uid = key.metadata.uid.as_deref().unwrap_or_default();
        context.backoff.forget(uid);
        context.kms.queue.release(uid);
        context.reads.queue.release(uid);
    }
    at_rest
}

/// What a reconcile waits for; it is queued again then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// A permit to call KMS.
    Kms,
    /// A permit to read the Secret.
    Reads,
}

/// One reconcile under way.
struct Run<'a> {
    context: &'a Context,
    caches: &'a Caches,
    wake: &'a Requeue,
    namespace: String,
    name: String,
    uid: String,
    key: Arc<DataKey>,
    slot: Slot,
    secret: SecretView,
    subject: Subject,
    claim: Option<Claim<'a>>,
    permit: Option<Permit>,
    waits: Option<Queue>,
    /// What KMS answered, where its record met another write.
    unrecorded: Option<IssuedVersion>,
    /// How many records met another write.
    conflicts: usize,
    /// A dry run of the record was accepted.
    rehearsed: bool,
    /// The Secret that was read is of the revision that this process or the status vouches for.
    is_vouched_for: bool,
    failure: Option<Failure>,
    retry: Option<Duration>,
}

// === impl Run ===

impl<'a> Run<'a> {
    fn new(key: Arc<DataKey>, slot: Slot, caches: &'a Caches, wake: &'a Requeue, context: &'a Context) -> Self {
        let namespace = key.namespace().unwrap_or_default();
        let known = caches.secrets.get(&namespace, key.secret_name());
        Self {
            context,
            caches,
            wake,
            name: key.name_any(),
            uid: key.uid().unwrap_or_default(),
            subject: Subject {
                secret: known.as_ref().map(|known| known.metadata.revision.resource_version.clone()),
                ..subject(&key)
            },
            namespace,
            key,
            slot,
            secret: known.map_or(SecretView::NotCached, SecretView::Cached),
            claim: None,
            permit: None,
            waits: None,
            unrecorded: None,
            conflicts: 0,
            rehearsed: false,
            is_vouched_for: false,
            failure: None,
            retry: None,
        }
    }

    async fn steps(&mut self) -> Result<Action, Error> {
        let Context { backoff, .. } = self.context;
        for step in 0..MAX_STEPS {
            self.subject.rival = self.rival();
            let wait = backoff.remaining(&self.uid, &self.subject, status::shown_failure(&self.key));
            if step == 0 && wait.is_some() {
                // The last write of the status may have met a change, and the next try is far away.
                (self.failure, self.retry) = (backoff.untold(&self.uid), wait);
            }
            let contested = self.context.restores.waiting_after(&self.uid);
            let rival = self.subject.rival.clone();
            let world = World {
                key: &self.key,
                secret: &self.secret,
                failure: self.failure.as_ref(),
                wait,
                turn: self.permit.is_some() || self.unrecorded.is_some(),
                contested: contested.as_deref(),
                region: self.context.kms.own_region(),
                revision_is_kept: self.context.revision_is_kept.load(Ordering::Relaxed),
                rehearse: !self.rehearsed && backoff.has_failed_record(&self.uid),
                may_issue: self.context.may_issue,
                rival: rival.as_deref(),
                reserved: &self.context.reserved,
                is_vouched_for: self.is_vouched_for,
            };
            match plan(&world, Timestamp::now()) {
                Step::Done => return Ok(self.at_rest()),
                Step::Wait(wait) => {
                    if status::shown_failure(&self.key) == Some(Reason::SecretConflict) {
                        self.watch_the_conflict();
                    }
                    return Ok(Action::requeue(wait));
                }
                Step::Look => self.look().await?,
                Step::Read => {
                    if let Some(later) = self.read().await? {
                        return Ok(later);
                    }
                }
                Step::Queue => {
                    if !self.queue() {
                        self.waits = Some(Queue::Kms);
                        return Ok(Action::await_change());
                    }
                }
                Step::Rehearse => self.rehearse().await?,
                Step::Issue | Step::Record(_) | Step::Pin(_) if self.needs_a_claim() => {
                    self.claim = self.caches.claim(&self.namespace, self.key.secret_name());
                    if self.claim.is_none() {
                        return Ok(Action::requeue(CLAIM_AGAIN));
                    }
                    // Decided on again: another DataKey may have recorded its data key just before.
                }
                Step::Issue => self.issue().await?,
                Step::Record(versions) | Step::Pin(versions) => self.take_over(versions).await?,
                Step::Create(secret) => self.create(&secret).await?,
                Step::Replace(secret, changes) => self.replace(&secret, changes.as_deref()).await?,
                Step::Verified(metadata, digest) => {
                    self.learn(metadata, Verified::read(digest, Instant::now().into_std()));
                }
                // Nothing was tried, and so nothing failed again.
                Step::Fail(failure) if failure.reason == Reason::SecretContested => {
                    self.retry = self.context.restores.wait(&self.uid).or(Some(Duration::ZERO));
                    self.failure = Some(failure);
                }
                Step::Fail(failure) => self.fail(failure),
                Step::SetStatus(status) => self.set_status(*status).await?,
            }
        }
        Err(Error::Unsettled)
    }

    fn at_rest(&self) -> Action {
        if let Some(retry) = self.retry {
            return Action::requeue(retry);
        }
        self.context.backoff.forget(&self.uid);
        self.context.conflicts.forget(&self.uid);
        Action::await_change()
    }

    /// Whether the first record has to be kept from meeting that of another `DataKey` with the same Secret.
    fn needs_a_claim(&self) -> bool {
        self.claim.is_none() && self.key.record().is_empty()
    }

    /// The other `DataKey` that the name of the Secret is reserved for.
    fn rival(&self) -> Option<String> {
        let has_none = self.key.record().is_empty();
        has_none.then(|| self.caches.rival(&self.key, &self.context.written)).flatten()
    }

    /// With the uid: what waits for a permit can be deleted meanwhile, and one of the same name created.
    fn object_ref(&self) -> ObjectRef<DataKey> {
        let mut object = ObjectRef::new(&self.name).within(&self.namespace);
        object.extra.uid = Some(self.uid.clone());
        object
    }

    /// Has a foreign Secret that is in the way watched until it is gone. One of the operator's type is watched in any case.
    fn watch_the_conflict(&self) {
        let Context { conflicts, backoff, .. } = self.context;
        let is_foreign = match &self.secret {
            SecretView::Found(_) => true,
            SecretView::Read(secret) => secret.type_.as_deref() != Some(TYPE),
            // After a restart; where the name is reserved, there may be no Secret.
            SecretView::NotCached => self.subject.rival.is_none(),
            SecretView::Cached(_) | SecretView::Missing => false,
        };
        if is_foreign {
            let object = self.object_ref();
            conflicts.watch(&self.uid, &object, self.key.secret_name(), backoff, self.wake);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if failure.reason == Reason::SecretConflict {
            self.watch_the_conflict();
        } else {
            self.context.conflicts.forget(&self.uid);
        }
        self.retry = Some(self.context.backoff.failed(&self.uid, self.subject.clone(), &failure));
        self.failure = Some(failure);
    }

    /// Reports an error that does not pass by itself: in the status, and where that cannot be written, by an Event.
    async fn report(&mut self, error: Error) -> Result<Action, Error> {
        let backoff = &self.context.backoff;
        let Some(cause) = error.failure() else { return Err(error) };
        let is_certain = matches!(error, Error::StatusRefused(_) | Error::Panicked)
            || matches!(cause.reason, Reason::Refused | Reason::SecretTooLarge);
        if !is_certain && !backoff.is_worth_reporting(&self.uid) {
            return Err(error);
        }
        // Where the status of an earlier failure cannot be written, that failure is what has to be reported.
        let failure = self.failure.clone().unwrap_or_else(|| cause.clone());
        let has_room = cause.reason != Reason::SecretTooLarge;
        self.fail(cause);
        let retry = Action::requeue(self.retry.unwrap_or_default());
        let wanted = status::failed(&self.key, &failure, Timestamp::now());
        let brief = status::failed_briefly(&self.key, failure.reason, Timestamp::now());
        let is_written = [&wanted, &brief].into_iter().any(|status| self.key.status.as_ref() == Some(status));
        self.failure = Some(failure.clone());
        let may_be_written = !matches!(error, Error::StatusRefused(_));
        if is_written
            || may_be_written && self.set_status(wanted).await.is_ok()
            || may_be_written && !has_room && self.set_status(brief).await.is_ok()
        {
            return Ok(retry);
        }
        if backoff.announce(&self.uid, failure.reason) {
            let note = format!("{failure}. The status could not be written: {}", error_chain(&error));
            self.tell(EventType::Warning, failure.reason.as_str(), note).await;
        }
        Ok(retry)
    }

    /// Takes in what a revision of the Secret holds.
    fn learn(&mut self, metadata: SecretMetadata, verified: Verified) {
        let known = Known { metadata, verified: Some(verified) };
        self.caches.secrets.learn(&self.namespace, self.key.secret_name(), known.clone());
        self.secret = SecretView::Cached(known);
    }

    /// Whether to go on: with a permit to call KMS, or with the reason why there can't be one.
    fn queue(&mut self) -> bool {
        let Context { kms, .. } = self.context;
        let request = self.key.spec.request();
        match kms.region(&request) {
            Ok(region) => {
                let object = self.object_ref();
                self.permit = kms.queue.acquire_or_enqueue(region, &self.uid, &object, self.wake);
                self.permit.is_some()
            }
            Err(failure) => {
                self.fail(failure);
                true
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let looked = requests::look(&self.context.client, &self.namespace, self.key.secret_name());
        self.secret = self.within(looked).await??.map_or(SecretView::Missing, SecretView::Found);
        Ok(())
    }

    /// Reads the Secret, or says when it may be read. What is known of its revision limits nothing: there is no change to
    /// verify, only something to write.
    async fn read(&mut self) -> Result<Option<Action>, Error> {
        let vouched = match &self.secret {
            SecretView::Cached(known) if known.is_vouched_for(&self.key) => Some(known.metadata.revision.clone()),
            _ => None,
        };
        let limited = vouched.is_none();
        let permit = if limited {
            let object = self.object_ref();
            match self.context.reads.request(&self.uid, &object, self.wake) {
                Permission::Granted(permit) => Some(permit.start_call().await),
                Permission::Later(wait) => return Ok(Some(Action::requeue(wait))),
                Permission::Queued => {
                    self.waits = Some(Queue::Reads);
                    return Ok(Some(Action::await_change()));
                }
            }
        } else {
            None
        };
        let read = requests::read(&self.context.client, &self.namespace, self.key.secret_name());
        let answer = self.within(read).await;
        if let Some(permit) = permit {
            permit.complete(matches!(answer, Ok(Ok(_))));
            self.context.reads.done(&self.uid);
        }
        let secret = answer??;
        let revision = secret.as_ref().map(|secret| SecretMetadata::of(&secret.metadata).revision);
        self.is_vouched_for = vouched.is_some() && revision == vouched;
        self.secret = secret.map_or(SecretView::Missing, |secret| SecretView::Read(Box::new(secret)));
        Ok(None)
    }

    /// Issues the wanted version. What KMS answered is held in memory until it is recorded, and dropped where it is unclear
    /// whether the record was written.
    async fn issue(&mut self) -> Result<(), Error> {
        let issued = match self.unrecorded.take() {
            Some(issued) => Some(issued),
            None => self.ask_kms().await,
        };
        let Some(issued) = issued else { return Ok(()) };
        match self.record(status::recorded(&self.key, vec![issued.clone()])).await {
            Err(Error::Conflict) => self.decide_again(issued).await,
            written => written,
        }
    }

    /// The API server did not write the record, because another client changed the `DataKey` meanwhile. To ask KMS again for
    /// each such change would let one client, which only changes labels, use up the share of its namespace. So what KMS
    /// answered is kept, and all is decided again on the `DataKey` as it is now.
    async fn decide_again(&mut self, issued: IssuedVersion) -> Result<(), Error> {
        self.conflicts += 1;
        if self.conflicts > RECORD_AGAIN {
            self.context.backoff.record_written(&self.uid, false);
            let detail = format!(
                "another client changes the DataKey faster than the operator can record a data key: {} tries in a row met \
                 another write. What KMS answered is dropped",
                self.conflicts
            );
            self.fail(Failure::new(Reason::ApiServerFailed, detail));
            return Ok(());
        }
        let Some(key) = self.fetch().await?.filter(|key| key.metadata.uid.as_ref() == Some(&self.uid)) else {
            return Err(Error::Gone);
        };
        if key.metadata.generation != self.key.metadata.generation {
            // The spec may name another Secret now, which nothing is known of.
            self.claim = None;
            self.is_vouched_for = false;
            let known = self.caches.secrets.get(&self.namespace, key.secret_name());
            self.subject.secret = known.as_ref().map(|known| known.metadata.revision.resource_version.clone());
            self.secret = known.map_or(SecretView::NotCached, SecretView::Cached);
        }
        self.key = Arc::new(key);
        self.subject = Subject { secret: self.subject.secret.take(), ..subject(&self.key) };
        let still_wanted = issued.version == self.key.version() && issued.request == self.key.spec.request();
        self.unrecorded = still_wanted.then_some(issued);
        Ok(())
    }

    /// The `DataKey` of this name as the API server has it now.
    async fn fetch(&self) -> Result<Option<DataKey>, Error> {
        let request = Request::new(DataKey::url_path(&(), Some(&self.namespace)));
        let request = request.get(&self.name, &GetParams::default()).map_err(RequestError::Build)?;
        match self.within(requests::send::<Wire>(&self.context.client, request)).await? {
            Ok(found) => Ok(Some(whole(found)?)),
            Err(RequestError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The only call to KMS.
    async fn ask_kms(&mut self) -> Option<IssuedVersion> {
        let permit = self.permit.take()?;
        let request = self.key.spec.request();
        let version = self.key.version();
        let tokens = self.key.spec.grant_tokens.as_deref().unwrap_or_default();
        // KMS may take its time, or never answer.
        let wrapped = match self.slot.free_during(self.context.kms.generate(permit, &request, tokens)).await {
            Ok(wrapped) => wrapped,
            Err(KmsFailure { failure, code, message: kms_message, request_id }) => {
                let (namespace, name, reason) = (&self.namespace, &self.name, failure.reason.as_str());
                warn!(namespace, name, version, reason, code, request_id, kms_message, "KMS issued no data key");
                self.fail(failure);
                return None;
            }
        };
        let (namespace, name) = (&self.namespace, &self.name);
        info!(
            namespace,
            name,
            version,
            key = wrapped.key_arn,
            request_id = wrapped.request_id,
            "KMS issued a data key"
        );
        Some(IssuedVersion {
            version,
            request,
            ciphertext_blob: ByteString(wrapped.ciphertext_blob),
            key_id: wrapped.key_arn,
            key_material_id: wrapped.key_material_id,
            issued_at: self.issued_at(),
            request_id: wrapped.request_id,
            rest: Rest::new(),
        })
    }

    /// The present time; not before the creation of the `DataKey`, by whichever clock that was set: a data key that is older
    /// than the `DataKey` was not issued by it.
    fn issued_at(&self) -> Time {
        let now = Timestamp::now();
        let created = self.key.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
        status::whole_seconds(now.max(created))
    }

    /// Records data keys that the spec pins or the Secret holds.
    async fn take_over(&mut self, versions: Vec<IssuedVersion>) -> Result<(), Error> {
        let is_pinned = |version: &i32| self.key.pins().iter().any(|pin| pin.version == *version);
        let (pinned, adopted): (Vec<_>, Vec<_>) = versions.iter().map(|issued| issued.version).partition(is_pinned);
        self.record(status::adopted(&self.key, versions)).await?;
        if self.failure.is_some() {
            return Ok(());
        }
        let (namespace, name) = (&self.namespace, &self.name);
        if !pinned.is_empty() {
            info!(namespace, name, versions = pinned.len(), "recorded the data keys that the spec pins");
            let note = format!("Recorded the {} data key version(s) that spec.wrappedKeys pins", pinned.len());
            self.tell(EventType::Normal, "Pinned", note).await;
        }
        if !adopted.is_empty() {
            info!(namespace, name, versions = adopted.len(), "recorded the data keys that the Secret already held");
            let (count, secret) = (adopted.len(), self.key.secret_name());
            let note = format!("Recorded the {count} data key version(s) that Secret {secret} held");
            self.tell(EventType::Normal, "Adopted", note).await;
        }
        Ok(())
    }

    async fn record(&mut self, recorded: DataKeyStatus) -> Result<(), Error> {
        let written = self.put_status(recorded).await;
        // A conflict says nothing of the next try. An object that is gone takes no record before the watch catches up.
        if !matches!(written, Err(Error::Conflict)) {
            self.context.backoff.record_written(&self.uid, matches!(written, Ok(Answer::Done(_))));
        }
        match written? {
            Answer::Done(key) => self.key = key,
            Answer::Refused(words) => self.fail(Failure::new(Reason::Refused, format!("the record: {words}"))),
        }
        Ok(())
    }

    /// Writes the record with a data key of the largest size, as a dry run.
    async fn rehearse(&mut self) -> Result<(), Error> {
        let region = self.context.kms.own_region();
        let largest = IssuedVersion { issued_at: self.issued_at(), ..size::largest(&self.key, region) };
        let object = self.with_status(status::recorded(&self.key, vec![largest]));
        let tried = put_status(&self.context.client, &self.namespace, &self.name, &object, true);
        match answered(self.within(tried).await?, &object)? {
            Answer::Done((_, bytes)) if bytes > size::MAX_STORED => {
                let detail = format!(
                    "the DataKey would have {bytes} bytes with its metadata; at most {} are possible. Remove labels, annotations \
                     or finalizers",
                    size::MAX_STORED
                );
                self.fail(Failure::new(Reason::SecretTooLarge, detail));
            }
            Answer::Done(_) => self.rehearsed = true,
            // A webhook that cannot be dry-run says nothing of the write itself, which is tried with the wait of a failure.
            Answer::Refused(words) if words.contains("does not support dry run") => self.rehearsed = true,
            Answer::Refused(words) => self.fail(Failure::new(Reason::Refused, format!("the record: {words}"))),
        }
        Ok(())
    }

    async fn create(&mut self, secret: &Secret) -> Result<(), Error> {
        let created = requests::create(&self.context.client, &self.namespace, secret);
        match self.within(created).await? {
            Err(RequestError::Kube(kube::Error::Api(status))) if status.is_already_exists() => self.look().await,
            answer => self.secret_written(secret, answer, Operation::Create, Some("it was deleted")).await,
        }
    }

    async fn replace(&mut self, secret: &Secret, changes: Option<&str>) -> Result<(), Error> {
        let replaced = requests::replace(&self.context.client, &self.namespace, secret);
        let answer = self.within(replaced).await?;
        self.secret_written(secret, answer, Operation::Update, changes).await
    }

    /// Takes in the answer to a write of the Secret. `changes` says what another client had changed in it.
    async fn secret_written(
        &mut self,
        sent: &Secret,
        answer: Result<Secret, RequestError>,
        operation: Operation,
        changes: Option<&str>,
    ) -> Result<(), Error> {
        let stored = match answered(answer, &self.key)? {
            Answer::Done(stored) => stored,
            Answer::Refused(words) => {
                let way_out = match operation {
                    Operation::Create => "",
                    Operation::Update => ". Once the Secret is deleted, the operator creates it from the record",
                };
                self.fail(Failure::new(Reason::Refused, format!("the Secret: {words}{way_out}")));
                return Ok(());
            }
        };
        self.context.metrics.secret_written(operation);
        let secret = self.key.secret_name().to_owned();
        let metadata = SecretMetadata::of(&stored.metadata);
        // What follows is about what was just written: its event is no reason to try again at once.
        self.subject.secret = Some(metadata.revision.resource_version.clone());
        if stored.type_.as_deref() == Some(TYPE) {
            self.learn(metadata, Verified::written(Digest::of(&stored)));
        }
        let (namespace, name, version) = (&self.namespace, &self.name, self.key.version());
        let altered = content::stored_otherwise(sent, &stored).join(", ");
        if !altered.is_empty() {
            warn!(namespace, name, secret, altered, "an admission policy changed the Secret that the operator wrote");
            self.context.restores.done(&self.uid, altered.as_str());
            let detail = format!("an admission policy or webhook changed what the operator wrote: {altered}");
            self.fail(Failure::new(Reason::SecretContested, detail));
            return Ok(());
        }
        info!(namespace, name, secret, version, ?operation, "wrote the Secret from the record");
        // The first publication of a version needs no event: the condition says it.
        let published = self.key.status.as_ref().and_then(|status| status.version);
        if let Some(changes) = changes.filter(|_| published == Some(self.key.version())) {
            self.context.restores.done(&self.uid, changes);
            let note = format!("Secret {secret} was changed or deleted: wrote it again from the record ({changes})");
            self.tell(EventType::Normal, "Restored", note).await;
        }
        Ok(())
    }

    async fn set_status(&mut self, status: DataKeyStatus) -> Result<(), Error> {
        let reason = |key: &DataKey| status::find(key, status::READY).map(|ready| ready.reason.clone());
        let before = reason(&self.key);
        match self.put_status(status).await? {
            Answer::Done(key) => self.key = key,
            Answer::Refused(words) => return Err(Error::StatusRefused(words)),
        }
        self.context.backoff.told(&self.uid);
        if before == reason(&self.key) {
            return Ok(());
        }
        let (namespace, name, version) = (&self.namespace, &self.name, self.key.version());
        if let Some(failure) = &self.failure {
            let (reason, detail) = (failure.reason.as_str(), &failure.detail);
            warn!(namespace, name, version, reason, detail, "the DataKey is not ready");
            let note = failure.to_string();
            self.tell(EventType::Warning, reason, note).await;
        } else if status::find(&self.key, status::READY).is_some_and(|ready| ready.status == "True") {
            info!(namespace, name, version, secret = self.key.secret_name(), "the DataKey is ready");
        } else {
            info!(namespace, name, version, "the DataKey is being deleted");
        }
        Ok(())
    }

    /// Writes the status of exactly the object that was decided on: uid and resource version go with it.
    async fn put_status(&self, status: DataKeyStatus) -> Result<Answer<Arc<DataKey>>, Error> {
        let object = self.with_status(status);
        let put = put_status(&self.context.client, &self.namespace, &self.name, &object, false);
        let written = self.within(put).await?;
        Ok(match answered(written, &object)? {
            Answer::Done((key, _)) => {
                self.notice_the_definition(&object, &key);
                let key = Arc::new(key);
                self.context.written.learn(&key);
                Answer::Done(key)
            }
            Answer::Refused(words) => Answer::Refused(words),
        })
    }

    /// The object as it is sent: of the metadata only what says which object it is, and in which state it was decided on.
    fn with_status(&self, status: DataKeyStatus) -> DataKey {
        let old = &self.key.metadata;
        let mut object = DataKey::new(&self.name, self.key.spec.clone());
        object.metadata = ObjectMeta {
            name: old.name.clone(),
            namespace: old.namespace.clone(),
            uid: old.uid.clone(),
            resource_version: old.resource_version.clone(),
            ..ObjectMeta::default()
        };
        object.status = Some(status);
        object
    }

    /// A definition of an older release drops `status.secret`, and to write it again and again would not help.
    fn notice_the_definition(&self, sent: &DataKey, stored: &DataKey) {
        let has_revision = |key: &DataKey| key.status.as_ref().is_some_and(|status| status.secret.is_some());
        if !has_revision(sent) {
            return;
        }
        let kept = has_revision(stored);
        if self.context.revision_is_kept.swap(kept, Ordering::Relaxed) && !kept {
            warn!(
                "the installed CustomResourceDefinition drops status.secret, so each start reads every Secret: apply the \
                 definition of this release"
            );
        }
    }

    async fn tell(&self, type_: EventType, reason: &str, note: String) {
        self.context.tell(&self.key.object_ref(&()), type_, reason, note).await;
    }

    async fn within<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.context.kube_timeout;
        timeout(limit, request).await.map_err(|_| Error::Timeout(limit))
    }
}

/// What a failure of this `DataKey` is about, but for its Secret and its rival.
fn subject(key: &DataKey) -> Subject {
    Subject {
        generation: key.metadata.generation,
        restored: key.is_restored(),
        recorded: key.issued(key.version()).is_some(),
        secret: None,
        rival: None,
    }
}

/// A `DataKey` of an answer; one that cannot be decoded is left to the watch.
fn whole(answer: Wire) -> Result<DataKey, RequestError> {
    let (metadata, content) = answer.decode();
    let (spec, status) = content.map_err(|_| RequestError::Decode)?;
    Ok(DataKey { metadata, spec, status })
}

/// Replaces a status; the object as it is stored, and how many bytes it has as JSON, which is how etcd has it.
async fn put_status(
    client: &Client,
    namespace: &str,
    name: &str,
    object: &DataKey,
    dry_run: bool,
) -> Result<(DataKey, usize), RequestError> {
    let body = serde_json::to_vec(object).map_err(RequestError::Encode)?;
    let stored = requests::send_text(client, status_request(namespace, name, dry_run, body)?).await?;
    Ok((whole(requests::parse(&stored)?)?, stored.len()))
}

/// The request that replaces a status.
pub fn status_request(
    namespace: &str,
    name: &str,
    dry_run: bool,
    body: Vec<u8>,
) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
    let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
    Request::new(DataKey::url_path(&(), Some(namespace))).replace_subresource("status", name, &params, body)
}

/// Sorts the answer to a write: done, refused for a reason that the user can know, or to be repeated. The server can
/// repeat in its words what was sent to it; what must not be told is taken out.
fn answered<T>(written: Result<T, RequestError>, sent: &DataKey) -> Result<Answer<T>, Error> {
    match written {
        Ok(done) => Ok(Answer::Done(done)),
        Err(RequestError::Kube(kube::Error::Api(status))) => {
            let words = redact(&status.message, &secrets_of(sent));
            match status.code {
                409 => Err(Error::Conflict),
                404 => Err(Error::Gone),
                400 | 403 | 413 | 422 => Ok(Answer::Refused(words)),
                code => Err(Error::Server(code, words)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// What of a `DataKey` must not be told: grant tokens, and the wrapped data keys, recorded or pinned, as they are sent.
fn secrets_of(key: &DataKey) -> Vec<String> {
    let blobs =
        key.record().iter().chain(key.pins()).filter_map(|issued| serde_json::to_value(&issued.ciphertext_blob).ok());
    let blobs = blobs.filter_map(|blob| blob.as_str().map(str::to_owned));
    key.spec.grant_tokens.iter().flatten().cloned().chain(blobs).collect()
}

/// The API of `DataKey`s in one namespace or in all.
pub fn data_keys<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{issued, recorded};

    #[test]
    fn what_etcd_cannot_store_is_not_retried_soon() {
        for words in [
            "etcdserver: request is too large",
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097292 vs. 2097152)",
        ] {
            let failure = Error::Server(500, words.to_owned()).failure().unwrap();
            assert_eq!(failure.reason, Reason::SecretTooLarge);
            assert!(failure.detail.unwrap().contains(words));
        }
        assert_eq!(Error::Server(500, "rpc error".to_owned()).failure().unwrap().reason, Reason::ApiServerFailed);
    }

    #[test]
    fn what_the_server_repeats_of_the_record_the_pins_and_the_grant_tokens_is_taken_out() {
        let mut key = recorded(&[1]);
        key.spec.grant_tokens = Some(vec!["a grant token".to_owned()]);
        key.spec.wrapped_keys = Some(vec![issued(2)]);
        let blobs = [1, 2].map(|version| serde_json::to_value(issued(version).ciphertext_blob).unwrap());
        let secrets = [blobs[0].as_str().unwrap(), blobs[1].as_str().unwrap(), "a grant token"];
        let status = kube::core::Status { code: 422, message: secrets.join(" and "), ..kube::core::Status::default() };
        let refused = answered::<()>(Err(RequestError::Kube(kube::Error::Api(Box::new(status)))), &key).unwrap();
        let Answer::Refused(words) = refused else { panic!() };
        assert!(secrets.iter().all(|secret| !words.contains(secret)), "{words}");
    }
}
