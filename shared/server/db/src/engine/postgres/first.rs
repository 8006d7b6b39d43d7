//! A client's first packets.

use shared_wire::postgres::{FIRST_LIMIT, First, StartupError, first};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::engine::EngineError;
use crate::relay::Malformed;

/// Reads a start-up message or a cancel request, and no byte behind it. Encryption is declined, once each: the client
/// has it already.
pub(super) async fn read<C>(client: &mut C) -> Result<First, EngineError>
where
    C: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut ssl, mut gss) = (false, false);
    loop {
        let packet = packet(client).await?;
        let again = match packet {
            First::Ssl => std::mem::replace(&mut ssl, true).then_some("SSLRequest"),
            First::GssEnc => std::mem::replace(&mut gss, true).then_some("GSSEncRequest"),
            packet => return Ok(packet),
        };
        if let Some(name) = again {
            return Err(EngineError::NotPassedOn(format!("received more than one {name}")));
        }
        client.write_all(b"N").await.map_err(EngineError::Client)?;
        client.flush().await.map_err(EngineError::Client)?;
    }
}

async fn packet<C: AsyncRead + Send + Unpin>(client: &mut C) -> Result<First, EngineError> {
    let mut bytes = vec![0; 4];
    client.read_exact(&mut bytes).await.map_err(EngineError::Client)?;
    let length = bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    if (4..=FIRST_LIMIT).contains(&length) {
        bytes.resize(length, 0);
        let rest = bytes.get_mut(4..).unwrap_or_default();
        client.read_exact(rest).await.map_err(EngineError::Client)?;
    }
    match first(&bytes) {
        Ok(Some((first, _))) => Ok(first),
        Ok(None) => Err(malformed(&StartupError::Malformed, bytes)),
        Err(error) => Err(malformed(&error, bytes)),
    }
}

fn malformed(error: &StartupError, payload: Vec<u8>) -> EngineError {
    Malformed { what: error.to_string(), payload }.into()
}

#[cfg(test)]
mod tests {
    use shared_wire::postgres::{GSSENC_REQUEST, SSL_REQUEST};

    use super::*;

    async fn talk(sent: &[&[u8]]) -> (Result<First, EngineError>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(20_000);
        near.write_all(&sent.concat()).await.unwrap();
        let read = read(&mut far).await;
        drop(far);
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).await.unwrap();
        (read, heard)
    }

    const START: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0joe\0\0";

    #[tokio::test]
    async fn encryption_is_declined_once_each() {
        let (first, heard) = talk(&[&GSSENC_REQUEST, &SSL_REQUEST, START, b"Q"]).await;
        assert!(matches!(first, Ok(First::Startup(startup)) if startup.user == "joe"));
        assert_eq!(heard, b"NN");
        for (request, name) in [(SSL_REQUEST, "SSLRequest"), (GSSENC_REQUEST, "GSSEncRequest")] {
            let (first, heard) = talk(&[&request, &request]).await;
            let text = first.unwrap_err().to_string();
            assert_eq!(text, format!("refused to pass on: received more than one {name}"));
            assert_eq!(heard, b"N");
        }
    }

    #[tokio::test]
    async fn what_is_no_first_packet_is_malformed() {
        for sent in [&b"GET / HTTP/1.1"[..], b"\0\0\0\x03", b"\0\0\0\x05\0", b"\xff\xff\xff\xff"] {
            let (first, _) = talk(&[sent]).await;
            assert!(matches!(first, Err(EngineError::Malformed(_))), "{}", sent.escape_ascii());
        }
    }
}
