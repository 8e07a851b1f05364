//! The budgets of faults to explore. Everything in a budget can happen, in every order, and nothing else.

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
    /// Changes of what the class allows that the objects name. With this or one of the next two, all objects name a class.
    pub class: u8,
    /// Times that the class becomes unusable: contradictory, deleted, or not to be listed. It can be created again at once.
    pub unusable: u8,
    /// Moves of the alias to another KMS key.
    pub alias: u8,
    /// Whether there is only one operator: a world that is much smaller.
    pub alone: bool,
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
    class: 0,
    unusable: 0,
    alias: 0,
    alone: false,
};

/// Budgets that every run explores.
pub const SMALL: &[(&str, Budget)] = &[
    ("late writes", Budget { late: 2, ..NOTHING }),
    ("late writes and stops", Budget { late: 1, stops: 1, ..NOTHING }),
    ("Secret deleted", Budget { delete_secret: 2, ..NOTHING }),
    ("Secret deleted, late writes", Budget { late: 1, delete_secret: 1, ..NOTHING }),
    ("Secret edited", Budget { edit: 1, stops: 1, ..NOTHING }),
    ("Secret edited twice", Budget { edit: 2, ..NOTHING }),
    ("Secret edited, late writes", Budget { edit: 1, late: 1, ..NOTHING }),
    ("Secret edited and reverted", Budget { edit: 1, revert: 1, stops: 1, ..NOTHING }),
    ("Secret edited, reverted and deleted", Budget { edit: 1, revert: 1, delete_secret: 1, ..NOTHING }),
    ("Secret reverted, version raised", Budget { revert: 1, version: 1, stops: 1, ..NOTHING }),
    ("Secret reverted twice, version raised", Budget { revert: 2, version: 1, ..NOTHING }),
    ("Secret reverted, DataKey re-created", Budget { revert: 1, recreate: 1, ..NOTHING }),
    ("Secret edited, version raised", Budget { edit: 1, version: 1, ..NOTHING }),
    ("Secret unmarked, and what was read is saved", Budget { unmark: 1, settle: 1, stops: 1, ..NOTHING }),
    ("moved to another cluster", Budget { migrate: 1, stops: 1, ..NOTHING }),
    ("Secret unmarked", Budget { unmark: 1, stops: 1, ..NOTHING }),
    ("Secret replaced by a foreign one", Budget { delete_secret: 1, foreign: 1, ..NOTHING }),
    ("Secret replaced by a lookalike", Budget { delete_secret: 1, lookalike: 1, ..NOTHING }),
    ("Secret restored", Budget { delete_secret: 1, restore: 1, ..NOTHING }),
    ("version raised", Budget { version: 1, stops: 1, ..NOTHING }),
    ("version raised and reverted", Budget { version: 2, ..NOTHING }),
    ("version raised, Secret deleted", Budget { version: 1, delete_secret: 1, ..NOTHING }),
    ("DataKey re-created or its status lost", Budget { recreate: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created or its status lost, Secret deleted", Budget { recreate: 1, delete_secret: 1, ..NOTHING }),
    ("DataKey re-created, Secret edited", Budget { recreate: 1, edit: 1, ..NOTHING }),
    ("DataKey re-created, Secret restored", Budget { recreate: 1, delete_secret: 1, restore: 1, ..NOTHING }),
    ("DataKey re-created, late writes", Budget { recreate: 1, late: 1, ..NOTHING }),
    ("DataKey re-created with other variant", Budget { respec: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created with other variant, Secret deleted", Budget { respec: 1, delete_secret: 1, ..NOTHING }),
    ("DataKey re-created, and a write outlives it", Budget { recreate: 1, outlived: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created with other variant, then corrected", Budget { respec: 1, correct: 1, ..NOTHING }),
    ("version raised, Secret unmarked", Budget { version: 1, unmark: 1, ..NOTHING }),
    ("variant corrected, late writes", Budget { correct: 1, late: 1, ..NOTHING }),
    ("policy changed", Budget { policy: 1, stops: 1, ..NOTHING }),
    ("policy changed, DataKey re-created", Budget { policy: 1, recreate: 1, ..NOTHING }),
    ("policy changed, Secret edited", Budget { policy: 1, edit: 1, ..NOTHING }),
    ("pinned", Budget { pin: 1, stops: 1, ..NOTHING }),
    ("pinned and unpinned", Budget { pin: 2, ..NOTHING }),
    ("pinned, DataKey re-created", Budget { pin: 1, recreate: 1, ..NOTHING }),
    ("pinned, cluster rebuilt", Budget { pin: 1, rebuild: 1, ..NOTHING }),
    ("class unusable, stops", Budget { unusable: 1, stops: 1, ..NOTHING }),
    ("class changed, late writes", Budget { class: 1, late: 1, ..NOTHING }),
    ("class changed, alias moved", Budget { class: 1, alias: 1, ..NOTHING }),
    ("class changed, variant corrected", Budget { class: 1, correct: 1, ..NOTHING }),
    ("class changed, DataKey re-created", Budget { class: 1, recreate: 1, ..NOTHING }),
    (
        "class changed and unusable, version raised, Secret deleted",
        Budget { class: 1, unusable: 1, version: 1, delete_secret: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed and unusable, version raised, alias moved",
        Budget { class: 1, unusable: 1, version: 1, alias: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed, pinned and unpinned, version raised",
        Budget { class: 1, pin: 2, version: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed, pinned, DataKey re-created, then corrected",
        Budget { class: 1, pin: 1, recreate: 1, correct: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed and unusable, pinned, cluster rebuilt",
        Budget { class: 1, unusable: 1, pin: 1, rebuild: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed, DataKey re-created with other variant, Secret edited",
        Budget { class: 2, respec: 1, edit: 1, alone: true, ..NOTHING },
    ),
];

/// Larger budgets, which take minutes.
pub const LARGE: &[(&str, Budget)] = &[
    ("late writes", Budget { late: 3, ..NOTHING }),
    ("late writes and stops", Budget { late: 2, stops: 1, ..NOTHING }),
    ("Secret deleted, late writes", Budget { late: 2, delete_secret: 1, ..NOTHING }),
    ("Secret deleted and restored, stops", Budget { delete_secret: 2, restore: 1, stops: 1, ..NOTHING }),
    ("Secret edited, late writes", Budget { edit: 1, late: 2, ..NOTHING }),
    ("Secret edited and deleted, late writes", Budget { edit: 1, delete_secret: 1, late: 1, ..NOTHING }),
    ("Secret edited twice and unmarked", Budget { edit: 2, unmark: 1, ..NOTHING }),
    (
        "Secret edited and replaced by a foreign one, late writes",
        Budget { edit: 1, delete_secret: 1, foreign: 1, late: 1, ..NOTHING },
    ),
    ("Secret unmarked and deleted, late writes", Budget { unmark: 1, delete_secret: 1, late: 1, ..NOTHING }),
    ("Secret replaced by a foreign one, late writes", Budget { delete_secret: 1, foreign: 1, late: 1, ..NOTHING }),
    ("Secret replaced by a lookalike, late writes", Budget { delete_secret: 1, lookalike: 1, late: 1, ..NOTHING }),
    ("version raised, late writes", Budget { version: 1, late: 1, ..NOTHING }),
    ("version raised and reverted, late writes", Budget { version: 2, late: 1, ..NOTHING }),
    ("version raised and reverted, stops", Budget { version: 2, stops: 1, ..NOTHING }),
    ("version raised, Secret edited", Budget { version: 1, edit: 1, ..NOTHING }),
    ("version raised, Secret restored", Budget { version: 1, delete_secret: 1, restore: 1, ..NOTHING }),
    ("version raised, a lookalike", Budget { version: 1, lookalike: 1, ..NOTHING }),
    ("version raised, variant corrected, late writes", Budget { version: 1, correct: 1, late: 1, ..NOTHING }),
    ("variant corrected, late writes", Budget { correct: 1, late: 2, ..NOTHING }),
    ("policy changed, late writes", Budget { policy: 1, late: 1, ..NOTHING }),
    ("policy changed, version raised", Budget { policy: 1, version: 1, ..NOTHING }),
    ("policy changed, Secret unmarked", Budget { policy: 1, unmark: 1, ..NOTHING }),
    ("policy changed, Secret restored", Budget { policy: 1, delete_secret: 1, restore: 1, ..NOTHING }),
    ("DataKey re-created twice", Budget { recreate: 2, ..NOTHING }),
    ("DataKey re-created, late writes", Budget { recreate: 1, late: 2, ..NOTHING }),
    ("DataKey re-created, a late write outlives it", Budget { recreate: 1, late: 1, outlived: 1, ..NOTHING }),
    ("DataKey re-created, a foreign Secret", Budget { recreate: 1, foreign: 1, ..NOTHING }),
    ("DataKey re-created, a lookalike", Budget { recreate: 1, lookalike: 1, ..NOTHING }),
    ("DataKey re-created, Secret unmarked", Budget { recreate: 1, unmark: 1, ..NOTHING }),
    (
        "DataKey re-created, version raised, Secret deleted",
        Budget { recreate: 1, version: 1, delete_secret: 1, ..NOTHING },
    ),
    (
        "DataKey re-created, version raised, a write outlives it",
        Budget { recreate: 1, version: 1, outlived: 1, ..NOTHING },
    ),
    (
        "DataKey re-created, policy changed, Secret deleted",
        Budget { recreate: 1, policy: 1, delete_secret: 1, ..NOTHING },
    ),
    (
        "DataKey re-created, policy changed, a write outlives it",
        Budget { recreate: 1, policy: 1, outlived: 1, ..NOTHING },
    ),
    (
        "DataKey re-created, Secret restored and unmarked",
        Budget { recreate: 1, delete_secret: 1, restore: 1, unmark: 1, ..NOTHING },
    ),
    (
        "DataKey re-created, Secret restored and edited",
        Budget { recreate: 1, delete_secret: 1, restore: 1, edit: 1, ..NOTHING },
    ),
    ("DataKey re-created with other variant, late writes", Budget { respec: 1, late: 1, ..NOTHING }),
    (
        "DataKey re-created with other variant, then corrected, late writes",
        Budget { respec: 1, correct: 1, late: 1, ..NOTHING },
    ),
    ("DataKey re-created with other variant, a lookalike", Budget { respec: 1, lookalike: 1, ..NOTHING }),
    ("DataKey re-created with other variant, Secret edited", Budget { respec: 1, edit: 1, ..NOTHING }),
    ("DataKey re-created with other variant, Secret unmarked", Budget { respec: 1, unmark: 1, ..NOTHING }),
    (
        "DataKey re-created with other variant, Secret restored",
        Budget { respec: 1, delete_secret: 1, restore: 1, ..NOTHING },
    ),
    (
        "DataKey re-created with other variant, version raised, a write outlives it",
        Budget { respec: 1, version: 1, outlived: 1, ..NOTHING },
    ),
    ("DataKey re-created with other variant, policy changed", Budget { respec: 1, policy: 1, ..NOTHING }),
    ("Secret edited and reverted, version raised", Budget { edit: 1, revert: 1, version: 1, ..NOTHING }),
    ("Secret reverted and restored", Budget { revert: 1, delete_secret: 1, restore: 1, ..NOTHING }),
    ("Secret reverted, version raised, late writes", Budget { revert: 1, version: 1, late: 1, ..NOTHING }),
    ("Secret reverted, policy changed, DataKey re-created", Budget { revert: 1, policy: 1, recreate: 1, ..NOTHING }),
    ("Secret edited and reverted, what was read is saved", Budget { edit: 1, revert: 1, settle: 1, ..NOTHING }),
    ("moved to another cluster, version raised", Budget { migrate: 1, version: 1, ..NOTHING }),
    ("moved to another cluster, Secret edited", Budget { migrate: 1, edit: 1, ..NOTHING }),
    ("pinned, late writes", Budget { pin: 1, late: 1, ..NOTHING }),
    ("pinned, version raised, cluster rebuilt", Budget { pin: 1, version: 1, rebuild: 1, ..NOTHING }),
    ("pinned, Secret deleted", Budget { pin: 1, delete_secret: 1, ..NOTHING }),
    ("pinned, Secret edited", Budget { pin: 1, edit: 1, ..NOTHING }),
    ("pinned, a foreign Secret", Budget { pin: 1, foreign: 1, ..NOTHING }),
    ("pinned, a lookalike", Budget { pin: 1, lookalike: 1, ..NOTHING }),
    ("class changed often", Budget { class: 3, ..NOTHING }),
    ("class changed and unusable, stops", Budget { class: 1, unusable: 1, stops: 1, ..NOTHING }),
    ("class changed, late writes and stops", Budget { class: 1, late: 1, stops: 1, ..NOTHING }),
    ("class unusable, late writes", Budget { unusable: 1, late: 1, ..NOTHING }),
    ("class changed, Secret deleted", Budget { class: 1, delete_secret: 1, ..NOTHING }),
    ("class changed, version raised", Budget { class: 1, version: 1, ..NOTHING }),
    ("class changed, pinned", Budget { class: 1, pin: 1, ..NOTHING }),
    ("class changed twice, DataKey re-created", Budget { class: 2, recreate: 1, ..NOTHING }),
    ("class unusable, DataKey re-created", Budget { unusable: 1, recreate: 1, ..NOTHING }),
    ("class changed, DataKey re-created with other variant", Budget { class: 1, respec: 1, ..NOTHING }),
    ("class changed, DataKey re-created, alias moved", Budget { class: 1, recreate: 1, alias: 1, ..NOTHING }),
    ("class changed, variant corrected, alias moved", Budget { class: 1, correct: 1, alias: 1, ..NOTHING }),
    ("class changed, pinned, cluster rebuilt", Budget { class: 1, pin: 1, rebuild: 1, ..NOTHING }),
    ("class changed, Secret edited", Budget { class: 1, edit: 1, ..NOTHING }),
    ("class changed, Secret unmarked", Budget { class: 1, unmark: 1, ..NOTHING }),
    ("class changed, a lookalike", Budget { class: 1, lookalike: 1, ..NOTHING }),
    ("class changed, moved to another cluster", Budget { class: 1, migrate: 1, ..NOTHING }),
    (
        "class changed, pinned, version raised, late writes",
        Budget { class: 2, pin: 1, version: 1, late: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed twice, pinned, DataKey re-created, version raised",
        Budget { class: 2, pin: 1, recreate: 1, version: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed and unusable, version raised, variant corrected, alias moved, Secret deleted",
        Budget { class: 2, unusable: 1, version: 2, correct: 1, alias: 1, delete_secret: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed and unusable, Secret deleted and restored, DataKey re-created with other variant",
        Budget { class: 2, unusable: 1, delete_secret: 1, restore: 1, respec: 1, alone: true, ..NOTHING },
    ),
    (
        "class changed twice, a lookalike, DataKey re-created, pinned",
        Budget { class: 2, lookalike: 1, recreate: 1, pin: 1, alone: true, ..NOTHING },
    ),
];

/// Properties that the protocol does not promise, each with the beginning of the violation: the server has no condition on
/// another object, so a Secret can be written although its `DataKey` was deleted meanwhile.
pub const LIMITS: &[(&str, Budget, &str)] = &[(
    "a Secret is created for a DataKey that was deleted meanwhile, in place of its successor's",
    Budget { recreate: 1, delete_secret: 1, outlived: 1, ..NOTHING },
    "readers see other bytes",
)];

// === impl Budget ===

impl Budget {
    /// Every budget with one fault fewer.
    pub fn lesser(self) -> impl Iterator<Item = Self> {
        let faults: [fn(&mut Self) -> &mut u8; 22] = [
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
            |budget| &mut budget.class,
            |budget| &mut budget.unusable,
            |budget| &mut budget.alias,
        ];
        faults.into_iter().filter_map(move |fault| self.without(fault))
    }

    /// The budget with one of these faults fewer, if one is left.
    pub fn without(mut self, fault: impl Fn(&mut Self) -> &mut u8) -> Option<Self> {
        let left = fault(&mut self);
        *left = left.checked_sub(1)?;
        Some(self)
    }
}
