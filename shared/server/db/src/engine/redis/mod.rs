//! Redis and Valkey.
//!
//! What must stay true: each command is in the audit log's queue before the server has all of it, and what is passed on
//! is read by the server as it was read here; a session is served as the database user it was opened for and as no
//! other ([`gate`]); passwords reach the server and nothing else.

mod gate;
mod lanes;
mod told;

use std::time::Duration;

use async_trait::async_trait;
use server_core::tunnel::BoxedStream;
use shared_wire::redis::{Replies, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::gate::Gate;
use self::lanes::Talk;
use super::{Engine, EngineError};
use crate::connect::ServerStream;
use crate::session::Session;

/// The user that a server takes a connection for until it hears a password.
const DEFAULT_USER: &str = "default";
/// What a server's answer to our own question may take, and how long it may be in bytes.
const ASKED: (Duration, usize) = (Duration::from_secs(15), 4096);
/// What the end of a connection to a server may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The engine.
#[derive(Debug)]
pub(super) struct Redis;

#[async_trait]
impl Engine for Redis {
    async fn serve(
        &self,
        mut client: BoxedStream,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let (mut server, gate) = match open(session).await {
            Ok(opened) => opened,
            Err(error) => {
                told::refuse(&mut client, &error).await;
                return Err(error);
            }
        };
        let served = Talk::new(gate).run(session, &mut client, &mut server).await;
        let _ = tokio::time::timeout(GOODBYE, server.shutdown()).await;
        let _ = tokio::time::timeout(GOODBYE, client.shutdown()).await;
        served
    }
}

/// Decides, connects, and asks the server for whom it takes the connection.
async fn open(session: &mut Session) -> Result<(ServerStream, Gate), EngineError> {
    let route = session.route().clone();
    let user = if route.user.is_empty() { DEFAULT_USER } else { &route.user };
    let granted = session.authorize(user, &route.name, "").await?;
    let dialled = session.dial(granted).await?;
    let mut server = session.secure(dialled).await?;
    let is_in = user == DEFAULT_USER || {
        let asked = tokio::time::timeout(ASKED.0, who_am_i(&mut server)).await;
        let name = asked.map_err(|_| EngineError::Slow("the database's first answer"))??;
        name == user.as_bytes()
    };
    Ok((server, Gate::new(user, is_in)))
}

/// The user that the server takes the connection for; nobody where it does not say. Servers can take it from the
/// certificate, and then no password is needed.
async fn who_am_i(server: &mut ServerStream) -> Result<Vec<u8>, EngineError> {
    let question = encode([b"ACL".as_slice(), b"WHOAMI"].into_iter());
    server.write_all(&question).await.map_err(EngineError::Database)?;
    server.flush().await.map_err(EngineError::Database)?;
    let (mut answer, mut replies) = (Vec::new(), Replies::default());
    loop {
        let mut byte = [0];
        if server.read(&mut byte).await.map_err(EngineError::Database)? == 0 {
            return Err(EngineError::Database(std::io::ErrorKind::UnexpectedEof.into()));
        }
        answer.push(byte[0]);
        let malformed = |what: &str| crate::relay::Malformed {
            what: format!("the database answers no Redis protocol: {what}"),
            payload: answer.clone(),
        };
        match replies.scan(&byte) {
            Ok((_, true)) => return Ok(bulk(&answer)),
            Ok(_) if answer.len() < ASKED.1 => {}
            Ok(_) => return Err(malformed("an answer without an end").into()),
            Err(error) => return Err(malformed(&error.to_string()).into()),
        }
    }
}

/// The text of a bulk string; nothing of anything else.
fn bulk(reply: &[u8]) -> Vec<u8> {
    let Some(rest) = reply.strip_prefix(b"$") else { return Vec::new() };
    let line = rest.iter().position(|byte| *byte == b'\n');
    let text = line.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
    text.strip_suffix(b"\r\n").unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_of_a_bulk_string() {
        assert_eq!(super::bulk(b"$5\r\nalice\r\n"), b"alice");
        assert_eq!(super::bulk(b"-NOAUTH no\r\n"), b"");
        assert_eq!(super::bulk(b"$-1\r\n"), b"");
    }
}
