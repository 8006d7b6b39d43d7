//! What agents of every role need: an identity, spools, tunnels.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use server_core::spool::{EventSpoolSettings, RecordingSpoolSettings};
use server_core::tunnel::{AgentService, ConnType, HostTls, PoolSettings, TunnelPool};
use server_core::{Authority, EventSpool, RecordingSpool};
use shared_config::TeleportConfig;
use shared_transport::alpn;
use shared_types::{GoDuration, HostId, HostName, SystemRole};
use tokio_util::sync::CancellationToken;

use crate::auth_service::RunningAuth;
use crate::data_dir::DataDir;
use crate::host_identity::{JoinError, Joiner, route};
use crate::member::Membership;
use crate::services::RunError;

/// Hosts that take tunnels and hand connections over.
const PROXIES: &[SystemRole] = &[SystemRole::Proxy];

/// The host of agents.
#[derive(Clone, Copy)]
pub(crate) struct AgentHost<'a> {
    pub(crate) config: &'a TeleportConfig,
    pub(crate) dir: &'a DataDir,
    pub(crate) host_id: HostId,
    pub(crate) node_name: &'a str,
    pub(crate) auth: Option<&'a RunningAuth>,
    pub(crate) stop: &'a CancellationToken,
}

/// What waits on the disk until the auth service has it.
pub(super) struct Spools {
    pub(super) events: Arc<EventSpool>,
    pub(super) recordings: Arc<RecordingSpool>,
}

impl AgentHost<'_> {
    /// This host's name.
    pub(super) fn hostname(&self) -> Result<HostName, RunError> {
        HostName::new(self.node_name).map_err(RunError::NodeName)
    }

    /// Beside the auth service, or joined. `names` are further names of this host.
    pub(super) async fn member(
        &self,
        role: SystemRole,
        names: Vec<String>,
    ) -> Result<Membership, RunError> {
        match self.auth {
            Some(auth) => Membership::local(auth, role, self.host_id, names, self.stop),
            None => Membership::joined(self.joiner(role, names)?, self.dir, self.stop).await,
        }
    }

    fn joiner(&self, role: SystemRole, names: Vec<String>) -> Result<Joiner, JoinError> {
        Ok(Joiner {
            data_dir: self.dir.path().to_owned(),
            host_id: self.host_id,
            node_name: self.node_name.to_owned(),
            names,
            public_addr: None,
            role,
            route: route(self.config, role)?,
            ca_pins: self.config.ca_pins.clone(),
            token: self.config.auth_token.clone(),
        })
    }

    /// Spools of their own below `folder`, apart from those of a proxy and of other roles in the same process.
    pub(super) async fn spools(
        &self,
        folder: &str,
        authority: &Arc<dyn Authority>,
        bytes: u64,
        wait: GoDuration,
    ) -> Result<Spools, RunError> {
        let folder: PathBuf = self.dir.path().join(folder);
        let never = CancellationToken::new();
        let events = EventSpool::open(
            folder.join("log/events-spool"),
            Arc::clone(authority),
            EventSpoolSettings::default(),
            &never,
        )
        .await
        .map_err(RunError::Spool)?;
        let recordings = RecordingSpool::open(
            &folder,
            Arc::clone(authority),
            RecordingSpoolSettings {
                max_bytes: bytes,
                room_wait: wait.as_std(),
                ..RecordingSpoolSettings::default()
            },
            &never,
        )
        .await
        .map_err(RunError::Spool)?;
        Ok(Spools { events, recordings })
    }

    /// TLS with proxies under the name `alpn`.
    pub(super) fn tls(&self, member: &Membership, alpn: &'static [u8]) -> Arc<HostTls> {
        let authority = Arc::clone(&member.authority);
        Arc::new(HostTls::new(authority, member.keys.clone(), PROXIES, alpn))
    }

    /// Tunnels to the proxies, which hand connections of one kind to `service`.
    pub(super) fn pool(
        &self,
        member: &Membership,
        conn_type: ConnType,
        service: Arc<dyn AgentService>,
        drain: Duration,
    ) -> Arc<TunnelPool> {
        let proxies = self.config.proxy_server.iter().cloned().collect();
        let settings = PoolSettings { proxies, host_id: self.host_id, drain };
        let services = HashMap::from([(conn_type, service)]);
        TunnelPool::new(settings, self.tls(member, alpn::REVERSE_TUNNEL), services)
    }
}
