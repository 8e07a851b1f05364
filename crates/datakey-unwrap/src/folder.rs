//! A folder in memory that always holds one whole set of key files.
//!
//! It has the layout of a volume that the kubelet mounts: `v1` links to `..data/v1`, and `..data` links to the folder of the
//! present set, which is replaced by one rename. A program that resolves `..data` once reads files that belong together.
//!
//! Other containers of the pod can have the volume, too. A process that can write it can put other files there at any time; but
//! no file is written outside the volume, no set of another user is taken over, and nothing in it makes this program wait or read
//! without end. So all paths begin at the open folder whose file system was checked.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Gid, Mode, OFlags, Uid, fchmod, fchown, flock},
    io::Errno,
    process::geteuid,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::ended::{Failure, note};

mod memory_backed;

/// The link to the file of the current version.
pub const CURRENT: &str = "current";

/// The file with the number of the current version.
pub const NUMBER: &str = "version";

/// The file with the [`Origin`] of the others.
pub const ORIGIN: &str = ".datakey-unwrap.json";

/// The link to the present set.
const DATA: &str = "..data";

/// The same, before it takes that place.
const NEXT: &str = "..data_next";

/// What the folder of a set begins with.
const SET: &str = "..datakey-";

/// The longest wait for another process that writes, and how often it is looked for.
const LOCK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(50));

/// The most bytes of an origin: 64 versions have 20 KiB.
const LONGEST_ORIGIN: u64 = 64 << 10;

/// The wrapped keys and the settings from which a set was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// SHA-256 of the settings that decide on the files.
    pub settings: String,
    /// The current version.
    pub current: i32,
    /// The file of each version, and the SHA-256 of its wrapped key.
    pub versions: BTreeMap<i32, FileOrigin>,
}

/// The wrapped key from which a file was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrigin {
    /// The name of the file.
    pub name: String,
    /// SHA-256 of the wrapped key, in hexadecimal digits.
    pub sha256: String,
    /// SHA-256 of the public key that was compared; that of nothing for a data key.
    pub public_key_sha256: String,
    /// SHA-256 of the wrapped keys from which the file can have been written, if it can be another one than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates_sha256: Option<String>,
}

/// Who may read a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permissions.
    pub mode: u32,
    /// The owner, if it is not the user of this process.
    pub uid: Option<u32>,
    /// The group, if it is not the one that the folder gives.
    pub gid: Option<u32>,
}

/// A folder in memory.
#[derive(Debug)]
pub struct Folder {
    /// The path, for messages.
    shown: PathBuf,
    /// The open folder. One process at a time locks it to write.
    open: File,
    /// The path of what is open, whatever another process puts in its place.
    path: PathBuf,
}

// === impl Origin ===

impl Origin {
    /// The names of all files of the set.
    fn names(&self) -> impl Iterator<Item = &str> {
        let files = self.versions.values().map(|file| file.name.as_str());
        files.chain([CURRENT, NUMBER, ORIGIN])
    }
}

