//! The proxy of this process: its sockets, its way to the auth service.

use std::net::SocketAddr;
use std::sync::Arc;

use server_core::tunnel::LocalServices;
use server_proxy::{
    AuthPath, InProcessAuth, ProxyListeners, ProxyService, ProxySettings, RemoteAuth,
};
use shared_config::{ProxyConfig, TeleportConfig};
use shared_types::{HostId, SystemRole};
use tokio_util::sync::CancellationToken;

use crate::auth_service::RunningAuth;
use crate::data_dir::DataDir;
use crate::host_identity::{JoinError, Joiner, route};
use crate::listeners::{ListenError, host_of, listen, with_real_port};
use crate::member::Membership;
use crate::ready::Listening;
use crate::services::RunError;

/// The sockets that the configuration names, noted in `listening`.
pub(crate) async fn sockets(
    proxy: &ProxyConfig,
    listening: &mut Listening,
) -> Result<ProxyListeners, ListenError> {
    let (web, at) = listen("proxy_service.web_listen_addr", proxy.web_listen_addr).await?;
    listening.web = Some(at);
    let mut own = async |key,
                         addr: Option<SocketAddr>,
                         noted: fn(&mut Listening) -> &mut Option<SocketAddr>| {
        let Some(addr) = addr else { return Ok(None) };
        let (socket, at) = listen(key, addr).await?;
        *noted(listening) = Some(at);
        Ok(Some(socket))
    };
    let ssh = own("proxy_service.listen_addr", proxy.ssh_listen_addr, |at| &mut at.ssh).await?;
    let tunnel =
        own("proxy_service.tunnel_listen_addr", proxy.tunnel_listen_addr, |at| &mut at.tunnel)
            .await?;
    let postgres = own("proxy_service.postgres_listen_addr", proxy.postgres_listen_addr, |at| {
        &mut at.postgres
    })
    .await?;
    let mysql =
        own("proxy_service.mysql_listen_addr", proxy.mysql_listen_addr, |at| &mut at.mysql).await?;
    Ok(ProxyListeners { web, ssh, tunnel, postgres, mysql })
}

/// What a proxy is started with.
pub(crate) struct ProxyHost<'a> {
    pub(crate) config: &'a TeleportConfig,
    pub(crate) proxy: &'a ProxyConfig,
    pub(crate) dir: &'a DataDir,
    pub(crate) host_id: HostId,
    pub(crate) node_name: &'a str,
    /// Where the web port really is.
    pub(crate) web: SocketAddr,
    /// Services of agents in this process.
    pub(crate) locals: LocalServices,
}

impl ProxyHost<'_> {
    /// `host:port` under which users reach the web port.
    pub(crate) fn public(&self) -> String {
        let public = self.proxy.public_addr.first().map_or(self.node_name, String::as_str);
        with_real_port(public, self.web)
    }

    /// Joins where it has to, and makes the service.
    pub(crate) async fn start(
        &self,
        auth: Option<&RunningAuth>,
        drain: &CancellationToken,
    ) -> Result<ProxyService, RunError> {
        let (member, path, protected): (Membership, Arc<dyn AuthPath>, Vec<SocketAddr>) = match auth
        {
            Some(auth) => {
                auth.service.set_proxy_address(self.public());
                let server = auth.server.clone();
                let path = InProcessAuth::new(move |stream, client, ending| {
                    let server = server.clone();
                    Box::pin(async move { server.connection(stream, client, ending).await })
                });
                let names = self.names();
                let member =
                    Membership::local(auth, SystemRole::Proxy, self.host_id, names, drain)?;
                (member, Arc::new(path), vec![auth.addr])
            }
            None => {
                let joiner = self.joiner()?;
                let addr = joiner.route.addr().to_owned();
                let member = Membership::joined(joiner, self.dir, drain).await?;
                let client = member.client.clone().ok_or(JoinError::NoAddress)?;
                let resolved = tokio::net::lookup_host(addr).await;
                let protected = resolved.map(Iterator::collect).unwrap_or_default();
                (member, Arc::new(RemoteAuth::new(client)), protected)
            }
        };
        let settings = ProxySettings::from_config(
            self.proxy,
            self.dir.path().to_owned(),
            self.host_id,
            self.node_name,
            protected,
        );
        let locals = self.locals.clone();
        ProxyService::new(settings, member.authority, path, member.keys, locals)
            .await
            .map_err(RunError::Proxy)
    }

    /// Further names of this host.
    fn names(&self) -> Vec<String> {
        let proxy = self.proxy;
        let public = [
            &proxy.public_addr,
            &proxy.ssh_public_addr,
            &proxy.tunnel_public_addr,
            &proxy.postgres_public_addr,
            &proxy.mysql_public_addr,
        ];
        public.into_iter().flatten().map(|addr| host_of(addr).to_owned()).collect()
    }

    fn joiner(&self) -> Result<Joiner, JoinError> {
        Ok(Joiner {
            data_dir: self.dir.path().to_owned(),
            host_id: self.host_id,
            node_name: self.node_name.to_owned(),
            names: self.names(),
            public_addr: Some(self.public()),
            role: SystemRole::Proxy,
            route: route(self.config, SystemRole::Proxy)?,
            ca_pins: self.config.ca_pins.clone(),
            token: self.config.auth_token.clone(),
        })
    }
}
