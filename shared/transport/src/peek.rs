//! Which protocol a client speaks, told by its first bytes.

use std::io;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};

use crate::Rewind;

/// Longest SSH identification line (RFC 4253 §4.2).
const SSH_LINE: usize = 255;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `SSH-`.
    Ssh,
    /// A TLS handshake record.
    Tls,
    /// A request of PostgreSQL's for encryption, `SSLRequest` or `GSSENCRequest`.
    Postgres,
    /// An HTTP/1 request line or the HTTP/2 preface.
    Http,
    /// The client said nothing in the time given: it waits for us.
    Silent,
    /// None of these.
    Other,
}

/// Why a connection could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    /// The peer closed before it said enough.
    #[error("peer closed before the protocol was known")]
    Closed,
    /// Reading went wrong.
    #[error("read first bytes")]
    Read(#[source] io::Error),
}

const HTTP: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI * HTTP/2.0",
];

/// `None` while more bytes could still decide.
fn classify(seen: &[u8]) -> Option<Protocol> {
    let candidates = [
        (Protocol::Ssh, &b"SSH-"[..]),
        (Protocol::Tls, b"\x16\x03"),
        (Protocol::Postgres, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (Protocol::Postgres, b"\0\0\0\x08\x04\xd2\x16\x30"),
    ]
    .into_iter()
    .chain(HTTP.iter().map(|start| (Protocol::Http, *start)));
    let mut open = false;
    for (protocol, start) in candidates {
        if seen.starts_with(start) {
            return Some(protocol);
        }
        open |= start.starts_with(seen);
    }
    if open { None } else { Some(Protocol::Other) }
}

/// Looks at the first bytes for at most `wait`, and reads none of them.
pub async fn detect<S: AsyncRead + Unpin>(
    stream: &mut Rewind<S>,
    wait: Duration,
) -> Result<Protocol, PeekError> {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(protocol) = classify(stream.seen()) {
            return Ok(protocol);
        }
        match timeout_at(deadline, stream.look(32)).await {
            Ok(Ok(0)) => return Err(PeekError::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return Err(PeekError::Read(err)),
            Err(_) if stream.seen().is_empty() => return Ok(Protocol::Silent),
            Err(_) => return Ok(Protocol::Other),
        }
    }
}

/// The client's SSH identification without its line end, or `None` where it does not come within `wait`,
/// is longer than the RFC allows or is no text. Reads none of it.
pub async fn ssh_identification<S: AsyncRead + Unpin>(
    stream: &mut Rewind<S>,
    wait: Duration,
) -> Result<Option<String>, PeekError> {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(end) = stream.seen().iter().position(|byte| *byte == b'\n') {
            let line = stream.seen().get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let fit =
                line.starts_with(b"SSH-") && line.iter().all(|byte| matches!(byte, 0x20..=0x7e));
            return Ok(fit.then(|| String::from_utf8_lossy(line).into_owned()));
        }
        if stream.seen().len() >= SSH_LINE
            || classify(stream.seen()).is_some_and(|protocol| protocol != Protocol::Ssh)
        {
            return Ok(None);
        }
        match timeout_at(deadline, stream.look(SSH_LINE)).await {
            Ok(Ok(0)) => return Err(PeekError::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(err)) => return Err(PeekError::Read(err)),
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn first_bytes() {
        for (seen, want) in [
            (&b""[..], None),
            (b"S", None),
            (b"SSH", None),
            (b"SSH-2.0-x", Some(Protocol::Ssh)),
            (b"SSL", Some(Protocol::Other)),
            (b"\x16", None),
            (b"\x16\x03", Some(Protocol::Tls)),
            (b"\x16\x02", Some(Protocol::Other)),
            (b"P", None),
            (b"POST /", Some(Protocol::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Protocol::Http)),
            (b"PROXY TCP4", Some(Protocol::Other)),
            (b"\0", None),
            (b"\0\0\0\x08\x04\xd2\x16", None),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Protocol::Postgres)),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Some(Protocol::Postgres)),
            (b"\0\0\0\x08\x04\xd2\x16\x31", Some(Protocol::Other)),
            (b"\0\x01", Some(Protocol::Other)),
        ] {
            assert_eq!(classify(seen), want, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn detection_reads_nothing() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Rewind::new(server);
        let write = tokio::spawn(async move {
            for byte in b"SSH-2.0-test\r\nrest" {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(detect(&mut server, Duration::from_secs(5)).await.unwrap(), Protocol::Ssh);
        assert_eq!(
            ssh_identification(&mut server, Duration::from_secs(5)).await.unwrap().as_deref(),
            Some("SSH-2.0-test")
        );
        write.await.unwrap();
        let mut all = String::new();
        server.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "SSH-2.0-test\r\nrest");
    }

    #[tokio::test]
    async fn a_silent_client_is_silent_and_a_closed_one_closed() {
        let (client, server) = tokio::io::duplex(64);
        let mut server = Rewind::new(server);
        assert_eq!(detect(&mut server, Duration::from_millis(50)).await.unwrap(), Protocol::Silent);
        assert_eq!(ssh_identification(&mut server, Duration::from_millis(50)).await.unwrap(), None);
        drop(client);
        assert!(matches!(
            detect(&mut server, Duration::from_millis(50)).await,
            Err(PeekError::Closed)
        ));
    }

    #[tokio::test]
    async fn an_endless_identification_is_none() {
        let endless = [b'a'; 4096];
        let mut stream = Rewind::with_seen(&endless[..], b"SSH-2.0-");
        assert_eq!(ssh_identification(&mut stream, Duration::from_secs(5)).await.unwrap(), None);
        assert!(stream.seen().len() <= SSH_LINE);
    }
}
