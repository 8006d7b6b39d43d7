//! An agent's tunnels: one to each proxy there is, dialled again whenever one ends.

mod link;
mod slots;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use shared_api::ProxyInfo;
use shared_transport::tunnel::{ConnType, ProxyEntry};
use shared_types::HostId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AgentService, HostTls};
use slots::Slots;

/// What a pool needs to know.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Where proxies are found, `host:port` of their web ports. Others are heard of from those, and from the auth service
    /// by agents that it tells.
    pub proxies: Vec<String>,
    /// This host.
    pub host_id: HostId,
    /// How long connections may go on after the end was asked for.
    pub drain: Duration,
}

/// To which proxies an agent has tunnels now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Their host ids.
    pub proxies: BTreeSet<HostId>,
    /// How often a tunnel came about; grows with each reconnect.
    pub connected: u64,
}

/// The tunnels of an agent.
pub struct TunnelPool {
    settings: PoolSettings,
    tls: Arc<HostTls>,
    services: HashMap<ConnType, Arc<dyn AgentService>>,
    slots: Slots,
    /// Connections that are served.
    served: TaskTracker,
}

impl std::fmt::Debug for TunnelPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelPool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TunnelPool {
    /// A pool that hands connections to `services`.
    pub fn new(
        settings: PoolSettings,
        tls: Arc<HostTls>,
        services: HashMap<ConnType, Arc<dyn AgentService>>,
    ) -> Arc<Self> {
        let (slots, served) = (Slots::default(), TaskTracker::new());
        Arc::new(Self { settings, tls, services, slots, served })
    }

    /// Notes which proxies the auth service knows, where it tells of any.
    fn told_of(&self, known: &[ProxyInfo]) {
        let entry = |proxy: &ProxyInfo| {
            let (host_id, addr) = (proxy.host_id.to_string(), proxy.public_addr.clone()?);
            Some(ProxyEntry { host_id, addr })
        };
        let proxies: Vec<ProxyEntry> = known.iter().filter_map(entry).collect();
        if !proxies.is_empty() {
            self.list(proxies);
        }
    }

    /// Notes which proxies there are. One of this very host runs in this process and needs no tunnel.
    fn list(&self, mut proxies: Vec<ProxyEntry>) {
        let own = self.settings.host_id.to_string();
        proxies.retain(|proxy| proxy.host_id != own);
        self.slots.list(proxies);
    }

    /// Tells of tunnels that come and go.
    pub fn status(&self) -> watch::Receiver<TunnelStatus> {
        self.slots.status()
    }

    /// Holds tunnels until `stop`, then takes nothing new and lets connections end within the drain.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let holders = TaskTracker::new();
        for addr in &self.settings.proxies {
            let holder = slots::Holder::of_address(addr.clone());
            holders.spawn(Arc::clone(&self).hold(holder, stop.clone()));
        }
        let (mut listed, mut views) = (self.slots.listed(), self.tls.authority().watch_nodes());
        views.mark_changed();
        let mut followed = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = listed.changed() => {}
                changed = views.changed(), if followed => {
                    // Whoever is not told of proxies learns of them from the first one.
                    followed = changed.is_ok();
                    self.told_of(&views.borrow_and_update().proxies);
                }
            }
            for holder in self.slots.holders_to_start() {
                holders.spawn(Arc::clone(&self).hold(holder, stop.clone()));
            }
        }
        holders.close();
        let ended = async {
            holders.wait().await;
            self.served.close();
            self.served.wait().await;
        };
        if tokio::time::timeout(self.settings.drain, ended).await.is_err() {
            tracing::warn!(connections = self.served.len(), "connections did not end in time");
        }
    }
}
