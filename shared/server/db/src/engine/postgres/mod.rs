//! PostgreSQL, and CockroachDB, which speaks the same.
//!
//! What must stay true: the user and the database that were decided about are the ones the server is told, once
//! each; a statement is in the audit log's queue before it is passed on; nothing of a server that wants a password
//! reaches the client, and no password leaves it.
//!
//! Replication connections are refused: what they copy does not stop at the database that roles speak of.

mod cancel;
mod first;
mod server;
mod tap;
mod told;

use std::time::Duration;

use async_trait::async_trait;
use server_core::tunnel::BoxedStream;
use shared_wire::postgres::{First, Startup};
use tokio::io::AsyncWriteExt as _;

use super::{Engine, EngineError};
use crate::relay::{Cause, Relayed, Side, relay};
use crate::session::Session;

/// What a client may take for its first packets.
const FIRST: Duration = Duration::from_secs(30);

/// The engine.
#[derive(Debug)]
pub(super) struct Postgres;

#[async_trait]
impl Engine for Postgres {
    async fn serve(
        &self,
        mut client: BoxedStream,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let first = tokio::time::timeout(FIRST, first::read(&mut client));
        let first = first.await.unwrap_or(Err(EngineError::Slow("the first packet")));
        let served = match first {
            Ok(First::Cancel(cancel)) => return cancel::pass_on(&cancel, session).await,
            Ok(First::Startup(startup)) => serve(startup, &mut client, session).await,
            // `first::read` answers these.
            Ok(First::Ssl | First::GssEnc) => return Ok(()),
            Err(error) => Err(Left { error, told: false }),
        };
        match served {
            Ok(()) => {
                let _ = client.shutdown().await;
                Ok(())
            }
            Err(Left { error, told }) => {
                if !told {
                    told::tell(&mut client, &error).await;
                }
                Err(error)
            }
        }
    }
}

/// Why a client is no longer served.
struct Left {
    error: EngineError,
    /// It knows already, or cannot be told.
    told: bool,
}

impl<E: Into<EngineError>> From<E> for Left {
    fn from(error: E) -> Self {
        Self { error: error.into(), told: false }
    }
}

/// A session, from its start-up message to its end.
async fn serve(
    mut startup: Startup,
    client: &mut BoxedStream,
    session: &mut Session,
) -> Result<(), Left> {
    if startup.user.is_empty() {
        return Err(EngineError::NotPassedOn("user name must not be empty".to_owned()).into());
    }
    if startup.setting("replication").is_some_and(|value| !means_no(value)) {
        return Err(EngineError::NotPassedOn(
            "replication connections are not supported".to_owned(),
        )
        .into());
    }
    startup.database = startup.database().to_owned();
    let called = startup.setting("application_name").unwrap_or_default();
    let called = called.get(..called.floor_char_boundary(CALLED)).unwrap_or_default();
    let granted = session.authorize(&startup.user, &startup.database, called).await?;
    let mut server = server::connect(granted, session).await?;
    let opened = server::open(&mut server, &startup).await?;
    client.write_all(&opened.said).await.map_err(EngineError::Client)?;
    client.flush().await.map_err(EngineError::Client)?;
    if let Some(text) = opened.refused {
        return Err(Left { error: EngineError::DatabaseRefused(text), told: true });
    }
    let _registered = opened.key.map(|key| cancel::register(key, session, &startup));
    let (mut up, mut down) = (tap::Up::new(), tap::Down::new());
    let Relayed { cause, settled } = relay(session, client, &mut server, &mut up, &mut down).await;
    let _ = tokio::time::timeout(GOODBYE, server.shutdown()).await;
    let error = match cause {
        Cause::Closed(_) => return Ok(()),
        Cause::Failed(Side::Client, error) => EngineError::Client(error),
        Cause::Failed(Side::Database, error) => EngineError::Database(error),
        Cause::Tap(why) => EngineError::NotPassedOn(why),
        Cause::Malformed(_, malformed) => malformed.into(),
        Cause::Ended(reason) => EngineError::Ended(reason.text),
        Cause::Audit(error) => error.into(),
    };
    Err(Left { error, told: !settled })
}

/// More of the name that a client gives itself is not kept.
const CALLED: usize = 256;
/// What the end of a connection to a server may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A setting's value that servers read as false.
fn means_no(value: &str) -> bool {
    ["false", "off", "no", "0", ""].iter().any(|no| value.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_setting_that_means_no() {
        assert!(["off", "FALSE", "0", ""].into_iter().all(super::means_no));
        assert!(!["on", "true", "1", "database"].into_iter().any(super::means_no));
    }
}
