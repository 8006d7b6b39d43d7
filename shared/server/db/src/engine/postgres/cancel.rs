//! Cancel requests. They come on a connection of their own, name a session by its secret, and get no answer.
//!
//! The server's own secret reaches the client, so that the server itself finds the session. What is remembered here is
//! only as whom it was opened: a cancel request does not say.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_wire::postgres::{Cancel, Startup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server;
use crate::engine::EngineError;
use crate::session::{CancelRefused, Session};

/// What a server may take to act on a request: it closes the connection then.
const DONE: Duration = Duration::from_secs(10);

/// As whom a session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opener {
    user: String,
    name: String,
}

/// A session, by the service it goes to and what its server calls it.
type Key = (String, Cancel);

static RUNNING: LazyLock<Mutex<HashMap<Key, Opener>>> = LazyLock::new(Mutex::default);

fn running() -> MutexGuard<'static, HashMap<Key, Opener>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session that can be cancelled, as long as this is there.
#[derive(Debug)]
pub(super) struct Registered(Key);

impl Drop for Registered {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

/// Remembers as whom a session was opened.
pub(super) fn register(cancel: Cancel, session: &Session, startup: &Startup) -> Registered {
    let key = (session.route().service.clone(), cancel);
    let opener = Opener { user: startup.user.clone(), name: startup.database.clone() };
    running().insert(key.clone(), opener);
    Registered(key)
}

/// Passes a request on to the server. The user has to be let in as whoever opened the session; where another agent
/// serves it, as whom the certificate names.
pub(super) async fn pass_on(cancel: &Cancel, session: &Session) -> Result<(), EngineError> {
    let route = session.route();
    let opener = running().get(&(route.service.clone(), cancel.clone())).cloned();
    let opener =
        opener.unwrap_or_else(|| Opener { user: route.user.clone(), name: route.name.clone() });
    let dialled =
        session.dial_for_cancel(&opener.user, &opener.name).await.map_err(
            |refused| match refused {
                CancelRefused::Refused(why) => EngineError::Refused(why),
                CancelRefused::Connect(why) => EngineError::Connect(why),
            },
        )?;
    let mut server = server::secure(dialled, session).await?;
    server.write_all(&cancel.to_bytes()).await.map_err(EngineError::Database)?;
    server.flush().await.map_err(EngineError::Database)?;
    // The client takes the end of its connection for the end of the request.
    let closed = tokio::time::timeout(DONE, server.read_u8());
    let _ = closed.await;
    Ok(())
}
