//! What may happen in the worlds that are explored: all of it, in every order, and nothing else.

use crate::world::{Budget, NOTHING};

/// Worlds that every run explores.
pub const SMALL: &[(&str, Budget)] = &[
    ("late writes", Budget { late: 2, ..NOTHING }),
    ("late writes and stops", Budget { late: 1, stops: 1, ..NOTHING }),
    ("Secret deleted", Budget { delete_secret: 2, ..NOTHING }),
    ("Secret deleted, late writes", Budget { late: 1, delete_secret: 1, ..NOTHING }),
    ("Secret edited", Budget { edit: 1, stops: 1, ..NOTHING }),
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
    ("DataKey re-created with other settings", Budget { respec: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created with other settings, Secret deleted", Budget { respec: 1, delete_secret: 1, ..NOTHING }),
    ("DataKey re-created, and a write outlives it", Budget { recreate: 1, outlived: 1, stops: 1, ..NOTHING }),
    ("DataKey re-created with other settings, then corrected", Budget { respec: 1, correct: 1, ..NOTHING }),
    ("version raised, Secret unmarked", Budget { version: 1, unmark: 1, ..NOTHING }),
    ("settings corrected, late writes", Budget { correct: 1, late: 1, ..NOTHING }),
    ("policy changed", Budget { policy: 1, ..NOTHING }),
    ("pinned", Budget { pin: 1, stops: 1, ..NOTHING }),
    ("pinned and unpinned", Budget { pin: 2, ..NOTHING }),
    ("pinned, DataKey re-created", Budget { pin: 1, recreate: 1, ..NOTHING }),
    ("pinned, cluster rebuilt", Budget { pin: 1, rebuild: 1, ..NOTHING }),
];

/// Larger ones, for minutes.
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
    ("version raised, settings corrected, late writes", Budget { version: 1, correct: 1, late: 1, ..NOTHING }),
    ("settings corrected, late writes", Budget { correct: 1, late: 2, ..NOTHING }),
    ("policy changed, late writes", Budget { policy: 1, late: 1, ..NOTHING }),
    ("policy changed, version raised", Budget { policy: 1, version: 1, ..NOTHING }),
    ("policy changed, Secret edited", Budget { policy: 1, edit: 1, ..NOTHING }),
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
    ("DataKey re-created with other settings, late writes", Budget { respec: 1, late: 1, ..NOTHING }),
    (
        "DataKey re-created with other settings, then corrected, late writes",
        Budget { respec: 1, correct: 1, late: 1, ..NOTHING },
    ),
    ("DataKey re-created with other settings, a lookalike", Budget { respec: 1, lookalike: 1, ..NOTHING }),
    ("DataKey re-created with other settings, Secret edited", Budget { respec: 1, edit: 1, ..NOTHING }),
    ("DataKey re-created with other settings, Secret unmarked", Budget { respec: 1, unmark: 1, ..NOTHING }),
    (
        "DataKey re-created with other settings, Secret restored",
        Budget { respec: 1, delete_secret: 1, restore: 1, ..NOTHING },
    ),
    (
        "DataKey re-created with other settings, version raised, a write outlives it",
        Budget { respec: 1, version: 1, outlived: 1, ..NOTHING },
    ),
    ("DataKey re-created with other settings, policy changed", Budget { respec: 1, policy: 1, ..NOTHING }),
    ("pinned, late writes", Budget { pin: 1, late: 1, ..NOTHING }),
    ("pinned, version raised, cluster rebuilt", Budget { pin: 1, version: 1, rebuild: 1, ..NOTHING }),
    ("pinned, Secret deleted", Budget { pin: 1, delete_secret: 1, ..NOTHING }),
    ("pinned, Secret edited", Budget { pin: 1, edit: 1, ..NOTHING }),
    ("pinned, a foreign Secret", Budget { pin: 1, foreign: 1, ..NOTHING }),
    ("pinned, a lookalike", Budget { pin: 1, lookalike: 1, ..NOTHING }),
];

/// What is not promised, and how it shows: the server has no condition on another object, so a Secret can be written
/// although its `DataKey` was deleted meanwhile.
pub const LIMITS: &[(&str, Budget, &str)] = &[(
    "a Secret is created for a DataKey that was deleted meanwhile, in place of its successor's",
    Budget { recreate: 1, delete_secret: 1, outlived: 1, ..NOTHING },
    "readers see other bytes",
)];
