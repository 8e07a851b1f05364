//! The state of the model: the server, two operators, and the writes in flight.

use std::hash::{DefaultHasher, Hash, Hasher};

use datakey::protocol::{Attempt, SecretState};

use crate::{
    budgets::Budget,
    classes::{ClassAt, ClassView},
    objects::{DataKeys, Id},
    requests::DataKeyAt,
};

/// A uid of a Secret or a resource version. They are only compared for equality.
pub type Revision = u16;

/// A `DataKey` at one of its revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyAt {
    pub object: Id,
    pub revision: Revision,
    /// The revision of the Secret that the status names; the object has the digest.
    pub saved: Option<Saved>,
}

/// Uid and revision of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Saved {
    pub uid: Revision,
    pub revision: Revision,
}

/// The verified content of a revision: that of this Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    pub object: Id,
    pub origin: Origin,
}

/// How an operator learned the content of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Written,
    Read,
    Settled,
}

/// A Secret at one of its revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretAt {
    pub object: Id,
    pub uid: Revision,
    pub revision: Revision,
}

/// A reconcile's knowledge of the Secret; that of a watched one with its verified content.
pub type View = SecretState<(SecretAt, Option<Held>), SecretAt, SecretAt>;

/// A running reconcile.
pub type Run = Attempt<KeyAt, View, DataKeyAt, Id>;

/// An operator: its caches and its reconcile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operator {
    pub key: Option<KeyAt>,
    pub secret: Option<SecretAt>,
    /// The revision that this operator read or wrote, with its content.
    pub verified: Option<(SecretAt, Held)>,
    pub class: ClassView,
    pub run: Option<Run>,
}

/// A write in flight, with its precondition. Writes of a Secret have the uid of the `DataKey` that they are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Write {
    Status { on: KeyAt, to: Id, saved: Option<Saved> },
    Create { by: u16, to: Id },
    Replace { by: u16, on: SecretAt, to: Id },
}

/// One state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub key: KeyAt,
    pub secret: Option<SecretAt>,
    /// The class that the objects name; `None` also where they name none.
    pub class: Option<ClassAt>,
    pub classes_deleted: u8,
    /// Whether the alias names another KMS key than before.
    pub alias_moved: bool,
    pub operators: [Operator; 2],
    pub flight: Vec<Write>,
    /// The Secret in the backup.
    pub backup: Option<Id>,
    /// The Secret before its last write.
    pub earlier: Option<Id>,
    /// The bytes that readers saw and may still rely on.
    pub shown: DataKeys,
    pub uids: u16,
    /// The highest revision in use.
    pub revisions: Revision,
    pub budget: Budget,
}

/// The action between two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin,
    SyncDataKey,
    SyncSecret,
    SyncClass,
    RefuseClasses,
    Reconcile,
    GetMetadata,
    GetSecret,
    CallKms,
    AcceptRevision,
    Fail,
    Write(Effect, Outcome),
    Stop,
    LateWriteApplied,
    LateWriteRefused,
    LateWriteLost,
    CollectGarbage,
    DeleteSecret,
    EditSecret,
    RevertSecret,
    UnmarkSecret,
    CreateForeignSecret,
    CreateLookalike,
    RestoreSecret,
    RecreateDataKey,
    RecreateDataKeyOrphaningSecret,
    CorrectSettings,
    ChangeVersion,
    ChangePolicy,
    PinRecord,
    PinAnothers,
    Unpin,
    RebuildCluster,
    MoveCluster,
    Settle,
    ChangeClass,
    DeleteClass,
    RecreateClass,
    MoveAlias,
}

/// A write of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It calls KMS and records the answer.
    Issue,
    /// It records versions of the Secret or of the pins.
    Adopt,
    SetStatus,
    Create,
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Refused,
    /// No answer in time: the write may still be applied.
    Late,
}

// === impl Saved ===

impl Saved {
    pub fn of(at: SecretAt) -> Self {
        Self { uid: at.uid, revision: at.revision }
    }

    fn both(&mut self) -> [&mut Revision; 2] {
        [&mut self.uid, &mut self.revision]
    }
}

// === what a View holds ===

/// The Secret that is in view.
pub fn secret_in(view: &View) -> Option<SecretAt> {
    match view {
        View::Watched((at, _)) | View::Present(at) | View::Loaded(at) => Some(*at),
        View::Unwatched | View::Absent => None,
    }
}

