//! From signals to the token that stops the operator.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A token that the first SIGTERM or SIGINT cancels. The second one ends the process at once.
///
/// # Errors
/// Signals can't be received.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.is_cancelled() {
                    error!("a second signal: stopping at once");
                    std::process::exit(1);
                }
                stop.cancel();
            }
        }
    });
    Ok(stop)
}