// === impl Folder ===

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// It is not there, or not in memory.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let show = path.display();
        let open = open_folder(path).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => Failure::usage(format!("{show} is no folder: name one in --to")),
            error => {
                Failure::usage(format!("cannot open {show}: {error}; mount an emptyDir with medium: Memory there"))
            }
        })?;
        memory_backed::check(path, &open)?;
        let inner = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { shown: path.to_owned(), open, path: inner })
    }

    /// What the present set was made of; `None` if there is no whole one that this user wrote.
    pub fn origin(&self) -> Option<Origin> {
        let set = self.present_set()?;
        let mut origin = String::new();
        let file =
            rustix::fs::open(set.join(ORIGIN), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty());
        let file = File::from(file.ok()?);
        if !is_own(&file.metadata().ok()?) {
            return None;
        }
        file.take(LONGEST_ORIGIN).read_to_string(&mut origin).ok()?;
        let origin: Origin = serde_json::from_str(&origin).ok()?;
        let is_there = |name: &str| {
            let is_file = set.join(name).symlink_metadata().is_ok_and(|metadata| match name {
                CURRENT => metadata.is_symlink(),
                _ => metadata.is_file(),
            });
            is_safe(name) && is_file && is_own_link(&self.path.join(name), name)
        };
        let current = PathBuf::from(&origin.versions.get(&origin.current)?.name);
        let is_whole =
            origin.names().all(is_there) && fs::read_link(set.join(CURRENT)).is_ok_and(|link| link == current);
        is_whole.then_some(origin)
    }

    /// The folder of the present set, if this user wrote it.
    fn present_set(&self) -> Option<PathBuf> {
        let link = self.path.join(DATA);
        let name = fs::read_link(&link).ok()?;
        let name = name.to_str().filter(|name| name.starts_with(SET) && !name.contains('/'))?;
        let set = self.path.join(name);
        let folder = set.symlink_metadata().ok()?;
        let is_private = folder.is_dir() && folder.mode() & 0o022 == 0;
        (is_private && is_own(&folder) && is_own(&link.symlink_metadata().ok()?)).then_some(set)
    }

    /// Removes what a killed process left behind, unless another process is writing.
    pub fn remove_leftovers(&self) {
        let Some(set) = self.present_set().and_then(|set| Some(set.file_name()?.to_owned())) else { return };
        if flock(&self.open, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.remove_all_but(&set, None);
            let _ = flock(&self.open, FlockOperation::Unlock);
        }
    }

    /// Replaces the present set.
    ///
    /// # Errors
    /// The folder cannot be written, or a name in it is taken.
    pub fn replace(
        &self,
        origin: &Origin,
        contents: &BTreeMap<i32, Zeroizing<Vec<u8>>>,
        access: Access,
    ) -> Result<(), Failure> {
        self.lock()?;
        let written = self.write(origin, contents, access);
        // Closing the folder unlocks it, too.
        let _ = flock(&self.open, FlockOperation::Unlock);
        written
    }

    fn lock(&self) -> Result<(), Failure> {
        let until = Instant::now() + LOCK.0;
        loop {
            match flock(&self.open, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => thread::sleep(LOCK.1),
                Err(Errno::WOULDBLOCK) => {
                    let show = self.shown.display();
                    return Err(Failure::try_again(format!(
                        "another process has locked {show}: let one container at a time write it, and mount it with readOnly in \
                         all others"
                    )));
                }
                Err(error) => return Err(self.unwritable("lock", &error.into())),
            }
        }
    }

    fn write(
        &self,
        origin: &Origin,
        contents: &BTreeMap<i32, Zeroizing<Vec<u8>>>,
        access: Access,
    ) -> Result<(), Failure> {
        origin.names().try_for_each(|name| self.refuse_taken(name))?;
        [DATA, NEXT].into_iter().try_for_each(|name| self.refuse_no_link(name))?;
        // If anything fails, it is removed again.
        let set = tempfile::Builder::new().prefix(SET).tempdir_in(&self.path);
        let set = set.map_err(|error| self.unwritable("create a folder in", &error))?;
        self.fill(&set, origin, contents, access).map_err(|error| self.unwritable("write to", &error))?;
        let name = self.publish(set, origin).map_err(|error| self.unwritable("write to", &error))?;
        self.remove_all_but(&name, Some(origin));
        Ok(())
    }

    /// Writes the files of a set.
    fn fill(
        &self,
        set: &TempDir,
        origin: &Origin,
        contents: &BTreeMap<i32, Zeroizing<Vec<u8>>>,
        access: Access,
    ) -> io::Result<()> {
        let folder = open_folder(set.path())?;
        // Another process can have put something else in its place.
        let (found, place) = (folder.metadata()?, self.open.metadata()?);
        if !is_own(&found) || found.dev() != place.dev() {
            return Err(io::Error::other("another process has replaced a new folder"));
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        for (version, file) in &origin.versions {
            let content = contents.get(version).map(|content| content.as_slice()).unwrap_or_default();
            write_file(&path.join(&file.name), content, access)?;
        }
        if let Some(file) = origin.versions.get(&origin.current) {
            symlink(&file.name, path.join(CURRENT))?;
        }
        write_file(&path.join(NUMBER), origin.current.to_string().as_bytes(), access)?;
        // It has nothing secret, and this process reads it again also where it gives the other files away.
        write_file(&path.join(ORIGIN), &serde_json::to_vec(origin)?, Access { mode: 0o444, uid: None, gid: None })?;
        // Each user may look a file up by its name; the permissions of the file decide who may read it.
        folder.set_permissions(fs::Permissions::from_mode(0o711 | (access.mode & 0o044)))
    }

    /// Makes a set the present one. The links to its files come first: until then, new ones lead nowhere.
    fn publish(&self, set: TempDir, origin: &Origin) -> io::Result<OsString> {
        for name in origin.names() {
            let link = self.path.join(name);
            if link.symlink_metadata().is_err() {
                symlink(target(name), &link)?;
            }
        }
        let next = self.path.join(NEXT);
        remove_file_if_exists(&next)?;
        let name = set.path().file_name().map(ToOwned::to_owned).unwrap_or_default();
        symlink(&name, &next)?;
        fs::rename(&next, self.path.join(DATA))?;
        // It stays from here on.
        let _ = set.keep();
        Ok(name)
    }

    /// Removes earlier sets, also those of a process that was killed, and the links to files that there are no more. The present set
    /// is in place already, so what cannot be removed is reported, and the rest goes on.
    fn remove_all_but(&self, set: &OsStr, origin: Option<&Origin>) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for (name, path) in entries.map(|entry| (entry.file_name(), entry.path())) {
            let text = name.to_string_lossy();
            let is_stale = |origin: &Origin| origin.names().all(|name| name != text) && is_own_link(&path, &text);
            let removed = if text.starts_with(SET) && name != set {
                fs::remove_dir_all(&path)
            } else if origin.is_some_and(is_stale) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            if let Err(error) = removed {
                note(&format!(
                    "{}, which is of an earlier set of keys, cannot be removed: {error}; run all containers that write the folder as \
                     one user",
                    self.shown.join(&name).display()
                ));
            }
        }
    }

    /// Refuses to replace what another program wrote.
    fn refuse_taken(&self, name: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        let is_free = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if is_free || is_own_link(&path, name) { Ok(()) } else { Err(self.taken(name)) }
    }

    fn refuse_no_link(&self, name: &str) -> Result<(), Failure> {
        let is_no_link = self.path.join(name).symlink_metadata().is_ok_and(|metadata| !metadata.is_symlink());
        if is_no_link { Err(self.taken(name)) } else { Ok(()) }
    }

    fn taken(&self, name: &str) -> Failure {
        Failure::usage(format!(
            "{} is there already, and not of this program: name an empty folder in --to, or another file in --name",
            self.shown.join(name).display()
        ))
    }

    fn unwritable(&self, what: &str, error: &io::Error) -> Failure {
        let show = self.shown.display();
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => {
                "set fsGroup of the pod to a group of this container, or run both as one user"
            }
            ErrorKind::StorageFull => "raise sizeLimit of the emptyDir",
            ErrorKind::ReadOnlyFilesystem => "mount it without readOnly in this container",
            _ => "check the volume",
        };
        Failure::usage(format!("cannot {what} {show}: {error}; {advice}"))
    }
}

/// What the link of a file points to.
fn target(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

/// Whether this user wrote it.
fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.uid() == geteuid().as_raw()
}

/// Opens a folder, and no link to one.
fn open_folder(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

fn is_own_link(path: &Path, name: &str) -> bool {
    fs::read_link(path).is_ok_and(|found| found == target(name))
}

/// Whether this is the name of a file in the set, and no path out of it.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with("..")
}

/// Writes a new file.
fn write_file(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    grant(&file, access)
}

/// Sets who may read an open file.
pub fn grant(file: &File, access: Access) -> io::Result<()> {
    fchmod(file, Mode::from_raw_mode(access.mode))?;
    if access.uid.is_none() && access.gid.is_none() {
        return Ok(());
    }
    fchown(file, access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw)).map_err(|error| match error {
        Errno::PERM => io::Error::other(
            "this process may not give files to another user or group: run it as that user, or leave --uid and --gid out",
        ),
        other => other.into(),
    })
}

fn remove_file_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
