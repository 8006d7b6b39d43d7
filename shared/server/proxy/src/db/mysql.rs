//! How MySQL's clients begin where the server is not known yet: a greeting, their wish for TLS, and the handshake
//! response, which is left to the agent (MySQL "Connection Phase").

use bytes::Bytes;
use server_core::tunnel::BoxedStream;
use shared_transport::Rewind;
use shared_wire::mysql::{HEADER, SSL_REQUEST, greeting, read_header, ssl_request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::Speaks;
use super::meet::{Guest, MeetError};
use super::tls::{DbTls, Shown};

/// The most that is looked at of a first packet, header and all; whether it asks for TLS is told by less.
const LOOKED_AT: usize = HEADER + SSL_REQUEST;
/// The longest handshake response that is read in order to refuse it.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Greets as a server of `version` and the connection's number, and takes up TLS. What follows is left unread.
pub(super) async fn meet(
    tls: &DbTls,
    mut stream: Rewind<BoxedStream>,
    (version, number): (&str, u32),
) -> Result<Guest, MeetError> {
    let said = Bytes::from(greeting(version, number));
    stream.write_all(&said).await?;
    stream.flush().await?;
    let greeted = |stream, shown| Guest {
        greeted: Some(said.clone()),
        ..Guest::new(Speaks::Mysql, stream, shown)
    };
    while stream.seen().len() < LOOKED_AT {
        if stream.look(LOOKED_AT).await? == 0 {
            return Err(MeetError::Closed);
        }
    }
    let (header, payload) = stream.seen().split_at(HEADER);
    let (length, sequence) = read_header(header.try_into().unwrap_or_default());
    if sequence != 1 {
        let why = format!("packet {sequence} came where packet 1 was expected");
        return Ok(greeted(stream, None).at_fault(why));
    }
    // A handshake response is longer; then the client does without TLS, and is told that it cannot.
    let wants_tls = if length == SSL_REQUEST { ssl_request(payload) } else { Ok(false) };
    match wants_tls {
        Ok(true) => {
            stream.read_exact(&mut [0; LOOKED_AT]).await?;
            let (inner, shown) = tls.accept(stream, Shown::Host, None).await?;
            Ok(greeted(Rewind::new(inner), shown))
        }
        Ok(false) => Ok(greeted(stream, None)),
        Err(err) => Ok(greeted(stream, None).at_fault(err.to_string())),
    }
}

/// Reads a handshake response, so that it can be answered, and gives the answer's sequence number.
pub(super) async fn hear_answer<S: AsyncRead + Unpin>(stream: &mut S) -> u8 {
    let mut header = [0; HEADER];
    if stream.read_exact(&mut header).await.is_err() {
        return 0;
    }
    let (length, sequence) = read_header(header);
    let mut payload = stream.take(length.min(LONGEST_ANSWER) as u64);
    let _ = tokio::io::copy(&mut payload, &mut tokio::io::sink()).await;
    sequence.wrapping_add(1)
}
