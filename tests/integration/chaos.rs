//! Failures of a cluster with the real binary: crashes, two leaders, servers that restart, lose answers and refuse requests.
//! These run in a short form; `make chaos` runs them in full.

use std::time::Duration;

mod apiserver;
mod crashes;
mod imports;
mod leaders;
mod rest;
mod throttling;

/// The number of objects in every run (`short`) or in `make chaos` (`full`).
fn scaled(short: usize, full: usize) -> usize {
    if std::env::var_os("DATAKEY_CHAOS").is_some() { full } else { short }
}

/// Longest wait for this many objects on a busy machine: a minute, and 0.2 seconds for each.
fn patience(count: usize) -> Duration {
    Duration::from_mins(1) + Duration::from_millis(200) * u32::try_from(count).unwrap()
}
