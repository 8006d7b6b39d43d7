//! What a proxy says to an agent before a client's first byte: whose connection this is, and the user's certificate as
//! the client has proved to hold it (docs/decisions/0010).
//!
//! What must stay true: an agent reads it only from a proxy that has shown a host certificate of role Proxy, or from
//! one in the same process; it takes no byte more than its own; no length allocates before it was checked.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest one, its own length left out, in bytes.
const LONGEST: usize = 64 * 1024;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The form that is spoken. Another one means a proxy that is newer or older than this agent.
const FORM: u8 = 1;

/// A connection of a client that was authenticated by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// The client's address, as the proxy accepted it.
    pub client: SocketAddr,
    /// The user's TLS certificate, DER. The client has proved to hold its key; whether the certificate is any good is
    /// for the agent to find out again.
    pub certificate: Bytes,
    /// The MySQL greeting, packet header and all, that the proxy has shown already. The client's answer to it is what
    /// follows, with the next sequence number. None where the agent is to greet, and for other protocols.
    pub greeted: Option<Bytes>,
}

/// Why there is no preamble.
#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    /// Reading went wrong, or the proxy left.
    #[error("read what the proxy says of a connection")]
    Read(#[source] io::Error),
    /// It did not come in time.
    #[error("the proxy said nothing of a connection in {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It is longer than any honest one.
    #[error("what the proxy says of a connection is {0} bytes long, at most {LONGEST} are taken")]
    TooLong(u64),
    /// It is of another form.
    #[error(
        "what the proxy says of a connection is of form {0}, known is {FORM}; run the same version everywhere"
    )]
    Form(u8),
    /// It breaks its own form; which part.
    #[error("what the proxy says of a connection is malformed at its {0}")]
    Malformed(&'static str),
}

impl Preamble {
    /// Its bytes, as [`Preamble::read`] takes them.
    pub fn to_bytes(&self) -> Bytes {
        let client = SocketAddr::new(self.client.ip().to_canonical(), self.client.port());
        let mut body = BytesMut::with_capacity(64 + self.certificate.len());
        body.put_u8(FORM);
        put(&mut body, client.to_string().as_bytes());
        put(&mut body, &self.certificate);
        body.put_u8(u8::from(self.greeted.is_some()));
        if let Some(greeted) = &self.greeted {
            put(&mut body, greeted);
        }
        let mut whole = BytesMut::with_capacity(4 + body.len());
        put(&mut whole, &body);
        whole.freeze()
    }

    /// Says it. Nothing that a client could make longer than [`Preamble::read`] takes gets this far: certificates
    /// come out of a handshake that bounds them.
    pub async fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<()> {
        stream.write_all(&self.to_bytes()).await?;
        stream.flush().await
    }

    /// Hears it, and not a byte more, within ten seconds.
    pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Self, PreambleError> {
        Self::read_within(stream, PATIENCE).await
    }

    async fn read_within<S>(stream: &mut S, patience: Duration) -> Result<Self, PreambleError>
    where
        S: AsyncRead + Unpin,
    {
        let body = async {
            let length = stream.read_u32().await.map_err(PreambleError::Read)?;
            let fits = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
            let length = fits.ok_or(PreambleError::TooLong(length.into()))?;
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.map_err(PreambleError::Read)?;
            Ok(Bytes::from(body))
        };
        let body = tokio::time::timeout(patience, body).await;
        Self::parse(body.map_err(|_| PreambleError::TimedOut(patience))??)
    }

    fn parse(mut body: Bytes) -> Result<Self, PreambleError> {
        let malformed = PreambleError::Malformed;
        let form = byte(&mut body).ok_or(malformed("form"))?;
        if form != FORM {
            return Err(PreambleError::Form(form));
        }
        let client = take(&mut body).and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let client = client.ok_or(malformed("client's address"))?;
        let certificate = take(&mut body).filter(|der| !der.is_empty());
        let certificate = certificate.ok_or(malformed("certificate"))?;
        let greeted = match byte(&mut body) {
            Some(0) => None,
            Some(1) => Some(take(&mut body).ok_or(malformed("greeting"))?),
            _ => return Err(malformed("greeting")),
        };
        if body.has_remaining() {
            return Err(malformed("end"));
        }
        Ok(Self { client, certificate, greeted })
    }
}

