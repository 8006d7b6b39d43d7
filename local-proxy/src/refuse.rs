//! Saying no to a client in its own protocol, so that a person at a graphical client reads why.
//!
//! Nothing that the client sends is used: it is read as far as its protocol demands before an answer may come.

use std::io;
use std::time::Duration;

use shared_types::DbProtocol;
use shared_wire::{http, mysql, postgres, redis};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::relay::linger;

/// How long a client may take to say what it has to say first.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest first message of a client, in bytes.
const LONGEST: usize = 16 * 1024;
/// PostgreSQL's codes for what may come before a start-up message (PostgreSQL "Message Formats").
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
/// SQLSTATE for an authorization that is not valid (any more).
const SQLSTATE: &str = "28000";
/// MySQL's `ER_ACCESS_DENIED_ERROR`.
const ACCESS_DENIED: u16 = 1045;

/// Tells the client `text`, and lets it go.
pub async fn refuse<C>(protocol: DbProtocol, client: &mut C, text: &str)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let told = async {
        let answer = match protocol {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => {
                if !postgres_start(client).await? {
                    return Ok(());
                }
                postgres::refuse(SQLSTATE, text)
            }
            // The server speaks first.
            DbProtocol::Mysql => mysql::refuse(0, ACCESS_DENIED, SQLSTATE, text),
            DbProtocol::Redis => {
                let mut first = [0; 4096];
                if client.read(&mut first).await? == 0 {
                    return Ok(());
                }
                redis::refuse(text)
            }
            DbProtocol::Dynamodb => {
                http_head(client).await?;
                http::refuse(400, "AccessDeniedException", text)
            }
        };
        client.write_all(&answer).await?;
        client.flush().await
    };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(())) => linger(client).await,
        Ok(Err(error)) => tracing::debug!(%error, "the client left before it was answered"),
        Err(_) => tracing::debug!("the client said nothing to answer to"),
    }
}

/// Reads up to and with the start-up message; requests for encryption are answered with no. False where the client
/// wants no answer.
async fn postgres_start<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C) -> io::Result<bool> {
    // TLS and GSS may each be asked for once.
    for _ in 0..3 {
        let length = client.read_u32().await?;
        let code = client.read_u32().await?;
        match code {
            SSL | GSSENC => client.write_all(b"N").await?,
            CANCEL => return Ok(false),
            _ => {
                let rest = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(8);
                if rest > LONGEST {
                    return Ok(false);
                }
                client.read_exact(&mut vec![0; rest]).await?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Reads the head of a request.
async fn http_head<C: AsyncRead + Unpin>(client: &mut C) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn refused(protocol: DbProtocol) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (program, mut client) = duplex(64 * 1024);
        let task = tokio::spawn(async move { refuse(protocol, &mut client, "log in again").await });
        (program, task)
    }

    async fn rest(mut program: DuplexStream) -> Vec<u8> {
        let mut got = Vec::new();
        program.read_to_end(&mut got).await.unwrap();
        got
    }

    fn has(answer: &[u8], text: &str) -> bool {
        answer.windows(text.len()).any(|part| part == text.as_bytes())
    }

    #[tokio::test]
    async fn postgres_after_requests_for_encryption() {
        let (mut program, task) = refused(DbProtocol::Postgres);
        for code in [GSSENC, SSL] {
            program
                .write_all(&[&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat())
                .await
                .unwrap();
            assert_eq!(program.read_u8().await.unwrap(), b'N');
        }
        let start = b"user\0joe\0\0";
        let length = u32::try_from(start.len() + 8).unwrap();
        let head = [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), start].concat();
        program.write_all(&head).await.unwrap();
        let answer = rest(program).await;
        assert_eq!(answer.first(), Some(&b'E'));
        assert!(has(&answer, "log in again") && has(&answer, "28000") && has(&answer, "FATAL"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn mysql_in_place_of_the_greeting() {
        let (program, task) = refused(DbProtocol::Mysql);
        let answer = rest(program).await;
        assert_eq!(answer.get(3..7), Some(&[0, 0xff, 0x15, 0x04][..]), "{answer:?}");
        assert!(has(&answer, "log in again"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn redis_and_dynamodb_to_the_first_request() {
        for (protocol, request, begin) in [
            (DbProtocol::Redis, "*1\r\n$4\r\nPING\r\n", "-"),
            (DbProtocol::Dynamodb, "POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"),
        ] {
            let (mut program, task) = refused(protocol);
            program.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(program).await;
            assert!(answer.starts_with(begin.as_bytes()), "{}", String::from_utf8_lossy(&answer));
            assert!(has(&answer, "log in again"));
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn nonsense_and_cancel_requests_get_nothing() {
        for first in [[0xff; 8], {
            let mut cancel = [0, 0, 0, 16, 0, 0, 0, 0];
            cancel[4..].copy_from_slice(&CANCEL.to_be_bytes());
            cancel
        }] {
            let (mut program, task) = refused(DbProtocol::Postgres);
            program.write_all(&first).await.unwrap();
            program.shutdown().await.unwrap();
            assert!(rest(program).await.is_empty());
            task.await.unwrap();
        }
    }
}
