//! From the first byte to a client that has shown who it is and waits for its database.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use server_core::tunnel::{BoxedStream, ByteStream};
use shared_transport::tls::TlsError;
use shared_transport::{Rewind, alpn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tls::Shown;
use super::{DbProxy, Entry, Refusal, Speaks, mysql, postgres};

/// How long somebody who is refused may take to ask for something, which is what the refusal answers.
const ASKING: Duration = Duration::from_secs(10);
/// How long a refusal may take to arrive, and what a client may still send meanwhile.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_BYTES: usize = 64 * 1024;
/// Largest head of an HTTP request that is waited for before it is refused.
const HEAD: usize = 32 * 1024;

/// Why there is nobody to serve, nor to tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeetError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("read what a database client wants")]
    Io(#[from] io::Error),
    #[error("the client closed before it said what it wants")]
    Closed,
}

/// A client, at the first byte that is for its database.
pub(super) struct Guest {
    pub(super) speaks: Speaks,
    pub(super) stream: Rewind<BoxedStream>,
    /// The certificate whose key it has proved to hold.
    pub(super) shown: Option<CertificateDer<'static>>,
    /// The MySQL greeting that it was shown and has not answered yet.
    pub(super) greeted: Option<Bytes>,
    /// What it did wrong, to be told so.
    pub(super) fault: Option<Refusal>,
    /// Whether it asks for the end of something that runs, which is never answered.
    pub(super) cancels: bool,
}

impl Guest {
    pub(super) fn new(
        speaks: Speaks,
        stream: Rewind<BoxedStream>,
        shown: Option<CertificateDer<'static>>,
    ) -> Self {
        Self { speaks, stream, shown, greeted: None, fault: None, cancels: false }
    }

    /// The same, and it broke its protocol.
    pub(super) fn at_fault(mut self, why: impl Into<String>) -> Self {
        self.fault = Some(Refusal::Protocol(why.into()));
        self
    }
}

/// Boxes what is below a stream, and keeps what was seen of it.
pub(super) fn boxed<S: ByteStream>(stream: Rewind<S>) -> Rewind<BoxedStream> {
    let (stream, seen) = stream.into_parts();
    Rewind::with_seen(Box::new(stream), &seen)
}

impl DbProxy {
    /// Meets a client at its entry: ends TLS of ours, and what the protocol has of its own.
    pub(super) async fn meet(
        &self,
        stream: Rewind<TcpStream>,
        entry: Entry,
    ) -> Result<Guest, MeetError> {
        match entry {
            Entry::Postgres => postgres::meet(&self.tls, boxed(stream), None).await,
            Entry::Mysql => self.greet(boxed(stream), None).await,
            Entry::Alpn { name, wants } => {
                let (stream, shown) = self.tls.accept(stream, Shown::ByName, Some(name)).await?;
                let stream = Rewind::new(stream);
                match (wants, shown) {
                    (alpn::Database::Postgres, shown) => {
                        postgres::meet(&self.tls, stream, shown).await
                    }
                    // The agent greets, who can ask the database what it is.
                    (alpn::Database::Mysql { .. }, shown @ Some(_)) => {
                        Ok(Guest::new(Speaks::Mysql, stream, shown))
                    }
                    (alpn::Database::Mysql { version }, None) => {
                        self.greet(stream, version.as_deref()).await
                    }
                    (alpn::Database::Redis, shown) => {
                        self.maybe_in_tls(Speaks::Redis, stream, shown).await
                    }
                    (alpn::Database::Dynamodb, shown) => {
                        self.maybe_in_tls(Speaks::Dynamodb, stream, shown).await
                    }
                }
            }
        }
    }

    async fn greet(
        &self,
        stream: Rewind<BoxedStream>,
        version: Option<&str>,
    ) -> Result<Guest, MeetError> {
        let configured = self.settings.mysql_server_version.as_deref();
        let version = version.or(configured).unwrap_or(shared_wire::mysql::VERSION);
        let number = self.greeted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        mysql::meet(&self.tls, stream, (version, number)).await
    }

    /// A client without a certificate yet may bring TLS of its own inside ours.
    async fn maybe_in_tls(
        &self,
        speaks: Speaks,
        mut stream: Rewind<BoxedStream>,
        shown: Option<CertificateDer<'static>>,
    ) -> Result<Guest, MeetError> {
        if shown.is_some() {
            return Ok(Guest::new(speaks, stream, shown));
        }
        if stream.look(1).await? == 0 {
            return Err(MeetError::Closed);
        }
        if stream.seen().first() != Some(&0x16) {
            return Ok(Guest::new(speaks, stream, None));
        }
        let (stream, shown) = self.tls.accept(stream, Shown::Host, None).await?;
        Ok(Guest::new(speaks, Rewind::new(stream), shown))
    }
}

impl Guest {
    /// Says no in the client's protocol, when it is the client's turn to hear it, and ends the connection.
    pub(super) async fn refuse(mut self, refusal: &Refusal) {
        if self.cancels {
            return;
        }
        let Ok(sequence) = tokio::time::timeout(ASKING, self.hear_out()).await else { return };
        let words = refusal.bytes(self.speaks, sequence);
        let telling = async {
            self.stream.write_all(&words).await?;
            self.stream.shutdown().await?;
            // Who still sends while we close would get a reset in place of our words.
            let mut rest = (&mut self.stream).take(LAST_BYTES as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LAST_WORDS, telling).await;
    }

    /// Reads what comes before an answer. Gives MySQL's sequence number of that.
    async fn hear_out(&mut self) -> u8 {
        match self.speaks {
            // Its first packet was looked at already.
            Speaks::Postgres => 0,
            Speaks::Mysql if self.greeted.is_none() => 0,
            Speaks::Mysql => mysql::hear_answer(&mut self.stream).await,
            Speaks::Redis => {
                if self.stream.seen().is_empty() {
                    let _ = self.stream.look(1).await;
                }
                0
            }
            Speaks::Dynamodb => {
                let ended = |seen: &[u8]| seen.windows(4).any(|four| four == b"\r\n\r\n");
                while !ended(self.stream.seen())
                    && self.stream.look(HEAD).await.is_ok_and(|more| more > 0)
                {}
                0
            }
        }
    }
}
