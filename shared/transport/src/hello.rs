//! A TLS ClientHello's server name and ALPN names, read without consuming a byte: the connection may be for us, or
//! may be passed on unopened.

use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};

use crate::Rewind;

/// Largest ClientHello looked at, record headers included. With hybrid key shares they are below 2 KiB.
const LIMIT: usize = 32 * 1024;

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, if it sent one.
    pub server_name: Option<String>,
    /// ALPN names in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The peer closed in the middle.
    #[error("peer closed within its client hello")]
    Closed,
    /// It did not come in time.
    #[error("no client hello in {0:?}")]
    TimedOut(Duration),
    /// It is longer than any honest one.
    #[error("client hello is longer than {LIMIT} bytes")]
    TooLong,
    /// It is no ClientHello.
    #[error("parse client hello")]
    Parse(#[source] rustls::Error),
    /// Reading went wrong.
    #[error("read client hello")]
    Read(#[source] std::io::Error),
}

/// Looks at the ClientHello for at most `wait`.
pub async fn client_hello<S: AsyncRead + Unpin>(
    stream: &mut Rewind<S>,
    wait: Duration,
) -> Result<ClientHello, HelloError> {
    let deadline = Instant::now() + wait;
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while let Some(mut fresh) = stream.seen().get(fed..).filter(|fresh| !fresh.is_empty()) {
            let n = acceptor.read_tls(&mut fresh).map_err(HelloError::Read)?;
            fed += n;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    return Ok(ClientHello {
                        server_name: hello.server_name().map(str::to_owned),
                        alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
                    });
                }
                Ok(None) if n == 0 => return Err(HelloError::TooLong),
                Ok(None) => {}
                Err((err, _alert)) => return Err(HelloError::Parse(err)),
            }
        }
        if stream.seen().len() >= LIMIT {
            return Err(HelloError::TooLong);
        }
        match timeout_at(deadline, stream.look(LIMIT)).await {
            Ok(Ok(0)) => return Err(HelloError::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return Err(HelloError::Read(err)),
            Err(_) => return Err(HelloError::TimedOut(wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn hello_bytes(alpn: &[&[u8]]) -> Vec<u8> {
        crate::install_crypto();
        let mut config = crate::tls::accept_any_certificate();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut conn = rustls::ClientConnection::new(
            Arc::new(config),
            "proxy.example.com".try_into().unwrap(),
        )
        .unwrap();
        let mut out = Vec::new();
        conn.write_tls(&mut out).unwrap();
        out
    }

    #[tokio::test]
    async fn read_byte_by_byte_and_left_in_place() {
        let bytes = hello_bytes(&[b"teleport-auth@example.com", b"h2"]);
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Rewind::new(server);
        let sent = bytes.clone();
        let write = tokio::spawn(async move {
            for byte in sent {
                client.write_all(&[byte]).await.unwrap();
            }
            client
        });
        let hello = client_hello(&mut server, Duration::from_secs(10)).await.unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("proxy.example.com"));
        assert_eq!(hello.alpn, [b"teleport-auth@example.com".to_vec(), b"h2".to_vec()]);
        assert_eq!(server.seen(), bytes);
        write.await.unwrap();
    }

    #[tokio::test]
    async fn truncations_and_garbage_are_errors() {
        let bytes = hello_bytes(&[b"h2"]);
        for end in 0..bytes.len() {
            let mut stream = Rewind::new(&bytes[..end]);
            assert!(
                matches!(
                    client_hello(&mut stream, Duration::from_secs(5)).await,
                    Err(HelloError::Closed)
                ),
                "{end}"
            );
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x80;
            let _ = client_hello(&mut Rewind::new(&bent[..]), Duration::from_secs(5)).await;
        }
        let endless = vec![0x16; 200_000];
        assert!(
            client_hello(&mut Rewind::new(&endless[..]), Duration::from_secs(5)).await.is_err()
        );
        // Full-size records that never end the message.
        let mut record = vec![0x16, 3, 1, 0x40, 0];
        record.extend([1, 0, 0xff, 0xff]);
        record.extend(vec![0; 0x4000 - 4]);
        let many = record.repeat(8);
        let mut stream = Rewind::new(&many[..]);
        assert!(client_hello(&mut stream, Duration::from_secs(5)).await.is_err());
        assert!(stream.seen().len() <= LIMIT);
    }
}
