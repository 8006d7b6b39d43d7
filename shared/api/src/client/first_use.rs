//! The first contact with a cluster, before its host CA is known.
//!
//! The first connection believes anybody, sends nothing secret, and is used for one thing: to see which host CA is
//! claimed. That is compared with pins, or shown to the user. Only what is then read again over a connection checked
//! against that CA is returned: a stranger who shows the right CA, which is public, gains nothing.

use shared_pki::{CaKind, CaPin, TrustedAuthority};
use shared_transport::tls;
use shared_types::ClusterName;

use super::{Client, ClientConfig, ClientError, Route, Timeouts, conn};
use crate::AuthoritiesReply;

/// A host CA nobody vouched for yet.
#[derive(Debug, Clone)]
pub struct UnverifiedCa {
    /// The cluster it claims to be of.
    pub cluster: ClusterName,
    /// Its pins, `sha256:…`.
    pub pins: Vec<String>,
}

/// How to decide about it.
pub enum Confirm<'a> {
    /// One of these pins must match; `sha256:…`.
    Pins(&'a [String]),
    /// The callback decides, usually by asking the user.
    Ask(&'a mut (dyn FnMut(&UnverifiedCa) -> bool + Send)),
}

/// The cluster's authorities, from the auth service whose host CA was confirmed.
pub async fn fetch_authorities(
    route: &Route,
    timeouts: Timeouts,
    confirm: Confirm<'_>,
) -> Result<AuthoritiesReply, ClientError> {
    let mut config = tls::accept_any_certificate();
    conn::offer(&mut config, route);
    let claimed = Client::with_tls(route.clone(), timeouts, config).authorities().await?;
    let confirmed = choose(&claimed, confirm)?;
    let config = ClientConfig { timeouts, ..ClientConfig::new(route.clone(), confirmed, None) };
    Client::new(config)?.authorities().await
}

/// The claimed host CA, cut down to the certificates that were confirmed.
fn choose(
    claimed: &AuthoritiesReply,
    confirm: Confirm<'_>,
) -> Result<Vec<TrustedAuthority>, ClientError> {
    let mut host: Vec<TrustedAuthority> =
        claimed.authorities.iter().filter(|ca| ca.kind == CaKind::Host).cloned().collect();
    let found: Vec<String> =
        host.iter().flat_map(TrustedAuthority::pins).map(|pin| pin.to_string()).collect();
    if found.is_empty() {
        return Err(ClientError::Authority("the server names no host CA".to_owned()));
    }
    match confirm {
        Confirm::Pins(given) => {
            let given = given
                .iter()
                .map(|pin| pin.parse())
                .collect::<Result<Vec<CaPin>, _>>()
                .map_err(|_| ClientError::BadPin)?;
            for ca in &mut host {
                let pinned = |pem: &String| {
                    let der = tls::certs_from_pem(pem.as_bytes())
                        .ok()
                        .and_then(|certs| certs.into_iter().next());
                    der.and_then(|der| CaPin::of(&der).ok()).is_some_and(|pin| given.contains(&pin))
                };
                ca.tls_certs.retain(pinned);
            }
            host.retain(|ca| !ca.tls_certs.is_empty());
            if host.is_empty() { Err(ClientError::PinMismatch { found }) } else { Ok(host) }
        }
        Confirm::Ask(ask) => {
            let ca = UnverifiedCa { cluster: claimed.cluster.clone(), pins: found };
            if ask(&ca) { Ok(host) } else { Err(ClientError::NotAccepted) }
        }
    }
}
