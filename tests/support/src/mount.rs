//! A Secret as the kubelet mounts it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// The entries of a Secret.
type Data = BTreeMap<String, Vec<u8>>;

/// A folder with a link for each entry, to `..data/ENTRY`; `..data` is a link to the folder with the current content and is
/// replaced as one (Kubernetes: pkg/volume/util/atomic_writer.go).
pub struct Mount {
    folder: PathBuf,
}

// === impl Mount ===

impl Mount {
    /// An empty mount.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        Self { folder: folder.to_owned() }
    }

    /// The path of the mount.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Shows other content of the Secret.
    pub fn show(&self, data: &Data) {
        self.replace(data);
        for link in fs::read_dir(&self.folder).unwrap().map(|link| link.unwrap().path()) {
            let entry = link.file_name().unwrap().to_str().unwrap();
            if !entry.starts_with("..") && !data.contains_key(entry) {
                fs::remove_file(&link).unwrap();
            }
        }
        for entry in data.keys().filter(|entry| fs::symlink_metadata(self.folder.join(entry)).is_err()) {
            symlink(Path::new("..data").join(entry), self.folder.join(entry)).unwrap();
        }
    }

    /// Shows other content as it is visible for a moment: new entries have no links yet.
    pub fn replace(&self, data: &Data) {
        let before = fs::read_link(self.folder.join("..data")).ok();
        let content = self.folder.join(format!("..content_{}", fastrand::u64(..)));
        fs::create_dir(&content).unwrap();
        for (entry, value) in data {
            fs::write(content.join(entry), value).unwrap();
        }
        let new = self.folder.join("..data_tmp");
        symlink(content.file_name().unwrap(), &new).unwrap();
        fs::rename(new, self.folder.join("..data")).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(self.folder.join(before)).unwrap();
        }
    }
}
