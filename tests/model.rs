//! The protocol under everything that a cluster does to it, exhaustively within bounds: the real `plan` as the transition
//! function of two operators that both believe to lead, with stale caches, before a small model of the API server and of
//! KMS. Writes are lost, late, or applied with the answer lost; an operator stops between any two effects; Secrets are
//! deleted, edited, replaced and restored; DataKeys are deleted, created again, and their version is raised and reverted.
//!
//! What must hold in every state:
//! * a reader who saw a version's bytes never sees other bytes under that version;
//! * a recorded data key is never changed or dropped;
//! * a foreign Secret is never written;
//! * once the faults stop, every `DataKey` comes to rest: Ready with the recorded bytes in its Secret, or a conflict that
//!   only a person can decide.
//!
//! Each mutant of the protocol leaves one precaution out, and must be caught.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use datakey_operator::{
    api::{DataKey, DataKeySpec, DeletionPolicy, IssuedVersion, KeySpec},
    plan::{SecretView, Step, World, plan},
    secret::{Facts, Fingerprint, MANAGER, index::Known},
    status::{self, Failure},
};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry},
    jiff::Timestamp,
};
use serde_json::{Map, json};

const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// A precaution that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// None: the protocol as it is.
    None,
    /// The record is written whatever the object became meanwhile, and the server does not guard it.
    RecordUnconditionally,
    /// The Secret is published before the record.
    SecretFirst,
    /// The Secret is applied instead of created: one that is there is overwritten.
    ApplyInsteadOfCreate,
    /// The Secret is replaced whatever it became meanwhile.
    ReplaceUnconditionally,
    /// Nobody looks at the Secret's name before KMS is asked.
    NoLook,
    /// A Secret that is there before the record is not adopted but taken as nothing.
    NoAdoption,
    /// A Secret that was read is put right without comparing its data keys.
    NoComparison,
}

type Id = usize;
type Revision = u16;

/// A `DataKey` at the server: which one, and its resource version.
type KeyAt = (Id, Revision);

/// A Secret at the server: which one, its uid, its resource version.
type SecretAt = (Id, u16, Revision);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum View {
    NotCached,
    Cached(SecretAt, Option<Id>),
    Missing,
    Found(SecretAt),
    Read(SecretAt),
}

/// A reconcile under way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Run {
    key: KeyAt,
    view: View,
    failure: Option<Id>,
}

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Operator {
    key: Option<KeyAt>,
    secret: Option<SecretAt>,
    /// What was read, and the Secret that it was found to be as good as.
    verified: Option<(SecretAt, Id)>,
    run: Option<Run>,
}

/// A write on its way, with its precondition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Write {
    Status { on: KeyAt, to: Id },
    Create { by: u16, to: Id },
    Replace { on: SecretAt, to: Id },
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    late: u8,
    stops: u8,
    delete_secret: u8,
    edit: u8,
    foreign: u8,
    restore: u8,
    recreate: u8,
    version: u8,
    policy: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    key: Option<KeyAt>,
    secret: Option<SecretAt>,
    operators: [Operator; 2],
    flight: Vec<Write>,
    /// What a backup has of the Secret.
    backup: Option<Id>,
    /// The bytes that readers saw, by version.
    shown: BTreeMap<i32, Vec<u8>>,
    /// Every record that was ever accepted for the present object.
    recorded: BTreeMap<i32, Vec<u8>>,
    uids: u16,
    budget: Budget,
}

/// Objects by number, so that states are small and equal ones are one.
struct Interned<T> {
    objects: Vec<Rc<T>>,
    numbers: HashMap<String, Id>,
}

impl<T: serde::Serialize> Interned<T> {
    fn new() -> Self {
        Self { objects: Vec::new(), numbers: HashMap::new() }
    }

    fn number(&mut self, object: T) -> Id {
        let text = serde_json::to_string(&object).unwrap();
        *self.numbers.entry(text).or_insert_with(|| {
            self.objects.push(Rc::new(object));
            self.objects.len() - 1
        })
    }
}

type Decisions = HashMap<(Id, View, Option<Id>), Decision>;

/// A step in numbers.
#[derive(Clone)]
enum Decision {
    End,
    Look,
    Read,
    Issue,
    Status(Id),
    Create(Id),
    Replace(Id),
    Verified(Id),
    Fail(Id),
}

struct Model {
    mutant: Mutant,
    /// Whether backups are restored: only then another data key than the recorded one can be in the Secret.
    restores: Cell<bool>,
    keys: RefCell<Interned<DataKey>>,
    secrets: RefCell<Interned<Secret>>,
    failures: RefCell<Vec<Failure>>,
    decisions: RefCell<Decisions>,
}

