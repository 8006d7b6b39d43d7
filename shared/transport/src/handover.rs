//! A connection that somebody hands on says first whose it is: a line of text, the client's `IP:PORT`, and then the
//! client's own bytes. Only inside a connection whose peer was verified.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest line: an IPv6 address with a scope, a port and the line's end.
const LONGEST: usize = 80;
/// How long the line may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says whose connection this is.
pub async fn announce<S: AsyncWrite + Unpin>(stream: &mut S, client: SocketAddr) -> io::Result<()> {
    let canonical = SocketAddr::new(client.ip().to_canonical(), client.port());
    stream.write_all(format!("{canonical}\n").as_bytes()).await?;
    stream.flush().await
}

/// Reads the line, and not a byte more.
pub async fn client_address<S: AsyncRead + Unpin>(stream: &mut S) -> Option<SocketAddr> {
    let line = async {
        let mut line = Vec::with_capacity(LONGEST);
        while line.len() < LONGEST {
            match stream.read_u8().await {
                Ok(b'\n') => return Some(line),
                Ok(byte) => line.push(byte),
                Err(_) => return None,
            }
        }
        None
    };
    let line = tokio::time::timeout(PATIENCE, line).await.ok()??;
    std::str::from_utf8(&line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (Option<SocketAddr>, Vec<u8>) {
        let mut rest = bytes;
        let found = client_address(&mut rest).await;
        (found, rest.to_vec())
    }

    #[tokio::test]
    async fn one_line_and_no_more() {
        let wanted: SocketAddr = "192.0.2.7:4321".parse().unwrap();
        let mut said = Vec::new();
        announce(&mut said, "[::ffff:192.0.2.7]:4321".parse().unwrap()).await.unwrap();
        said.extend_from_slice(b"\x16\x03\x01");
        assert_eq!(read(&said).await, (Some(wanted), b"\x16\x03\x01".to_vec()));
        assert_eq!(read(b"[2001:db8::1]:22\n").await.0.unwrap().port(), 22);
        for bad in [&b""[..], b"192.0.2.7:4321", b"192.0.2.7\n", b"\n", b"\xff\n", &[b'1'; 1000]] {
            assert_eq!(read(bad).await.0, None, "{bad:?}");
        }
    }
}
