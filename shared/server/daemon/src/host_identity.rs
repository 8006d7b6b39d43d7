//! The identity of a proxy that runs apart from the auth service: got with a token at the first start, kept in the
//! data directory, renewed while it runs. With it, no token is needed again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_api::client::{Confirm, Timeouts, UnverifiedCa, fetch_authorities};
use shared_api::{
    Client, ClientConfig, ClientError, ClientIdentity, JoinReply, JoinRequest, RenewRequest, Route,
    Secret,
};
use shared_config::JoinToken;
use shared_pki::{KeyPair, PkiError, TlsKey, TrustedAuthority};
use shared_types::{HostId, SystemRole};
use zeroize::Zeroizing;

use crate::data_dir::{DataDirError, write_secret};

/// The file in the data directory.
const FILE: &str = "proxy-identity.json";
/// Largest token file.
const LARGEST_TOKENS: u64 = 64 * 1024;
/// How long to wait before asking an auth service that is away again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a proxy has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// No token, and none of the kept identities is valid.
    #[error("this proxy has not joined a cluster yet, and teleport.auth_token is not set")]
    NoToken,
    /// No address.
    #[error("teleport.auth_server is not set")]
    NoAuthServer,
    /// The token's file.
    #[error("read join token {path}")]
    TokenFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The auth service cannot be trusted or did not let us in.
    #[error("join the cluster at {addr}")]
    Join {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// A key cannot be made.
    #[error("make keys")]
    Keys(#[from] PkiError),
    /// The identity cannot be kept.
    #[error(transparent)]
    Keep(#[from] DataDirError),
    /// The file holds something else.
    #[error("{path} holds no identity")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct HostIdentity {
    cert_pem: String,
    key_pem: Secret,
    authorities: Vec<TrustedAuthority>,
    valid_until: DateTime<Utc>,
}

/// Who asks, and where.
pub(crate) struct Joiner {
    pub(crate) data_dir: PathBuf,
    pub(crate) host_id: HostId,
    pub(crate) node_name: String,
    /// Further names users know this proxy by.
    pub(crate) names: Vec<String>,
    /// `host:port` of the web port.
    pub(crate) public_addr: Option<String>,
    pub(crate) auth_servers: Vec<String>,
    pub(crate) ca_pins: Vec<String>,
    pub(crate) token: Option<JoinToken>,
}

impl Joiner {
    /// The auth service's address.
    pub(crate) fn auth_addr(&self) -> Result<&str, JoinError> {
        self.auth_servers.first().map(String::as_str).ok_or(JoinError::NoAuthServer)
    }

    /// A client with a valid identity: the kept one, or a new one for the token. Waits for an auth service that is away.
    pub(crate) async fn client(&self) -> Result<Client, JoinError> {
        let addr = self.auth_addr()?.to_owned();
        let route = Route::Direct { addr: addr.clone() };
        let identity = match self.load()? {
            Some(kept) if kept.valid_until > Utc::now() => kept,
            _ => self.join(&addr, &route).await?,
        };
        let config =
            ClientConfig::new(route, identity.authorities.clone(), Some(identity.client()));
        Client::new(config).map_err(|source| JoinError::Join { addr, source })
    }

    /// Gets new certificates with those in hand, and keeps them.
    pub(crate) async fn renew(&self, client: &Client) -> Result<(), JoinError> {
        let addr = self.auth_addr()?.to_owned();
        let fault = |source| JoinError::Join { addr: addr.clone(), source };
        let (ssh, tls) = (KeyPair::generate()?, TlsKey::generate()?);
        let ask = RenewRequest {
            node_name: self.node_name.clone(),
            ssh_public_key: ssh.public_openssh(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: self.names.clone(),
            public_addr: self.public_addr.clone(),
        };
        let reply = client.renew(&ask).await.map_err(fault)?;
        let identity = HostIdentity::new(reply, &tls);
        self.keep(&identity)?;
        client.replace(&identity.authorities, Some(&identity.client())).await.map_err(fault)
    }

    async fn join(&self, addr: &str, route: &Route) -> Result<HostIdentity, JoinError> {
        let token = self.token()?;
        let mut away = false;
        loop {
            match self.try_join(route, &token).await {
                Ok(identity) => return Ok(identity),
                Err(JoinError::Join { source, .. }) if source.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(addr, error = %source, "auth service cannot be reached, trying on");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_join(&self, route: &Route, token: &Secret) -> Result<HostIdentity, JoinError> {
        let fault = |source| JoinError::Join { addr: route.addr().to_owned(), source };
        let mut accept = |ca: &UnverifiedCa| {
            tracing::warn!(cluster = %ca.cluster, pins = ca.pins.join(","), "no ca_pin is configured, this host CA is believed");
            true
        };
        let confirm = if self.ca_pins.is_empty() {
            Confirm::Ask(&mut accept)
        } else {
            Confirm::Pins(&self.ca_pins)
        };
        let trusted =
            fetch_authorities(route, Timeouts::default(), confirm).await.map_err(fault)?;
        let config = ClientConfig::new(route.clone(), trusted.authorities, None);
        let client = Client::new(config).map_err(fault)?;
        let (ssh, tls) = (KeyPair::generate()?, TlsKey::generate()?);
        let ask = JoinRequest {
            token: token.clone(),
            host_id: self.host_id,
            node_name: self.node_name.clone(),
            role: SystemRole::Proxy,
            ssh_public_key: ssh.public_openssh(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: self.names.clone(),
            public_addr: self.public_addr.clone(),
        };
        let reply = client.join(&ask).await.map_err(fault)?;
        tracing::info!(cluster = %reply.cluster, "joined the cluster");
        let identity = HostIdentity::new(reply, &tls);
        self.keep(&identity)?;
        Ok(identity)
    }

    fn token(&self) -> Result<Secret, JoinError> {
        match self.token.as_ref().ok_or(JoinError::NoToken)? {
            JoinToken::Value(token) => Ok(Secret::new(token.clone())),
            JoinToken::File(path) => {
                let fault = |source| JoinError::TokenFile { path: path.clone(), source };
                let first = read_tokens(path).map_err(fault)?.into_iter().next();
                first.ok_or(JoinError::NoToken)
            }
        }
    }

    fn load(&self) -> Result<Option<HostIdentity>, JoinError> {
        let path = self.data_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| JoinError::Content { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io { step: "read", path, source }.into()),
        }
    }

    fn keep(&self, identity: &HostIdentity) -> Result<(), JoinError> {
        let path = self.data_dir.join(FILE);
        let text =
            serde_json::to_vec(identity).map_err(|source| JoinError::Content { path, source })?;
        Ok(write_secret(&self.data_dir, FILE, &text)?)
    }
}

impl HostIdentity {
    fn new(reply: JoinReply, key: &TlsKey) -> Self {
        Self {
            cert_pem: reply.tls_cert,
            key_pem: Secret::from(key.to_pem()),
            authorities: reply.authorities,
            valid_until: reply.valid_until,
        }
    }

    fn client(&self) -> ClientIdentity {
        ClientIdentity {
            cert_pem: self.cert_pem.clone(),
            key_pem: self.key_pem.expose().to_owned().into(),
        }
    }
}

/// The tokens in a file, one per line; at least one.
pub(crate) fn read_tokens(path: &Path) -> std::io::Result<Vec<Secret>> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(LARGEST_TOKENS).read_to_string(&mut text)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<Secret> = lines.map(Secret::new).collect();
    if tokens.is_empty() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "the file holds no token",
        ));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_has_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one-token\n\n  another \n").unwrap();
        let tokens = read_tokens(&path).unwrap();
        assert_eq!(tokens.iter().map(Secret::expose).collect::<Vec<_>>(), ["one-token", "another"]);
        std::fs::write(&path, "\n").unwrap();
        assert!(read_tokens(&path).is_err());
    }
}
