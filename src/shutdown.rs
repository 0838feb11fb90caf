//! When to stop: on SIGINT or SIGTERM, gracefully; on the second, at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal. The second one ends the process.
pub(crate) fn token() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let first = token.clone();
    tokio::spawn(async move {
        for signals in 1.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if signals > 1 {
                tracing::warn!("asked twice: ending at once");
                now();
            }
            tracing::info!("ending: running answers are finished first");
            first.cancel();
        }
    });
    Ok(token)
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait for anything")]
fn now() -> ! {
    std::process::exit(130)
}
