//! What an agent says of itself, again and again.

use std::time::Duration;

use async_trait::async_trait;
use server_core::AuthorityError;
use server_core::tunnel::TunnelStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Waits after failures: from the first to the longest, doubling.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);
/// Bounds of the time the auth service asks for in between.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);
/// Changes within this time are told together. With tunnels it also keeps agents that came back together apart.
const TOGETHER: Duration = Duration::from_secs(1);
const RECONNECTED: Duration = Duration::from_secs(5);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is there, as the auth service is told.
#[async_trait]
pub(super) trait Presence: Send {
    /// What it is, for the log.
    fn what(&self) -> &'static str;

    /// Waits a moment for what is worth waiting for before the first word.
    async fn settled(&mut self) {}

    /// Says how it is now, with its tunnels where it has any. Answers when to say so again.
    async fn tell(&mut self, tunnels: Option<&TunnelStatus>) -> Result<Duration, AuthorityError>;

    /// Pends until it is not as it was told last. May be dropped and asked again.
    async fn changed(&mut self);

    /// Says that it goes.
    async fn withdraw(&self) -> Result<(), AuthorityError>;
}

/// Tells the auth service that something is there.
pub(super) struct Heartbeat {
    presence: Box<dyn Presence>,
    tunnels: Option<watch::Receiver<TunnelStatus>>,
}

impl Heartbeat {
    /// Of `presence`, with the tunnels of one that has any.
    pub(super) fn new(
        presence: Box<dyn Presence>,
        tunnels: Option<watch::Receiver<TunnelStatus>>,
    ) -> Self {
        Self { presence, tunnels }
    }

    /// Says so until `stop`, and then that it goes.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.beats()).await.is_none() {
            let farewell = tokio::time::timeout(FAREWELL, self.presence.withdraw()).await;
            if !matches!(farewell, Ok(Ok(()))) {
                tracing::debug!("the {} stays listed until its time is over", self.presence.what());
            }
        }
    }

    async fn beats(&mut self) {
        self.presence.settled().await;
        let what = self.presence.what();
        let mut failure = FIRST;
        let mut told = false;
        loop {
            let tunnels = self.tunnels.as_ref().map(|tunnels| tunnels.borrow().clone());
            let wait = match self.presence.tell(tunnels.as_ref()).await {
                Ok(again) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("the cluster knows this {what}");
                    }
                    failure = FIRST;
                    again.clamp(SOONEST, LATEST)
                }
                Err(error) => {
                    if std::mem::replace(&mut told, false) || failure == FIRST {
                        tracing::warn!(%error, "the auth service does not take this {what}, trying on");
                    }
                    let wait = failure;
                    failure = (failure * 2).min(LONGEST);
                    wait
                }
            };
            let pause = tokio::select! {
                () = tokio::time::sleep(wait) => Duration::ZERO,
                () = self.presence.changed() => TOGETHER,
                () = reconnected(&mut self.tunnels) => some_of(RECONNECTED),
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Pends until a tunnel came about, or one went.
async fn reconnected(tunnels: &mut Option<watch::Receiver<TunnelStatus>>) {
    let changed = match tunnels {
        Some(tunnels) => tunnels.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

/// A part of a wait, of which nobody else knows which.
fn some_of(wait: Duration) -> Duration {
    let part = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    TOGETHER + wait.mul_f64(part)
}
