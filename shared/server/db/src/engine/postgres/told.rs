//! What a client reads when it is not served any more.

use std::time::Duration;

use shared_wire::postgres::{refuse, sqlstate};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::connect::ConnectError;
use crate::engine::EngineError;

/// What a client may take to read it.
const TOLD: Duration = Duration::from_secs(5);
/// And how long it is waited for its own end, so that what it read is not lost to bytes it sent meanwhile.
const LINGER: Duration = Duration::from_secs(1);

/// Tells the client why, as a fatal error, and ends the connection.
pub(super) async fn tell<C: AsyncRead + AsyncWrite + Send + Unpin>(
    client: &mut C,
    error: &EngineError,
) {
    let Some((state, text)) = words(error) else { return };
    let said = async {
        client.write_all(&refuse(state, &text)).await?;
        client.shutdown().await
    };
    if !matches!(tokio::time::timeout(TOLD, said).await, Ok(Ok(()))) {
        return;
    }
    let rest = async {
        let mut bytes = [0; 4096];
        while matches!(client.read(&mut bytes).await, Ok(1..)) {}
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// The code and the text; none where nobody listens.
fn words(error: &EngineError) -> Option<(&'static str, String)> {
    Some(match error {
        EngineError::Refused(why) => (sqlstate::NOT_ALLOWED, why.peer_text().into_owned()),
        EngineError::Connect(why @ (ConnectError::Uri(_) | ConnectError::Trust(_))) => {
            (sqlstate::INTERNAL, why.peer_text())
        }
        EngineError::Connect(why) => (sqlstate::UNREACHABLE, why.peer_text()),
        EngineError::Audit(why) => (sqlstate::INTERNAL, why.peer_text().to_owned()),
        EngineError::Client(_) => return None,
        EngineError::Database(_) => {
            (sqlstate::CONNECTION, "the connection to the database was lost".to_owned())
        }
        EngineError::Malformed(why) => (sqlstate::PROTOCOL, why.to_string()),
        EngineError::DatabaseRefused(why) => {
            (sqlstate::UNREACHABLE, format!("could not connect to the database: {why}"))
        }
        EngineError::NotPassedOn(why) => (sqlstate::UNSUPPORTED, why.clone()),
        EngineError::Ended(why) => (sqlstate::ENDED, format!("session ended: {why}")),
        EngineError::Slow(what) => (sqlstate::NOT_NOW, format!("{what} took too long")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_reads_it_although_it_has_said_more() {
        let (mut near, mut far) = tokio::io::duplex(10_000);
        near.write_all(&[0; 9000]).await.unwrap();
        let told = tokio::spawn(async move {
            tell(&mut far, &EngineError::Ended("certificate expired".into())).await;
        });
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, refuse("57P01", "session ended: certificate expired"));
        drop(near);
        told.await.unwrap();
    }

    #[test]
    fn everything_but_a_lost_client_has_words() {
        let lost = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(words(&EngineError::Client(lost())), None);
        let (state, text) = words(&EngineError::Database(lost())).unwrap();
        assert_eq!((state, text.as_str()), ("08006", "the connection to the database was lost"));
    }
}
