//! Carries the steps out that [`crate::plan`] decides on: the only place that knows both KMS and Kubernetes.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PostParams,
    core::{ObjectMeta, request::Request},
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder},
        reflector::ObjectRef,
    },
};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::{
    api::{DataKey, DataKeyStatus, IssuedVersion},
    backoff::{Backoff, Subject},
    controller::chain,
    kms::{
        Kms, NotIssued, redact,
        turns::{Turn, Wake},
    },
    metrics::{Metrics, Operation, Outcome},
    plan::{SecretView, Step, World, plan},
    repairs::Repairs,
    secret::{
        Facts, MANAGER,
        index::{Known, SecretIndex},
        requests::{self, RequestError},
    },
    status::{self, Failure, Reason},
    written::Written,
};

/// More steps than any way through the protocol has; reached only when somebody else writes all the while.
const MAX_STEPS: usize = 13;

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
    pub backoff: Backoff,
    /// How often Secrets were put right.
    pub repairs: Repairs,
    /// Our own last writes.
    pub written: Written,
    /// Longest wait for one answer of the API server.
    pub kube_timeout: Duration,
    /// How often an object is looked at without any event, in the caches only.
    pub resync: Duration,
}

/// Something passing was in the way; the object is reconciled again soon.
#[derive(Debug, Error)]
pub enum Error {
    /// The object was written by somebody else meanwhile. What was not recorded is dropped.
    #[error("the object was changed meanwhile")]
    Conflict,
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

// === impl Context ===

impl Context {
    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.backoff.forget(uid);
        self.repairs.forget(uid);
        self.written.forget(uid);
        self.kms.turns.leave(uid);
    }
}

/// Reconciles one `DataKey`, as it is now: the newest of what the watch told and what was written.
///
/// # Errors
/// What passes by itself. Failures that the user has to know of are told in the status instead.
pub async fn reconcile(
    key: Arc<DataKey>,
    index: &SecretIndex,
    wake: &Wake,
    context: &Context,
) -> Result<Action, Error> {
    let begun = Instant::now();
    let mut run = Run::new(key, index, wake, context);
    let result = run.steps().await;
    if !run.waits {
        // Somebody else may have issued what a turn was granted for: nobody must wait for a turn that is not needed.
        context.kms.turns.leave(&run.uid);
    }
    let (namespace, name) = (&run.namespace, &run.name);
    let outcome = match &result {
        Ok(_) => Outcome::Success,
        Err(Error::Conflict) => {
            // Where the API server went back to an older state, our own last write is of a future that never came.
            context.written.forget(&run.uid);
            debug!(namespace, name, "the DataKey or its Secret was changed meanwhile; repeating");
            Outcome::Error
        }
        Err(error) => {
            warn!(namespace, name, error = chain(error), "reconcile failed; repeating");
            Outcome::Error
        }
    };
    context.metrics.reconciled(outcome, begun.elapsed());
    result
}

/// Whether there is nothing to do for a `DataKey` as the caches have it.
pub fn is_at_rest(key: &Arc<DataKey>, index: &SecretIndex, context: &Context) -> bool {
    let key = context.written.newest(Arc::clone(key), None);
    let known = index.get(key.metadata.namespace.as_deref().unwrap_or_default(), key.secret_name());
    let secret = known.map_or(SecretView::NotCached, SecretView::Cached);
    let world = World {
        key: &key,
        secret: &secret,
        failure: None,
        wait: None,
        turn: false,
        contested: false,
        region: context.kms.own_region(),
    };
    let at_rest = matches!(plan(&world, Timestamp::now()), Step::Done);
    if at_rest {
        let uid = key.metadata.uid.as_deref().unwrap_or_default();
        context.backoff.forget(uid);
        context.kms.turns.leave(uid);
    }
    at_rest
}

/// One reconcile under way.
struct Run<'a> {
    context: &'a Context,
    index: &'a SecretIndex,
    wake: &'a Wake,
    namespace: String,
    name: String,
    uid: String,
    key: Arc<DataKey>,
    secret: SecretView,
    subject: Subject,
    turn: Option<Turn>,
    /// For its turn.
    waits: bool,
    failure: Option<Failure>,
    retry: Option<Duration>,
}

// === impl Run ===

