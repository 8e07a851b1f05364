//! `datakey-unwrap`: unwraps the data keys of a mounted Secret for a program that does not call KMS.
//!
//! It is the last part of the path of a data key: the operator writes the wrapped data key, and this program unwraps it
//! under the credentials of the workload, into files in memory or into file descriptors of the workload. What it accepts
//! comes from its arguments, which are in the manifest of the workload; the Secret decides nothing.
//!
//! | module | does |
//! | --- | --- |
//! | [`cli`] | the arguments |
//! | [`source`] | reads the mounted Secret, or a file |
//! | [`plan`] | decides what is unwrapped, under which KMS key and encryption context, or refuses. Pure |
//! | [`keys`] | calls `Decrypt` for all versions at once, and checks what comes back |
//! | [`encode`] | the formats of key files |
//! | [`folder`] | a folder in memory that always holds one whole set of key files |
//! | [`descriptors`] | sealed files without a name, for `exec` |
//! | [`memory`] | keeps the process's memory out of core dumps and swap |
//! | [`commands`] | the commands |
//! | [`ended`] | exit codes, and the error that a user reads |

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod encode;
#[cfg(target_os = "linux")]
mod ended;
#[cfg(all(test, target_os = "linux"))]
mod fixtures;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod keys;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod source;

/// The name and version of the program in the user agent of its calls to AWS.
#[cfg(target_os = "linux")]
const APP: &str = concat!("datakey-unwrap-", env!("CARGO_PKG_VERSION"));

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use ended::Ended;

    let command = match cli::read(std::env::args_os()) {
        Ok(command) => command,
        Err(cli::Refusal::Help(help)) => {
            // If the output is closed, there is no way to report that.
            let _ = help.print();
            return Ended::Success.into();
        }
        Err(cli::Refusal::Usage(failure)) => return failure.report(),
    };
    match commands::run(command) {
        Ok(ended) => ended.into(),
        Err(failure) => failure.report(),
    }
}

/// Sealed files, memory-backed volumes and native sidecars are features of Linux.
#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("datakey-unwrap: it runs on Linux only");
    std::process::ExitCode::from(64)
}
