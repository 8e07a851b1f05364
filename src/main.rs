//! The binary `datakey-operator`.

use std::process::ExitCode;

use datakey::{api, text::printable};
use datakey_operator::{
    args::{Cli, Command, Refusal, RunArgs},
    exit_code::Ended,
    logging,
    run::{self, RunError},
};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let variables: Vec<_> = std::env::vars_os().collect();
    let cli = match Cli::read(&arguments, &variables) {
        Ok(cli) => cli,
        Err(Refusal::Usage(line)) => return fail(&line, Ended::Usage),
        Err(Refusal::Help(help)) => {
            // If the output is closed, there is no way to report that.
            let _ = help.print();
            let ended = if help.use_stderr() { Ended::Usage } else { Ended::Success };
            return ended.into();
        }
    };
    match cli.command {
        Command::Crd => {
            let documents: Result<Vec<_>, _> = api::crds().iter().map(serde_saphyr::to_string).collect();
            match documents {
                Ok(documents) => {
                    print!("{}", documents.join("---\n"));
                    Ended::Success.into()
                }
                Err(error) => fail(&error, Ended::Failure),
            }
        }
        Command::Run(args) => start(*args),
    }
}

fn start(args: RunArgs) -> ExitCode {
    if let Err(error) = logging::init(&args.log_level, args.log_format) {
        return fail(&error, Ended::Usage);
    }
    // The binary contains one TLS provider, so this installation is always the first. With a second one, TLS would panic much
    // later.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&"another TLS provider is installed already", Ended::Failure);
    }
    // One thread is enough: a reconcile needs little computation and mostly waits for servers. If several threads share the
    // work, they spend a third of their time on waking each other.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, Ended::Failure),
    };
    match runtime.block_on(run::run(args)) {
        Ok(()) => Ended::Success.into(),
        // The operator was running, so this error is a line of the log.
        Err(error @ RunError::LeadershipLost(_)) => {
            tracing::error!("{error}");
            Ended::Failure.into()
        }
        Err(error) => fail(&error, if error.is_usage() { Ended::Usage } else { Ended::Failure }),
    }
}

fn fail(error: &dyn std::fmt::Display, ended: Ended) -> ExitCode {
    eprintln!("datakey-operator: {}", printable(&error.to_string(), usize::MAX));
    ended.into()
}