impl<'a> Run<'a> {
    fn new(key: Arc<DataKey>, index: &'a SecretIndex, wake: &'a Wake, context: &'a Context) -> Self {
        let namespace = key.namespace().unwrap_or_default();
        let known = index.get(&namespace, key.secret_name());
        Self {
            context,
            index,
            wake,
            name: key.name_any(),
            uid: key.uid().unwrap_or_default(),
            subject: Subject {
                generation: key.metadata.generation,
                secret: known.as_ref().map(|known| known.facts.resource_version.clone()),
            },
            namespace,
            key,
            secret: known.map_or(SecretView::NotCached, SecretView::Cached),
            turn: None,
            waits: false,
            failure: None,
            retry: None,
        }
    }

    async fn steps(&mut self) -> Result<Action, Error> {
        let Context { backoff, .. } = self.context;
        for step in 0..MAX_STEPS {
            let wait = backoff.remaining(&self.uid, &self.subject, status::shown_failure(&self.key));
            if step == 0 && wait.is_some() {
                // The last write of the status may have met a change, and the next try is far away.
                (self.failure, self.retry) = (backoff.untold(&self.uid), wait);
            }
            let world = World {
                key: &self.key,
                secret: &self.secret,
                failure: self.failure.as_ref(),
                wait,
                turn: self.turn.is_some(),
                contested: self.context.repairs.wait(&self.uid).is_some(),
                region: self.context.kms.own_region(),
            };
            match plan(&world, Timestamp::now()) {
                Step::Done => return Ok(self.at_rest()),
                Step::Wait(wait) => return Ok(Action::requeue(wait)),
                Step::Look => self.look().await?,
                Step::Read => self.read().await?,
                Step::Queue => {
                    if !self.queue() {
                        // It is woken when its turn comes.
                        self.waits = true;
                        return Ok(Action::await_change());
                    }
                }
                Step::Issue => self.issue().await?,
                Step::Record(versions) | Step::Pin(versions) => self.take_over(versions).await?,
                Step::Create(secret) => self.create(&secret).await?,
                Step::Replace(secret) => self.replace(&secret).await?,
                Step::Verified(facts, held) => {
                    self.index.learn(&self.namespace, self.key.secret_name(), facts.clone(), Some(held));
                    self.secret = SecretView::Cached(Known { facts, verified: Some(held) });
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
        Action::await_change()
    }

    fn fail(&mut self, failure: Failure) {
        let Context { backoff, repairs, .. } = self.context;
        self.retry = match failure.reason {
            // Nothing was tried, and so nothing failed again.
            Reason::SecretContested => repairs.wait(&self.uid).or(Some(Duration::ZERO)),
            _ => Some(backoff.failed(&self.uid, self.subject.clone(), &failure)),
        };
        self.failure = Some(failure);
    }

    /// Whether to go on: with the turn to call KMS, or with the reason why there can't be one.
    fn queue(&mut self) -> bool {
        let Context { kms, .. } = self.context;
        let request = self.key.spec.request();
        match kms.region(&request) {
            Ok(region) => {
                let object = ObjectRef::new(&self.name).within(&self.namespace);
                self.turn = kms.turns.enter(region, &self.uid, &object, self.wake);
                self.turn.is_some()
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

    async fn read(&mut self) -> Result<(), Error> {
        let read = requests::read(&self.context.client, &self.namespace, self.key.secret_name());
        let secret = self.within(read).await??;
        self.secret = secret.map_or(SecretView::Missing, |secret| SecretView::Read(Box::new(secret)));
        Ok(())
    }

    /// The only call to KMS. What it answers is held in memory until it is recorded, and dropped if that is unclear.
    async fn issue(&mut self) -> Result<(), Error> {
        let request = self.key.spec.request();
        let version = self.key.version();
        let tokens = self.key.spec.grant_tokens.as_deref().unwrap_or_default();
        let Some(turn) = self.turn.take() else {
            return Ok(());
        };
        let wrapped = match self.context.kms.issue(turn, &request, tokens).await {
            Ok(wrapped) => wrapped,
            Err(NotIssued { failure, code, words, request_id }) => {
                let (namespace, name, reason) = (&self.namespace, &self.name, failure.reason.as_str());
                warn!(namespace, name, version, reason, code, request_id, words, "KMS issued no data key");
                self.fail(failure);
                return Ok(());
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
        let issued = IssuedVersion {
            version,
            request,
            ciphertext_blob: ByteString(wrapped.ciphertext_blob),
            key_id: wrapped.key_arn,
            key_material_id: wrapped.key_material_id,
            issued_at: status::whole_seconds(Timestamp::now()),
            request_id: wrapped.request_id,
        };
        self.record(vec![issued]).await
    }

    /// Records data keys that the spec pins or the Secret holds.
    async fn take_over(&mut self, versions: Vec<IssuedVersion>) -> Result<(), Error> {
        let is_pinned = |version: &i32| self.key.pins().iter().any(|pin| pin.version == *version);
        let (pinned, adopted): (Vec<_>, Vec<_>) = versions.iter().map(|issued| issued.version).partition(is_pinned);
        self.record(versions).await?;
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

    async fn record(&mut self, versions: Vec<IssuedVersion>) -> Result<(), Error> {
        match self.put_status(status::recorded(&self.key, versions)).await? {
            Answer::Done(key) => self.key = key,
            Answer::Refused(words) => self.fail(Failure::new(Reason::Refused, words)),
        }
        Ok(())
    }

    async fn create(&mut self, secret: &Secret) -> Result<(), Error> {
        let created = requests::create(&self.context.client, &self.namespace, secret);
        match self.within(created).await? {
            Err(RequestError::Kube(kube::Error::Api(status))) if status.is_already_exists() => self.look().await,
            written => self.published(written, Operation::Create).await,
        }
    }

    async fn replace(&mut self, secret: &Secret) -> Result<(), Error> {
        let replaced = requests::replace(&self.context.client, &self.namespace, secret);
        let written = self.within(replaced).await?;
        self.published(written, Operation::Update).await
    }

    async fn published(&mut self, written: Result<Facts, RequestError>, operation: Operation) -> Result<(), Error> {
        let facts = match answered(written, &self.key)? {
            Answer::Done(facts) => facts,
            Answer::Refused(words) => {
                self.fail(Failure::new(Reason::Refused, words));
                return Ok(());
            }
        };
        self.context.metrics.secret_written(operation);
        let secret = self.key.secret_name().to_owned();
        self.index.learn(&self.namespace, &secret, facts.clone(), None);
        self.secret = SecretView::Cached(Known { facts, verified: None });
        let (namespace, name, version) = (&self.namespace, &self.name, self.key.version());
        info!(namespace, name, secret, version, ?operation, "wrote the Secret from the record");
        // The first publication of a version needs no event: the condition tells it.
        let published = self.key.status.as_ref().and_then(|status| status.version);
        if published == Some(self.key.version()) {
            self.context.repairs.repaired(&self.uid);
            let note = format!("Secret {secret} was changed or deleted: wrote it again from the record");
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
        } else {
            info!(namespace, name, version, secret = self.key.secret_name(), "the DataKey is ready");
        }
        Ok(())
    }

    /// Writes the status of exactly the object that was decided on: uid and resource version go with it.
    async fn put_status(&self, status: DataKeyStatus) -> Result<Answer<Arc<DataKey>>, Error> {
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
        let written = self.within(put_status(&self.context.client, &self.namespace, &self.name, &object)).await?;
        Ok(match answered(written, &object)? {
            Answer::Done(key) => {
                let key = Arc::new(key);
                self.context.written.learn(&key);
                Answer::Done(key)
            }
            Answer::Refused(words) => Answer::Refused(words),
        })
    }

    /// An event more or less must not fail a reconcile.
    async fn tell(&self, type_: EventType, reason: &str, mut note: String) {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Reconcile".into(), secondary: None };
        let reference = self.key.object_ref(&());
        let (namespace, name) = (&self.namespace, &self.name);
        match timeout(self.context.kube_timeout, self.context.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(namespace, name, reason, error = chain(&error), "the event was not taken"),
            Err(_) => debug!(namespace, name, reason, "the event was not taken in time"),
        }
    }

    async fn within<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.context.kube_timeout;
        timeout(limit, request).await.map_err(|_| Error::Timeout(limit))
    }
}

async fn put_status(client: &Client, namespace: &str, name: &str, object: &DataKey) -> Result<DataKey, RequestError> {
    let body = serde_json::to_vec(object).map_err(RequestError::Encode)?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let url = DataKey::url_path(&(), Some(namespace));
    requests::send(client, Request::new(url).replace_subresource("status", name, &params, body)?).await
}

/// Sorts the answer to a write: done, refused for a reason that the user can know, or to be repeated. The server can
/// repeat in its words what was sent to it; what must not be told is taken out.
fn answered<T>(written: Result<T, RequestError>, sent: &DataKey) -> Result<Answer<T>, Error> {
    match written {
        Ok(done) => Ok(Answer::Done(done)),
        Err(RequestError::Kube(kube::Error::Api(status))) => {
            let words = redact(&status.message, &secrets_of(sent));
            match status.code {
                // Not found: the object is gone, and with it the reason to write.
                404 | 409 => Err(Error::Conflict),
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
