//! What goes wrong in a cluster, with the real binary: crashes, two leaders, servers that restart, lose and refuse.
//! Short forms of the long ones; `make chaos` runs them in full.

use std::time::Duration;

mod apiserver;
mod crashes;
mod leaders;
mod rest;
mod throttling;

/// So many in every run, so many in `make chaos`.
fn scaled(short: usize, full: usize) -> usize {
    if std::env::var_os("DATAKEY_CHAOS").is_some() { full } else { short }
}

/// Longest wait for something that takes this long for each of many, on a busy machine.
fn patience(count: usize) -> Duration {
    Duration::from_mins(1) + Duration::from_millis(200) * u32::try_from(count).unwrap()
}
