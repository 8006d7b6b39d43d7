//! Why a call did not succeed.

use std::time::Duration;

use shared_transport::{DialError, tls::TlsError};

use crate::{ApiError, ErrorKind};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered, and answered no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No connection.
    #[error("reach auth service")]
    Dial(#[from] DialError),
    /// No TLS, or the server is not the auth service of this cluster.
    #[error("secure connection to auth service at {addr}")]
    Tls {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The caller's own key, certificate or authorities do not do.
    #[error("client certificate or authorities")]
    Identity(#[source] TlsError),
    /// The authorities in hand cannot check a server.
    #[error("host authority: {0}")]
    Authority(String),
    /// The connection broke.
    #[error("connection to auth service")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("auth service did not answer {what} in {} s", .limit.as_secs())]
    TimedOut {
        /// Which call.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is no answer to this question.
    #[error("answer to {what} is not understood")]
    Reply {
        /// Which call.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is too long.
    #[error("answer to {what} is longer than {limit} bytes")]
    TooLong {
        /// Which call.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// Data ended before the end.
    #[error("answer ended early")]
    Cut,
    /// The cluster's host CA is not the one pinned.
    #[error("the cluster's host CA does not match the given CA pin (it has {})", .found.join(", "))]
    PinMismatch {
        /// Pins of what was found.
        found: Vec<String>,
    },
    /// A pin is no pin.
    #[error("a CA pin is `sha256:` and 64 hexadecimal digits")]
    BadPin,
    /// The user does not trust the host CA.
    #[error("the cluster's host CA was not accepted")]
    NotAccepted,
}

impl ClientError {
    /// The kind a caller decides by; what is no answer counts as unavailable or internal.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api(err) => err.kind,
            Self::Dial(_) | Self::Http(_) | Self::TimedOut { .. } | Self::Cut => {
                ErrorKind::Unavailable
            }
            Self::Tls { source, .. } => match source {
                TlsError::Handshake(err) if !Self::is_verdict(err) => ErrorKind::Unavailable,
                TlsError::TimedOut(_) => ErrorKind::Unavailable,
                _ => ErrorKind::Unauthenticated,
            },
            Self::Identity(_) => ErrorKind::Unauthenticated,
            Self::PinMismatch { .. } | Self::NotAccepted => ErrorKind::Denied,
            Self::BadPin => ErrorKind::BadRequest,
            Self::Authority(_) | Self::Reply { .. } | Self::TooLong { .. } => ErrorKind::Internal,
        }
    }

    /// A refused certificate, rather than a connection that broke in the middle.
    fn is_verdict(err: &std::io::Error) -> bool {
        matches!(
            err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
        )
    }

    /// What to do next, where the service or the fault says so.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api(err) => err.hint.as_deref(),
            Self::Tls { source: TlsError::Handshake(err), .. } if Self::is_verdict(err) => Some(
                "the server is not the auth service of the cluster you logged in to before; if the cluster was set up anew, log out and log in again with --ca-pin",
            ),
            Self::PinMismatch { .. } => {
                Some("compare with the CA pin that `tctl status` prints on the auth server")
            }
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }
}