/// The same view of a changed Secret.
fn with_secret(mut view: View, change: impl FnOnce(&mut SecretAt)) -> View {
    match &mut view {
        View::Watched((at, _)) | View::Present(at) | View::Loaded(at) => change(at),
        View::Unwatched | View::Absent => {}
    }
    view
}

/// The view without revisions, on which decisions do not depend.
pub fn plain(view: View) -> View {
    with_secret(view, |at| (at.uid, at.revision) = (0, 0))
}

/// The same reconcile of a changed `DataKey`.
fn with_key(run: Run, change: impl FnOnce(&mut KeyAt)) -> Run {
    let changed = |mut key| {
        change(&mut key);
        key
    };
    run.map(changed, |view| view, |answer| answer, |failure| failure)
}

// === impl State ===

impl State {
    pub fn first(key: Id, class: Option<ClassAt>, budget: Budget) -> Self {
        Self {
            key: KeyAt { object: key, revision: 1, saved: None },
            secret: None,
            class,
            classes_deleted: 0,
            alias_moved: false,
            operators: [Operator { class: class.map_or(ClassView::Unlisted, ClassView::Found), ..Operator::default() };
                2],
            flight: Vec::new(),
            backup: None,
            earlier: None,
            shown: DataKeys::default(),
            uids: 0,
            revisions: 1,
            budget,
        }
    }

    /// The state with one of these faults spent, if one is left.
    pub fn spend(&self, fault: impl Fn(&mut Budget) -> &mut u8) -> Option<Self> {
        self.budget.without(fault).map(|budget| Self { budget, ..self.clone() })
    }

    pub fn new_revision(&mut self) -> Revision {
        self.revisions += 1;
        self.revisions
    }

    /// The representative of all states that differ only in the order of the operators and in the numbers of revisions, which are
    /// only compared for equality.
    pub fn canonical(mut self) -> Self {
        // Content of a revision that is neither stored nor cached can't be used any more.
        for operator in &mut self.operators {
            let (now, cached) = (self.secret, operator.secret);
            operator.verified = operator.verified.filter(|(at, _)| now == Some(*at) || cached == Some(*at));
        }
        if !self.budget.alone {
            self.operators.sort_unstable();
        }
        self.flight.sort_unstable();
        let mut names = [0; 64];
        let mut next = 0;
        self.each_revision(|revision| {
            let name: &mut Revision = &mut names[usize::from(*revision)];
            if *name == 0 {
                next += 1;
                *name = next;
            }
            *revision = *name;
        });
        self.revisions = next;
        self
    }

    /// Visits every revision and every uid of a Secret, always in the same order.
    fn each_revision(&mut self, mut visit: impl FnMut(&mut Revision)) {
        let mut secret = |at: &mut SecretAt| {
            visit(&mut at.uid);
            visit(&mut at.revision);
        };
        self.secret.iter_mut().for_each(&mut secret);
        for operator in &mut self.operators {
            operator.secret.iter_mut().for_each(&mut secret);
            operator.verified.iter_mut().for_each(|(at, _)| secret(at));
            if let Some(run) = &mut operator.run {
                *run = run.map(|key| key, |view| with_secret(view, &mut secret), |answer| answer, |failure| failure);
            }
        }
        for write in &mut self.flight {
            if let Write::Replace { on, .. } = write {
                secret(on);
            }
        }
        let mut saved = |saved: &mut Option<Saved>| saved.iter_mut().flat_map(Saved::both).for_each(&mut visit);
        saved(&mut self.key.saved);
        for operator in &mut self.operators {
            operator.key.iter_mut().for_each(|at| saved(&mut at.saved));
            operator.run.iter_mut().for_each(|run| *run = with_key(*run, |key| saved(&mut key.saved)));
        }
        for write in &mut self.flight {
            if let Write::Status { on, saved: new, .. } = write {
                saved(&mut on.saved);
                saved(new);
            }
        }
        visit(&mut self.key.revision);
        for operator in &mut self.operators {
            operator.key.iter_mut().for_each(|at| visit(&mut at.revision));
            operator.run.iter_mut().for_each(|run| *run = with_key(*run, |key| visit(&mut key.revision)));
        }
        for write in &mut self.flight {
            if let Write::Status { on, .. } = write {
                visit(&mut on.revision);
            }
        }
    }

    /// A hash that replaces the state in comparisons. It has 128 bits, so that no two states collide.
    pub fn fingerprint(&self) -> [u64; 2] {
        [0, 1].map(|seed: u8| {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            self.hash(&mut hasher);
            hasher.finish()
        })
    }
}
