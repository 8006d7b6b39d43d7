//! The client's handshake: it is greeted, says who it is, and is let in without a password.

use server_core::tunnel::BoxedStream;
use shared_wire::mysql::{Greeting, HEADER, Login, ssl_request};
use tokio::io::AsyncWriteExt as _;

use super::{known, packets};
use crate::engine::EngineError;
use crate::relay::Malformed;
use crate::session::Session;

/// As much of a packet that cannot be read is kept.
const KEPT: usize = 4096;
/// A client that calls itself so wants to read, before it is let in, that its answer to the challenge was right.
const CACHING: &str = "caching_sha2_password";
/// That it was.
const CACHED: &[u8] = &[1, 3];

/// Who a client is.
#[derive(Debug)]
pub(super) struct Hello {
    /// As whom it comes, to which database: what it says, else what its certificate says. Of its capabilities those
    /// that it was offered.
    pub(super) login: Login,
    /// Number of the packet that answers it.
    pub(super) next: u8,
}

/// Greets a client, where a proxy has not done so, and reads its login.
pub(super) async fn greet(
    client: &mut BoxedStream,
    session: &Session,
) -> Result<Hello, EngineError> {
    let offered = match session.greeted() {
        Some(packet) => {
            let payload = packet.get(HEADER..).unwrap_or_default();
            Greeting::parse(payload).map_err(|error| malformed(&error, payload))?.capabilities
        }
        None => {
            let greeting = known::greeting(session.database(), rand::random(), rand::random());
            client.write_all(&greeting.packet()).await.map_err(EngineError::Client)?;
            client.flush().await.map_err(EngineError::Client)?;
            greeting.capabilities
        }
    };
    let (sequence, payload) = packets::read(client, EngineError::Client).await?;
    if ssl_request(&payload).map_err(|error| malformed(&error, &payload))? {
        let why = "TLS inside the tunnel is not offered: connect without it";
        return Err(EngineError::NotPassedOn(why.to_owned()));
    }
    let mut login = Login::parse(&payload).map_err(|error| malformed(&error, &payload))?;
    login.capabilities &= offered;
    let route = session.route();
    if login.user.is_empty() {
        login.user.clone_from(&route.user);
    }
    if login.database.is_empty() {
        login.database.clone_from(&route.name);
    }
    if login.user.is_empty() {
        return Err(EngineError::NotPassedOn("user name must not be empty".to_owned()));
    }
    Ok(Hello { login, next: sequence.wrapping_add(1) })
}

fn malformed(error: &dyn std::error::Error, payload: &[u8]) -> EngineError {
    let kept = payload.get(..payload.len().min(KEPT)).unwrap_or_default();
    Malformed { what: error.to_string(), payload: kept.to_vec() }.into()
}

/// Passes on what the server said to the login.
pub(super) async fn answer(
    client: &mut BoxedStream,
    next: u8,
    login: &Login,
    payload: &[u8],
    welcome: bool,
) -> Result<(), EngineError> {
    let mut next = next;
    if welcome && login.plugin == CACHING && !login.auth.is_empty() {
        packets::write(client, next, CACHED).await.map_err(EngineError::Client)?;
        next = next.wrapping_add(1);
    }
    packets::write(client, next, payload).await.map_err(EngineError::Client)
}
