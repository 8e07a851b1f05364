//! The files of a move: each has the manifest of one object for Git.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::change::with_spec_of;
use crate::{
    cluster::FetchedKey,
    commands::{has_grant_tokens, write_new},
    output::yaml,
    reference::explicit,
};

/// The most bytes of a file that is read. etcd holds at most 1.5 MiB of an object, and its manifest has indentation besides.
const LONGEST: u64 = 16 << 20;

/// Where manifests are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, for one object.
    File(PathBuf),
    /// A folder with a folder for each namespace.
    Folder(PathBuf),
}

// === impl Target ===

impl Target {
    /// The file of an object.
    pub fn file(&self, fetched: &FetchedKey) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::Folder(folder) => {
                // No name of an object has a slash, and each kind has its own.
                let name = explicit(fetched.kind(), &fetched.name()).replace('/', "-");
                folder.join(fetched.namespace()).join(format!("{name}.yaml"))
            }
        }
    }
}

/// Returns the object as the file of an earlier run has it; `None` if there is not a regular file.
///
/// # Errors
/// The file is about something else, or cannot be read.
pub fn saved(file: &Path, fetched: &FetchedKey) -> Result<Option<FetchedKey>, String> {
    let other = |why: &str| unusable(file, why);
    // Also a link that leads nowhere is there.
    let found = fs::symlink_metadata(file).and_then(|_| fs::metadata(file));
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(file).is_err() => return Ok(None),
        Err(error) => return Err(other(&format!("cannot be read ({error})"))),
        // Reading a pipe would wait, and a device may have no end.
        Ok(found) if !found.is_file() => return Err(other("is not a regular file")),
        Ok(found) if found.len() > LONGEST => return Err(other(&format!("has more than {LONGEST} bytes"))),
        Ok(_) => {}
    }
    let text = fs::read_to_string(file).map_err(|error| other(&format!("cannot be read ({error})")))?;
    let manifest: Value = serde_saphyr::from_str(&text).map_err(|_| other("is not valid YAML"))?;
    with_spec_of(fetched, &manifest).map(Some).map_err(|why| other(&why))
}

/// The message about a file of an earlier run that this run cannot use.
pub fn unusable(file: &Path, why: &str) -> String {
    format!("{} exists already and {why}: remove it, or name another one by --output", file.display())
}

/// Makes the folder of a file, and finds out whether a file can be written there: AWS KMS is called next, and what it answers would be
/// lost.
///
/// # Errors
/// No file can be written there.
pub fn prepare(file: &Path) -> Result<(), String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    made.map(drop).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// Writes the manifest of an object.
///
/// # Errors
/// It cannot be written. A file that is there stays as it is.
pub fn write(file: &Path, fetched: &FetchedKey, manifest: &Value) -> Result<(), String> {
    let failed = |why: &str| format!("cannot write {}: {why}", file.display());
    let text = yaml(manifest).map_err(|error| failed(&error.to_string()))?;
    prepare(file)?;
    // Grant tokens are secret. The umask of the user decides who may read other manifests.
    let mode = if has_grant_tokens(fetched) { 0o600 } else { 0o666 };
    write_new(file, text.as_bytes(), mode).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => failed("it was written meanwhile; run the command again"),
        _ => failed(&error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;
    use crate::fixtures::ready;

    #[test]
    fn only_a_file_of_a_usual_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(saved(&path("absent"), &ready(&[1])).unwrap().is_none());
        fs::create_dir(path("folder")).unwrap();
        symlink(path("nowhere"), path("link")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        symlink("/dev/zero", path("device")).unwrap();
        fs::File::create(path("huge")).unwrap().set_len(LONGEST + 1).unwrap();
        for (name, why) in [
            ("folder", "is not a regular file"),
            ("link", "cannot be read"),
            ("pipe", "is not a regular file"),
            ("device", "is not a regular file"),
            ("huge", "has more than 16777216 bytes"),
        ] {
            let refused = saved(&path(name), &ready(&[1])).unwrap_err();
            assert!(refused.contains(why) && refused.contains("exists already"), "{refused}");
        }
    }
}
