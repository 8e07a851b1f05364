//! The protocol: *the record first, the Secret second*.

mod attempt;
mod issue;
pub mod newer;
mod observed;
mod pin;
pub mod pins;
mod plan;
mod publish;
pub mod size;
mod step;

pub use attempt::{Answer, Attempt, Change, MAX_STEPS, RECORD_AGAIN, Restart};
pub use observed::{Inputs, Observed, SecretState};
pub use plan::plan;
pub use step::{Record, Source, Step};