/// A length of four bytes, and so many bytes.
fn put(to: &mut BytesMut, part: &[u8]) {
    to.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
    to.put_slice(part);
}

fn byte(from: &mut Bytes) -> Option<u8> {
    from.has_remaining().then(|| from.get_u8())
}

fn take(from: &mut Bytes) -> Option<Bytes> {
    let length = (from.remaining() >= 4).then(|| from.get_u32())?;
    let length = usize::try_from(length).ok().filter(|length| *length <= from.remaining())?;
    Some(from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Preamble {
        Preamble {
            client: "192.0.2.7:4321".parse().unwrap(),
            certificate: Bytes::from_static(b"a certificate"),
            greeted: None,
        }
    }

    async fn read(bytes: &[u8]) -> (Result<Preamble, PreambleError>, Vec<u8>) {
        let mut rest = bytes;
        let read = Preamble::read(&mut rest).await;
        (read, rest.to_vec())
    }

    #[tokio::test]
    async fn what_is_said_is_heard_and_nothing_more_is_taken() {
        let greeted = Preamble { greeted: Some(Bytes::from_static(b"\x0a8.0.0")), ..some() };
        let mapped = Preamble { client: "[::ffff:192.0.2.7]:4321".parse().unwrap(), ..some() };
        for (said, heard) in [(&some(), &some()), (&greeted, &greeted), (&mapped, &some())] {
            let mut bytes = Vec::new();
            said.write(&mut bytes).await.unwrap();
            bytes.extend_from_slice(b"SELECT");
            let (read, rest) = read(&bytes).await;
            assert_eq!((&read.unwrap(), rest.as_slice()), (heard, &b"SELECT"[..]));
        }
    }

    #[tokio::test]
    async fn cut_and_bent_ones_are_errors() {
        let whole = Preamble { greeted: Some(Bytes::from_static(b"hello")), ..some() }.to_bytes();
        for end in 0..whole.len() {
            assert!(matches!(read(&whole[..end]).await.0, Err(PreambleError::Read(_))), "{end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bent = whole.to_vec();
                bent[at] ^= 1 << bit;
                let _ = read(&bent).await;
            }
        }
        let of = |form: u8, parts: &[&[u8]], end: &[u8]| {
            let mut body = BytesMut::from(&[form][..]);
            parts.iter().for_each(|part| put(&mut body, part));
            body.put_slice(end);
            let mut all = BytesMut::new();
            put(&mut all, &body);
            all
        };
        let address = b"192.0.2.7:4321";
        for (bytes, what) in [
            (of(2, &[address, b"x"], &[0]), "of form 2"),
            (of(1, &[b"192.0.2.7", b"x"], &[0]), "client's address"),
            (of(1, &[b"\xff", b"x"], &[0]), "client's address"),
            (of(1, &[address, b""], &[0]), "certificate"),
            (of(1, &[address], &[0xff; 4]), "certificate"),
            (of(1, &[address, b"x"], &[]), "greeting"),
            (of(1, &[address, b"x"], &[2]), "greeting"),
            (of(1, &[address, b"x"], &[1, 0, 0]), "greeting"),
            (of(1, &[address, b"x"], &[0, 0]), "end"),
        ] {
            let err = read(&bytes).await.0.unwrap_err().to_string();
            assert!(err.contains(what), "{err}");
        }
        assert!(matches!(read(&[0; 4]).await.0, Err(PreambleError::Malformed("form"))));
    }

    #[tokio::test]
    async fn a_huge_or_a_slow_one_is_not_waited_for() {
        assert!(matches!(read(&[0xff; 8]).await.0, Err(PreambleError::TooLong(_))));
        let (_proxy, mut agent) = tokio::io::duplex(64);
        let read = Preamble::read_within(&mut agent, Duration::from_millis(20)).await;
        assert!(matches!(read, Err(PreambleError::TimedOut(_))));
    }
}
