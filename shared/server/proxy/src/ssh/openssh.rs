//! Registered servers without an agent: dialled at their address, and logged in on with a key of the proxy's own.
//!
//! What must stay true: the key is made for one connection, stays in memory and is forgotten with it; its certificate
//! is asked for after the server has proved who it is, by showing the user's certificate to the auth service, which
//! decides anew; the user's agent hears nothing of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared_api::OpensshUserRequest;
use shared_authz::address::classify;
use shared_pki::KeyPair;
use shared_pki::ssh_key::{Certificate, PrivateKey};
use shared_types::resource::host_of;
use shared_types::{Login, Node};
use tokio::net::TcpStream;

use super::visit::Visit;
use super::{network, reach};

/// How long the auth service may take to sign.
const SIGN: Duration = Duration::from_secs(10);
/// What the user reads where it did not; why stands in the event.
const NO_CERTIFICATE: &str = "the proxy could not get a certificate for this server";

/// A connection to a registered server.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
}

/// Connects to the address a server is registered with. A name of it must not lead to this very machine nor to the
/// cluster itself: whoever may register a server could have the proxy speak to what listens only there.
pub(super) async fn dial(visit: &Visit, node: &Node, limit: Duration) -> Result<Reached, String> {
    let addr = &node.spec.addr;
    let host = host_of(addr);
    let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.ok_or_else(|| format!("{addr} has no port"))?;
    let found =
        network::resolve(host, port).await.map_err(|err| format!("look up {host}: {err}"))?;
    let literal = host.parse::<IpAddr>().is_ok();
    let mut why = format!("{host} has no address");
    for addr in found {
        if visit.proxy.is_own(addr) {
            why = format!("{addr} is the cluster's own");
        } else if !literal && classify(addr.ip()).needs_literal() {
            let class = classify(addr.ip());
            why =
                format!("{host} leads to {}, a {class} address; register it by address", addr.ip());
        } else {
            match reach::connect(addr, limit).await {
                Ok(stream) => return Ok(Reached { stream, addr }),
                Err(err) => why = format!("connect to {addr}: {err}"),
            }
        }
    }
    Err(why)
}

/// The address that a server is sure to see a connection come from: one that nothing on the way translates.
pub(super) fn source(stream: &TcpStream) -> Option<IpAddr> {
    let (near, far) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    untranslated(near.ip().to_canonical(), far.ip().to_canonical())
        .then(|| near.ip().to_canonical())
}

fn untranslated(near: IpAddr, far: IpAddr) -> bool {
    match near {
        near if near.is_loopback() => far.is_loopback(),
        IpAddr::V4(near) => {
            let [first, second, ..] = near.octets();
            let shared = first == 100 && (64..128).contains(&second);
            !(near.is_private() || near.is_link_local() || near.is_unspecified() || shared)
        }
        // 2000::/3, the global unicast addresses.
        IpAddr::V6(near) => near.segments().first().is_some_and(|first| first >> 13 == 1),
    }
}

impl Visit {
    /// Keeps the certificate that got the user in.
    pub(super) fn showed(&self, certificate: &Certificate) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(certificate.clone()));
    }

    /// A key for one login on the node of this visit, and its certificate. The error is a text for the client, and one
    /// for the event.
    pub(super) async fn openssh_key(
        &self,
        login: &str,
        source: Option<IpAddr>,
    ) -> Result<(Arc<PrivateKey>, Certificate), KeyError> {
        let key = KeyPair::generate().map_err(|err| KeyError::inner(&err))?;
        let request = self.openssh_request(login, source, &key).ok_or_else(|| KeyError {
            text: NO_CERTIFICATE.to_owned(),
            why: "the user's certificate is not at hand".to_owned(),
        })?;
        let asked = self.proxy.authority.sign_openssh_user(request);
        let line = match tokio::time::timeout(SIGN, asked).await {
            Ok(Ok(line)) => line,
            Ok(Err(err)) => return Err(KeyError::inner(&err)),
            Err(_) => {
                let why = "auth service did not sign in time".to_owned();
                return Err(KeyError { text: NO_CERTIFICATE.to_owned(), why });
            }
        };
        let certificate =
            shared_pki::parse_certificate_line(&line).map_err(|err| KeyError::inner(&err))?;
        Ok((Arc::new(key.private().clone()), certificate))
    }

    fn openssh_request(
        &self,
        login: &str,
        source: Option<IpAddr>,
        key: &KeyPair,
    ) -> Option<OpensshUserRequest> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(OpensshUserRequest {
            certificate: shown.to_openssh().ok()?,
            client_ip: self.ends.peer.ip().to_canonical(),
            login: login.parse::<Login>().ok()?,
            node: self.node.as_ref()?.host_id()?,
            public_key: key.public_openssh(),
            source,
        })
    }
}

/// Why there is no key to log in with.
pub(super) struct KeyError {
    /// For the client.
    pub(super) text: String,
    /// For the log and the event.
    pub(super) why: String,
}

impl KeyError {
    fn inner(err: &dyn std::error::Error) -> Self {
        Self { text: NO_CERTIFICATE.to_owned(), why: server_core::chain(err) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_nothing_translates_are_sure() {
        let sure =
            |near: &str, far: &str| untranslated(near.parse().unwrap(), far.parse().unwrap());
        assert!(sure("127.0.0.1", "127.0.0.1") && sure("203.0.113.7", "10.0.0.1"));
        assert!(sure("2001:db8::1", "2001:db8::2"));
        for near in
            ["10.0.0.1", "172.17.0.2", "192.168.1.2", "100.64.0.1", "169.254.1.1", "fd00::1"]
        {
            assert!(!sure(near, "10.0.0.9"), "{near}");
        }
        assert!(!sure("127.0.0.1", "10.0.0.9"));
    }
}
