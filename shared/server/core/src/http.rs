//! HTTP on a connection that was accepted, for every service that speaks it.
//!
//! What must stay true: a peer that is slow, silent or gone costs a connection for a bounded time, whatever it has
//! sent; and every answer carries what keeps a browser from making more of it than it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Anything that goes wrong with a connection.
pub type HttpError = Box<dyn std::error::Error + Send + Sync>;

/// What a peer may take of time, and of requests at once.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// How long the head of a request may take; the first one is counted from the beginning of the connection.
    pub head: Duration,
    /// How often a silent HTTP/2 peer is asked whether it lives.
    pub ping: Duration,
    /// How long it has for the answer.
    pub pong: Duration,
    /// A connection without a new request for so long is closed; a client that needs it again makes a new one.
    pub idle: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long running requests may go on once the end was asked for.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(20),
            idle: Duration::from_secs(300),
            streams: 256,
            drain: Duration::from_secs(10),
        }
    }
}

/// The largest head of an HTTP/2 request.
const MAX_HEADERS: u32 = 32 * 1024;

/// What answers carry unless a handler says otherwise. There is nothing to show in a frame, to run or to keep; and
/// whoever came by TLS comes so again (RFC 6797), on this name alone: what runs below it is others' affair.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

fn harden(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
}

/// Serves HTTP/1 or HTTP/2, whichever the peer begins, until it ends, is idle, or `ending`.
pub async fn serve<I, V, B>(
    stream: I,
    service: V,
    limits: HttpLimits,
    ending: &CancellationToken,
) -> Result<(), HttpError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    V: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    V::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<HttpError>,
{
    let activity = Arc::new(Activity::default());
    let counted = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request| {
        let (running, answer) = (Activity::begin(&counted), service.call(request));
        async move {
            let _running = running;
            let mut answer = answer.await;
            if let Ok(answer) = &mut answer {
                harden(answer.headers_mut());
            }
            answer
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        end = activity.over(limits, ending) => match end {
            // The library waits for the first bytes, and for an HTTP/2 preface, without a limit.
            Over::Silent => return Ok(()),
            Over::Idle | Over::Ending => connection.as_mut().graceful_shutdown(),
        }
    }
    // What is idle may still be sending a long answer to a slow reader.
    let overdue = async {
        ending.cancelled().await;
        tokio::time::sleep(limits.drain).await;
    };
    tokio::select! {
        ended = connection => ended,
        () = overdue => Ok(()),
    }
}

/// Why a connection is over that the peer has not ended.
enum Over {
    /// No request came in time.
    Silent,
    /// No further one did.
    Idle,
    /// The service ends.
    Ending,
}

/// Requests of one connection: how many run, and how many ran.
#[derive(Default)]
struct Activity {
    running: AtomicU64,
    begun: AtomicU64,
}

/// One request that runs.
struct Running(Arc<Activity>);

impl Activity {
    fn begin(this: &Arc<Self>) -> Running {
        this.running.fetch_add(1, Ordering::Relaxed);
        this.begun.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(this))
    }

    async fn over(&self, limits: HttpLimits, ending: &CancellationToken) -> Over {
        let pause = |time| ending.run_until_cancelled(tokio::time::sleep(time));
        if pause(limits.head).await.is_none() {
            return Over::Ending;
        }
        let mut seen = self.begun.load(Ordering::Relaxed);
        if seen == 0 {
            return Over::Silent;
        }
        while pause(limits.idle).await.is_some() {
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.running.load(Ordering::Relaxed) == 0 {
                return Over::Idle;
            }
            seen = begun;
        }
        Over::Ending
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    /// Far more than a wait may last beyond its limit.
    const SOON: Duration = Duration::from_secs(10);

    fn limits() -> HttpLimits {
        HttpLimits {
            head: Duration::from_millis(300),
            idle: Duration::from_millis(100),
            drain: Duration::from_millis(100),
            ..HttpLimits::default()
        }
    }

    /// A client's end, and the task that serves the other.
    fn served() -> (DuplexStream, tokio::task::JoinHandle<()>, CancellationToken) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let ending = CancellationToken::new();
        let stop = ending.clone();
        let serving = tokio::spawn(async move {
            let service = hyper::service::service_fn(|_: Request<Incoming>| async {
                let mut answer = Response::new(Full::new(Bytes::from_static(b"hello")));
                answer
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
                Ok::<_, Infallible>(answer)
            });
            serve(far, service, limits(), &stop).await.ok();
        });
        (near, serving, ending)
    }

    /// Reads until nothing comes any more, and how long that took.
    async fn rest(stream: &mut DuplexStream) -> (String, Duration) {
        let begun = Instant::now();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        (String::from_utf8_lossy(&text).into_owned(), begun.elapsed())
    }

    #[tokio::test]
    async fn a_peer_that_asks_for_nothing_is_let_go() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for said in [&b""[..], b"P", &preface[..16], preface, b"GET / HTTP/1.1\r\nHost: x\r\n"] {
            let (mut near, serving, _ending) = served();
            near.write_all(said).await.unwrap();
            let (_, took) = rest(&mut near).await;
            assert!(took <= SOON, "{said:?}: {took:?}");
            serving.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_answer_carries_the_headers_and_an_idle_peer_is_let_go() {
        let (mut near, serving, _ending) = served();
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (text, took) = rest(&mut near).await;
        serving.await.unwrap();
        assert!(took <= SOON, "{took:?}");
        let text = text.to_ascii_lowercase();
        for header in [
            "strict-transport-security: max-age=31536000\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-frame-options: deny\r\n",
            "content-security-policy: default-src 'none'",
            "referrer-policy: no-referrer\r\n",
            // What the handler says stands.
            "cache-control: max-age=5\r\n",
        ] {
            assert!(text.contains(header), "{header:?} is missing in {text}");
        }
        assert!(!text.contains("no-store"), "{text}");
    }

    #[tokio::test]
    async fn the_end_is_soon() {
        let (mut near, serving, ending) = served();
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        ending.cancel();
        let (_, took) = rest(&mut near).await;
        serving.await.unwrap();
        assert!(took <= SOON, "{took:?}");
    }
}
