//! The protocol: *the record first, the Secret second*.
//!
//! | what always holds | what holds it |
//! | --- | --- |
//! | a recorded data key is never changed or removed | the guarded write of the record; the definition's rule that it is write-once |
//! | one data key for each version | KMS is called only where the version is neither recorded nor pinned nor in the Secret (`issue`) |
//! | a data key is never taken out of a Secret | `compare` before each replacement, which carries the revision that was read |
//! | a Secret of another owner is neither read nor written | `secret::ownership`, from the metadata before the data are read |
//! | Ready means that the Secret holds what is recorded | `publish`: this revision was written, or read and compared |
//! | what is adopted or pinned outlives its object | the owner reference is set at creation, and only for what the object issued itself |
//!
//! It knows no kind: it decides on an [`Object`](crate::api::Object), and only [`Attempt`] takes a kind, as
//! [`KeyKind`](crate::api::KeyKind).
//!
//! The model in `tests/model` explores all of it with stale caches, lost answers and two leaders at once.

mod attempt;
mod issue;
#[cfg(test)]
mod kinds;
pub mod newer;
mod observed;
mod pin;
pub mod pins;
mod plan;
mod publish;
pub mod size;
mod step;

pub use attempt::{Answer, Attempt, Change, MAX_STEPS, RECORD_AGAIN, Restart, Unrecorded};
pub use observed::{Inputs, Observed, Rival, SecretState};
pub use plan::plan;
pub use step::{Record, Source, Step};
