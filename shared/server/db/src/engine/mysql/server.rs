//! The way to the server: it greets, TLS is asked for and made, and the user logs in with a certificate and no
//! password.

use std::time::Duration;

use server_core::{DbAccess, Granted};
use shared_wire::mysql::{Greeting, GreetingError, Login, NATIVE, Reply, capability};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{known, packets};
use crate::connect::{Dialled, ServerStream};
use crate::engine::EngineError;
use crate::relay::Malformed;
use crate::session::Session;

/// What a server may take to greet.
const GREETING: Duration = Duration::from_secs(15);
/// What a server may take to let the user in.
const LOGIN: Duration = Duration::from_secs(60);
/// Packets of authentication, at most.
const STEPS: usize = 8;

/// Plugins that take an empty answer for an empty password.
const EMPTY: &[(&[u8], &[u8])] =
    &[(NATIVE.as_bytes(), b""), (b"caching_sha2_password", b"\0"), (b"sha256_password", b"\0")];

/// A connection behind its login.
pub(super) struct Opened {
    /// The connection.
    pub(super) stream: ServerStream,
    /// What both sides have agreed to.
    pub(super) capabilities: u64,
    /// What the server said to the login.
    pub(super) answer: Answer,
}

/// What a server said to a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// For the client, as it came.
    pub(super) payload: Vec<u8>,
    /// Why it does not let the user in, where it does not.
    pub(super) refused: Option<String>,
}

/// Dials the server and logs in there as the client does here.
pub(super) async fn connect(
    granted: Granted<DbAccess>,
    login: &Login,
    session: &Session,
) -> Result<Opened, EngineError> {
    let mut dialled = session.dial(granted).await?;
    let login = begin(&mut dialled, login, session).await?;
    let mut stream = session.secure(dialled).await?;
    let answer = tokio::time::timeout(LOGIN, log_in(&mut stream, &login));
    let answer = answer.await.unwrap_or(Err(EngineError::Slow("the database's login")))?;
    Ok(Opened { stream, capabilities: login.capabilities, answer })
}

/// Reads the greeting, and asks for TLS.
async fn begin(
    dialled: &mut Dialled,
    login: &Login,
    session: &Session,
) -> Result<Login, EngineError> {
    let stream = &mut dialled.stream;
    let greeting = tokio::time::timeout(GREETING, greeting(stream));
    let greeting = greeting.await.unwrap_or(Err(EngineError::Slow("the database's greeting")))?;
    known::remember(session.database(), &greeting);
    let login = agree(login, &greeting)?;
    packets::write(stream, 1, &login.ssl_request()).await.map_err(EngineError::Database)?;
    Ok(login)
}

async fn greeting<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Greeting, EngineError> {
    let (_, payload) = packets::read(stream, EngineError::Database).await?;
    Greeting::parse(&payload).map_err(|error| match error {
        GreetingError::Malformed(_) => {
            EngineError::DatabaseRefused("it does not speak MySQL's protocol".to_owned())
        }
        refused => EngineError::DatabaseRefused(refused.to_string()),
    })
}

/// The login as this server understands it.
fn agree(login: &Login, greeting: &Greeting) -> Result<Login, EngineError> {
    let theirs = greeting.capabilities;
    if theirs & capability::SSL == 0 {
        let why = "it does not offer TLS; set ssl_cert, ssl_key and ssl_ca in its configuration";
        return Err(EngineError::DatabaseRefused(why.to_owned()));
    }
    if login.capabilities & capability::NEGOTIATED & !theirs != 0 {
        // The client was greeted as the server before it would have.
        return Err(EngineError::DatabaseRefused(
            "it was replaced by another version; connect again".to_owned(),
        ));
    }
    Ok(Login {
        // Not what the client was asked: how the answer is written is up to this server.
        capabilities: login.capabilities & theirs | SHAPES & theirs,
        auth: Vec::new(),
        plugin: NATIVE.to_owned(),
        ..login.clone()
    })
}

/// Capabilities that only shape the login.
const SHAPES: u64 = capability::PROTOCOL_41
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::PLUGIN_AUTH_LENENC
    | capability::CONNECT_WITH_DB;

/// Logs in with the certificate that TLS was made with, and an empty password.
async fn log_in<S>(stream: &mut S, login: &Login) -> Result<Answer, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    packets::write(stream, 2, &login.payload()).await.map_err(EngineError::Database)?;
    for _ in 0..STEPS {
        let (sequence, payload) = packets::read(stream, EngineError::Database).await?;
        let reply = Reply::parse(&payload).map_err(|error| Malformed {
            what: format!("from the database: {error}"),
            payload: payload.clone(),
        })?;
        let said: &[u8] = match reply {
            Reply::Ok => return Ok(Answer { payload, refused: None }),
            Reply::Failed(failure) => {
                return Ok(Answer { refused: Some(failure.to_string()), payload });
            }
            Reply::More([3]) => continue,
            Reply::More(_) => return Err(wants_password("a password", login)),
            Reply::Switch { plugin, .. } => match EMPTY.iter().find(|(name, _)| *name == plugin) {
                Some((_, said)) => said,
                None => return Err(wants_password(&String::from_utf8_lossy(plugin), login)),
            },
        };
        packets::write(stream, sequence.wrapping_add(1), said)
            .await
            .map_err(EngineError::Database)?;
    }
    Err(EngineError::DatabaseRefused("its authentication does not end".to_owned()))
}

fn wants_password(what: &str, login: &Login) -> EngineError {
    let user = &login.user;
    EngineError::DatabaseRefused(format!(
        "it asks for {what}; let its user in by certificate alone: ALTER USER '{user}' REQUIRE SUBJECT '/CN={user}', \
         without a password"
    ))
}

#[cfg(test)]
mod tests;
