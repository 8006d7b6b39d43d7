//! What is asked of the cluster: to join, to renew, to be registered, and which authority to trust.

use shared_api::client::{Confirm, Timeouts, UnverifiedCa, fetch_authorities};
use shared_api::{
    Client, ClientConfig, ClientError, JoinReply, JoinRequest, RenewRequest, Route, Secret,
};
use shared_pki::{CaKind, PkiError, TlsKey, TrustedAuthority};
use shared_types::{HostId, Node, SystemRole};

use super::kept::{Identity, Kept, KeptError};

/// The authority whose certificates the proxy logs in with.
const OPENSSH: &str = "openssh";

/// Why the cluster did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// It cannot be reached, or said no.
    #[error("{what} at {addr}")]
    Api {
        what: &'static str,
        addr: String,
        #[source]
        source: Box<ClientError>,
    },
    /// A key cannot be made.
    #[error("make keys")]
    Keys(#[from] PkiError),
    /// What it says of its authority is not readable.
    #[error("the cluster's {0} authority is not readable")]
    Authority(CaKind),
    /// What was got cannot be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
}

impl ClusterError {
    /// What to do about it, where that is plain.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Api { source, .. } => source.hint().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether another way of asking cannot help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.is_transient())
    }
}

/// Who asks for certificates, and for what.
pub(super) struct Wish<'a> {
    pub(super) host_id: HostId,
    pub(super) node_name: &'a str,
    pub(super) names: &'a [String],
    /// sshd's host key, one line.
    pub(super) host_key: &'a str,
}

/// The way to the cluster.
pub(super) struct Cluster {
    route: Route,
}

impl Cluster {
    pub(super) fn new(proxy_server: &str) -> Self {
        Self { route: Route::Proxy { addr: proxy_server.to_owned(), cluster: None } }
    }

    fn fault(&self, what: &'static str) -> impl Fn(ClientError) -> ClusterError {
        let addr = self.route.addr().to_owned();
        move |source| ClusterError::Api { what, addr: addr.clone(), source: Box::new(source) }
    }

    fn client(&self, identity: &Identity) -> Result<Client, ClusterError> {
        let (route, shown) = (self.route.clone(), Some(identity.client()));
        let config = ClientConfig::new(route, identity.authorities.clone(), shown);
        Client::new(config).map_err(self.fault("connect"))
    }

    /// Joins with a token. Gives the SSH host certificate; the identity is kept.
    pub(super) async fn join(
        &self,
        kept: &Kept,
        wish: &Wish<'_>,
        token: &Secret,
        pins: &[String],
    ) -> Result<(Identity, String), ClusterError> {
        let mut accept = |ca: &UnverifiedCa| {
            eprintln!(
                "no --ca-pin was given: the host CA {} of cluster {} is believed",
                ca.pins.join(","),
                ca.cluster
            );
            true
        };
        let confirm = match pins {
            [] => Confirm::Ask(&mut accept),
            pins => Confirm::Pins(pins),
        };
        let trusted = fetch_authorities(&self.route, Timeouts::default(), confirm)
            .await
            .map_err(self.fault("join the cluster"))?;
        let config = ClientConfig::new(self.route.clone(), trusted.authorities, None);
        let client = Client::new(config).map_err(self.fault("connect"))?;
        // An answer may get lost; the cluster gives this host's id once more to who asks with the same keys.
        let tls = match kept.asking()? {
            Some(key) => TlsKey::from_pem(key.expose())?,
            None => TlsKey::generate()?,
        };
        kept.keep_asking(&Secret::from(tls.to_pem()))?;
        let ask = JoinRequest {
            token: token.clone(),
            host_id: wish.host_id,
            node_name: wish.node_name.to_owned(),
            role: SystemRole::Node,
            ssh_public_key: wish.host_key.to_owned(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: wish.names.to_vec(),
            public_addr: None,
        };
        let reply = client.join(&ask).await.map_err(self.fault("join the cluster"))?;
        arrived(kept, reply, &tls)
    }

    /// New certificates by those in hand.
    pub(super) async fn renew(
        &self,
        kept: &Kept,
        identity: &Identity,
        wish: &Wish<'_>,
    ) -> Result<(Identity, String), ClusterError> {
        let tls = TlsKey::generate()?;
        let ask = RenewRequest {
            node_name: wish.node_name.to_owned(),
            ssh_public_key: wish.host_key.to_owned(),
            tls_public_key: tls.public().to_pem(),
            additional_principals: wish.names.to_vec(),
            public_addr: None,
        };
        let client = self.client(identity)?;
        let reply = client.renew(&ask).await.map_err(self.fault("renew the certificates"))?;
        arrived(kept, reply, &tls)
    }

    /// What `TrustedUserCAKeys` has to hold: the openssh authority, and with `users` that of users too.
    pub(super) async fn user_ca(
        &self,
        identity: &Identity,
        users: bool,
    ) -> Result<String, ClusterError> {
        let asked = self.client(identity)?.export_authority(Some(OPENSSH)).await;
        let text = asked.map_err(self.fault("read the openssh authority"))?;
        let openssh = TrustedAuthority::from_authorized_lines(CaKind::Openssh, &text)
            .map_err(|_| ClusterError::Authority(CaKind::Openssh))?;
        let of_users = || identity.authorities.iter().find(|ca| ca.kind == CaKind::User);
        let mut all = vec![&openssh];
        if users {
            all.push(of_users().ok_or(ClusterError::Authority(CaKind::User))?);
        }
        Ok(all.into_iter().map(key_lines).collect())
    }

    /// Registers this host, or brings what is registered up to date.
    pub(super) async fn register(
        &self,
        identity: &Identity,
        node: &Node,
    ) -> Result<(), ClusterError> {
        let done = self.client(identity)?.heartbeat(node).await;
        done.map(drop).map_err(self.fault("register this host"))
    }

    /// Takes the registration back.
    pub(super) async fn withdraw(&self, identity: &Identity) -> Result<(), ClusterError> {
        let done = self.client(identity)?.withdraw().await;
        done.map_err(self.fault("take back the registration"))
    }
}

fn arrived(
    kept: &Kept,
    reply: JoinReply,
    tls: &TlsKey,
) -> Result<(Identity, String), ClusterError> {
    let identity = Identity {
        cert_pem: reply.tls_cert,
        key_pem: Secret::from(tls.to_pem()),
        authorities: reply.authorities,
        valid_until: reply.valid_until,
    };
    kept.keep_identity(&identity)?;
    Ok((identity, format!("{}\n", reply.ssh_cert.trim_end())))
}

/// As `TrustedUserCAKeys` takes it: without the word in front.
fn key_lines(authority: &TrustedAuthority) -> String {
    let lines = authority.authorized_line();
    let lines = lines.lines().map(|line| line.strip_prefix("cert-authority ").unwrap_or(line));
    lines.map(|line| format!("{line}\n")).collect()
}
