//! One request after the other: read, written down, passed on, answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::SendRequest;
use shared_types::Database;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Asked, Dialect, Fault, Said};
use crate::audit::{Audit, AuditError};

/// The bodies of all requests that are held at a time, in KiB.
const HELD_KIB: usize = 256 * 1024;
static HELD: Semaphore = Semaphore::const_new(HELD_KIB);
/// How long a client has for the body of a request.
const BODY: Duration = Duration::from_secs(60);
/// How long a database has for the head of its reply.
const REPLY: Duration = Duration::from_secs(300);

/// Headers that belong to one connection (RFC 9110 §7.6.1), and those of the length, which are made anew.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// What a client reads: an answer of our own, or the database's.
type Reply = Response<Either<Full<Bytes>, Incoming>>;

/// A session's way to its database.
pub(super) struct Exchange(Arc<Inner>, TaskTracker);

struct Inner {
    dialect: Arc<dyn Dialect>,
    database: Arc<Database>,
    audit: Audit,
    sender: Mutex<SendRequest<Full<Bytes>>>,
    /// Nobody waits for replies any more.
    gone: CancellationToken,
}

/// Why a request has no body that could be passed on.
enum NoBody {
    TooLong,
    Slow,
    Broken,
}

impl Exchange {
    pub(super) fn new(
        dialect: Arc<dyn Dialect>,
        database: Arc<Database>,
        audit: Audit,
        sender: SendRequest<Full<Bytes>>,
    ) -> Self {
        let (sender, gone) = (Mutex::new(sender), CancellationToken::new());
        Self(Arc::new(Inner { dialect, database, audit, sender, gone }), TaskTracker::new())
    }

    /// Answers a request. What was begun is written down even if the client does not wait for it.
    ///
    /// # Errors
    /// When it cannot be written down; the connection ends then.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Reply, AuditError> {
        let inner = Arc::clone(&self.0);
        let (head, body) = request.into_parts();
        let most = inner.dialect.most_body();
        let (body, _held) = match read(body, most).await {
            Ok(read) => read,
            Err(why) => {
                let asked = Asked {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    body: Bytes::new(),
                };
                return inner.refuse(&asked, &why.said(inner.dialect.as_ref(), most)).await;
            }
        };
        let asked = Asked { method: head.method, uri: head.uri, headers: head.headers, body };
        let task = self.1.spawn(async move { inner.exchange(asked).await });
        task.await.unwrap_or(Err(AuditError::NotBegun))
    }

    /// Waits for what is under way; what takes longer than `patience` is given up, and written down so.
    pub(super) async fn finish(&self, patience: Duration) {
        self.1.close();
        if tokio::time::timeout(patience, self.1.wait()).await.is_err() {
            self.0.gone.cancel();
            let _ = tokio::time::timeout(patience, self.1.wait()).await;
        }
    }
}

impl Inner {
    async fn exchange(&self, asked: Asked) -> Result<Reply, AuditError> {
        let headers = match self.dialect.headers(&self.database, &asked).await {
            Ok(headers) => headers,
            Err(text) => {
                let said = self.dialect.error(StatusCode::BAD_REQUEST, Fault::Client, &text);
                return self.refuse(&asked, &said).await;
            }
        };
        let sent = tokio::select! {
            sent = tokio::time::timeout(REPLY, self.send(&asked, headers)) => sent,
            () = self.gone.cancelled() => Ok(None),
        };
        let Ok(Some(mut reply)) = sent else {
            let (status, text) = match sent {
                Err(_) => (StatusCode::GATEWAY_TIMEOUT, "the database does not answer in time"),
                Ok(_) => (StatusCode::BAD_GATEWAY, "the database gave no answer"),
            };
            return self.refuse(&asked, &self.dialect.error(status, Fault::Away, text)).await;
        };
        self.audit.statement(&mut vec![self.dialect.event(&asked, reply.status())]).await?;
        drop_hop(reply.headers_mut());
        Ok(reply.map(Either::Right))
    }

    /// Sends it, and waits for the head of the reply.
    async fn send(&self, asked: &Asked, headers: HeaderMap) -> Option<Response<Incoming>> {
        let target = asked.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::builder().method(asked.method.clone()).uri(target);
        *request.headers_mut()? = headers;
        let request = request.body(Full::new(asked.body.clone())).ok()?;
        let mut sender = self.sender.lock().await;
        sender.ready().await.ok()?;
        sender.send_request(request).await.ok()
    }

    /// Answers without the database.
    async fn refuse(&self, asked: &Asked, said: &Said) -> Result<Reply, AuditError> {
        self.audit.statement(&mut vec![self.dialect.event(asked, said.status())]).await?;
        Ok(said.clone().map(Either::Left))
    }
}

impl NoBody {
    fn said(self, dialect: &dyn Dialect, most: usize) -> Said {
        let (status, text) = match self {
            Self::TooLong => {
                let text = format!("the request is longer than {most} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, text)
            }
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "the request takes too long".to_owned()),
            Self::Broken => (StatusCode::BAD_REQUEST, "the request is not whole".to_owned()),
        };
        let mut said = dialect.error(status, Fault::Client, &text);
        // The rest of the body is not read.
        said.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        said
    }
}

/// Reads a body, as soon as there is room for it. The room is given back when the second value is dropped.
async fn read(
    body: Incoming,
    most: usize,
) -> Result<(Bytes, tokio::sync::SemaphorePermit<'static>), NoBody> {
    let length = body.size_hint().upper().unwrap_or(most as u64);
    if length > most as u64 {
        return Err(NoBody::TooLong);
    }
    let room = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
    let all = async {
        let held = HELD.acquire_many(room).await.map_err(|_| NoBody::Slow)?;
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { NoBody::TooLong } else { NoBody::Broken }
        })?;
        Ok((body.to_bytes(), held))
    };
    tokio::time::timeout(BODY, all).await.unwrap_or(Err(NoBody::Slow))
}

/// Takes out what belongs to one connection.
pub(in crate::engine) fn drop_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_connection_stays_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("content-type", "a"),
            ("x-amzn-requestid", "b"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        drop_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-amzn-requestid"]);
    }
}
