//! The auth service for services in the same process: the same functions, the same checks, no network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::{Authority, AuthorityError, EmitError};
use shared_api::{
    ClusterState, CompleteUpload, DatabaseCertReply, DatabaseCertRequest, DbPresence, ErrorKind,
    NodeView, OpensshUserRequest, ProxyHostCertRequest, RecorderCertRequest,
};
use shared_events::AuditEvent;
use shared_pki::{Identity, Permits};
use shared_types::{DatabaseServer, HostId, Node, SessionId, SystemRole, Traits, UserName};
use tokio::sync::watch;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::AuthError;
use crate::service::AuthService;

/// The auth service as another service in the same process sees it.
#[derive(Debug, Clone)]
pub struct LocalAuthority {
    service: Arc<AuthService>,
    caller: Caller,
}

impl LocalAuthority {
    /// For the proxy on this host. It can do what a proxy can that joined, and no more.
    pub fn for_proxy(service: Arc<AuthService>) -> Result<Arc<Self>, AuthError> {
        Self::of_role(service, SystemRole::Proxy)
    }

    /// For the node on this host. It can do what a node can that joined, and no more.
    pub fn for_node(service: Arc<AuthService>) -> Result<Arc<Self>, AuthError> {
        Self::of_role(service, SystemRole::Node)
    }

    /// For the agent in front of databases on this host. It can do what one can that joined, and no more.
    pub fn for_db(service: Arc<AuthService>) -> Result<Arc<Self>, AuthError> {
        Self::of_role(service, SystemRole::Db)
    }

    fn of_role(service: Arc<AuthService>, role: SystemRole) -> Result<Arc<Self>, AuthError> {
        let host_id: HostId = service.host_id();
        let cluster = service.cluster().clone();
        let name = UserName::new(format!("{host_id}.{cluster}"))
            .map_err(AuthError::at("name the service"))?;
        let identity = Identity {
            user: name,
            roles: Vec::new(),
            traits: Traits::new(),
            logins: Vec::new(),
            cluster,
            login_ip: None,
            pinned_ip: None,
            valid_until: DateTime::<Utc>::MAX_UTC,
            system_role: Some(role),
            host_id: Some(host_id),
            permits: Permits::default(),
            usage: Vec::new(),
            database: None,
        };
        let caller = Caller::service(identity, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(Arc::new(Self { service, caller }))
    }
}

fn refused(error: AuthError) -> AuthorityError {
    error.into_answer().into()
}

#[async_trait]
impl Authority for LocalAuthority {
    fn state(&self) -> Arc<ClusterState> {
        self.service.current_state()
    }

    fn watch(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.service.state.subscribe()
    }

    async fn sign_proxy_host(
        &self,
        principals: Vec<String>,
        public_key: &str,
    ) -> Result<String, AuthorityError> {
        let ask = ProxyHostCertRequest { principals, public_key: public_key.to_owned() };
        let reply = self.service.sign_proxy_host(&self.caller, ask).await.map_err(refused)?;
        Ok(reply.certificate)
    }

    async fn sign_openssh_user(
        &self,
        request: OpensshUserRequest,
    ) -> Result<String, AuthorityError> {
        let reply = self.service.sign_openssh_user(&self.caller, request).await.map_err(refused)?;
        Ok(reply.certificate)
    }

    async fn sign_database_client(
        &self,
        request: DatabaseCertRequest,
    ) -> Result<DatabaseCertReply, AuthorityError> {
        self.service.sign_database_client(&self.caller, request).await.map_err(refused)
    }

    async fn certify_recorder(&self, public_key: &str) -> Result<String, AuthorityError> {
        let ask = RecorderCertRequest { public_key: public_key.to_owned() };
        let reply = self.service.sign_recorder(&self.caller, ask).await.map_err(refused)?;
        Ok(reply.certificate)
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        self.service.emit(&self.caller, events).await.map_err(|error| {
            let answer = error.into_answer();
            match answer.kind {
                ErrorKind::BadRequest | ErrorKind::Denied => EmitError::Refused(answer.message),
                _ => EmitError::Unavailable(answer.message),
            }
        })
    }

    async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), AuthorityError> {
        self.service.upload_part(&self.caller, upload, session, part, bytes).await.map_err(refused)
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        self.service.complete_upload(&self.caller, upload, session, complete).await.map_err(refused)
    }

    async fn renew_sessions(&self, sessions: Vec<SessionId>) -> Result<Duration, AuthorityError> {
        self.service.renew_sessions(&self.caller, &sessions).map_err(refused)
    }

    fn nodes(&self) -> Arc<NodeView> {
        self.service.presence.view()
    }

    fn watch_nodes(&self) -> watch::Receiver<Arc<NodeView>> {
        self.service.presence.watch()
    }

    async fn heartbeat(&self, node: Node) -> Result<Duration, AuthorityError> {
        let reply = self.service.heartbeat(&self.caller, node).await.map_err(refused)?;
        Ok(Duration::from_secs(reply.again_seconds))
    }

    async fn withdraw(&self) -> Result<(), AuthorityError> {
        self.service.withdraw(&self.caller).await.map_err(refused)
    }

    async fn heartbeat_db(&self, servers: Vec<DatabaseServer>) -> Result<Duration, AuthorityError> {
        let served = DbPresence { servers };
        let reply = self.service.heartbeat_db(&self.caller, served).await.map_err(refused)?;
        Ok(Duration::from_secs(reply.again_seconds))
    }

    async fn withdraw_db(&self) -> Result<(), AuthorityError> {
        self.service.withdraw_db(&self.caller).await.map_err(refused)
    }

    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError> {
        self.service.export(kind).map_err(refused)
    }
}
