//! Why a connection failed.

use shared_pki::verify::CertRefusal;

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// To the proxy.
    Proxy,
    /// To the target, through the proxy.
    Target,
}

impl std::fmt::Display for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Proxy => "proxy",
            Self::Target => "target",
        })
    }
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The handshake broke off.
    #[error("ssh handshake with the {leg}")]
    Handshake {
        /// Which connection.
        leg: Leg,
        /// Cause.
        #[source]
        source: russh::Error,
    },
    /// The handshake took too long.
    #[error("{leg} did not answer within {seconds} seconds")]
    Timeout {
        /// Which connection.
        leg: Leg,
        /// How long we waited.
        seconds: u64,
    },
    /// The host key was refused.
    #[error("ssh: handshake failed: {refusal} ({leg} {host})")]
    HostKey {
        /// Which connection.
        leg: Leg,
        /// The name the certificate had to be for.
        host: String,
        /// Why.
        refusal: CertRefusal,
    },
    /// The target's plain key was refused by whoever decides about those.
    #[error("ssh: handshake failed: host key of {host}: {text}")]
    PlainHostKey {
        /// The name that was typed.
        host: String,
        /// Why.
        text: String,
    },
    /// The server did not accept our certificate.
    #[error("{login}@{host}: permission denied (publickey)")]
    Denied {
        /// Which connection.
        leg: Leg,
        /// Login that was asked for.
        login: String,
        /// Host.
        host: String,
    },
    /// The proxy does not connect us; the text is the proxy's.
    #[error("{text}")]
    ProxyRefused {
        /// What the proxy says.
        text: String,
    },
    /// A channel was not opened; the text is the peer's.
    #[error("channel {channel}: open failed: {reason}: {text}")]
    ChannelOpen {
        /// Number of the channel on our side, counted from 0.
        channel: u32,
        /// RFC 4254 reason, as `ssh` prints it.
        reason: &'static str,
        /// What the peer says.
        text: String,
    },
    /// A request on a channel was refused.
    #[error("{request} request failed on channel {channel}")]
    Request {
        /// `shell`, `exec`, `subsystem`.
        request: &'static str,
        /// Number of the channel on our side.
        channel: u32,
    },
    /// The connection ended before it should.
    #[error("connection to {host} closed{}", reason(text.as_deref()))]
    Lost {
        /// Host.
        host: String,
        /// What the peer said, if anything.
        text: Option<String>,
    },
    /// The library's own error inside a connection.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

fn reason(text: Option<&str>) -> String {
    text.filter(|t| !t.is_empty()).map(|t| format!(": {t}")).unwrap_or_default()
}

impl ConnectError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let text = match self {
            Self::ChannelOpen { text, .. } | Self::ProxyRefused { text } => text.as_str(),
            Self::Denied { leg: Leg::Proxy, .. } => {
                return Some("'tsh status' shows which logins your certificate allows");
            }
            Self::HostKey { leg: Leg::Target, refusal: CertRefusal::NotCertificate, .. } => {
                return Some(
                    "make a host certificate with 'tctl auth sign --host=NAME --format=openssh' and set \
                     HostCertificate in the target's sshd_config",
                );
            }
            _ => return None,
        };
        if text.contains("handshake failed: EOF") {
            return Some(
                "the target's sshd closed the connection at once; with many logins at a time its \
                 MaxStartups drops some, 'MaxStartups 50:30:100' lets more in",
            );
        }
        if text.contains("expected a host certificate") {
            return Some(
                "make a host certificate with 'tctl auth sign --host=NAME --format=openssh' and set \
                 HostCertificate in the target's sshd_config",
            );
        }
        None
    }
}
