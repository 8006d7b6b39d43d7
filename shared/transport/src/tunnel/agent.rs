//! The agent's end: what the proxy asks for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::heart::{Heart, Pace};
use super::{DialRequest, ProxyEntry, TunnelError, TunnelStream};

/// How long the beginning of a tunnel, or the rest of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A tunnel as its agent sees it. Somebody has to call [`AgentTunnel::next`] all the time: it carries the bytes.
pub struct AgentTunnel<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<S, Bytes>,
    heart: Option<Heart>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> std::fmt::Debug for AgentTunnel<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentTunnel")
    }
}

/// What a proxy asks for.
#[derive(Debug)]
pub enum Asked {
    /// A connection to a service.
    Dial(DialRequest, DialReply),
    /// It tells which proxies there are; read it in a task of its own.
    Discovery(ProxyList),
    /// The connection ends soon; a new one is wanted.
    Reconnect,
}

/// The answer to a dial. Dropped, it is a refusal without a word.
#[derive(Debug)]
pub struct DialReply {
    respond: SendResponse<Bytes>,
    recv: RecvStream,
}

/// A list of proxies that is still coming.
#[derive(Debug)]
pub struct ProxyList {
    body: RecvStream,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentTunnel<S> {
    /// Begins a tunnel on a connection to a proxy whose certificate was checked.
    pub async fn open(stream: S) -> Result<Self, TunnelError> {
        Self::open_at(stream, Pace::USUAL).await
    }

    pub(super) async fn open_at(stream: S, pace: Pace) -> Result<Self, TunnelError> {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(super::STREAM_WINDOW)
            .initial_connection_window_size(super::CONNECTION_WINDOW)
            .max_frame_size(super::FRAME)
            .max_header_list_size(super::HEADERS)
            .header_table_size(0)
            .max_concurrent_streams(super::STREAMS)
            .max_pending_accept_reset_streams(super::STREAMS as usize)
            .max_send_buffer_size(super::SEND_BUFFER)
            .max_local_error_reset_streams(None)
            .data_frame_budget(super::SMALL_FRAMES);
        let mut connection = tokio::time::timeout(PATIENCE, builder.handshake(stream))
            .await
            .map_err(|_| TunnelError::TimedOut(PATIENCE))??;
        let heart = connection.ping_pong().map(|pings| Heart::new(pings, pace));
        Ok(Self { connection, heart })
    }

    /// The next thing the proxy asks for; none at the end. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Asked>, TunnelError> {
        let Self { connection, heart } = self;
        let stopped = async {
            match heart {
                Some(heart) => heart.stopped().await,
                None => std::future::pending().await,
            }
        };
        let mut stopped = std::pin::pin!(stopped);
        loop {
            let (request, respond) = tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(accepted) => accepted?,
                    None => return Ok(None),
                },
                () = &mut stopped => return Err(TunnelError::Silent),
            };
            if let Some(asked) = understand(request, respond) {
                return Ok(Some(asked));
            }
        }
    }

    /// Takes nothing new. [`AgentTunnel::next`] ends when what runs has ended.
    pub fn finish(&mut self) {
        self.connection.graceful_shutdown();
    }
}

fn understand(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Option<Asked> {
    let (head, body) = request.into_parts();
    let reply = DialReply { respond, recv: body };
    if head.method != Method::POST {
        reply.answer(StatusCode::METHOD_NOT_ALLOWED, "");
        return None;
    }
    match head.uri.path() {
        "/dial" => {
            let content = head.headers.get("dial-request").map(http::HeaderValue::as_bytes);
            match serde_json::from_slice(content.unwrap_or_default()) {
                Ok(dial) => Some(Asked::Dial(dial, reply)),
                Err(err) => {
                    reply.answer(StatusCode::BAD_REQUEST, &format!("dial request: {err}"));
                    None
                }
            }
        }
        "/discovery" => {
            let DialReply { respond, recv } = reply;
            answer(respond, StatusCode::OK, "");
            Some(Asked::Discovery(ProxyList { body: recv }))
        }
        "/reconnect" => {
            reply.answer(StatusCode::OK, "");
            Some(Asked::Reconnect)
        }
        _ => {
            reply.answer(StatusCode::NOT_FOUND, "this agent does not know the request");
            None
        }
    }
}

fn answer(mut respond: SendResponse<Bytes>, status: StatusCode, text: &str) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A proxy that is gone does not need an answer.
    if let Ok(mut send) = respond.send_response(response, text.is_empty())
        && !text.is_empty()
    {
        let _ = send.send_data(Bytes::copy_from_slice(text.as_bytes()), true);
    }
}

impl DialReply {
    /// The connection stands.
    pub fn accept(mut self) -> Result<TunnelStream, TunnelError> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(TunnelStream::new(send, self.recv))
    }

    /// There is none, and why; the user reads it.
    pub fn refuse(self, text: &str) {
        self.answer(StatusCode::SERVICE_UNAVAILABLE, text);
    }

    fn answer(self, status: StatusCode, text: &str) {
        answer(self.respond, status, text);
    }
}

impl ProxyList {
    /// Reads it; none where it is too long, too slow or no list.
    pub async fn read(mut self) -> Option<Vec<ProxyEntry>> {
        let read = async {
            let mut content = BytesMut::new();
            while let Some(chunk) = self.body.data().await {
                let chunk = chunk.ok()?;
                self.body.flow_control().release_capacity(chunk.len()).ok()?;
                if content.len() + chunk.len() > super::MAX_LIST {
                    return None;
                }
                content.extend_from_slice(&chunk);
            }
            serde_json::from_slice(&content).ok()
        };
        tokio::time::timeout(PATIENCE, read).await.ok()?
    }
}
