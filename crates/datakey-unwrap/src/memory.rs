//! Keeps the process's memory out of core dumps, of other processes of the user, and of swap.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

use crate::ended::{Failure, note};

/// The limit of locked memory from which locking is tried without the capability: new memory is refused beyond it, and the
/// program needs a dozen megabytes and a little for each version.
const ENOUGH: u64 = 64 << 20;

/// The list of swap spaces (proc_swaps(5)).
pub const SWAPS: &str = "/proc/swaps";

/// Forbids core dumps, which also keeps other processes of the same user from reading the memory (ptrace(2)).
///
/// A command that `exec` runs inherits the limit of core dumps, and nothing else.
///
/// # Errors
/// The system refuses it.
pub fn forbid_dumps() -> Result<(), Failure> {
    let forbidden = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
    forbidden.map_err(|error| Failure::usage(format!("cannot forbid core dumps: {error}")))
}

/// Locks the memory of the process, so that it is not written to swap, where the limit allows that.
///
/// # Errors
/// It is required and not possible.
pub fn lock(is_required: bool) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Memlock).current;
    let may_exceed = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let locked = if may_lock(limit, may_exceed) {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .map_err(|error| error.to_string())
    } else {
        Err(format!("the limit of locked memory (ulimit -l) is {} KiB", limit.unwrap_or_default() >> 10))
    };
    match locked {
        Err(why) if is_required => Err(Failure::usage(format!(
            "cannot lock memory: {why}; raise the limit, add the capability IPC_LOCK, or leave --require-mlock out"
        ))),
        Err(why) if has_swap(&std::fs::read_to_string(SWAPS).unwrap_or_default()) => {
            note(&format!("memory is not locked, and can be written to swap: {why}"));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether locking is tried. It must not make the program fail later, when it needs more memory than the limit.
fn may_lock(limit: Option<u64>, may_exceed: bool) -> bool {
    may_exceed || limit.is_none_or(|limit| limit >= ENOUGH)
}

/// Whether the system has swap, by the text of [`SWAPS`].
pub fn has_swap(swaps: &str) -> bool {
    // The first line is a heading.
    swaps.lines().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_limit_is_not_used_up() {
        for (limit, may_exceed, expected) in [
            (None, false, true),
            (Some(0), false, false),
            (Some(64 << 10), false, false),
            (Some(8 << 20), false, false),
            (Some(64 << 10), true, true),
            (Some(ENOUGH), false, true),
        ] {
            assert_eq!(may_lock(limit, may_exceed), expected, "{limit:?} {may_exceed}");
        }
    }
}