type Violation = String;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn new_key(uid: u16, version: i32, policy: DeletionPolicy) -> DataKey {
    let spec = DataKeySpec {
        key_id: ARN.to_owned(),
        key_spec: Some(KeySpec::Aes256),
        number_of_bytes: None,
        encryption_context: None,
        grant_tokens: None,
        region: None,
        version: Some(version),
        secret_name: None,
        deletion_policy: Some(policy),
    };
    let mut key = DataKey::new("k", spec);
    key.metadata.namespace = Some("n".into());
    key.metadata.uid = Some(format!("uid-{uid}"));
    key.metadata.generation = Some(i64::from(version) * 2 + i64::from(policy == DeletionPolicy::Delete));
    key.status = Some(status::at_birth());
    key
}

fn manager(name: &str, entries: impl Iterator<Item = String>) -> ManagedFieldsEntry {
    let fields: Map<_, _> = entries.map(|entry| (format!("f:{entry}"), json!({}))).collect();
    ManagedFieldsEntry {
        manager: Some(name.into()),
        fields_v1: Some(FieldsV1(json!({ "f:data": fields }))),
        ..ManagedFieldsEntry::default()
    }
}

/// As the server keeps it: without what it assigns, and owned by whoever wrote it.
fn stored(mut secret: Secret, owner: &str) -> Secret {
    secret.metadata.uid = None;
    secret.metadata.resource_version = None;
    let entries: Vec<_> = secret.data.iter().flatten().map(|(entry, _)| entry.clone()).collect();
    secret.metadata.managed_fields = Some(vec![manager(owner, entries.into_iter())]);
    if secret.metadata.owner_references.as_ref().is_some_and(Vec::is_empty) {
        secret.metadata.owner_references = None;
    }
    secret
}

fn foreign() -> Secret {
    Secret { type_: Some("Opaque".into()), ..Secret::default() }
}

/// The data keys that a reader finds, by version: those that are KMS's.
fn data_keys(secret: &Secret) -> BTreeMap<i32, Vec<u8>> {
    let entries = secret.data.iter().flatten().filter_map(|(name, value)| {
        let version = name.strip_prefix("ciphertextBlob.v")?.parse().ok()?;
        value.0.starts_with(b"blob ").then(|| (version, value.0.clone()))
    });
    let mut found: BTreeMap<_, _> = entries.collect();
    let plain = |name: &str| secret.data.as_ref()?.get(name).map(|value| value.0.clone());
    let current = plain("version").and_then(|version| String::from_utf8(version).ok()?.parse().ok());
    if let (Some(version), Some(blob)) = (current, plain("ciphertextBlob").filter(|blob| blob.starts_with(b"blob "))) {
        // The plain entries are read without a number: they must not differ from the numbered ones either.
        found.entry(version).or_insert(blob);
    }
    found
}

fn record(key: &DataKey) -> BTreeMap<i32, Vec<u8>> {
    key.record().iter().map(|issued| (issued.version, issued.ciphertext_blob.0.clone())).collect()
}

/// Visits every revision and every uid of a Secret, always in the same order.
fn each_revision(state: &mut State, mut visit: impl FnMut(&mut Revision)) {
    let mut secret = |at: &mut SecretAt| {
        visit(&mut at.1);
        visit(&mut at.2);
    };
    state.secret.iter_mut().for_each(&mut secret);
    for operator in &mut state.operators {
        operator.secret.iter_mut().for_each(&mut secret);
        operator.verified.iter_mut().for_each(|(at, _)| secret(at));
        if let Some(View::Cached(at, _) | View::Found(at) | View::Read(at)) =
            operator.run.as_mut().map(|run| &mut run.view)
        {
            secret(at);
        }
    }
    for write in &mut state.flight {
        if let Write::Replace { on, .. } = write {
            secret(on);
        }
    }
    state.key.iter_mut().for_each(|at| visit(&mut at.1));
    for operator in &mut state.operators {
        operator.key.iter_mut().for_each(|at| visit(&mut at.1));
        operator.run.iter_mut().for_each(|run| visit(&mut run.key.1));
    }
    for write in &mut state.flight {
        if let Write::Status { on, .. } = write {
            visit(&mut on.1);
        }
    }
}

/// States that differ only in names are one: operators are equals, and revisions are only compared for equality.
fn canonical(mut state: State) -> State {
    state.operators.sort();
    state.flight.sort();
    // What can't be used any more is forgotten.
    for operator in &mut state.operators {
        operator.verified =
            operator.verified.filter(|(at, _)| state.secret == Some(*at) || operator.secret == Some(*at));
    }
    let mut names = HashMap::new();
    each_revision(&mut state, |revision| {
        let next = Revision::try_from(names.len() + 1).unwrap();
        *revision = *names.entry(*revision).or_insert(next);
    });
    state
}

