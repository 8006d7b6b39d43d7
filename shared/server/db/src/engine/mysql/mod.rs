//! MySQL and MariaDB.
//!
//! What must stay true: the user and the database that were decided about are the ones the server is told; a command is
//! in the audit log's queue before it is passed on; no password is asked of the client, and none is sent. A client is
//! offered only what its server can do, as both have to agree about what messages look like.
//!
//! `COM_CHANGE_USER`, and everything of replication, ends the session: the one would leave the user that was decided
//! about, the other copies data that no statement asks for.

mod client;
mod known;
mod packets;
mod server;
mod tap;
mod told;

use std::time::Duration;

use async_trait::async_trait;
use server_core::tunnel::BoxedStream;
use shared_events::MAX_PARAMETERS;
use shared_wire::mysql::{Conversation, Login};
use tokio::io::AsyncWriteExt as _;

pub(super) use known::learn;

use super::{Engine, EngineError};
use crate::relay::{Cause, Relayed, Side, relay};
use crate::session::Session;

/// What a client may take for its first packets.
const FIRST: Duration = Duration::from_secs(30);
/// More of the name that a client gives itself is not kept.
const CALLED: usize = 256;
/// What the end of a connection to a server may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The engine.
#[derive(Debug)]
pub(super) struct Mysql;

#[async_trait]
impl Engine for Mysql {
    async fn serve(
        &self,
        mut client: BoxedStream,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let greeted = tokio::time::timeout(FIRST, client::greet(&mut client, session));
        let served = match greeted.await.unwrap_or(Err(EngineError::Slow("the login"))) {
            Ok(hello) => serve(hello, &mut client, session).await,
            Err(error) => Err(Left { error, next: Some(2), told: false }),
        };
        let Err(Left { error, next, told }) = served else {
            let _ = client.shutdown().await;
            return Ok(());
        };
        match next {
            _ if told => told::end(&mut client).await,
            Some(next) => told::tell(&mut client, next, &error).await,
            None => {}
        }
        Err(error)
    }
}

/// Why a client is no longer served.
struct Left {
    error: EngineError,
    /// Number of the next packet; none where no packet of ours would be understood.
    next: Option<u8>,
    /// It knows already.
    told: bool,
}

/// A session, from its login to its end.
async fn serve(
    hello: client::Hello,
    client: &mut BoxedStream,
    session: &mut Session,
) -> Result<(), Left> {
    let next = hello.next;
    let left = |error: EngineError| Left { error, next: Some(next), told: false };
    let login = hello.login;
    let called = called(&login);
    let granted = session
        .authorize(&login.user, &login.database, &called)
        .await
        .map_err(|why| left(why.into()))?;
    let opened = server::connect(granted, &login, session).await.map_err(left)?;
    let server::Opened { mut stream, capabilities, answer } = opened;
    let refused = answer.refused;
    client::answer(client, next, &login, &answer.payload, refused.is_none()).await.map_err(left)?;
    if let Some(text) = refused {
        return Err(Left { error: EngineError::DatabaseRefused(text), next: None, told: true });
    }
    let (requests, answers) = Conversation::start(capabilities, MAX_PARAMETERS);
    let (mut up, mut down) = (tap::Up::new(requests), tap::Down::new(answers));
    let Relayed { cause, settled } = relay(session, client, &mut stream, &mut up, &mut down).await;
    let _ = tokio::time::timeout(GOODBYE, stream.shutdown()).await;
    let error = match cause {
        Cause::Closed(_) => return Ok(()),
        Cause::Failed(Side::Client, error) => EngineError::Client(error),
        Cause::Failed(Side::Database, error) => EngineError::Database(error),
        Cause::Tap(why) => EngineError::NotPassedOn(why),
        Cause::Malformed(_, malformed) => malformed.into(),
        Cause::Ended(reason) => EngineError::Ended(reason.text),
        Cause::Audit(error) => error.into(),
    };
    Err(Left { error, next: settled.then(|| down.next()), told: false })
}

/// What the client calls itself.
fn called(login: &Login) -> String {
    let name = login
        .attribute("program_name")
        .or_else(|| login.attribute("_client_name"))
        .unwrap_or_default();
    name.get(..name.floor_char_boundary(CALLED)).unwrap_or_default().to_owned()
}
