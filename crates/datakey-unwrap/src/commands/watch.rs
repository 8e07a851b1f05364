//! `watch`: writes the keys into files in memory, and again after each rotation.
//!
//! This process never has a key in its memory. It compares the wrapped keys with those of the files, and runs `file` as a process
//! of its own where they differ: with the end of that process all copies of a key are gone, those in the buffers of the AWS
//! SDK included, which this program cannot overwrite.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    cli::FileArgs,
    ended::{Ended, Failure, PREFIX, note},
    folder::{Folder, Origin},
    source,
};

/// How often the Secret is looked at. The kubelet itself takes up to two minutes, so a notification by the kernel would not be faster.
const INTERVAL: Duration = Duration::from_secs(1);

/// The waits after a failure: each is twice as long as the one before.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

pub fn run(args: &FileArgs) -> Result<Ended, Failure> {
    let folder = Folder::open(&args.to)?;
    super::runtime()?.block_on(Watch { args, folder, reported: None }.run())
}

struct Watch<'a> {
    args: &'a FileArgs,
    folder: Folder,
    /// The last failure that was printed.
    reported: Option<String>,
}

// === impl Watch ===

impl Watch<'_> {
    async fn run(mut self) -> Result<Ended, Failure> {
        tokio::select! {
            result = self.follow() => result,
            // The kubelet sends one when the main containers of the pod have ended.
            ended = super::signalled() => ended.map(|()| Ended::Success),
        }
    }

    /// Follows the Secret until something cannot be accepted.
    async fn follow(&mut self) -> Result<Ended, Failure> {
        let mut wait = WAITS.0;
        loop {
            let revision = source::revision(&self.args.keys.from);
            match self.update().await {
                Ok(origin) => {
                    wait = WAITS.0;
                    self.reported = None;
                    // At most one attempt in an interval, also where another process keeps removing the files.
                    sleep(INTERVAL).await;
                    while source::revision(&self.args.keys.from) == revision
                        && self.folder.origin().as_ref() == Some(&origin)
                    {
                        sleep(INTERVAL).await;
                    }
                }
                Err(failure) => {
                    if !can_retry(failure.ended, self.folder.origin().is_some()) {
                        return Err(failure);
                    }
                    self.report(failure.why);
                    let until = Instant::now() + wait;
                    while Instant::now() < until && source::revision(&self.args.keys.from) == revision {
                        sleep(INTERVAL.min(wait)).await;
                    }
                    wait = (2 * wait).min(WAITS.1);
                }
            }
        }
    }

    /// Writes the files, if they are not those of the wrapped keys. Returns what they were made of.
    async fn update(&mut self) -> Result<Origin, Failure> {
        let origin = super::origin(self.args, &super::plan(&self.args.keys)?)?;
        if self.folder.origin().as_ref() == Some(&origin) {
            self.folder.remove_leftovers();
        } else {
            self.write().await?;
        }
        Ok(origin)
    }

    async fn write(&mut self) -> Result<(), Failure> {
        // The same arguments; the command is the first of them.
        let arguments = std::env::args_os().skip(2);
        let mut command = Command::new("/proc/self/exe");
        command.arg("file").args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = command.output().await;
        let output = output.map_err(|error| Failure::try_again(format!("cannot run this program again: {error}")))?;
        let printed = String::from_utf8_lossy(&output.stderr);
        let mut lines = printed.lines().map(|line| line.strip_prefix(PREFIX).unwrap_or(line));
        match ended_with(output.status) {
            Some(Ended::Success) => {
                lines.for_each(note);
                Ok(())
            }
            // The last line says why; during an outage each attempt prints the same ones.
            Some(ended) => Err(Failure { ended, why: lines.next_back().unwrap_or_default().to_owned() }),
            None => Err(Failure::try_again(format!(
                "the process that unwraps the keys was ended by the system ({}): its memory limit may be too small",
                output.status
            ))),
        }
    }

    /// Prints a failure, once until another one comes.
    fn report(&mut self, why: String) {
        if self.reported.as_ref() != Some(&why) {
            note(&format!("{why}; trying again"));
        }
        self.reported = Some(why);
    }
}

/// Whether a failure can pass while this process runs. What is mounted can only be refused; AWS can change its mind, which counts as
/// long as there are files to keep.
fn can_retry(ended: Ended, has_files: bool) -> bool {
    match ended {
        Ended::TryAgain => true,
        Ended::AccessDenied | Ended::KeyUnusable => has_files,
        Ended::Success | Ended::Mismatch | Ended::Usage | Ended::NotExecutable | Ended::NotFound => false,
    }
}

/// How a process of this program ended; `None` if it was killed.
fn ended_with(status: ExitStatus) -> Option<Ended> {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ended::ALL.into_iter().find(|ended| Some(ended.code()) == code)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn mismatch_ends_and_an_outage_does_not() {
        for (ended, with_files, without) in [
            (Ended::TryAgain, true, true),
            (Ended::AccessDenied, true, false),
            (Ended::KeyUnusable, true, false),
            (Ended::Mismatch, false, false),
            (Ended::Usage, false, false),
        ] {
            assert_eq!((can_retry(ended, true), can_retry(ended, false)), (with_files, without), "{ended:?}");
        }
    }

    #[test]
    fn exit_code_says_how_the_other_process_ended() {
        for ended in Ended::ALL {
            assert_eq!(ended_with(ExitStatus::from_raw(i32::from(ended.code()) << 8)), Some(ended));
        }
        let killed = ExitStatus::from_raw(9);
        assert_eq!(ended_with(killed), None);
        assert_eq!(ended_with(ExitStatus::from_raw(101 << 8)), None);
    }
}