impl Model {
    fn new(mutant: Mutant) -> Self {
        let model = Self {
            mutant,
            restores: Cell::default(),
            keys: RefCell::new(Interned::new()),
            secrets: RefCell::new(Interned::new()),
            failures: RefCell::default(),
            decisions: RefCell::default(),
        };
        model.secret_number(foreign());
        model
    }

    fn key(&self, id: Id) -> Rc<DataKey> {
        Rc::clone(&self.keys.borrow().objects[id])
    }

    fn secret(&self, id: Id) -> Rc<Secret> {
        Rc::clone(&self.secrets.borrow().objects[id])
    }

    fn key_number(&self, key: DataKey) -> Id {
        self.keys.borrow_mut().number(key)
    }

    fn secret_number(&self, secret: Secret) -> Id {
        self.secrets.borrow_mut().number(secret)
    }

    fn uid(&self, id: Id) -> u16 {
        self.key(id).metadata.uid.as_deref().unwrap().strip_prefix("uid-").unwrap().parse().unwrap()
    }

    fn held(&self, id: Id) -> Fingerprint {
        self.facts((id, 0, 0)).fingerprint
    }

    fn facts(&self, at: SecretAt) -> Facts {
        let mut metadata = self.secret(at.0).metadata.clone();
        metadata.uid = Some(at.1.to_string());
        metadata.resource_version = Some(at.2.to_string());
        Facts::of(&metadata)
    }

    /// The real `plan`, and what it says in numbers.
    fn decide(&self, run: &Run) -> Decision {
        let (id, _) = run.key;
        // Revisions don't decide anything.
        let plain = |at: SecretAt| (at.0, 0, 0);
        let view = match run.view.clone() {
            View::Cached(at, verified) => View::Cached(plain(at), verified),
            View::Found(at) => View::Found(plain(at)),
            View::Read(at) => View::Read(plain(at)),
            view => view,
        };
        let question = (id, view, run.failure);
        if let Some(decision) = self.decisions.borrow().get(&question) {
            return decision.clone();
        }
        let secret = match &question.1 {
            View::NotCached if self.mutant == Mutant::NoLook => SecretView::Missing,
            View::NotCached => SecretView::NotCached,
            View::Cached(at, verified) => {
                let verified = verified.map(|held| self.held(held));
                SecretView::Cached(Known { facts: self.facts(*at), verified })
            }
            View::Missing => SecretView::Missing,
            View::Found(_) | View::Read(_) if self.mutant == Mutant::NoAdoption && self.key(id).record().is_empty() => {
                SecretView::Missing
            }
            View::Found(at) => SecretView::Found(self.facts(*at)),
            View::Read(at) => SecretView::Read(Box::new((*self.secret(at.0)).clone())),
        };
        let key = self.key(id);
        let failure = run.failure.map(|failure| self.failures.borrow()[failure].clone());
        let world =
            World { key: &key, secret: &secret, failure: failure.as_ref(), wait: None, turn: true, contested: false };
        let decision = match plan(&world, now()) {
            Step::Done | Step::Wait(_) => Decision::End,
            Step::Queue => unreachable!("it is always its turn"),
            Step::Look => Decision::Look,
            Step::Read => Decision::Read,
            Step::Issue => Decision::Issue,
            Step::Record(versions) => Decision::Status(self.with_status(&key, status::recorded(&key, versions))),
            Step::Create(secret) => Decision::Create(self.secret_number(stored(*secret, MANAGER))),
            Step::Replace(secret) => Decision::Replace(self.secret_number(stored(*secret, MANAGER))),
            Step::Verified(..) => {
                let held = datakey_operator::secret::project(&key, key.version()).unwrap();
                Decision::Verified(self.secret_number(stored(held.create(&key), MANAGER)))
            }
            Step::Fail(failure) => self.fail(&key, &secret, failure),
            Step::SetStatus(status) => Decision::Status(self.with_status(&key, *status)),
        };
        self.decisions.borrow_mut().insert(question, decision.clone());
        decision
    }

    fn fail(&self, key: &DataKey, secret: &SecretView, failure: Failure) -> Decision {
        if self.mutant == Mutant::NoComparison
            && let (SecretView::Read(secret), Some(wanted)) =
                (secret, datakey_operator::secret::project(key, key.version()))
        {
            return Decision::Replace(self.secret_number(stored(wanted.put_into((**secret).clone(), "k"), MANAGER)));
        }
        let mut failures = self.failures.borrow_mut();
        let known = failures.iter().position(|known| *known == failure);
        Decision::Fail(known.unwrap_or_else(|| {
            failures.push(failure);
            failures.len() - 1
        }))
    }

