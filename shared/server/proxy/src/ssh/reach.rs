//! From a grant to a target that is connected, has proved who it is, and has let the user in.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::Utc;
use server_core::EventSink as _;
use shared_pki::TrustedAuthority;
use shared_pki::ssh_key::{Certificate, PublicKey};
use shared_pki::verify::{HostRole, SshVerifier};
use shared_ssh::target::{self, HostCheck, Target, TargetError, TargetOptions};
use shared_types::{Login, Node};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::access::{self, Dialled};
use super::visit::Visit;

/// What tells a user why a target closed the connection at once.
const EOF_HINT: &str =
    "the target closed the connection; its sshd may limit new ones, see MaxStartups in sshd_config";

/// A connection that is being made.
pub(super) type Ahead = JoinHandle<Result<Arc<Target>, String>>;

impl Visit {
    fn login(&self, login: &str) -> Result<Login, String> {
        login.parse().map_err(|_| "access denied".to_owned())
    }

    pub(super) async fn dial(&self, login: &str) -> Result<Dialled, String> {
        let login = self.login(login)?;
        match access::dial(self, &login).await {
            Ok(dialled) => Ok(dialled),
            Err(refusal) => {
                let (host, port) = (self.host(), self.port());
                tracing::info!(user = %self.identity.user, %login, %host, port, why = %refusal.why, "access refused");
                self.emit_refusal(login.as_ref(), &refusal.why).await;
                Err(refusal.text)
            }
        }
    }

    async fn emit_refusal(&self, login: &str, why: &str) {
        let event = self.party(login, None).refused(why);
        if let Err(err) = self.proxy.events.emit(vec![event]).await {
            tracing::error!(error = %err, "audit event is lost");
        }
    }

    /// Dials, checks the target, and logs in with the user's agent.
    pub(super) async fn reach(&self, login: &str) -> Result<Arc<Target>, String> {
        if let Some(node) = self.node.clone().filter(|node| node.is_openssh()) {
            return self.reach_openssh(login, &node).await;
        }
        if !self.agent.is_offered() {
            let text = "agent forwarding has not been requested; the proxy records this session and needs your agent \
                        (ssh -o ForwardAgent=yes for both hops)";
            self.emit_refusal(login, "agent forwarding has not been requested").await;
            return Err(text.to_owned());
        }
        let stream = self.dial(login).await?.stream;
        let state = self.proxy.authority.state();
        let (user, peer, authorities) =
            (self.identity.user.clone(), self.ends.peer.ip(), state.authorities.clone());
        let wanted = login.to_owned();
        let certificate = move |certificate: &Certificate| {
            SshVerifier::new(&authorities, Utc::now())
                .user(certificate, &wanted, Some(peer))
                .is_ok_and(|identity| identity.user == user)
        };
        let options = TargetOptions {
            login: login.to_owned(),
            host: Arc::new(self.target_host(&state)),
            certificate: Arc::new(certificate),
        };
        let agent = self.agent.clone();
        let connected = target::connect(stream, options, async move || agent.open().await).await;
        match connected {
            Ok(target) => Ok(Arc::new(target)),
            Err(err) => {
                self.emit_refusal(login, &err.to_string()).await;
                Err(client_text(&err))
            }
        }
    }

    /// Dials, checks the target, and logs in with a key that the auth service certifies for this login there.
    async fn reach_openssh(&self, login: &str, node: &Node) -> Result<Arc<Target>, String> {
        let Dialled { stream, source, .. } = self.dial(login).await?;
        let state = self.proxy.authority.state();
        let mut host = self.target_host(&state);
        host.names.extend([node.spec.hostname.clone(), node.name().to_owned()]);
        let mut why = None;
        let connected = target::connect_with_key(stream, login, Arc::new(host), async || {
            self.openssh_key(login, source).await.map_err(|err| {
                why = Some(err.why);
                err.text
            })
        })
        .await;
        match connected {
            Ok(target) => Ok(Arc::new(target)),
            Err(err) => {
                let text = client_text(&err);
                self.emit_refusal(login, &why.unwrap_or_else(|| err.to_string())).await;
                Err(text)
            }
        }
    }

    /// What the target has to prove. A node with an agent always has a certificate of the cluster, with its id.
    fn target_host(&self, state: &shared_api::ClusterState) -> TargetHost {
        let agent = self.node.as_deref().filter(|node| !node.is_openssh());
        TargetHost {
            authorities: state.authorities.clone(),
            names: vec![
                agent.map_or_else(|| self.host().to_string(), |node| node.name().to_owned()),
            ],
            checked: agent.is_some() || state.recording.spec.proxy_checks_host_keys,
        }
    }

    /// Takes the connection that was made ahead, where it is for this login and still there.
    pub(super) async fn reached_ahead(&self, login: &str) -> Option<Result<Arc<Target>, String>> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if login != self.outer_login {
            ahead.abort();
            return None;
        }
        match ahead.await {
            Ok(Ok(target)) if target.is_closed() => None,
            Ok(reached) => Some(reached),
            Err(_) => None,
        }
    }
}

/// What the client reads of a target that was not reached.
fn client_text(err: &TargetError) -> String {
    match err {
        TargetError::Eof => format!("{err} ({EOF_HINT})"),
        _ => err.to_string(),
    }
}

/// The host as the target has to prove it.
struct TargetHost {
    authorities: Vec<TrustedAuthority>,
    /// One of these has to stand in its certificate.
    names: Vec<String>,
    checked: bool,
}

impl HostCheck for TargetHost {
    fn certificate(&self, certificate: &Certificate) -> Result<(), String> {
        if !self.checked {
            return Ok(());
        }
        let verifier = SshVerifier::new(&self.authorities, Utc::now());
        let mut refused = None;
        for name in &self.names {
            match verifier.host(certificate, name, HostRole::Node) {
                Ok(_) => return Ok(()),
                Err(refusal) => drop(refused.get_or_insert(refusal)),
            }
        }
        Err(refused.map_or_else(|| "the host has no name".to_owned(), |why| why.to_string()))
    }

    fn key(&self, _key: &PublicKey) -> Result<(), String> {
        if self.checked {
            return Err(
                "remote host presented a public key, expected a host certificate".to_owned()
            );
        }
        Ok(())
    }
}

/// A connection to a target's address.
pub(super) async fn connect(addr: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)??;
    shared_transport::tune(&stream);
    Ok(stream)
}
