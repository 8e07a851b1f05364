//! Programs of other projects that do not call KMS, with keys that `datakey-unwrap` wrote for them: restic, SQLCipher, PostgreSQL
//! and Java. Each reads its key from a file in memory, through a rotation, or from an open file that has no name.
//!
//! `make e2e-programs` installs them and runs this. It needs Linux on amd64, and no Kubernetes: a test issues its data keys itself
//! and mounts them as the kubelet mounts the Secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod bed;
mod java;
mod postgres;
mod restic;
mod sqlcipher;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use testbed::{repository, tools};

/// The entries of a Secret, by name.
type Data = BTreeMap<String, Vec<u8>>;

/// A file of this folder.
fn beside(file: &str) -> PathBuf {
    repository().join("tests/programs").join(file)
}

/// What `make e2e-programs` installed into a folder, by the beginning of its name: what follows is a version.
fn installed(folder: &Path, begin: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(begin));
    found.next().unwrap_or_else(|| panic!("{}/{begin}* is missing: run `make e2e-programs`", folder.display()))
}

/// The folder of libraries, Python's among them.
fn libraries() -> PathBuf {
    tools().join("programs/lib")
}

/// The folder of Python's packages.
fn packages() -> PathBuf {
    installed(&libraries(), "python3").join("site-packages")
}