    fn with_status(&self, key: &DataKey, status: datakey_operator::api::DataKeyStatus) -> Id {
        let mut key = key.clone();
        key.status = Some(status);
        self.key_number(key)
    }

    /// A data key that nobody has yet. Which one does not matter, so the first free number is taken.
    fn fresh(&self, state: &State) -> Vec<u8> {
        let mut used: BTreeSet<Vec<u8>> = state.shown.values().chain(state.recorded.values()).cloned().collect();
        let keys =
            |at: &Option<KeyAt>| at.iter().flat_map(|at| record(&self.key(at.0)).into_values()).collect::<Vec<_>>();
        let secrets = |id: Id| data_keys(&self.secret(id)).into_values().collect::<Vec<_>>();
        used.extend(keys(&state.key));
        used.extend(state.secret.iter().flat_map(|at| secrets(at.0)));
        used.extend(state.backup.iter().flat_map(|id| secrets(*id)));
        for operator in &state.operators {
            used.extend(keys(&operator.key));
            used.extend(keys(&operator.run.as_ref().map(|run| run.key)));
            used.extend(operator.secret.iter().flat_map(|at| secrets(at.0)));
            if let Some(View::Cached(at, _) | View::Found(at) | View::Read(at)) =
                operator.run.as_ref().map(|run| &run.view)
            {
                used.extend(secrets(at.0));
            }
        }
        for write in &state.flight {
            match write {
                Write::Status { to, .. } => used.extend(record(&self.key(*to)).into_values()),
                Write::Create { to, .. } | Write::Replace { to, .. } => used.extend(secrets(*to)),
            }
        }
        (0..=used.len()).map(|n| format!("blob {n}").into_bytes()).find(|blob| !used.contains(blob)).unwrap()
    }

    fn issue(&self, key: &DataKey, blob: Vec<u8>) -> Id {
        let issued = IssuedVersion {
            version: key.version(),
            request: key.spec.request(),
            ciphertext_blob: ByteString(blob),
            key_id: ARN.to_owned(),
            key_material_id: None,
            issued_at: status::whole_seconds(now()),
            request_id: None,
        };
        self.with_status(key, status::recorded(key, vec![issued]))
    }

    /// The server takes a write, or refuses it. `Ok(false)`: refused.
    fn apply(&self, state: &mut State, write: &Write) -> Result<bool, Violation> {
        match *write {
            Write::Status { on, to } => self.apply_status(state, on, to),
            Write::Create { by, to } => {
                if state.secret.is_some() && self.mutant != Mutant::ApplyInsteadOfCreate {
                    return Ok(false);
                }
                if state.key.is_none_or(|key| self.uid(key.0) != by) {
                    // Not promised: the late write of a Secret whose DataKey was deleted meanwhile.
                    return Ok(false);
                }
                self.put_secret(state, to, true)?;
                Ok(true)
            }
            Write::Replace { on, to } => {
                let unconditional = self.mutant == Mutant::ReplaceUnconditionally && state.secret.is_some();
                if state.secret != Some(on) && !unconditional {
                    return Ok(false);
                }
                self.put_secret(state, to, true)?;
                Ok(true)
            }
        }
    }

    fn apply_status(&self, state: &mut State, on: KeyAt, to: Id) -> Result<bool, Violation> {
        let unconditional = self.mutant == Mutant::RecordUnconditionally;
        let Some(at) = state.key else { return Ok(false) };
        if at != on && !(unconditional && self.uid(at.0) == self.uid(to)) {
            return Ok(false);
        }
        let mut new = (*self.key(at.0)).clone();
        new.status.clone_from(&self.key(to).status);
        let (before, after) = (record(&self.key(at.0)), record(&new));
        if let Some((version, _)) = before.iter().find(|(version, blob)| after.get(version) != Some(blob)) {
            // The server's rule would refuse it; that the operator tries is the defect.
            return Err(format!("the recorded data key version {version} was changed or dropped"));
        }
        state.recorded.extend(after);
        let id = self.key_number(new);
        if id != at.0 {
            state.key = Some((id, Self::revision(state)));
        }
        Ok(true)
    }

