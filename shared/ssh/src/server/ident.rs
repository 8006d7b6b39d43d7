//! A peer's identification line (RFC 4253 §4.2), read ahead of the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an identification says of the software behind it. A hint for choosing algorithms, never for trust.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdent {
    /// OpenSSH's version, where it is OpenSSH.
    pub openssh: Option<(u32, u32)>,
}

impl ClientIdent {
    /// Reads a line such as `SSH-2.0-OpenSSH_9.2p1 Debian-2`.
    pub fn parse(line: &str) -> Self {
        let openssh = line.trim_end().strip_prefix("SSH-2.0-OpenSSH_").and_then(|rest| {
            // `for_Windows_8.1` is OpenSSH as well.
            let rest = rest.strip_prefix("for_Windows_").unwrap_or(rest);
            let digits =
                |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
            let major = digits(rest);
            let minor = digits(rest.get(major.len()..)?.strip_prefix('.')?);
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        Self { openssh }
    }

    /// Whether it has AES-GCM: OpenSSH since 6.2.
    pub fn has_gcm(&self) -> bool {
        self.openssh.is_some_and(|version| version >= (6, 2))
    }
}

/// A stream with bytes put back in front.
#[derive(Debug)]
pub struct Prefixed<S> {
    head: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// `head` is read before anything of `stream`.
    pub fn new(head: Vec<u8>, stream: S) -> Self {
        Self { head, at: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.head.get(this.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let len = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..len).unwrap_or_default());
        this.at += len;
        if this.at == this.head.len() {
            this.head = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_clients_send() {
        for (line, version) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r", Some((9, 2))),
            ("SSH-2.0-OpenSSH_10.0", Some((10, 0))),
            ("SSH-2.0-OpenSSH_for_Windows_8.1", Some((8, 1))),
            ("SSH-2.0-OpenSSH_6.1", Some((6, 1))),
            ("SSH-2.0-OpenSSH_", None),
            ("SSH-2.0-OpenSSH_9", None),
            ("SSH-2.0-OpenSSH_99999999999999.1", None),
            ("SSH-2.0-PuTTY_Release_0.78", None),
            ("SSH-2.0-dropbear_2022.83", None),
        ] {
            assert_eq!(ClientIdent::parse(line).openssh, version, "{line}");
        }
    }

    #[tokio::test]
    async fn what_was_read_comes_first() {
        use tokio::io::AsyncReadExt;
        let mut stream = Prefixed::new(b"SSH-2.0-x\r\n".to_vec(), &b"more"[..]);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"SSH-2.0-x\r\nmore");
    }
}
