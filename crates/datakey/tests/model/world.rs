//! The state of the model: the server, two operators, and the writes in flight.

use std::hash::{DefaultHasher, Hash, Hasher};

use datakey::protocol::{Attempt, SecretState};

use crate::objects::{DataKeys, Id, RequestVariant};

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

/// A data key, with the version and the variant that it was requested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyAt {
    pub number: u8,
    pub version: i32,
    pub variant: RequestVariant,
}

/// An operator: its caches and its reconcile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operator {
    pub key: Option<KeyAt>,
    pub secret: Option<SecretAt>,
    /// The revision that this operator read or wrote, with its content.
    pub verified: Option<(SecretAt, Held)>,
    pub run: Option<Run>,
}

/// A write in flight, with its precondition. Writes of a Secret have the uid of the `DataKey` that they are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Write {
    Status { on: KeyAt, to: Id, saved: Option<Saved> },
    Create { by: u16, to: Id },
    Replace { by: u16, on: SecretAt, to: Id },
}

/// The number of faults of each kind that can still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Writes whose answer times out.
    pub late: u8,
    /// Stops of an operator.
    pub stops: u8,
    /// Deletions of the Secret.
    pub delete_secret: u8,
    /// Changes of an entry of the Secret.
    pub edit: u8,
    /// Reverts of the Secret to its earlier content, byte for byte.
    pub revert: u8,
    /// Removals of labels and annotations from the Secret.
    pub unmark: u8,
    /// Creations of a foreign Secret.
    pub foreign: u8,
    /// Creations of a Secret that only looks like the operator's.
    pub lookalike: u8,
    /// Restores of a deleted Secret from a backup.
    pub restore: u8,
    /// Re-creations of the `DataKey` with the same spec, among them restores without the status.
    pub recreate: u8,
    /// Re-creations of the `DataKey` with other variant.
    pub respec: u8,
    /// Changes of the variant in place, as long as the server allows them.
    pub correct: u8,
    /// Changes of the version.
    pub version: u8,
    /// Changes of the deletion policy.
    pub policy: u8,
    /// Changes of the pins: all that is recorded, another cluster's data key, or none.
    pub pin: u8,
    /// Losses of the whole cluster, which is built again from the spec.
    pub rebuild: u8,
    /// Moves to another cluster with the status, where the Secret meets the same revision under another uid.
    pub migrate: u8,
    /// Times that a revision was read so long ago that the status must name it.
    pub settle: u8,
    /// Writes of a Secret that the server carries out although their `DataKey` was deleted meanwhile.
    pub outlived: u8,
}

pub const NOTHING: Budget = Budget {
    late: 0,
    stops: 0,
    delete_secret: 0,
    edit: 0,
    revert: 0,
    unmark: 0,
    foreign: 0,
    lookalike: 0,
    restore: 0,
    recreate: 0,
    respec: 0,
    correct: 0,
    version: 0,
    policy: 0,
    pin: 0,
    rebuild: 0,
    migrate: 0,
    settle: 0,
    outlived: 0,
};

/// One state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub key: KeyAt,
    pub secret: Option<SecretAt>,
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
    Reconcile,
    GetMetadata,
    GetSecret,
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

// === impl Budget ===

impl Budget {
    /// Every budget with one fault fewer.
    pub fn lesser(self) -> impl Iterator<Item = Self> {
        let faults: [fn(&mut Self) -> &mut u8; 19] = [
            |budget| &mut budget.late,
            |budget| &mut budget.stops,
            |budget| &mut budget.delete_secret,
            |budget| &mut budget.edit,
            |budget| &mut budget.revert,
            |budget| &mut budget.unmark,
            |budget| &mut budget.foreign,
            |budget| &mut budget.lookalike,
            |budget| &mut budget.restore,
            |budget| &mut budget.recreate,
            |budget| &mut budget.respec,
            |budget| &mut budget.correct,
            |budget| &mut budget.version,
            |budget| &mut budget.policy,
            |budget| &mut budget.pin,
            |budget| &mut budget.rebuild,
            |budget| &mut budget.migrate,
            |budget| &mut budget.settle,
            |budget| &mut budget.outlived,
        ];
        faults.into_iter().filter_map(move |fault| self.without(fault))
    }

    /// The budget with one of these faults fewer, if one is left.
    fn without(mut self, fault: impl Fn(&mut Self) -> &mut u8) -> Option<Self> {
        let left = fault(&mut self);
        *left = left.checked_sub(1)?;
        Some(self)
    }
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
    pub fn first(key: Id, budget: Budget) -> Self {
        Self {
            key: KeyAt { object: key, revision: 1, saved: None },
            secret: None,
            operators: [Operator::default(); 2],
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
        self.operators.sort_unstable();
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