    fn put_secret(&self, state: &mut State, to: Id, by_operator: bool) -> Result<(), Violation> {
        let old = state.secret;
        if by_operator && old.is_some_and(|at| self.secret(at.0).type_.as_deref() == Some("Opaque")) {
            return Err("a foreign Secret was written".to_owned());
        }
        let revision = Self::revision(state);
        let uid = old.map_or(revision, |at| at.1);
        state.secret = Some((to, uid, revision));
        for (version, blob) in data_keys(&self.secret(to)) {
            let seen = state.shown.entry(version).or_insert_with(|| blob.clone());
            if *seen != blob {
                return Err(format!("readers see other bytes under version {version}"));
            }
        }
        Ok(())
    }

    /// A revision that nothing refers to: in a canonical state they are numbered from 1 on without gaps.
    fn revision(state: &State) -> Revision {
        let mut highest = 0;
        each_revision(&mut state.clone(), |revision| highest = highest.max(*revision));
        highest + 1
    }

    /// One effect of a running reconcile. `late`: the answer to a write does not come in time.
    fn step(&self, state: &State, who: usize, late: bool) -> Result<Option<State>, Violation> {
        let run = state.operators[who].run.clone().unwrap();
        let decision = self.decide(&run);
        let mut next = state.clone();
        let key = self.key(run.key.0);
        let write = match decision {
            Decision::Issue => {
                let to = self.issue(&key, self.fresh(state));
                if self.mutant == Mutant::SecretFirst {
                    self.publish_first(&mut next, to)?;
                }
                Write::Status { on: run.key, to }
            }
            Decision::Status(to) => Write::Status { on: run.key, to },
            Decision::Create(to) => Write::Create { by: self.uid(run.key.0), to },
            Decision::Replace(to) => match run.view {
                View::Read(on) => Write::Replace { on, to },
                _ => unreachable!("a Secret is replaced after it was read"),
            },
            _ if late => return Ok(None),
            Decision::End => {
                next.operators[who].run = None;
                return Ok(Some(next));
            }
            Decision::Look | Decision::Read => {
                let looks = matches!(decision, Decision::Look);
                let view = state.secret.map_or(View::Missing, if looks { View::Found } else { View::Read });
                next.operators[who].run = Some(Run { view, ..run });
                return Ok(Some(next));
            }
            Decision::Verified(held) => {
                let View::Read(at) = run.view else { unreachable!("only what was read is verified") };
                next.operators[who].verified = Some((at, held));
                next.operators[who].run = Some(Run { view: View::Cached(at, Some(held)), ..run });
                return Ok(Some(next));
            }
            Decision::Fail(failure) => {
                next.operators[who].run = Some(Run { failure: Some(failure), ..run });
                return Ok(Some(next));
            }
        };
        if late {
            next.operators[who].run = None;
            next.flight.push(write);
            return Ok(Some(next));
        }
        let done = self.apply(&mut next, &write)?;
        next.operators[who].run = Self::answered(&next, run, &write, done);
        Ok(Some(next))
    }

    fn answered(state: &State, run: Run, write: &Write, done: bool) -> Option<Run> {
        match write {
            Write::Status { .. } if done => Some(Run { key: state.key.unwrap(), ..run }),
            Write::Create { .. } | Write::Replace { .. } if done => {
                Some(Run { view: View::Cached(state.secret.unwrap(), None), ..run })
            }
            // AlreadyExists: look who it is. Everything else that is refused ends the reconcile.
            Write::Create { .. } => state.secret.map(|at| Run { view: View::Found(at), ..run }),
            _ => None,
        }
    }

    fn publish_first(&self, state: &mut State, to: Id) -> Result<(), Violation> {
        let key = self.key(to);
        let wanted = datakey_operator::secret::project(&key, key.version()).unwrap();
        let id = self.secret_number(stored(wanted.create(&key), MANAGER));
        if state.secret.is_none() { self.put_secret(state, id, true) } else { Ok(()) }
    }

    /// Everything that can happen next.
    fn successors(&self, state: &State) -> Result<Vec<State>, Violation> {
        let mut next = Vec::new();
        for who in 0..2 {
            let operator = &state.operators[who];
            // A reconcile has its own picture: what the caches learn meanwhile matters at the next one only.
            let rests = operator.run.is_none();
            if rests && operator.key != state.key {
                let mut synced = state.clone();
                synced.operators[who].key = state.key;
                next.push(synced);
            }
            let watched = self.watched(state);
            if rests && operator.secret != watched {
                let mut synced = state.clone();
                synced.operators[who].secret = watched;
                next.push(synced);
            }
            if operator.run.is_some() {
                next.extend(self.step(state, who, false)?);
                if state.budget.late > 0
                    && let Some(mut late) = self.step(state, who, true)?
                {
                    late.budget.late -= 1;
                    next.push(late);
                }
                if state.budget.stops > 0 {
                    let mut stopped = state.clone();
                    stopped.budget.stops -= 1;
                    stopped.operators[who].run = None;
                    stopped.operators[who].verified = None;
                    next.push(stopped);
                }
            } else if let Some(run) = Self::start(operator).filter(|run| !matches!(self.decide(run), Decision::End)) {
                // A reconcile that ends at once changes nothing.
                let mut started = state.clone();
                started.operators[who].run = Some(run);
                next.push(started);
            }
        }
        for (number, write) in state.flight.iter().enumerate() {
            let mut lost = state.clone();
            lost.flight.remove(number);
            let mut applied = lost.clone();
            self.apply(&mut applied, write)?;
            next.extend([lost, applied]);
        }
        self.environment(state, &mut next)?;
        Ok(next)
    }

