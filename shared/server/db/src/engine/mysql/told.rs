//! What a client reads when it is not served any more.

use std::time::Duration;

use shared_wire::mysql::refuse;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::engine::EngineError;

/// What a client may take to read it.
const TOLD: Duration = Duration::from_secs(5);
/// And how long it is waited for its own end, so that what it read is not lost to bytes it sent meanwhile.
const LINGER: Duration = Duration::from_secs(1);

/// Tells the client why, as the packet `next`, and ends the connection.
pub(super) async fn tell<C: AsyncRead + AsyncWrite + Send + Unpin>(
    client: &mut C,
    next: u8,
    error: &EngineError,
) {
    let Some((code, state, text)) = words(error) else { return };
    let said = async {
        client.write_all(&refuse(next, code, state, &text)).await?;
        client.flush().await
    };
    if matches!(tokio::time::timeout(TOLD, said).await, Ok(Ok(()))) {
        end(client).await;
    }
}

/// Ends a connection whose client has been told.
pub(super) async fn end<C: AsyncRead + AsyncWrite + Send + Unpin>(client: &mut C) {
    let rest = async {
        let _ = client.shutdown().await;
        let mut bytes = [0; 4096];
        while matches!(client.read(&mut bytes).await, Ok(1..)) {}
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Number, SQLSTATE and text; none where nobody listens.
fn words(error: &EngineError) -> Option<(u16, &'static str, String)> {
    Some(match error {
        EngineError::Refused(why) => (1045, "28000", why.peer_text().into_owned()),
        EngineError::Connect(why) => (1429, "HY000", why.peer_text()),
        EngineError::Audit(why) => (1105, "HY000", why.peer_text().to_owned()),
        EngineError::Client(_) => return None,
        EngineError::Database(_) => {
            (1158, "08S01", "the connection to the database was lost".to_owned())
        }
        EngineError::Malformed(why) => (1835, "HY000", why.to_string()),
        EngineError::DatabaseRefused(why) => {
            (1429, "HY000", format!("could not connect to the database: {why}"))
        }
        EngineError::NotPassedOn(why) => (1235, "42000", why.clone()),
        EngineError::Ended(why) => (1927, "70100", format!("session ended: {why}")),
        EngineError::Slow(what) => (1159, "08S01", format!("{what} took too long")),
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
            tell(&mut far, 1, &EngineError::Ended("certificate expired".into())).await;
        });
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, refuse(1, 1927, "70100", "session ended: certificate expired"));
        drop(near);
        told.await.unwrap();
    }

    #[test]
    fn everything_but_a_lost_client_has_words() {
        let lost = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(words(&EngineError::Client(lost())), None);
        let (code, state, text) = words(&EngineError::Database(lost())).unwrap();
        assert_eq!(
            (code, state, text.as_str()),
            (1158, "08S01", "the connection to the database was lost")
        );
    }
}
