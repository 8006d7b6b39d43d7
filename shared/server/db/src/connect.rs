//! The way to a database: TCP, and mutual TLS with a certificate made for this session's database user.
//!
//! What must stay true: nobody dials without a grant; a database is believed by the authorities its configuration names
//! and no others, unless it says `insecure`; keys of certificates never leave this process.

mod certificates;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use server_core::access::DbAccess;
use server_core::{AuthorityError, Granted};
use shared_transport::DialError;
use shared_transport::tls::TlsError;
use tokio::net::TcpStream;

pub(crate) use certificates::Certificates;

use crate::session::Session;

/// What a TLS handshake with it may take.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// A database's connection with TLS.
pub(crate) type ServerStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Why a database is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Its configuration does not say where it is.
    #[error("address of the database is not HOST:PORT: {0:?}")]
    Uri(String),
    /// It does not answer.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The auth service made no certificate.
    #[error("certificate for the database")]
    Certificate(#[source] AuthorityError),
    /// A key could not be made.
    #[error("make a key")]
    Key(#[source] shared_pki::PkiError),
    /// What it is trusted by cannot be read.
    #[error("authorities of the database: {0}")]
    Trust(String),
    /// TLS did not come about.
    #[error("tls with the database")]
    Tls(#[source] TlsError),
}

impl ConnectError {
    /// What the client may read: what went wrong and whom to ask, without addresses.
    pub(crate) fn peer_text(&self) -> String {
        match self {
            Self::Uri(_) | Self::Trust(_) => {
                "the database is not configured as it has to be; ask your administrator".to_owned()
            }
            Self::Dial(_) => "could not connect to the database: it does not answer".to_owned(),
            Self::Certificate(error) if error.is_transient() => {
                "could not connect to the database: the auth service is away, and this session has no certificate yet"
                    .to_owned()
            }
            Self::Certificate(_) => "could not connect to the database: no certificate is issued for this session".to_owned(),
            Self::Key(_) => "could not connect to the database".to_owned(),
            Self::Tls(error) => format!("could not connect to the database: TLS failed: {error}"),
        }
    }
}

/// A database that was dialled: plain bytes, for what its protocol asks for before TLS.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// As whom the certificate is made.
    user: String,
}

impl Session {
    /// Dials the database; the grant is used up by it.
    pub(crate) async fn dial(&self, granted: Granted<DbAccess>) -> Result<Dialled, ConnectError> {
        let access = granted.redeem();
        self.dial_as(access.user).await
    }

    pub(crate) async fn dial_as(&self, user: String) -> Result<Dialled, ConnectError> {
        let (host, port) = self.address()?;
        let addr = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let stream = shared_transport::dial(&addr, self.service().settings.dial).await?;
        shared_transport::tune(&stream);
        Ok(Dialled { stream, user })
    }

    /// Mutual TLS over what was dialled, with a certificate for the user it was dialled for.
    pub(crate) async fn secure(&self, dialled: Dialled) -> Result<ServerStream, ConnectError> {
        let (host, _) = self.address()?;
        let tls = &self.database().spec.tls;
        let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
        let config = self.tls_config(&dialled.user).await?;
        shared_transport::tls::connect(config, name, dialled.stream, HANDSHAKE)
            .await
            .map_err(ConnectError::Tls)
    }

    fn address(&self) -> Result<(&str, u16), ConnectError> {
        let spec = &self.database().spec;
        spec.address().ok_or_else(|| ConnectError::Uri(spec.uri.clone()))
    }

    /// What a connection as `user` shows, and whom it believes.
    async fn tls_config(&self, user: &str) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        let service = self.service();
        let shown = service.certificates.shown(service.authority.as_ref(), self, user).await?;
        tls::prepare(self.database()).await;
        let state = service.authority.state();
        shown.config(self.shared_database(), &state)
    }
}
