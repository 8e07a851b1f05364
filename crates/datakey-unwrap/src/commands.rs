//! The commands. What several of them need is here.

use datakey::secret::sha256;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{
    cli::{Command, FileArgs, KeyArgs, ReadyArgs},
    ended::{Ended, Failure},
    folder::{FileOrigin, Folder, Origin},
    keys::{self, UnwrappedKey},
    memory,
    plan::{Call, Plan},
    source::Source,
};

mod check;
mod exec;
mod file;
mod install;
mod watch;

/// Runs a command.
///
/// # Errors
/// Says what is wrong, and what to do.
pub fn run(command: Command) -> Result<Ended, Failure> {
    match command {
        Command::File(args) => file::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Exec(args) => exec::run(args),
        Command::Check(args) => check::run(&args),
        Command::Ready(args) => ready(&args),
        Command::Install(args) => install::run(&args.folder),
    }
}

/// Whether a folder holds a whole set.
fn ready(args: &ReadyArgs) -> Result<Ended, Failure> {
    match Folder::open(&args.to)?.origin() {
        Some(_) => Ok(Ended::Success),
        None => Err(Failure::try_again(format!("{} has no whole set of key files yet", args.to.display()))),
    }
}

/// One thread: the program waits for AWS KMS, and does nothing else.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::try_again(format!("cannot start: {error}")))
}

/// Decides what is unwrapped.
fn plan(args: &KeyArgs) -> Result<Plan, Failure> {
    Plan::new(args, Source::read(&args.from)?)
}

/// Unwraps the keys of a plan, in a process whose memory is protected.
fn unwrap(args: &KeyArgs, plan: Plan) -> Result<Vec<UnwrappedKey>, Failure> {
    memory::forbid_dumps()?;
    memory::lock(args.require_mlock)?;
    // rustls selects a provider by itself only while the binary has a single one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(Failure::usage("another TLS provider is installed already"));
    }
    let runtime = runtime()?;
    let keys = runtime.block_on(async {
        tokio::select! {
            keys = keys::unwrap(args, plan) => keys,
            ended = signalled() => {
                ended.and(Err(Failure::try_again("ended by a signal before AWS KMS answered")))
            }
        }
    });
    // A name server that does not answer holds a thread for many seconds.
    runtime.shutdown_background();
    keys
}

/// Waits for SIGTERM or SIGINT. The first process of a container ends by a signal only if it listens for it.
async fn signalled() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::usage(format!("cannot listen for signals: {error}")));
    let (mut terminated, mut interrupted) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

/// The wrapped keys and the settings from which the files of a plan are written.
fn origin(args: &FileArgs, plan: &Plan) -> Result<Origin, Failure> {
    let KeyArgs { trust, blob_sha256, .. } = &args.keys;
    let settings = (trust, plan.material, blob_sha256, args.output.access_and_format(plan.material)?);
    let file = |call: &Call| FileOrigin {
        name: args.name.of(call.version),
        sha256: call.wrapped.sha256(),
        public_key_sha256: sha256(&call.wrapped.public_key),
        candidates_sha256: call.candidates_sha256(),
    };
    Ok(Origin {
        // Another release can print these in another way; the keys are unwrapped once more then.
        settings: sha256(format!("{settings:?}").as_bytes()),
        current: plan.current,
        versions: plan.calls.iter().map(|call| (call.version, file(call))).collect(),
    })
}
