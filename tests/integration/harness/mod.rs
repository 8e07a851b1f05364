//! What the tests are written with: a namespace with a KMS key, operators that run in it, and waits for what they do.
//!
//! The tests of GitOps tools include this module by its path, so it names its own parts by `super`, not by `crate`.

mod admission;
mod classes;
mod events;
mod invariants;
mod kind;
mod namespace;
mod objects;
mod operator;
mod secrets;
mod teams;

use std::{fmt::Debug, time::Duration};

use datakey::{
    api::{self, IssuedVersion},
    condition,
};
use kube::{ResourceExt, core::Status};
use serde::Serialize;
use serde_json::Value;
use testbed::kubernetes::Built;

pub use self::{
    invariants::InvariantWatch,
    kind::TestKind,
    namespace::TestNamespace,
    operator::{NO_RETRY, Operator, UNSET},
    secrets::{Data, restored, text},
    teams::{Accounts, Team},
};

/// Longest wait for anything that happens at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A version that an object records.
pub fn recorded_version<K: TestKind>(key: &K, version: i32) -> IssuedVersion {
    key.as_object()
        .recorded_version(version)
        .unwrap_or_else(|| panic!("{} has no version {version}", key.name_any()))
        .clone()
}

/// The message of the condition `Ready`.
pub fn message<K: TestKind>(key: &K) -> &str {
    &condition::find(key, api::READY).unwrap().message
}

/// Asserts that the API server refuses something with a message that contains this text.
pub fn assert_refused<T: Debug>(result: Result<T, Box<Status>>, words: &str) {
    let Status { mut message, .. } = *result.expect_err(words);
    if Built::chosen() != Some(Built::Newest) {
        // Kubernetes 1.33 names the type of an object in place of its value.
        message = message.replace("Invalid value: \"object\": ", "Invalid value: ");
    }
    assert!(message.contains(words), "expected: {words}\nbut the API server says: {message}");
}

/// The JSON of a value.
pub fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}
