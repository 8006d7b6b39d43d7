//! The way to the server: TLS asked for, TLS made, the start-up message sent, and what comes back looked at.

use std::time::Duration;

use server_core::{DbAccess, Granted};
use shared_wire::postgres::{Backend, Cancel, Frames, SSL_REQUEST, Startup, backend};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::tap::words;
use crate::connect::{Dialled, ServerStream};
use crate::engine::EngineError;
use crate::relay::Malformed;
use crate::session::Session;

/// What a server may take to say whether it has TLS.
const TLS_ANSWER: Duration = Duration::from_secs(15);
/// What a server may take until it is ready for the first statement.
const READY: Duration = Duration::from_secs(60);
/// What a server may say until then: some settings and notices.
const SAID: usize = 256 << 10;
/// What is kept of one such message.
const KEEP: usize = 16 << 10;

/// A connection with TLS, up to where the start-up message is awaited.
pub(super) async fn connect(
    granted: Granted<DbAccess>,
    session: &Session,
) -> Result<ServerStream, EngineError> {
    let dialled = session.dial(granted).await?;
    secure(dialled, session).await
}

/// Asks for TLS and makes it.
pub(super) async fn secure(
    mut dialled: Dialled,
    session: &Session,
) -> Result<ServerStream, EngineError> {
    let asked = tokio::time::timeout(TLS_ANSWER, ask_for_tls(&mut dialled.stream));
    asked.await.unwrap_or(Err(EngineError::Slow("the database's answer about TLS")))?;
    Ok(session.secure(dialled).await?)
}

/// Reads the one byte of the answer and none behind it, so that nothing sent in the clear is taken for a part of what
/// TLS protects.
async fn ask_for_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), EngineError> {
    stream.write_all(&SSL_REQUEST).await.map_err(EngineError::Database)?;
    let why = match stream.read_u8().await.map_err(EngineError::Database)? {
        b'S' => return Ok(()),
        b'N' => "it does not offer TLS; set ssl = on in postgresql.conf",
        b'E' => "it does not know TLS",
        _ => "it does not speak PostgreSQL's protocol",
    };
    Err(EngineError::DatabaseRefused(why.to_owned()))
}

/// What a server said to a start-up message.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// For the client, as it came.
    pub(super) said: Vec<u8>,
    /// What cancels statements of this session.
    pub(super) key: Option<Cancel>,
    /// Why it does not let the user in, where it does not; `said` has it for the client.
    pub(super) refused: Option<String>,
}

/// Sends the start-up message and reads on until the server is ready or has refused.
pub(super) async fn open<S>(server: &mut S, startup: &Startup) -> Result<Opened, EngineError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let opened = async {
        server.write_all(&startup.to_bytes()).await.map_err(EngineError::Database)?;
        server.flush().await.map_err(EngineError::Database)?;
        until_ready(server).await
    };
    tokio::time::timeout(READY, opened)
        .await
        .unwrap_or(Err(EngineError::Slow("the database's start")))
}

async fn until_ready<S: AsyncRead + Send + Unpin>(server: &mut S) -> Result<Opened, EngineError> {
    let (mut opened, mut state) = (Opened::default(), Opening::new());
    let mut chunk = vec![0; 4096];
    loop {
        // A server that is ready waits, so that it has said nothing else by then.
        let count = server.read(&mut chunk).await.map_err(EngineError::Database)?;
        if count == 0 {
            let closed = "it closed the connection before it was ready";
            return Err(EngineError::DatabaseRefused(closed.to_owned()));
        }
        let piece = chunk.get(..count).unwrap_or_default();
        if opened.said.len() + piece.len() > SAID {
            return Err(odd("too much before it is ready", piece));
        }
        opened.said.extend_from_slice(piece);
        if state.see(piece, &mut opened)? {
            return Ok(opened);
        }
    }
}

fn odd(what: &str, payload: &[u8]) -> EngineError {
    Malformed { what: format!("from the database: {what}"), payload: payload.to_vec() }.into()
}

/// Where a server's start-up stands.
struct Opening {
    frames: Frames,
    authenticated: bool,
}

impl Opening {
    fn new() -> Self {
        Self { frames: Frames::opening(KEEP), authenticated: false }
    }

