//! What a node says of itself, again and again.

use std::sync::Arc;
use std::time::Duration;

use server_core::Authority;
use server_core::tunnel::TunnelStatus;
use server_ssh::HostLabels;
use shared_types::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the first values of labels are waited for.
const LABELS: Duration = Duration::from_secs(2);
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

/// Tells the auth service that a node is there.
pub(super) struct Heartbeat {
    pub(super) authority: Arc<dyn Authority>,
    /// The node without what changes.
    pub(super) node: Node,
    pub(super) labels: HostLabels,
    /// The tunnels of one that has any.
    pub(super) tunnels: Option<watch::Receiver<TunnelStatus>>,
}

impl Heartbeat {
    /// Says so until `stop`, and then that the node goes.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.beats()).await.is_none() {
            let farewell = tokio::time::timeout(FAREWELL, self.authority.withdraw()).await;
            if !matches!(farewell, Ok(Ok(()))) {
                tracing::debug!("the node stays listed until its time is over");
            }
        }
    }

    async fn beats(&mut self) {
        self.labels.settled(LABELS).await;
        let mut labels = self.labels.watch();
        let mut failure = FIRST;
        let mut told = false;
        loop {
            labels.mark_unchanged();
            let wait = match self.authority.heartbeat(self.current()).await {
                Ok(again) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("the cluster knows this node");
                    }
                    failure = FIRST;
                    again.clamp(SOONEST, LATEST)
                }
                Err(error) => {
                    if std::mem::replace(&mut told, false) || failure == FIRST {
                        tracing::warn!(%error, "the auth service does not take this node, trying on");
                    }
                    let wait = failure;
                    failure = (failure * 2).min(LONGEST);
                    wait
                }
            };
            let pause = tokio::select! {
                () = tokio::time::sleep(wait) => Duration::ZERO,
                Ok(()) = labels.changed() => TOGETHER,
                () = reconnected(&mut self.tunnels) => some_of(RECONNECTED),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The node as it is now.
    fn current(&self) -> Node {
        let mut node = self.node.clone();
        node.spec.cmd_labels = self.labels.commands().as_ref().clone();
        if let Some(tunnels) = &self.tunnels {
            node.spec.proxy_ids = tunnels.borrow().proxies.iter().copied().collect();
        }
        node
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
