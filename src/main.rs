//! The binary `datakey-operator`.

use std::process::ExitCode;

use datakey::{api, text::printable};
use datakey_operator::{
    args::{Cli, Command, Refusal, RunArgs},
    logging,
    run::{self, RunError},
};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for wrong flags or settings (sysexits.h, `EX_USAGE`). Other failures have the exit code 1.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let variables: Vec<_> = std::env::vars_os().collect();
    let cli = match Cli::read(&arguments, &variables) {
        Ok(cli) => cli,
        Err(Refusal::Usage(line)) => return fail(&line, USAGE),
        Err(Refusal::Help(help)) => {
            // If the output is closed, there is no way to report that.
            let _ = help.print();
            return ExitCode::from(if help.use_stderr() { USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Crd => match serde_saphyr::to_string(&api::crd()) {
            Ok(yaml) => {
                print!("{yaml}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        },
        Command::Run(args) => start(*args),
    }
}

fn start(args: RunArgs) -> ExitCode {
    if let Err(error) = logging::init(&args.log_level, args.log_format) {
        return fail(&error, USAGE);
    }
    // The binary contains one TLS provider, so this installation is always the first. With a second one, TLS would panic much
    // later.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&"another TLS provider is installed already", 1);
    }
    // One thread is enough: a reconcile needs little computation and mostly waits for servers. If several threads share the
    // work, they spend a third of their time on waking each other.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(run::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        // The operator was running, so this error is a line of the log.
        Err(error @ RunError::LeadershipLost(_)) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => fail(&error, if error.is_usage() { USAGE } else { 1 }),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("datakey-operator: {}", printable(&error.to_string(), usize::MAX));
    ExitCode::from(code)
}
