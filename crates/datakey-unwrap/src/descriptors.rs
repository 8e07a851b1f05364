//! Sealed files without a name, which a command inherits as open files.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

use crate::folder::{Access, grant};

/// Writes a key into a file in memory that cannot be changed or executed, and returns the path by which the process that inherits it
/// opens it. The file stays open until the process ends.
///
/// # Errors
/// The system refuses it.
pub fn create_inherited(name: &str, content: &[u8], access: Access) -> io::Result<PathBuf> {
    let mut file = File::from(create(name)?);
    file.write_all(content)?;
    grant(&file, access)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Not closed: the command inherits it.
    let _ = file.into_raw_fd();
    Ok(path.into())
}

/// Without `CLOEXEC`. Not executable, which is sealed, too; Linux before 6.3 does not know that.
fn create(name: &str) -> rustix::io::Result<OwnedFd> {
    match memfd_create(name, MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, MemfdFlags::ALLOW_SEALING),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn file_can_be_read_and_not_changed() {
        let access = Access { mode: 0o400, uid: None, gid: None };
        let path = create_inherited("test", b"content", access).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
        // root may open it for writing, and the seals refuse the write; others may not even open it.
        let written = File::options().write(true).open(&path).and_then(|mut file| file.write_all(b"other"));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(File::options().write(true).open(&path).and_then(|file| file.set_len(0)).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
}