    /// The Secret, if the watch can see it: it selects by type.
    fn watched(&self, state: &State) -> Option<SecretAt> {
        state.secret.filter(|at| self.secret(at.0).type_ != foreign().type_)
    }

    fn start(operator: &Operator) -> Option<Run> {
        let key = operator.key?;
        let verified = operator.verified.filter(|(at, _)| operator.secret == Some(*at)).map(|(_, held)| held);
        let view = operator.secret.map_or(View::NotCached, |at| View::Cached(at, verified));
        Some(Run { key, view, failure: None })
    }

    fn environment(&self, state: &State, next: &mut Vec<State>) -> Result<(), Violation> {
        let Budget { delete_secret, edit, foreign: replace, restore, recreate, version, policy, .. } = state.budget;
        if let Some(at) = state.secret {
            let secret = self.secret(at.0);
            let ours = secret.type_ != foreign().type_;
            if delete_secret > 0 {
                let mut deleted = state.clone();
                deleted.budget.delete_secret -= 1;
                deleted.backup = ours.then_some(at.0).or(deleted.backup);
                deleted.secret = None;
                // Whoever removes a Secret that contradicts the record decides against its data keys, as the conflict
                // told to.
                let held = data_keys(&secret);
                // And what no record has is gone with its only copy.
                deleted.shown.retain(|version, _| match (held.get(version), state.recorded.get(version)) {
                    (Some(held), Some(recorded)) => held == recorded,
                    (_, recorded) => recorded.is_some(),
                });
                next.push(deleted);
            }
            if edit > 0 && ours {
                let mut edited = (*secret).clone();
                let data = edited.data.as_mut().unwrap();
                let entries: Vec<_> = data.keys().filter(|entry| *entry != "ciphertextBlob.v1").cloned().collect();
                data.insert("ciphertextBlob.v1".into(), ByteString(b"edited".to_vec()));
                let edit = manager("kubectl-edit", std::iter::once("ciphertextBlob.v1".to_owned()));
                edited.metadata.managed_fields = Some(vec![manager(MANAGER, entries.into_iter()), edit]);
                let mut changed = state.clone();
                changed.budget.edit -= 1;
                let id = self.secret_number(edited);
                self.put_secret(&mut changed, id, false)?;
                next.push(changed);
            }
        } else {
            if replace > 0 {
                let mut taken = state.clone();
                taken.budget.foreign -= 1;
                let revision = Self::revision(&taken);
                taken.secret = Some((0, revision, revision));
                next.push(taken);
            }
            if restore > 0
                && let Some(backup) = state.backup
            {
                let mut restored = state.clone();
                restored.budget.restore -= 1;
                let mut secret = stored((*self.secret(backup)).clone(), "velero");
                secret.metadata.owner_references = None;
                let id = self.secret_number(secret);
                // What is restored was shown before; that another data key was published since is the restorer's doing.
                let blobs = data_keys(&self.secret(id));
                if blobs.iter().all(|(version, blob)| state.shown.get(version).is_none_or(|seen| seen == blob)) {
                    self.put_secret(&mut restored, id, false)?;
                    next.push(restored);
                }
            }
        }
        if let Some((id, _)) = state.key {
            let key = self.key(id);
            if recreate > 0 {
                next.push(self.recreated(state, &key));
            }
            let mut spec = |version: i32, policy: DeletionPolicy, budget: Budget| {
                let mut changed = (*key).clone();
                let fresh = new_key(0, version, policy);
                changed.spec = fresh.spec;
                changed.metadata.generation = fresh.metadata.generation;
                let mut after = state.clone();
                after.budget = budget;
                after.key = Some((self.key_number(changed), Self::revision(state)));
                next.push(after);
            };
            if version > 0 {
                let budget = Budget { version: version - 1, ..state.budget };
                spec(3 - key.version(), key.spec.deletion_policy(), budget);
            }
            if policy > 0 {
                let other = match key.spec.deletion_policy() {
                    DeletionPolicy::Retain => DeletionPolicy::Delete,
                    DeletionPolicy::Delete => DeletionPolicy::Retain,
                };
                spec(key.version(), other, Budget { policy: policy - 1, ..state.budget });
            }
        }
        Ok(())
    }

