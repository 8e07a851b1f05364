//! The kubectl plugin `kubectl datakey`: it creates, imports, lists, verifies, exports, retries and rotates DataKeys, keeps their
//! Secrets, shows which classes they may use, checks the installation, prints the policies that DataKeys need and the public keys of
//! DataKeyPairs, and adds datakey-unwrap to manifests.
//!
//! Every request to the API server uses the user's own credentials. The plugin calls `Decrypt` of AWS KMS through
//! [`datakey_decrypt`] only, and `GenerateDataKeyWithoutPlaintext` through [`datakey_dry_run`] only, which keeps no data
//! key. It never prints a plaintext key.
//!
//! A command reads from the [`cluster`], computes a [`view`] of what it read, and returns an [`output::Output`]. `main`
//! prints that and sets the exit code.
//!
//! | module | contents |
//! | --- | --- |
//! | [`cli`] | the commands and their flags |
//! | [`aws_cli`] | parameters as the AWS CLI reads them |
//! | [`commands`] | one module for each command: a pure part, and a `run` that calls the cluster |
//! | [`cluster`] | the requests to the API server, and what to do when it refuses one |
//! | [`view`] | pure: the state of a DataKey and of its Secret, advice, tables, shell words |
//! | [`mod@reference`] | how a user names an object: `NAME`, `datakeypair/NAME` |
//! | [`output`] | the result of a command, output formats, exit codes, the standard streams |
//! | [`progress`] | the progress bar of work on many DataKeys |
//! | [`completion`] | completion scripts, and the candidates for kubectl |

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use cluster::Cluster;
use output::{CommandError, Output, Terminal, USAGE};

mod aws_cli;
mod cli;
mod cluster;
mod commands;
mod completion;
#[cfg(test)]
mod fixtures;
mod output;
mod progress;
mod reference;
#[cfg(test)]
mod schema;
mod view;

/// The name and version of the plugin in the user agent of its calls to AWS.
const APP: &str = concat!("kubectl-datakey-", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = cli::with_tips(error);
            // A closed standard error leaves no way to report anything.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let terminal = Terminal::new();
    match run(cli, &terminal).and_then(|output| terminal.print(&output).map(|()| output)) {
        Ok(output) => output.health.into(),
        Err(error) => {
            terminal.notes([format!("kubectl datakey: {error}")]);
            error.into()
        }
    }
}

fn run(cli: Cli, terminal: &Terminal) -> Result<Output, CommandError> {
    match &cli.command {
        Command::Completion { shell } => return Ok(completion::script(*shell)),
        Command::Version(args) if args.client => return commands::version::client(args),
        _ => {}
    }
    // rustls selects a provider by itself only while the binary has a single one. With a second one it would panic at
    // the first connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(CommandError::Failed("another TLS provider is installed already".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Failed(format!("can't start: {error}")))?;
    runtime.block_on(dispatch(cli, terminal))
}

async fn dispatch(Cli { connection, command }: Cli, terminal: &Terminal) -> Result<Output, CommandError> {
    let cluster = || Cluster::connect(&connection);
    match command {
        Command::Create(args) => commands::create::run(&connection, terminal, &args).await,
        Command::Import(args) => commands::import::run(&connection, terminal, &args).await,
        Command::List(args) => commands::list::run(&cluster().await?, &args).await,
        Command::Classes(args) => commands::classes::run(&cluster().await?, &args).await,
        Command::Status(args) => commands::status::run(&cluster().await?, &args).await,
        Command::Export(args) => commands::export::run(&cluster().await?, terminal, &args).await,
        Command::PublicKey(args) => commands::public_key::run(&cluster().await?, terminal, &args).await,
        Command::Inject(args) => commands::inject::run(&cluster().await?, &args).await,
        Command::Verify(args) => commands::verify::run(&cluster().await?, &args).await,
        Command::Retry(args) => commands::retry::run(&cluster().await?, terminal, &args).await,
        Command::Rotate(args) => commands::rotate::run(&cluster().await?, terminal, &args).await,
        Command::Rewrap(args) => commands::rewrap::run(&cluster().await?, terminal, &args).await,
        Command::Keep(args) => commands::keep::run(&cluster().await?, terminal, &args).await,
        Command::Check(args) => commands::check::run(&cluster().await?, &args).await,
        Command::KmsKeys(args) => commands::kms_keys::run(&cluster().await?, &args).await,
        Command::Orphans(args) => commands::orphans::run(&cluster().await?, &args).await,
        Command::Version(args) => commands::version::run(&cluster().await?, &args).await,
        Command::Policy(args) => commands::policy::run(&cluster().await?, &args).await,
        Command::Complete { words } => Ok(completion::complete(&words).await),
        Command::Completion { shell } => Ok(completion::script(shell)),
    }
}
