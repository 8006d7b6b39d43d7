//! The agents of this process, one for each role: its way to the auth service, how users reach it, and what it says of
//! itself.
//!
//! What must stay true: each role has an identity, spools, tunnels and a heartbeat of its own; none of them knows of the
//! others. How a role is reached is its own: an SSH service that joined through a proxy holds tunnels and listens
//! nowhere, unless it is told to, and otherwise listens, and proxies dial it; databases are reached through tunnels, or
//! by a proxy in the same process.

mod db;
mod heartbeat;
mod host;
mod ssh;

use std::sync::Arc;
use std::time::Duration;

use server_core::tunnel::TunnelPool;
use server_core::{EventSpool, RecordingSpool};
use tokio_util::sync::CancellationToken;

pub(crate) use db::DbHost;
use heartbeat::Heartbeat;
pub(crate) use host::AgentHost;
pub(crate) use ssh::{SshHost, socket};

/// How long events and recordings may go on being sent at the end; what is left is sent by the next run.
const FLUSH: Duration = Duration::from_secs(10);

/// What a role does besides tunnels and heartbeat.
enum Direct {
    /// It listens.
    Ssh(ssh::Listening),
    /// A proxy of this process finds it here.
    Db(db::Serving),
}

/// An agent that is ready to run.
pub(crate) struct Agent {
    events: Arc<EventSpool>,
    recordings: Arc<RecordingSpool>,
    heartbeat: Heartbeat,
    pool: Option<Arc<TunnelPool>>,
    direct: Direct,
}

impl Agent {
    /// Where recordings wait, for whoever watches how many do.
    pub(crate) fn spool(&self) -> Arc<RecordingSpool> {
        Arc::clone(&self.recordings)
    }

    /// Serves until `stop`, then lets sessions end within the drain's limit, and sends what waits.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { events, recordings, heartbeat, pool, direct } = self;
        let tunnels = async {
            if let Some(pool) = pool {
                pool.run(stop.clone()).await;
            }
        };
        let direct = async {
            match direct {
                Direct::Ssh(listening) => listening.run(stop.clone()).await,
                Direct::Db(serving) => serving.run(stop.clone()).await,
            }
        };
        tokio::join!(direct, tunnels, heartbeat.run(stop.clone()));
        let drained = tokio::join!(events.drain(FLUSH), recordings.drain(FLUSH));
        if drained != (true, true) {
            tracing::warn!(
                events = events.pending(),
                recordings = recordings.waiting(),
                "left for the next start"
            );
        }
    }
}
