//! The auth service for services in the same process: the same functions, the same checks, no network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::{Authority, AuthorityError, EmitError};
use shared_api::{
    ClusterState, CompleteUpload, ErrorKind, ProxyHostCertRequest, RecorderCertRequest,
};
use shared_events::AuditEvent;
use shared_pki::{Identity, Permits};
use shared_types::{HostId, SessionId, SystemRole, Traits, UserName};
use tokio::sync::watch;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::AuthError;
use crate::service::AuthService;

/// The auth service as a proxy in the same process sees it.
#[derive(Debug, Clone)]
pub struct LocalAuthority {
    service: Arc<AuthService>,
    proxy: Caller,
}

impl LocalAuthority {
    /// For the proxy on this host. It can do what a proxy can that joined, and no more.
    pub fn for_proxy(service: Arc<AuthService>) -> Result<Arc<Self>, AuthError> {
        let host_id: HostId = service.host_id();
        let cluster = service.cluster().clone();
        let name = UserName::new(format!("{host_id}.{cluster}"))
            .map_err(AuthError::at("name the proxy"))?;
        let identity = Identity {
            user: name,
            roles: Vec::new(),
            traits: Traits::new(),
            logins: Vec::new(),
            cluster,
            login_ip: None,
            pinned_ip: None,
            valid_until: DateTime::<Utc>::MAX_UTC,
            system_role: Some(SystemRole::Proxy),
            host_id: Some(host_id),
            permits: Permits::default(),
        };
        let proxy = Caller::service(identity, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(Arc::new(Self { service, proxy }))
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
        let reply = self.service.sign_proxy_host(&self.proxy, ask).await.map_err(refused)?;
        Ok(reply.certificate)
    }

    async fn certify_recorder(&self, public_key: &str) -> Result<String, AuthorityError> {
        let ask = RecorderCertRequest { public_key: public_key.to_owned() };
        let reply = self.service.sign_recorder(&self.proxy, ask).await.map_err(refused)?;
        Ok(reply.certificate)
    }

    async fn emit(&self, events: Vec<AuditEvent>) -> Result<(), EmitError> {
        self.service.emit(&self.proxy, events).await.map_err(|error| {
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
        self.service.upload_part(&self.proxy, upload, session, part, bytes).await.map_err(refused)
    }

    async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        complete: CompleteUpload,
    ) -> Result<(), AuthorityError> {
        self.service.complete_upload(&self.proxy, upload, session, complete).await.map_err(refused)
    }

    async fn renew_sessions(&self, sessions: Vec<SessionId>) -> Result<Duration, AuthorityError> {
        self.service.renew_sessions(&self.proxy, &sessions).map_err(refused)
    }

    async fn export(&self, kind: Option<&str>) -> Result<String, AuthorityError> {
        self.service.export(kind).map_err(refused)
    }
}
