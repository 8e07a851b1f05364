//! `kubectl datakey`: what users of DataKeys ask at a terminal. It calls `Decrypt` of AWS KMS by way of [`datakey_unwrap`] alone.
//!
//! | module | is |
//! | --- | --- |
//! | [`args`] | commands and flags |
//! | [`answer`] | what a command ends with: output, notes, exit code |
//! | [`cluster`] | the only place that talks to the API server |
//! | [`standing`], [`comparison`] | pure: how a DataKey stands, how its Secret does |
//! | [`list`], [`status`], [`export`], [`verify`], [`rotate`], [`keep`], [`policy`] | one command each: a pure part and its effects |
//! | [`text`] | pure: tables, times, quoting |
//! | [`completion`] | of shells and of kubectl |

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{io::Write, process::ExitCode};

use clap::Parser;

use answer::{Answer, Failure, USAGE};
use args::{Cli, Command};
use cluster::Cluster;

mod answer;
mod args;
mod cluster;
mod comparison;
mod completion;
mod export;
#[cfg(test)]
mod fixtures;
mod keep;
mod list;
mod policy;
mod rotate;
mod standing;
mod status;
mod text;
mod verify;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody reads it where that fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(cli).and_then(|answer| print(&answer).map(|()| answer)) {
        Ok(answer) => answer.outcome.into(),
        Err(failure) => {
            eprintln!("kubectl datakey: {}", text::printable(&failure.to_string()));
            failure.into()
        }
    }
}

fn run(cli: Cli) -> Result<Answer, Failure> {
    if let Command::Completion { shell } = cli.command {
        return Ok(completion::script(shell));
    }
    // With one provider in the binary this always is the first; a second one would make TLS panic much later.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(Failure::Work("another TLS provider is installed already".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Work(format!("can't start: {error}")))?;
    runtime.block_on(work(cli))
}

async fn work(Cli { connection, command }: Cli) -> Result<Answer, Failure> {
    let cluster = || Cluster::connect(&connection);
    match command {
        Command::List(args) => list::run(&cluster().await?, &args).await,
        Command::Status(args) => status::run(&cluster().await?, &args).await,
        Command::Export(args) => export::run(&cluster().await?, &args).await,
        Command::Verify(args) => verify::run(&cluster().await?, &args).await,
        Command::Rotate(args) => rotate::run(&cluster().await?, &args).await,
        Command::Keep(args) => keep::run(&cluster().await?, &args).await,
        Command::Policy(args) => policy::run(&cluster().await?, &args).await,
        Command::Complete { words } => Ok(completion::complete(&words).await),
        Command::Completion { shell } => Ok(completion::script(shell)),
    }
}

/// A reader that has read enough is no failure: `kubectl datakey list | head`.
fn print(answer: &Answer) -> Result<(), Failure> {
    for note in &answer.notes {
        eprintln!("{}", text::printable(note));
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(&answer.out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Work(format!("can't write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
