//! Connections that a proxy hands over: the address of its client comes first, in a line.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line: an IPv6 address with a scope, a port and the line's end.
const LONGEST: usize = 80;
/// How long the line may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the line, and not a byte more.
pub(super) async fn client_address<S: AsyncRead + Unpin>(stream: &mut S) -> Option<SocketAddr> {
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
        assert_eq!(
            read(b"192.0.2.7:4321\n\x16\x03\x01").await,
            (Some(wanted), b"\x16\x03\x01".to_vec())
        );
        assert_eq!(read(b"[2001:db8::1]:22\n").await.0.unwrap().port(), 22);
        for bad in [&b""[..], b"192.0.2.7:4321", b"192.0.2.7\n", b"\n", b"\xff\n", &[b'1'; 1000]] {
            assert_eq!(read(bad).await.0, None, "{bad:?}");
        }
    }
}
