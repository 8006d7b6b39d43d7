//! The proxy's end: takes an agent's connection, and dials through it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::heart::{Heard, Listener, Pace};
use super::{DialRequest, ProxyEntry, TunnelError, TunnelStream};

/// How long the beginning of a tunnel, or an answer to a short request, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to an agent. Cheap to copy; it works as long as its [`Driver`] runs.
#[derive(Clone)]
pub struct Tunnel {
    requests: SendRequest<Bytes>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnel")
    }
}

/// What carries a tunnel's bytes. Run it to its end.
pub struct Driver<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Heard<S>, Bytes>,
    listener: Listener,
    pace: Pace,
}

impl<S: AsyncRead + AsyncWrite + Unpin> std::fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

/// Why a dial through a tunnel got no stream.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The agent said why.
    #[error("{0}")]
    Agent(String),
    /// The tunnel is not there any more, or takes nothing new; another may.
    #[error("the agent's tunnel has ended")]
    Gone(#[source] TunnelError),
    /// It took too long.
    #[error("the agent did not answer in {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Tunnel {
    /// Takes the connection of an agent whose certificate was checked.
    pub async fn accept<S>(stream: S) -> Result<(Self, Driver<S>), TunnelError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Self::accept_at(stream, Pace::USUAL).await
    }

    pub(super) async fn accept_at<S>(
        stream: S,
        pace: Pace,
    ) -> Result<(Self, Driver<S>), TunnelError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, listener) = Heard::new(stream);
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(super::STREAM_WINDOW)
            .initial_connection_window_size(super::CONNECTION_WINDOW)
            .max_frame_size(super::FRAME)
            .max_header_list_size(super::HEADERS)
            .header_table_size(0)
            .max_send_buffer_size(super::SEND_BUFFER)
            .max_local_error_reset_streams(None)
            .data_frame_budget(super::SMALL_FRAMES)
            .initial_max_send_streams(super::STREAMS as usize);
        let (requests, connection) = tokio::time::timeout(PATIENCE, builder.handshake(stream))
            .await
            .map_err(|_| TunnelError::TimedOut(PATIENCE))??;
        Ok((Self { requests }, Driver { connection, listener, pace }))
    }

    /// Asks the agent for a connection to one of its services, for at most `limit`.
    pub async fn dial(
        &self,
        request: &DialRequest,
        limit: Duration,
    ) -> Result<TunnelStream, Refused> {
        let content = serde_json::to_string(request)
            .map_err(|err| Refused::Agent(format!("dial request: {err}")))?;
        let dialled = async {
            let head = Request::builder()
                .method(Method::POST)
                .uri("https://agent/dial")
                .header("dial-request", content)
                .body(())
                .map_err(|err| Refused::Agent(format!("dial request: {err}")))?;
            let gone = |err: h2::Error| Refused::Gone(err.into());
            let mut requests = self.requests.clone().ready().await.map_err(gone)?;
            let (response, send) = requests.send_request(head, false).map_err(gone)?;
            let response = response.await.map_err(gone)?;
            if response.status() != StatusCode::OK {
                return Err(Refused::Agent(text_of(response).await));
            }
            Ok(TunnelStream::new(send, response.into_body()))
        };
        tokio::time::timeout(limit, dialled).await.map_err(|_| Refused::TimedOut(limit))?
    }

    /// Tells the agent which proxies there are.
    pub async fn tell_proxies(&self, proxies: &[ProxyEntry]) -> Result<(), TunnelError> {
        let content = serde_json::to_vec(proxies).unwrap_or_default();
        self.tell("https://agent/discovery", Bytes::from(content)).await
    }

    /// Asks the agent for a new connection to whichever proxy it finds, because this one ends soon.
    pub async fn ask_to_reconnect(&self) -> Result<(), TunnelError> {
        self.tell("https://agent/reconnect", Bytes::new()).await
    }

    async fn tell(&self, what: &'static str, content: Bytes) -> Result<(), TunnelError> {
        let told = async {
            let mut head = Request::new(());
            *head.method_mut() = Method::POST;
            *head.uri_mut() = http::Uri::from_static(what);
            let mut requests = self.requests.clone().ready().await?;
            let (response, mut send) = requests.send_request(head, false)?;
            send.send_data(content, true)?;
            response.await?;
            Ok(())
        };
        tokio::time::timeout(PATIENCE, told).await.map_err(|_| TunnelError::TimedOut(PATIENCE))?
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Carries the tunnel until it ends, or until nothing is heard any more.
    pub async fn run(self) -> Result<(), TunnelError> {
        let Self { connection, listener, pace } = self;
        tokio::select! {
            ended = connection => Ok(ended?),
            () = listener.silence(pace) => Err(TunnelError::Silent),
        }
    }
}

/// What an agent says, cut to a length and made fit for a terminal.
async fn text_of(response: Response<h2::RecvStream>) -> String {
    let status = response.status();
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    while text.len() < super::MAX_TEXT {
        let Some(Ok(chunk)) = body.data().await else { break };
        let _ = body.flow_control().release_capacity(chunk.len());
        text.extend_from_slice(&chunk);
    }
    text.truncate(super::MAX_TEXT);
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect();
    if text.trim().is_empty() { format!("the agent answered {status}") } else { text }
}
