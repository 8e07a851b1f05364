//! Whether a folder is in memory: a key in a file on a disk outlives the pod.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path};

use rustix::fs::{fstatfs, major, minor};

use crate::{
    ended::{Failure, note},
    memory::{SWAPS, has_swap},
};

/// The file systems that keep files in memory only (statfs(2)).
const IN_MEMORY: [i64; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

/// Refuses a folder that is on a disk, and prints a note about one that can be written to swap.
pub fn check(path: &Path, folder: &File) -> Result<(), Failure> {
    let show = path.display();
    let system = fstatfs(folder).map_err(|error| Failure::usage(format!("cannot examine {show}: {error}")))?;
    // The type of the field differs between architectures; both numbers have 32 bits.
    #[allow(clippy::unnecessary_cast)]
    if !IN_MEMORY.contains(&(system.f_type as i64 & 0xffff_ffff)) {
        return Err(Failure::usage(format!(
            "{show} is not in memory, and a key must not be written to a disk: mount an emptyDir with medium: Memory there"
        )));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = std::fs::read_to_string(SWAPS).unwrap_or_default();
    let device = folder.metadata().map(|metadata| metadata.dev()).unwrap_or_default();
    if can_swap(&mounts, &swaps, &format!("{}:{}", major(device), minor(device))) {
        note(&format!(
            "{show} can be written to swap: this node has swap, and the volume is not mounted with noswap (Kubernetes does so \
             on Linux 6.3 and newer)"
        ));
    }
    Ok(())
}

/// Whether files of this device, `MAJOR:MINOR`, can be written to swap. `mounts` is /proc/self/mountinfo, `swaps` /proc/swaps.
fn can_swap(mounts: &str, swaps: &str, device: &str) -> bool {
    let is_exempt = mounts.lines().any(|line| {
        let is_of_device = line.split(' ').nth(2) == Some(device);
        let options = line.rsplit(' ').next().unwrap_or_default();
        is_of_device && options.split(',').any(|option| option == "noswap")
    });
    has_swap(swaps) && !is_exempt
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 0:21 / /keys rw,relatime - tmpfs tmpfs rw,size=1024k,noswap\n\
                          23 1 0:22 / /plain rw,noswap - tmpfs tmpfs rw,size=1024k\n";
    const SWAPS: &str = "Filename\tType\tSize\tUsed\tPriority\n";

    #[test]
    fn swap_counts_unless_the_volume_is_exempt() {
        let swap = format!("{SWAPS}/swap file 1 0 -2\n");
        for (swaps, device, expected) in [
            (SWAPS, "0:22", false),
            (&swap, "0:22", true),
            (&swap, "0:21", false),
            (&swap, "0:2", true),
            ("", "0:22", false),
        ] {
            assert_eq!(can_swap(MOUNTS, swaps, device), expected, "{device} {swaps}");
        }
    }

    #[test]
    fn folder_on_a_disk_is_refused() {
        // What is built here is on a disk; /proc is neither a disk nor a place for files.
        for path in [env!("CARGO_MANIFEST_DIR"), "/proc"] {
            let failure = check(Path::new(path), &File::open(path).unwrap()).unwrap_err();
            assert!(failure.why.contains("is not in memory"), "{failure:?}");
        }
    }
}
