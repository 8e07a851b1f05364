//! Child processes and folders that never outlive this process, not even when it is killed: a shell holds the other
//! end of a pipe and cleans up when the pipe closes.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::commands;

/// Runs `"$@"` until it ends or standard input closes, whichever is first. The process ID is the first line that it
/// prints. Deaf to the keyboard's interrupt, which reaches it before the pipe closes.
const WATCHER: &str = r#"
trap '' INT TERM HUP
exec 3<&0
"$@" </dev/null >>"$LOG" 2>&1 &
child=$!
echo $child
exec >/dev/null 2>&1
{ cat <&3 >/dev/null; kill -KILL $child; } &
wait $child
"#;

/// Removes a folder once standard input closes. Processes that are being killed may still write to it for a moment.
const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && exit; sleep 0.3; done
"#;

/// A running program.
pub struct Process {
    watcher: Child,
    pid: u32,
    log: PathBuf,
}

/// A folder for one run.
pub struct Workdir {
    path: PathBuf,
    _janitor: Child,
}

// === impl Process ===

impl Process {
    /// Starts a program; what it prints goes to the log, behind what is there.
    pub fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
        log: &Path,
    ) -> Self {
        File::options().create(true).append(true).open(log).expect("a log file");
        let mut command = Command::new("/bin/sh");
        commands::clear(&mut command);
        let mut watcher = command
            .args(["-c", WATCHER, "watcher"])
            .arg(program)
            .args(arguments)
            .envs(environment)
            .env("LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start /bin/sh");
        let mut line = String::new();
        let stdout = watcher.stdout.take().expect("a piped output");
        BufReader::new(stdout).read_line(&mut line).expect("read the process ID");
        let pid = line.trim().parse().expect("a process ID");
        Self { watcher, pid, log: log.to_owned() }
    }

    /// The process ID of the program.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.watcher.try_wait(), Ok(None))
    }

    /// Sends it a signal, by name: `TERM`, `KILL`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal {signal} to {}", self.pid);
    }

    /// Waits until it ended; the exit code, 128 and more for a signal.
    pub async fn ended(&mut self) -> i32 {
        loop {
            if let Ok(Some(status)) = self.watcher.try_wait() {
                return status.code().unwrap_or(-1);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        // The watcher ends with the program.
        let _ = self.watcher.wait();
    }
}

// === impl Workdir ===

impl Workdir {
    /// A new folder in the target folder.
    pub fn new(purpose: &str) -> Self {
        let parent = crate::tools().with_file_name("run");
        std::fs::create_dir_all(&parent).expect("create the folder of runs");
        Self::below(&parent, purpose)
    }

    /// A new folder in memory, on Linux.
    pub fn in_memory(purpose: &str) -> Self {
        Self::below(Path::new("/dev/shm"), purpose)
    }

    /// A new folder that programs of another user can reach: the target folder may be in the home directory of root.
    pub fn for_other_users(purpose: &str) -> Self {
        let folder = Self::below(&std::env::temp_dir(), purpose);
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("open a folder to others");
        folder
    }

    fn below(parent: &Path, purpose: &str) -> Self {
        let prefix = format!("{purpose}-");
        let path = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("create a folder").keep();
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start /bin/sh");
        Self { path, _janitor: janitor }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