    /// The `DataKey` is deleted, garbage is collected, and one of the same name is created, without a status.
    fn recreated(&self, state: &State, key: &DataKey) -> State {
        let mut after = state.clone();
        after.budget.recreate -= 1;
        after.uids += 1;
        let owned = |at: &SecretAt| self.secret(at.0).metadata.owner_references.is_some();
        if let Some(at) = state.secret.filter(owned) {
            after.backup = Some(at.0);
            after.secret = None;
        }
        after.recorded.clear();
        if after.secret.is_none_or(|at| at.0 == 0) {
            // Record and Secret are both gone: nothing is left to keep the promise with, and that is said.
            after.shown.clear();
        }
        let new = new_key(after.uids, key.version(), key.spec.deletion_policy());
        after.key = Some((self.key_number(new), Self::revision(state)));
        after
    }

    /// Once the faults stop and one operator has seen everything, the `DataKey` comes to rest.
    fn comes_to_rest(&self, state: &State) -> Result<(), Violation> {
        let mut state = state.clone();
        state.flight.clear();
        for _ in 0..12 {
            let watched = self.watched(&state);
            let operator = &mut state.operators[0];
            operator.key = state.key;
            operator.secret = watched;
            let Some(run) = Self::start(operator) else { return Ok(()) };
            if matches!(self.decide(&run), Decision::End) {
                break;
            }
            operator.run = Some(run);
            let mut steps = 0;
            while state.operators[0].run.is_some() {
                state = self.step(&state, 0, false)?.unwrap();
                steps += 1;
                if steps > 12 {
                    return Err("a reconcile does not end".to_owned());
                }
            }
        }
        let Some((id, _)) = state.key else { return Ok(()) };
        let key = self.key(id);
        let ready = status::find(&key, status::READY).unwrap();
        let secret = state.secret.map(|at| self.secret(at.0));
        match ready.status.as_str() {
            "True" => {
                let wanted = datakey_operator::secret::project(&key, key.version()).unwrap();
                let held = secret.and_then(|secret| secret.data.clone());
                if held == Some(wanted.data) && record(&key).contains_key(&key.version()) {
                    Ok(())
                } else {
                    Err("Ready, but the Secret does not hold what is recorded".to_owned())
                }
            }
            "False" if ready.reason == "SecretConflict" => {
                let Some(secret) = secret else { return Err("a conflict with a Secret that is not there".into()) };
                let edited = secret.data.iter().flatten().any(|(_, value)| value.0 == b"edited");
                let other = data_keys(&secret).iter().any(|(version, blob)| record(&key).get(version) != Some(blob));
                if secret.type_ == foreign().type_ || other && self.restores.get() || edited && key.record().is_empty()
                {
                    Ok(())
                } else {
                    Err("a conflict with a Secret that is its own".to_owned())
                }
            }
            other => Err(format!("at rest, and Ready is {other} ({})", ready.reason)),
        }
    }

    /// Explores every state within the budget. The number of states, or what was violated.
    fn explore(&self, budget: Budget) -> Result<usize, Violation> {
        self.restores.set(budget.restore > 0);
        let key = self.key_number(new_key(0, 1, DeletionPolicy::Retain));
        let first = State {
            key: Some((key, 1)),
            secret: None,
            operators: [Operator::default(), Operator::default()],
            flight: Vec::new(),
            backup: None,
            shown: BTreeMap::new(),
            recorded: BTreeMap::new(),
            uids: 0,
            budget,
        };
        let mut seen = HashSet::from([first.clone()]);
        let mut rested = HashSet::new();
        let mut queue = VecDeque::from([first]);
        while let Some(state) = queue.pop_front() {
            if rested.insert((state.key.map(|at| at.0), state.secret.map(|at| at.0), state.operators[0].verified)) {
                self.comes_to_rest(&state)?;
            }
            for next in self.successors(&state)? {
                let next = canonical(next);
                if seen.insert(next.clone()) {
                    queue.push_back(next);
                }
            }
        }
        Ok(seen.len())
    }
}

const NOTHING: Budget =
    Budget { late: 0, stops: 0, delete_secret: 0, edit: 0, foreign: 0, restore: 0, recreate: 0, version: 0, policy: 0 };

