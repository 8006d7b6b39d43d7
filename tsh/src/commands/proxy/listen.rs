//! `tsh proxy ssh --port`: an SSH server on this machine for clients that know no certificates.
//!
//! It speaks plain SSH with a password that is made for this run and shown once, because other users of this machine
//! reach its loopback addresses as well. Behind it each session has a login of its own on the server, with the user's
//! certificate. Nothing but loopback is listened on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use shared_cli::{CliError, ExitCode};
use shared_pki::KeyPair;
use shared_pki::TrustedAuthority;
use shared_pki::ssh_key::{Certificate, PublicKey};
use shared_pki::verify::{HostRole, SshVerifier};
use shared_ssh::relay::{
    Ended, ForwardTap, InnerService, Size, Start, Stream, Tap, Watch, serve_inner,
};
use shared_ssh::server::{AuthGate, local_server_config};
use shared_ssh::target::{HostCheck, Target, connect_with_key};
use shared_types::SessionId;
use tokio_util::sync::CancellationToken;

use crate::commands::ssh::connect::Way;
use crate::commands::ssh::destination::Destination;
use crate::context::Login;

/// How long a client may take to log in.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Listens until the user ends it.
pub(super) async fn run(
    way: Way,
    login: &Login,
    destination: Destination,
    port: u16,
    at: SocketAddr,
) -> Result<ExitCode, CliError> {
    let (listener, local) = local_proxy::bind(at).map_err(|error| CliError::from_error(&error))?;
    let key = KeyPair::generate().map_err(|error| CliError::wrap("make a host key", &error))?;
    let password = SessionId::random().to_string().replace('-', "");
    let fingerprint = key.fingerprint();
    let (ip, bound) = (local.ip(), local.port());
    if at.port() == 0 {
        println!(
            "To avoid port randomization, you can choose the listening port using the --port flag."
        );
    }
    println!("Started SSH server for {}@{} on {local}.", destination.login, destination.host);
    println!("Host key: {fingerprint}");
    println!("Password, for this run only: {password}");
    println!("  $ ssh -p {bound} {}@{ip}", destination.login);
    let config = local_server_config(key.private().clone());
    let local = Arc::new(Local {
        authorities: login.authorities.clone(),
        way,
        destination,
        port,
        password,
    });
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let stop = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        shared_transport::tune(&stream);
        let (local, config, stop) = (Arc::clone(&local), Arc::clone(&config), stop.child_token());
        tokio::spawn(async move {
            let _place = place;
            serve_inner(local, stream, config, PATIENCE, stop).await;
        });
    }
    stop.cancel();
    local.way.proxy.close().await;
    Ok(ExitCode::Done)
}

/// Everything behind the listener.
struct Local {
    way: Way,
    authorities: Vec<TrustedAuthority>,
    destination: Destination,
    port: u16,
    password: String,
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

#[async_trait]
impl AuthGate for Local {
    type Identity = ();

    async fn admit(&self, _login: &str, _certificate: &Certificate) -> Result<(), String> {
        Err("a certificate was shown, expected the password".to_owned())
    }

    async fn admit_password(&self, login: &str, password: &str) -> Result<(), String> {
        if !same(password, &self.password) {
            return Err("wrong password".to_owned());
        }
        match login == self.destination.login.as_str() {
            true => Ok(()),
            false => Err(format!("expected the login {}", self.destination.login)),
        }
    }
}

#[async_trait]
impl InnerService for Local {
    async fn connect(&self, _: &(), login: &str) -> Result<Arc<Target>, String> {
        let recording = self.way.recording_expected;
        self.way.agent.note_session();
        let opened = self.way.proxy.open_target(&self.destination.host, self.port, recording).await;
        let stream = opened.map_err(|error| error.to_string())?;
        let role = if recording { HostRole::Proxy } else { HostRole::Node };
        let host = Arc::new(Host {
            authorities: self.authorities.clone(),
            host: self.destination.host.to_string(),
            role,
        });
        let key = async || {
            let key = self.way.agent.key();
            Ok((Arc::clone(key.private_key()), key.certificate().clone()))
        };
        let target = connect_with_key(stream, login, host, key).await;
        target.map(Arc::new).map_err(|error| error.to_string())
    }

    async fn session(&self, _: &(), _login: &str) -> Result<Box<dyn Send>, String> {
        Ok(Box::new(()))
    }

    async fn tap(&self, _: &(), _login: &str, _target: &Arc<Target>) -> Arc<dyn Tap> {
        Arc::new(Unseen)
    }

    async fn forward(
        &self,
        _: &(),
        _login: &str,
        _to: (&str, u32),
    ) -> Result<Arc<dyn ForwardTap>, String> {
        // The server and the proxy decide.
        Ok(Arc::new(Unseen))
    }

    fn may_forward_agent(&self, _: &()) -> bool {
        false
    }

    async fn ended(&self, _: &(), _traffic: &(dyn Fn() -> u64 + Send + Sync)) -> String {
        // The proxy and the server end what has to end.
        std::future::pending().await
    }
}

/// The server, as it has to prove itself.
struct Host {
    authorities: Vec<TrustedAuthority>,
    host: String,
    role: HostRole,
}

impl HostCheck for Host {
    fn certificate(&self, certificate: &Certificate) -> Result<(), String> {
        SshVerifier::new(&self.authorities, Utc::now())
            .host(certificate, &self.host, self.role)
            .map(drop)
            .map_err(|refusal| refusal.to_string())
    }

    fn key(&self, _key: &PublicKey) -> Result<(), String> {
        Err("remote host presented a public key, expected a host certificate".to_owned())
    }
}

/// Nothing is kept here.
struct Unseen;

#[async_trait]
impl Tap for Unseen {
    async fn start(&self, _start: &Start) -> Result<Watch, String> {
        Ok(Watch::Nothing)
    }

    async fn output(&self, _stream: Stream, _data: &Bytes) -> Result<(), String> {
        Ok(())
    }

    async fn resize(&self, _size: Size) -> Result<(), String> {
        Ok(())
    }

    async fn end(&self, _ended: Ended) {}
}

#[async_trait]
impl ForwardTap for Unseen {
    async fn end(&self, _to_target: u64, _to_client: u64, _error: Option<String>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_compare_whole() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abcd", "abd"] {
            assert!(!same("abc", other));
        }
    }
}
