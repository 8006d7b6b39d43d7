//! The client: one HTTP/2 connection over mutual TLS, made when first needed and made again when it broke.
//!
//! What must stay true: the server has shown a certificate of role Auth from the pinned host CA before a byte of a
//! request leaves; every wait has a limit; a reply's size is bounded before it is read.

mod calls;
mod conn;
mod databases;
mod error;
mod first_use;
mod handover;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_pki::TrustedAuthority;
use shared_types::ClusterName;
use zeroize::Zeroizing;

pub use error::ClientError;
pub use first_use::{Confirm, UnverifiedCa, fetch_authorities};
pub use handover::Handover;
pub use stream::{CopyOutError, RecordingStream};

/// The way to an auth service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Straight to its own address, `host:port`.
    Direct {
        /// `host:port`.
        addr: String,
    },
    /// Through a proxy's TLS port. The proxy passes bytes by the ALPN name and sees nothing.
    Proxy {
        /// `host:port` of the proxy.
        addr: String,
        /// Which cluster; the proxy's own where unknown.
        cluster: Option<ClusterName>,
    },
}

impl Route {
    /// Where the TCP connection goes.
    pub fn addr(&self) -> &str {
        match self {
            Self::Direct { addr } | Self::Proxy { addr, .. } => addr,
        }
    }

    pub(crate) fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Direct { .. } => None,
            Self::Proxy { cluster, .. } => cluster.as_ref(),
        }
    }
}

/// The caller's certificate and key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// PEM, the leaf first.
    pub cert_pem: String,
    /// PEM, PKCS#8.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The limits of waiting.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For TCP, and again for TLS and the HTTP/2 preface.
    pub connect: Duration,
    /// For an answer to begin, and for a whole JSON answer.
    pub request: Duration,
    /// For an SQL query.
    pub query: Duration,
    /// Between two pieces of a stream.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            request: Duration::from_secs(30),
            query: Duration::from_secs(330),
            idle: Duration::from_secs(60),
        }
    }
}

/// Everything a [`Client`] is made of.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The way.
    pub route: Route,
    /// The cluster's authorities in hand; the server must be vouched for by the host CA among them.
    pub authorities: Vec<TrustedAuthority>,
    /// The caller's certificate; without one only the anonymous calls are answered.
    pub identity: Option<ClientIdentity>,
    /// Limits.
    pub timeouts: Timeouts,
}

impl ClientConfig {
    /// With default limits.
    pub fn new(
        route: Route,
        authorities: Vec<TrustedAuthority>,
        identity: Option<ClientIdentity>,
    ) -> Self {
        Self { route, authorities, identity, timeouts: Timeouts::default() }
    }
}

/// Speaks to one auth service. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    route: Route,
    timeouts: Timeouts,
    tls: Mutex<Arc<rustls::ClientConfig>>,
    conn: tokio::sync::Mutex<Option<conn::Sender>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("route", &self.inner.route).finish_non_exhaustive()
    }
}

impl Client {
    /// Sets up; connects with the first call.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let tls = conn::tls(&config.route, &config.authorities, config.identity.as_ref())?;
        Ok(Self::with_tls(config.route, config.timeouts, tls))
    }

    pub(crate) fn with_tls(route: Route, timeouts: Timeouts, tls: rustls::ClientConfig) -> Self {
        let inner = Inner {
            route,
            timeouts,
            tls: Mutex::new(Arc::new(tls)),
            conn: tokio::sync::Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Goes on with other authorities and another certificate: after a renewal or a rotation. Calls under way finish
    /// on the old connection.
    pub async fn replace(
        &self,
        authorities: &[TrustedAuthority],
        identity: Option<&ClientIdentity>,
    ) -> Result<(), ClientError> {
        let tls = conn::tls(&self.inner.route, authorities, identity)?;
        *self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
        *self.inner.conn.lock().await = None;
        Ok(())
    }

    /// The way it goes.
    pub fn route(&self) -> &Route {
        &self.inner.route
    }
}

#[cfg(test)]
mod tests;