/// The combinations that every run explores, each exhaustively.
const SMALL: &[(&str, Budget)] = &[
    ("late writes", Budget { late: 2, ..NOTHING }),
    ("late writes and stops", Budget { late: 1, stops: 1, ..NOTHING }),
    ("Secret deleted", Budget { delete_secret: 2, ..NOTHING }),
    ("Secret deleted, late writes", Budget { late: 1, delete_secret: 1, ..NOTHING }),
    ("Secret edited", Budget { edit: 1, stops: 1, ..NOTHING }),
    ("Secret replaced by a foreign one", Budget { delete_secret: 1, foreign: 1, ..NOTHING }),
    ("Secret restored", Budget { delete_secret: 1, restore: 1, ..NOTHING }),
    ("version raised", Budget { version: 1, stops: 1, ..NOTHING }),
    ("version raised and reverted", Budget { version: 2, ..NOTHING }),
    ("DataKey re-created", Budget { recreate: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created, Secret deleted", Budget { recreate: 1, delete_secret: 1, ..NOTHING }),
    ("policy changed", Budget { policy: 1, ..NOTHING }),
];

/// Larger ones, for minutes and some GiB of memory.
const LARGE: &[(&str, Budget)] = &[
    ("late writes and stops", Budget { late: 2, stops: 1, ..NOTHING }),
    ("Secret deleted, late writes", Budget { late: 2, delete_secret: 1, ..NOTHING }),
    ("Secret edited and deleted, late writes", Budget { late: 1, edit: 1, delete_secret: 1, ..NOTHING }),
    ("Secret replaced by a foreign one, late writes", Budget { late: 1, delete_secret: 1, foreign: 1, ..NOTHING }),
    ("Secret deleted and restored", Budget { delete_secret: 2, restore: 1, stops: 1, ..NOTHING }),
    ("version raised, Secret deleted", Budget { version: 1, delete_secret: 1, ..NOTHING }),
    ("version raised, Secret edited", Budget { version: 1, edit: 1, ..NOTHING }),
    ("DataKey re-created, late writes", Budget { late: 1, recreate: 1, ..NOTHING }),
    ("policy changed, DataKey re-created", Budget { policy: 1, recreate: 1, ..NOTHING }),
    ("policy changed, late writes", Budget { policy: 1, late: 1, ..NOTHING }),
    OVERTAKEN,
];

/// A Secret is edited, and while it is put right it is deleted and a foreign one takes its place.
const OVERTAKEN: (&str, Budget) = (
    "Secret edited, then replaced by a foreign one, late writes",
    Budget { late: 1, edit: 1, delete_secret: 1, foreign: 1, ..NOTHING },
);

/// Explores all of them on two threads; tells the states of each.
fn explore_all(budgets: &[(&str, Budget)]) -> usize {
    let next = AtomicUsize::new(0);
    let states = AtomicUsize::new(0);
    let worker = || {
        while let Some((name, budget)) = budgets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let explored = Model::new(Mutant::None).explore(*budget);
            let explored = explored.unwrap_or_else(|violation| panic!("{name}: {violation}"));
            println!("{name}: {explored} states");
            states.fetch_add(explored, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    let states = states.into_inner();
    println!("{states} states in all");
    states
}

#[test]
fn the_protocol_keeps_its_promises_in_every_state() {
    assert!(explore_all(SMALL) > 100_000, "the model does not reach what it should");
}

#[test]
#[ignore = "minutes and some GiB: make model"]
fn the_protocol_keeps_its_promises_in_every_state_of_larger_worlds() {
    explore_all(LARGE);
}

#[test]
fn every_mutant_of_the_protocol_is_caught() {
    let mutants = [
        (Mutant::RecordUnconditionally, Budget { late: 2, ..NOTHING }),
        (Mutant::SecretFirst, Budget { delete_secret: 1, stops: 1, ..NOTHING }),
        (Mutant::ApplyInsteadOfCreate, Budget { delete_secret: 1, foreign: 1, ..NOTHING }),
        (Mutant::ReplaceUnconditionally, OVERTAKEN.1),
        (Mutant::NoLook, Budget { recreate: 1, ..NOTHING }),
        (Mutant::NoAdoption, Budget { recreate: 1, ..NOTHING }),
        (Mutant::NoComparison, Budget { recreate: 1, delete_secret: 1, restore: 1, ..NOTHING }),
    ];
    for (mutant, budget) in mutants {
        match Model::new(mutant).explore(budget) {
            Ok(states) => panic!("{mutant:?} is not caught in {states} states"),
            Err(violation) => println!("{mutant:?} is caught: {violation}"),
        }
    }
}
