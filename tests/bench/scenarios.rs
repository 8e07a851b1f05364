//! What is measured, one scenario a file.

pub mod bursts;
pub mod classes;
pub mod growth;
pub mod key_check;
pub mod latency;
pub mod quota;
pub mod repair;
pub mod restart;
pub mod rules;
pub mod unwrap;
