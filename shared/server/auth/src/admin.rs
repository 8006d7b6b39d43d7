//! The server's own certificate, and the local administrator's.

use std::sync::Arc;
use std::time::Duration;

use shared_api::{LocalAdmin, Secret};
use shared_pki::verify::ClientVerifier;
use shared_pki::{HostTlsSpec, TlsKey};
use shared_transport::alpn;
use shared_types::SystemRole;

use crate::error::{AuthError, Result};
use crate::http::{AuthServer, router};
use crate::server_cert::ServerCert;
use crate::service::AuthService;

/// Life of the local administrator's certificate; whoever keeps the file current writes it more often.
const ADMIN_LIFE: Duration = Duration::from_secs(24 * 3600);

impl AuthService {
    /// The API, with a certificate of role Auth whose key exists in this process only.
    pub fn server(self: &Arc<Self>) -> Result<AuthServer> {
        let shown = Arc::new(ServerCert::new(self)?);
        let clients = ClientVerifier::new(&self.current_state().authorities);
        let (named, any) = (alpn::auth(Some(self.cluster())), alpn::auth(None));
        let names: [&[u8]; 5] = [alpn::H2, alpn::HTTP1, &named, &any, alpn::AUTH_HANDOVER];
        let tls = shared_transport::tls::server_config_by(shown, Some(clients), &names)
            .map_err(AuthError::at("set up TLS"))?;
        Ok(AuthServer::new(router(Arc::clone(self)), Arc::new(tls), Arc::clone(self)))
    }

    /// A new identity for `tctl` on this host.
    pub fn local_admin(&self, auth_addr: String) -> Result<LocalAdmin> {
        let key = TlsKey::generate().map_err(AuthError::at("make admin key"))?;
        let spec = HostTlsSpec {
            host_id: self.host_id(),
            role: SystemRole::Admin,
            cluster: self.cluster().clone(),
            names: Vec::new(),
        };
        let certificate = self
            .host_authority()
            .tls_ca()
            .and_then(|ca| ca.sign_server(&spec, &key.public(), self.now(), Some(ADMIN_LIFE)))
            .map_err(AuthError::at("sign admin certificate"))?;
        Ok(LocalAdmin {
            auth_addr,
            cert_pem: certificate.pem(),
            key_pem: Secret::from(key.to_pem()),
            authorities: self.current_state().authorities.clone(),
        })
    }
}
