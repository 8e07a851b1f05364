//! `install`: copies this program and the CA certificates of its image into a folder, for containers that have another image.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use crate::ended::{Ended, Failure};

const NAME: &str = "datakey-unwrap";

/// The CA certificates of the image (deploy/unwrap.Dockerfile).
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn run(folder: &Path) -> Result<Ended, Failure> {
    match install(folder) {
        Ok(()) => Ok(Ended::Success),
        Err(error) => Err(Failure::usage(format!(
            "cannot copy this program to {}: {error}; mount an emptyDir there that this container may write",
            folder.display()
        ))),
    }
}

fn install(folder: &Path) -> io::Result<()> {
    match File::open(CERTIFICATES) {
        Ok(certificates) => copy(certificates, &folder.join("ca-certificates.crt"), 0o444)?,
        // Not the image, and --ca-bundle can name another file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    copy(File::open("/proc/self/exe")?, &folder.join(NAME), 0o555)
}

/// Another container never finds a part of the file.
fn copy(mut from: File, to: &Path, mode: u32) -> io::Result<()> {
    let mut copy = tempfile::NamedTempFile::new_in(to.parent().unwrap_or(to))?;
    io::copy(&mut from, &mut copy)?;
    copy.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    copy.persist(to)?;
    Ok(())
}
