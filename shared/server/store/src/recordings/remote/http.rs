//! Requests to object stores: one at a time, bounded in time and in what is taken of the answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::fault::{At, FaultKind, StoreFault};

/// Largest answer that is not an object.
pub(super) const SMALL: u64 = 4 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// One request with its answer; a block of 8 MiB wants 70 KB/s then.
const REQUEST: Duration = Duration::from_secs(120);

/// An answer, whatever its status.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How connections are made. Plain HTTP only where the configuration says so.
pub(super) fn options(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
}

/// How often credentials are asked for; the upload itself has its own way to try again.
pub(super) fn credential_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 1,
        retry_timeout: Duration::from_secs(10),
    }
}

/// A client for requests.
pub(super) fn client(allow_http: bool, at: &At) -> Result<HttpClient, StoreFault> {
    ReqwestConnector::default()
        .connect(&options(allow_http))
        .map_err(|error| at.failed(FaultKind::Other, &error))
}

/// Sends a request and takes at most `most` bytes of the answer.
pub(super) async fn send(
    client: &HttpClient,
    request: HttpRequest,
    most: u64,
    at: &At,
) -> Result<Reply, StoreFault> {
    let reply =
        client.execute(request).await.map_err(|error| at.failed(FaultKind::Unreachable, &error))?;
    let (parts, body) = reply.into_parts();
    let mut bytes = BytesMut::new();
    let mut stream = body.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| at.failed(FaultKind::Unreachable, &error))?;
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(at.fault(FaultKind::Other, format!("the answer is over {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Reply { status: parts.status, headers: parts.headers, body: bytes.freeze() })
}

/// Percent-encoding by RFC 3986 §2.3, as signatures want it: only unreserved characters stand for themselves, and
/// the slash where `keep_slash` says so.
pub(super) fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keep_slash => out.push('/'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// `a=b&c=d`.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        assert_eq!(encode("a/b c=~ü", true), "a/b%20c%3D~%C3%BC");
        assert_eq!(encode("a/b", false), "a%2Fb");
        assert_eq!(query(&[("uploads", ""), ("prefix", "a/b")]), "uploads=&prefix=a%2Fb");
    }
}
