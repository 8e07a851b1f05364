//! A mounted Secret, and arguments that accept it, for tests.

use std::{ffi::OsString, fs, path::Path};

use datakey::{
    api::DataKey,
    fixtures::{ARN, recorded},
    secret::Projection,
};
use tempfile::TempDir;

use crate::cli::{self, Command, KeyArgs};

/// A folder as the kubelet mounts it, with the Secret of a DataKey that has these versions.
pub fn mounted(versions: &[i32]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("..data");
    fs::create_dir(&data).unwrap();
    let key: DataKey = recorded(versions);
    for (name, value) in Projection::of(&key, key.wanted_version()).unwrap().data {
        fs::write(data.join(name), value.0).unwrap();
    }
    folder
}

/// Changes an entry of a mounted folder.
pub fn set(folder: &TempDir, entry: &str, value: impl AsRef<[u8]>) {
    fs::write(folder.path().join("..data").join(entry), value).unwrap();
}

/// Removes an entry of a mounted folder.
pub fn remove(folder: &TempDir, entry: &str) {
    fs::remove_file(folder.path().join("..data").join(entry)).unwrap();
}

/// The arguments that accept the fixtures, and these.
pub fn key_args(from: &Path, more: &[&str]) -> KeyArgs {
    let trust = format!("{ARN} purpose=orders");
    let arguments = ["datakey-unwrap", "check", "--key-spec", "AES_256", "--trust", &trust, "--from"];
    let arguments = arguments.iter().map(OsString::from).chain([from.into()]).chain(more.iter().map(OsString::from));
    match cli::read(arguments).unwrap() {
        Command::Check(args) => args.keys,
        other => panic!("{other:?}"),
    }
}
