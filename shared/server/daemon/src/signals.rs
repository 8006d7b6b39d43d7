//! TERM and INT: the first drains, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal (`drain`) and by the second (`now`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown {
    /// Stop taking new work, let running work end.
    pub(crate) drain: CancellationToken,
    /// End everything.
    pub(crate) now: CancellationToken,
}

impl Shutdown {
    /// Installs the handlers; call inside the runtime.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let state = shutdown.clone();
        tokio::spawn(async move {
            either(&mut term, &mut int).await;
            tracing::info!("shutting down: running sessions may end, a second signal ends them");
            state.drain.cancel();
            either(&mut term, &mut int).await;
            tracing::warn!("second signal: ending now");
            state.now.cancel();
        });
        Ok(shutdown)
    }
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
