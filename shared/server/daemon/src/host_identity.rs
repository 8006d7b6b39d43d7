//! The identity of a service that runs apart from the auth service: got with a token at the first start, kept in the
//! data directory, renewed while it runs. With it, no token is needed again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use server_core::host::HostKeys;
use shared_api::client::{Confirm, Timeouts, UnverifiedCa, fetch_authorities};
use shared_api::{
    Client, ClientConfig, ClientError, ClientIdentity, JoinReply, JoinRequest, RenewRequest, Route,
    Secret,
};
use shared_config::{JoinToken, TeleportConfig};
use shared_pki::{KeyPair, PkiError, TlsKey, TrustedAuthority};
use shared_types::{HostId, SystemRole};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::data_dir::{DataDirError, write_secret};

/// Largest file of tokens or pins.
const LARGEST_FILE: u64 = 64 * 1024;
/// How long to wait before asking an auth service that is away again.
const RETRY: Duration = Duration::from_secs(1);
/// How often certificates are renewed.
const RENEW: Duration = Duration::from_secs(24 * 3600);
/// How long a renewal at the start is waited for, and how soon one that failed is tried again.
const RENEW_WAIT: Duration = Duration::from_secs(5);
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Why a service has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// No token, and none of the kept identities is valid.
    #[error(
        "this {0} has not joined a cluster yet, and neither teleport.auth_token nor teleport.join_params is set"
    )]
    NoToken(SystemRole),
    /// No address.
    #[error("neither teleport.auth_server nor teleport.proxy_server is set")]
    NoAddress,
    /// A proxy is the way to the auth service, and does not go through another one.
    #[error("a proxy joins through teleport.auth_server, not through teleport.proxy_server")]
    ProxyThroughProxy,
    /// The file of the token or of a pin.
    #[error("read {what} {path}")]
    File {
        /// What it holds.
        what: &'static str,
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

impl JoinError {
    /// What to do about it, where that is plain.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoToken(role) => {
                let role = role.as_str().to_ascii_lowercase();
                Some(format!(
                    "make a token with: tctl tokens add --type={role}; then set teleport.auth_token to it or to its file"
                ))
            }
            Self::Join { source, .. } => Some(source.hint().map_or_else(
                || {
                    "check the address, teleport.ca_pin and the token; tctl status shows the pin"
                        .to_owned()
                },
                str::to_owned,
            )),
            _ => None,
        }
    }
}

/// Certificates and keys of one service of this host, as its file holds them.
#[derive(Serialize, Deserialize)]
struct HostIdentity {
    cert_pem: String,
    key_pem: Secret,
    /// The SSH host certificate, OpenSSH text; empty in the file of a proxy that joined before it was kept.
    #[serde(default)]
    ssh_cert: String,
    #[serde(default = "no_secret")]
    ssh_key_pem: Secret,
    authorities: Vec<TrustedAuthority>,
    valid_until: DateTime<Utc>,
}

fn no_secret() -> Secret {
    Secret::new("")
}

/// Keys that a service asks certificates for, kept until it has them: the auth service gives an id that is in use only to
/// who asks with the same keys, and an answer may be lost.
#[derive(Serialize, Deserialize)]
struct Asking {
    tls_key_pem: Secret,
    ssh_key_pem: Secret,
}

impl Asking {
    fn new() -> Result<Self, PkiError> {
        Ok(Self {
            tls_key_pem: Secret::from(TlsKey::generate()?.to_pem()),
            ssh_key_pem: Secret::from(KeyPair::generate()?.to_openssh_private_pem()?),
        })
    }

    fn keys(&self) -> Result<(KeyPair, TlsKey), PkiError> {
        Ok((
            KeyPair::from_openssh_pem(self.ssh_key_pem.expose())?,
            TlsKey::from_pem(self.tls_key_pem.expose())?,
        ))
    }
}

/// Who asks, and where.
pub(crate) struct Joiner {
    pub(crate) data_dir: PathBuf,
    pub(crate) host_id: HostId,
    pub(crate) node_name: String,
    /// What it joins as; the token must be for it.
    pub(crate) role: SystemRole,
    /// Further names users know this host by.
    pub(crate) names: Vec<String>,
    /// Of a proxy: `host:port` of the web port.
    pub(crate) public_addr: Option<String>,
    pub(crate) route: Route,
    pub(crate) ca_pins: Vec<String>,
    pub(crate) token: Option<JoinToken>,
}

/// The way to the auth service that the configuration names, for a service of this role.
pub(crate) fn route(config: &TeleportConfig, role: SystemRole) -> Result<Route, JoinError> {
    match (config.auth_servers.first(), &config.proxy_server) {
        (Some(addr), _) => Ok(Route::Direct { addr: addr.clone() }),
        (None, Some(_)) if role == SystemRole::Proxy => Err(JoinError::ProxyThroughProxy),
        (None, Some(addr)) => Ok(Route::Proxy { addr: addr.clone(), cluster: None }),
        (None, None) => Err(JoinError::NoAddress),
    }
}

