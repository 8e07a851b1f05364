//! Flux's own kustomize-controller and Argo CD's own engine at work with DataKeys.
//!
//! `make gitops` builds both and runs this. What kstatus and Argo CD read in a DataKey: tests/gitops/status and
//! tests/gitops/argocd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod argocd;
mod flux;
#[path = "../integration/harness/mod.rs"]
#[allow(dead_code, unused_imports)]
mod harness;

use serde_json::Value;
use testbed::repository;

/// The documents of a file of `deploy`.
fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(repository().join("deploy").join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}
