//! What a client reads that is not served, or no longer.

use std::time::Duration;

use server_core::tunnel::BoxedStream;
use shared_wire::redis::{Commands, error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::engine::EngineError;

/// How long a client has for its first command, and from then on to read why it is not served.
const TO_ASK: Duration = Duration::from_secs(10);
const TO_READ: Duration = Duration::from_secs(3);

/// The error reply that says why.
pub(super) fn reply(why: &EngineError) -> Vec<u8> {
    match why {
        EngineError::Refused(refusal) => error("NOPERM", &refusal.peer_text()),
        EngineError::Connect(why) => error("ERR", &why.peer_text()),
        EngineError::Audit(why) => error("ERR", why.peer_text()),
        EngineError::Malformed(why) => error("ERR", &format!("Protocol error: {}", why.what)),
        EngineError::Ended(text) | EngineError::NotPassedOn(text) => error("ERR", text),
        EngineError::Slow(_) => error("ERR", "the database does not answer in time"),
        EngineError::DatabaseRefused(_) | EngineError::Database(_) | EngineError::Client(_) => {
            error("ERR", "the database has closed the connection")
        }
    }
}

/// Answers every command of a client that is not served, until it goes away or has had time to read it.
pub(super) async fn refuse(client: &mut BoxedStream, why: &EngineError) {
    let answer = reply(why);
    let mut commands = Commands::default();
    let mut until = Instant::now() + TO_ASK;
    let mut asked = false;
    let mut buffer = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout_at(until, client.read(&mut buffer)).await {
        if !asked {
            (asked, until) = (true, Instant::now() + TO_READ);
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        let mut answers = Vec::new();
        while let Ok((used @ 1.., complete)) = commands.scan(rest) {
            rest = rest.get(used..).unwrap_or_default();
            if complete {
                answers.extend_from_slice(&answer);
            }
        }
        let written = timeout_at(until, client.write_all(&answers)).await;
        if !rest.is_empty() || !matches!(written, Ok(Ok(()))) || client.flush().await.is_err() {
            break;
        }
    }
    if !asked {
        // It has asked nothing yet and reads this as the answer to what it asks first.
        let _ = timeout_at(Instant::now() + TO_READ, client.write_all(&answer)).await;
    }
    let _ = timeout_at(Instant::now() + TO_READ, client.shutdown()).await;
}
