//! Where a key is, and is not, while the program runs.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    process::Stdio,
};

use testbed::{commands::end_of, eventually, http::Stop, proxy::Fault};
use tokio::process::Command;

use super::{Workload, assert_ended, variables};
use crate::harness::SOON;

/// The capability IPC_LOCK, with which memory can be locked beyond the limit (capabilities(7)).
const IPC_LOCK: u64 = 1 << 14;

/// All memory of a process that can be read.
fn memory_of(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut file = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" r")) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        // The kernel's own pages cannot be read.
        let Ok(_) = file.seek(SeekFrom::Start(begin)) else { continue };
        let _ = (&mut file).take(end - begin).read_to_end(&mut memory);
    }
    memory
}

/// A line of /proc/PID/status.
fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn is_root() -> bool {
    status(std::process::id(), "Uid").starts_with("0\t")
}

#[tokio::test]
async fn idle_watch_has_no_key_in_its_memory() {
    let workload = Workload::new("unwrap-memory").await;
    let watch = workload.watch(&[]);
    eventually(SOON, "the first key", async || workload.read("v1").is_some()).await;
    workload.rotate(2).await;
    eventually(SOON, "the second key", async || workload.read("v2").is_some()).await;
    let memory = memory_of(watch.pid());
    // What is in its memory is found.
    let finds = |bytes: &[u8]| memchr::memmem::find(&memory, bytes).is_some();
    assert!(finds(workload.test.key.arn.as_bytes()), "{} bytes were read", memory.len());
    for version in [1, 2] {
        let key = workload.plaintext(version).await;
        // A part of it would be too much, too.
        assert!(!finds(&key[..16]) && !finds(&key[16..]), "version {version}");
    }
}

/// A process that waits for the answer of KMS.
async fn held(workload: &Workload, command: &mut Command, stop: &Stop) -> tokio::process::Child {
    workload.test.proxy.fail_decrypt_always(Fault::StopBefore(stop.clone()));
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    stop.reached().await;
    child
}

#[tokio::test]
async fn process_with_a_key_makes_no_core_dumps() {
    let workload = Workload::new("unwrap-dumps").await;
    let stop = Stop::default();
    let child = held(&workload, &mut workload.command("check", &["--timeout=1m"]), &stop).await;
    let pid = child.id().unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    if !is_root() {
        // What is not dumpable belongs to root, and other processes of the user cannot attach to it (ptrace(2)).
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
        assert!(File::open(format!("/proc/{pid}/mem")).is_err());
    }
    stop.release();
    assert!(child.wait_with_output().await.unwrap().status.success());
}

#[tokio::test]
async fn signal_ends_a_process_that_waits_for_kms() {
    let workload = Workload::new("unwrap-signal").await;
    let stop = Stop::default();
    let child = held(&workload, &mut workload.command("check", &["--timeout=1m"]), &stop).await;
    let kill = Command::new("kill").arg(child.id().unwrap().to_string()).status().await.unwrap();
    assert!(kill.success());
    let ended = child.wait_with_output().await.unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(
        (ended.status.code(), error.as_str()),
        (Some(75), "datakey-unwrap: ended by a signal before AWS KMS answered\n")
    );
}

#[tokio::test]
async fn memory_is_locked_where_the_limit_allows_it() {
    let workload = Workload::new("unwrap-mlock").await;
    let has_capability = u64::from_str_radix(&status(std::process::id(), "CapEff"), 16).unwrap() & IPC_LOCK != 0;
    for kibibytes in [64, 8192] {
        // The limit counts for processes without the capability.
        let wrapped = |more: &[&str]| {
            let inner = workload.command("check", more);
            let limit = format!("ulimit -l {kibibytes} && exec \"$@\"");
            let mut command = Command::new(if has_capability { "setpriv" } else { "env" });
            command.env_clear().envs(variables(&inner));
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            if has_capability {
                command.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
            }
            let inner = inner.as_std();
            command.args(["/bin/sh", "-c", &limit, "sh"]).arg(inner.get_program()).args(inner.get_args());
            command
        };
        assert_eq!(end_of(wrapped(&[])).await.code, 0, "{kibibytes} KiB");
        let words = format!("the limit of locked memory (ulimit -l) is {kibibytes} KiB");
        assert_ended(&end_of(wrapped(&["--require-mlock"])).await, 64, &words);
    }
    let stop = Stop::default();
    if has_capability {
        let child = held(&workload, &mut workload.command("check", &["--timeout=1m", "--require-mlock"]), &stop).await;
        let locked = status(child.id().unwrap(), "VmLck");
        assert!(!locked.starts_with("0 "), "{locked}");
        stop.release();
        assert!(child.wait_with_output().await.unwrap().status.success());
    }
}

#[tokio::test]
async fn memory_of_a_command_of_exec_has_no_copy_of_the_key() {
    let workload = Workload::new("unwrap-copies").await;
    let key = workload.plaintext(1).await;
    let process = workload.start("exec", &["--", "sleep", "60"]);
    eventually(SOON, "the command runs", async || {
        std::fs::read(format!("/proc/{}/cmdline", process.pid())).is_ok_and(|line| line.starts_with(b"sleep"))
    })
    .await;
    assert!(memchr::memmem::find(&memory_of(process.pid()), &key).is_none(), "execve replaces the memory");
}