    /// Whether it has come to its end, one way or the other.
    fn see(&mut self, piece: &[u8], opened: &mut Opened) -> Result<bool, EngineError> {
        let mut at = 0;
        while let Some(message) =
            self.frames.next(piece, &mut at).map_err(|error| odd(&error.to_string(), piece))?
        {
            match backend(&message) {
                Some(Backend::Authentication(0)) => self.authenticated = true,
                Some(Backend::Authentication(_)) => {
                    let why = "it asks for a password; pg_hba.conf needs `hostssl all all all cert` for its users";
                    return Err(EngineError::DatabaseRefused(why.to_owned()));
                }
                Some(Backend::Error(error)) => {
                    opened.refused = Some(words(&error));
                    return Ok(true);
                }
                Some(Backend::KeyData { pid, secret }) if self.authenticated => {
                    opened.key = Some(Cancel { pid, secret: secret.to_vec() });
                }
                Some(Backend::Ready(_)) if self.authenticated && at == piece.len() => {
                    return Ok(true);
                }
                _ => return Err(odd("messages in the wrong order", piece)),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup() -> Startup {
        Startup { minor: 0, user: "alice".into(), database: "shop".into(), settings: Vec::new() }
    }

    /// What comes of it when a server says `answer` and closes.
    async fn opened(answer: &[u8]) -> (Result<Opened, EngineError>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            far.write_all(&answer).await.unwrap();
            far.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            heard
        });
        let opened = open(&mut near, &startup()).await;
        drop(near);
        (opened, server.await.unwrap())
    }

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const SETTING: &[u8] = b"S\0\0\0\x0ba\0bcde\0";
    const KEY: &[u8] = b"K\0\0\0\x0c\0\0\0\x07abcd";
    const READY_NOW: &[u8] = b"Z\0\0\0\x05I";
    const ERROR: &[u8] = b"E\0\0\0\x20SFATAL\0C3D000\0Mno database\0\0";

    #[tokio::test]
    async fn a_server_that_is_ready() {
        let answer = [OK, SETTING, KEY, READY_NOW].concat();
        let (opened, heard) = opened(&answer).await;
        let opened = opened.unwrap();
        assert_eq!(opened.said, answer);
        assert_eq!(opened.key, Some(Cancel { pid: 7, secret: b"abcd".to_vec() }));
        assert_eq!(opened.refused, None);
        assert_eq!(heard, startup().to_bytes());
    }

    #[tokio::test]
    async fn a_servers_refusal_is_passed_on() {
        let (before, _) = opened(ERROR).await;
        assert_eq!(before.unwrap().said, ERROR);
        let answer = [OK, ERROR].concat();
        let (after, _) = opened(&answer).await;
        let after = after.unwrap();
        assert_eq!(after.refused.as_deref(), Some("FATAL: no database (SQLSTATE 3D000)"));
        assert_eq!(after.said, answer);
    }

    #[tokio::test]
    async fn a_server_that_wants_a_password_does_not_get_one() {
        for kind in [3_u8, 5, 10] {
            let answer = [b'R', 0, 0, 0, 8, 0, 0, 0, kind];
            let text = opened(&answer).await.0.unwrap_err().to_string();
            assert!(text.starts_with("database refused: it asks for a password"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_server_out_of_order_is_left() {
        let endless = [SETTING; 30_000].concat();
        for (answer, what) in [
            (READY_NOW, "wrong order"),
            (KEY, "wrong order"),
            (&[OK, READY_NOW, SETTING].concat(), "wrong order"),
            (b"D\0\0\0\x06\0\0", "unknown"),
            (b"R\xff\xff\xff\xff", "4294967295 bytes"),
            (b"R\0\0\0\x06\0\0", "wrong order"),
            (&endless, "too much"),
            (OK, "closed the connection"),
        ] {
            let text = opened(answer).await.0.unwrap_err().to_string();
            assert!(text.contains(what), "{text}");
        }
    }

    #[tokio::test]
    async fn without_tls_nothing_is_sent() {
        for (answer, what) in
            [(b"N", "does not offer TLS"), (b"E", "does not know"), (b"H", "does not speak")]
        {
            let (mut near, mut far) = tokio::io::duplex(100);
            far.write_all(answer).await.unwrap();
            let text = ask_for_tls(&mut near).await.unwrap_err().to_string();
            assert!(text.contains(what), "{text}");
        }
        let (mut near, mut far) = tokio::io::duplex(100);
        far.write_all(b"Sclear").await.unwrap();
        ask_for_tls(&mut near).await.unwrap();
        let mut rest = [0; 5];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"clear", "what follows is not swallowed");
    }
}
