//! Real servers on loopback for the tests and the demo of datakey-operator: etcd, kube-apiserver, the controller
//! manager, a KMS server, and a proxy before each that counts calls and makes them fail. And, in namespaces of its own, a
//! node.
//!
//! Nothing is left behind: every process and folder belongs to a small watcher that ends it when this process ends, in
//! whatever way.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)]

pub mod api_proxy;
pub mod commands;
pub mod control_plane;
pub mod flux;
pub mod http;
pub mod iam;
pub mod key_pairs;
pub mod kms;
pub mod kubernetes;
pub mod mount;
pub mod node;
mod pki;
pub mod process;
pub mod proxy;
pub mod silence;
pub mod sts;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The folder of the repository.
pub fn repository() -> &'static Path {
    static ROOT: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().nth(2).expect("tests/support lies in the repository").to_owned()
    });
    &ROOT
}

/// The folder of the tools that `make tools` builds.
pub fn tools() -> PathBuf {
    std::env::var_os("DATAKEY_TOOLS").map_or_else(|| repository().join("target/tools"), PathBuf::from)
}

/// The operator under test, built by `make operator` with the features that are shipped. In a build of the workspace it has more:
/// Cargo gives each dependency the features that all packages of one build ask for.
///
/// # Panics
/// It is not there, or older than its sources.
pub fn operator() -> PathBuf {
    built(
        "DATAKEY_OPERATOR",
        "target/operator/datakey-operator",
        "operator",
        &["src", "crates/datakey", "crates/datakey-aws"],
    )
}

/// The helper of workloads under test, built by `make operator` in one build with the operator, as it is shipped.
///
/// # Panics
/// It is not there, or older than its sources.
pub fn unwrap() -> PathBuf {
    built(
        "DATAKEY_UNWRAP",
        "target/operator/datakey-unwrap",
        "operator",
        &["crates/datakey", "crates/datakey-aws", "crates/datakey-decrypt", "crates/datakey-unwrap"],
    )
}

/// The kubectl plugin under test, built by `make build-debug`.
///
/// # Panics
/// It is not there, or older than its sources.
pub fn plugin() -> PathBuf {
    built("DATAKEY_PLUGIN", "target/operator/kubectl-datakey", "build-debug", &["crates"])
}

/// The binary that a variable names, else this file of the repository, which a target of the Makefile builds from these folders.
fn built(variable: &str, file: &str, target: &str, sources: &[&str]) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| repository().join(file), PathBuf::from);
    let built = modified(&path).unwrap_or_else(|| panic!("{} is missing: run `make {target}`", path.display()));
    let sources = sources.iter().filter_map(|folder| newest(&repository().join(folder)));
    let changed = sources.chain(modified(&repository().join("Cargo.lock"))).max();
    assert!(changed.is_none_or(|changed| changed <= built), "{} is stale: run `make {target}`", path.display());
    path
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// When a file of a folder was last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}

/// A program of the Kubernetes test assets: from `KUBEBUILDER_ASSETS` where that is set, else as built here. `None` where
/// it is not there; setup-envtest brings no controller manager.
pub fn asset(program: &str) -> Option<PathBuf> {
    Some(kubernetes::programs().join(program)).filter(|path| path.exists())
}

/// Asserts that a generated file of the repository is as its source says; with `UPDATE` set, a file that is not is written
/// first. Others stay: a build that depends on them is not stale then.
pub fn assert_fresh(file: &str, expected: &str) {
    let path = repository().join(file);
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let mut found = read();
    if found != expected && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).expect("write a generated file");
        found = read();
    }
    assert!(found == expected, "{file} is stale: run `make generate` and commit it");
}

/// A free port on loopback. Another process may take it before it is used; the programs here can't choose one themselves.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// Waits for a condition, or panics with what was waited for.
pub async fn eventually(limit: std::time::Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