/// A service that has joined.
pub(crate) struct Member {
    joiner: Joiner,
    client: Client,
    keys: watch::Sender<Arc<HostKeys>>,
}

impl Joiner {
    /// Takes the kept identity, or joins with the token. Waits for an auth service that is away.
    pub(crate) async fn member(self) -> Result<Arc<Member>, JoinError> {
        let identity = match self.read::<HostIdentity>(&Self::file(self.role))? {
            Some(kept) if kept.valid_until > Utc::now() && kept.is_whole(self.role) => kept,
            _ => self.join().await?,
        };
        let config = ClientConfig::new(
            self.route.clone(),
            identity.authorities.clone(),
            Some(identity.client()),
        );
        let client = Client::new(config).map_err(|source| self.fault(source))?;
        let keys = watch::Sender::new(Arc::new(identity.keys()));
        Ok(Arc::new(Member { joiner: self, client, keys }))
    }

    fn fault(&self, source: ClientError) -> JoinError {
        JoinError::Join { addr: self.route.addr().to_owned(), source }
    }

    async fn join(&self) -> Result<HostIdentity, JoinError> {
        let token = self.token()?;
        let asking = match self.read::<Asking>(&self.asking_file())? {
            Some(asking) => asking,
            None => {
                let asking = Asking::new()?;
                self.write(&self.asking_file(), &asking)?;
                asking
            }
        };
        let mut away = false;
        loop {
            match self.try_join(&token, &asking).await {
                Ok(identity) => {
                    // What is left of it is used for nothing any more.
                    let _ = std::fs::remove_file(self.data_dir.join(self.asking_file()));
                    return Ok(identity);
                }
                Err(JoinError::Join { source, addr }) if source.is_transient() => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(
                            addr,
                            error = &source as &dyn std::error::Error,
                            "auth service cannot be reached, trying on"
                        );
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_join(&self, token: &Secret, asking: &Asking) -> Result<HostIdentity, JoinError> {
        let mut accept = |ca: &UnverifiedCa| {
            tracing::warn!(cluster = %ca.cluster, pins = ca.pins.join(","), "no ca_pin is configured, this host CA is believed");
            true
        };
        let pins = read_pins(&self.ca_pins)?;
        let confirm =
            if pins.is_empty() { Confirm::Ask(&mut accept) } else { Confirm::Pins(&pins) };
        let trusted = fetch_authorities(&self.route, Timeouts::default(), confirm)
            .await
            .map_err(|source| self.fault(source))?;
        let config = ClientConfig::new(self.route.clone(), trusted.authorities, self.holder()?);
        let client = Client::new(config).map_err(|source| self.fault(source))?;
        let (ssh, tls) = asking.keys()?;
        let ask = JoinRequest {
            token: token.clone(),
            host_id: self.host_id,
            node_name: self.node_name.clone(),
            role: self.role,
            ssh_public_key: ssh.public_openssh(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: self.names.clone(),
            public_addr: self.public_addr.clone(),
        };
        let reply = client.join(&ask).await.map_err(|source| self.fault(source))?;
        tracing::info!(cluster = %reply.cluster, role = %self.role, "joined the cluster");
        let identity = HostIdentity::new(reply, &tls, &ssh)?;
        self.keep(&identity)?;
        Ok(identity)
    }

    fn token(&self) -> Result<Secret, JoinError> {
        match self.token.as_ref().ok_or(JoinError::NoToken(self.role))? {
            JoinToken::Value(token) => Ok(Secret::new(token.clone())),
            JoinToken::File(path) => {
                let what = "join token";
                let fault = |source| JoinError::File { what, path: path.clone(), source };
                let first = read_tokens(path).map_err(fault)?.into_iter().next();
                first.ok_or(JoinError::NoToken(self.role))
            }
        }
    }

    /// Each role of a host has a file of its own.
    fn file(role: SystemRole) -> String {
        format!("{}-identity.json", role.as_str().to_ascii_lowercase())
    }

    fn asking_file(&self) -> String {
        format!("{}-joining.json", self.role.as_str().to_ascii_lowercase())
    }

    /// The certificate of another role of this host, which shows that the host id is ours.
    fn holder(&self) -> Result<Option<ClientIdentity>, JoinError> {
        for role in SystemRole::ALL.into_iter().filter(|role| *role != self.role) {
            let other = self.read::<HostIdentity>(&Self::file(role))?;
            if let Some(other) = other.filter(|other| other.valid_until > Utc::now()) {
                return Ok(Some(other.client()));
            }
        }
        Ok(None)
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, JoinError> {
        let path = self.data_dir.join(file);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| JoinError::Content { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io { step: "read", path, source }.into()),
        }
    }

    fn write(&self, file: &str, value: &impl Serialize) -> Result<(), JoinError> {
        let path = self.data_dir.join(file);
        let text =
            serde_json::to_vec(value).map_err(|source| JoinError::Content { path, source })?;
        Ok(write_secret(&self.data_dir, file, &text)?)
    }

    fn keep(&self, identity: &HostIdentity) -> Result<(), JoinError> {
        self.write(&Self::file(self.role), identity)
    }
}

impl Member {
    /// Asks the auth service as this service, with the certificate of now.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Keys and certificates of now, and after each renewal.
    pub(crate) fn keys(&self) -> watch::Receiver<Arc<HostKeys>> {
        self.keys.subscribe()
    }

    /// Gets new certificates with those in hand, and keeps them.
    pub(crate) async fn renew(&self) -> Result<(), JoinError> {
        let joiner = &self.joiner;
        let (ssh, tls) = (KeyPair::generate()?, TlsKey::generate()?);
        let ask = RenewRequest {
            node_name: joiner.node_name.clone(),
            ssh_public_key: ssh.public_openssh(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: joiner.names.clone(),
            public_addr: joiner.public_addr.clone(),
        };
        let reply = self.client.renew(&ask).await.map_err(|source| joiner.fault(source))?;
        let identity = HostIdentity::new(reply, &tls, &ssh)?;
        joiner.keep(&identity)?;
        let shown = identity.client();
        let replaced = self.client.replace(&identity.authorities, Some(&shown)).await;
        replaced.map_err(|source| joiner.fault(source))?;
        self.keys.send_replace(Arc::new(identity.keys()));
        Ok(())
    }

    /// Renews at the start, so that names and addresses are those of the configuration now, and then every day until
    /// `stop`. Comes back after the first renewal, or when it takes too long; the certificates in hand do until then.
    pub(crate) async fn keep_renewed(self: &Arc<Self>, stop: &CancellationToken) {
        let first = tokio::time::timeout(RENEW_WAIT, self.renew()).await;
        let mut renewed = matches!(first, Ok(Ok(())));
        if !renewed {
            tracing::warn!("could not renew certificates, those in hand stay");
        }
        let (member, stop) = (Arc::clone(self), stop.clone());
        tokio::spawn(async move {
            loop {
                let wait = tokio::time::sleep(if renewed { RENEW } else { RENEW_AGAIN });
                if stop.run_until_cancelled(wait).await.is_none() {
                    return;
                }
                let again = member.renew().await;
                if let (Err(error), true) = (&again, renewed) {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "could not renew certificates, those in hand stay"
                    );
                }
                renewed = again.is_ok();
            }
        });
    }
}

impl HostIdentity {
    fn new(reply: JoinReply, tls: &TlsKey, ssh: &KeyPair) -> Result<Self, PkiError> {
        Ok(Self {
            cert_pem: reply.tls_cert,
            key_pem: Secret::from(tls.to_pem()),
            ssh_cert: reply.ssh_cert,
            ssh_key_pem: Secret::from(ssh.to_openssh_private_pem()?),
            authorities: reply.authorities,
            valid_until: reply.valid_until,
        })
    }

    /// Whether a service of this role can do with it. Only a node shows an SSH host key of its own.
    fn is_whole(&self, role: SystemRole) -> bool {
        role != SystemRole::Node || !self.ssh_cert.is_empty()
    }

    /// Certificate and key for TLS, both sides of a connection.
    fn client(&self) -> ClientIdentity {
        ClientIdentity {
            cert_pem: self.cert_pem.clone(),
            key_pem: self.key_pem.expose().to_owned().into(),
        }
    }

    fn keys(&self) -> HostKeys {
        HostKeys {
            tls_cert_pem: self.cert_pem.clone(),
            tls_key_pem: self.key_pem.expose().to_owned().into(),
            ssh_cert: self.ssh_cert.clone(),
            ssh_key_pem: self.ssh_key_pem.expose().to_owned().into(),
            valid_until: self.valid_until,
        }
    }
}

/// The pins, those in files read.
pub(crate) fn read_pins(ca_pins: &[String]) -> Result<Vec<String>, JoinError> {
    let mut pins = Vec::new();
    for pin in ca_pins {
        if !pin.starts_with('/') {
            pins.push(pin.clone());
            continue;
        }
        let path = PathBuf::from(pin);
        let fault = |source| JoinError::File { what: "CA pin", path: path.clone(), source };
        let read = read_tokens(&path).map_err(fault)?;
        pins.extend(read.iter().map(|pin| pin.expose().to_owned()));
    }
    Ok(pins)
}

/// The tokens or pins in a file, one per line; at least one.
pub(crate) fn read_tokens(path: &Path) -> std::io::Result<Vec<Secret>> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(LARGEST_FILE).read_to_string(&mut text)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<Secret> = lines.map(Secret::new).collect();
    if tokens.is_empty() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file holds nothing"));
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
