//! What handlers take out of a request: the caller, checked anew each time, and bodies of bounded size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use serde::de::DeserializeOwned;
use shared_api::limits;

use super::peer::Peer;
use super::reply::Refusal;
use crate::caller::Caller;
use crate::error::AuthError;
use crate::service::AuthService;

/// Any caller with a valid certificate.
pub(crate) struct Known(pub(crate) Caller);

/// A user, or the local administrator.
pub(crate) struct UserOrAdmin(pub(crate) Caller);

/// A proxy of the cluster.
pub(crate) struct ProxyOnly(pub(crate) Caller);

/// A service of the cluster, whatever its role.
pub(crate) struct Service(pub(crate) Caller);

/// A node of the cluster.
pub(crate) struct NodeOnly(pub(crate) Caller);

/// An agent in front of databases.
pub(crate) struct DbOnly(pub(crate) Caller);

/// Anybody, a limited number of times; holds the client's address.
pub(crate) struct Anybody(pub(crate) std::net::SocketAddr);

/// Whoever has shown a certificate that is accepted, or nobody. Beside [`Anybody`], for who proves more than a token.
pub(crate) struct Holder(pub(crate) Option<Caller>);

/// A JSON body of at most [`limits::MAX_REQUEST`] bytes.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body from anybody: of at most [`limits::MAX_ANONYMOUS`] bytes, and soon.
pub(crate) struct BriefBody<T>(pub(crate) T);

/// How long the body of a request from anybody may take.
const BRIEF: Duration = Duration::from_secs(15);

/// Values of the query string.
pub(crate) struct Query<T>(pub(crate) T);

/// Values of the path.
pub(crate) struct Path<T>(pub(crate) T);

fn peer(parts: &Parts) -> Result<Peer, AuthError> {
    parts.extensions.get::<Peer>().cloned().ok_or_else(|| {
        AuthError::internal("find the peer of a request", "the server did not set it")
    })
}

async fn caller(parts: &Parts, service: &AuthService) -> Result<Caller, AuthError> {
    let peer = peer(parts)?;
    let certificate = peer
        .certificate
        .ok_or_else(|| AuthError::unauthenticated("a client certificate is required"))?;
    let caller = service.caller(&certificate, peer.address).await?;
    if let Some(host) = caller.host_id().filter(|_| caller.is_service()) {
        let program = parts.headers.get(http::header::USER_AGENT);
        let program = program.and_then(|program| program.to_str().ok()).unwrap_or_default();
        let version = program.strip_prefix("gatehouse/").unwrap_or_default();
        service.presence.saw(host, version, service.now());
    }
    Ok(caller)
}

macro_rules! extract_caller {
    ($name:ident, $caller:ident => $check:expr) => {
        impl FromRequestParts<Arc<AuthService>> for $name {
            type Rejection = Refusal;
            async fn from_request_parts(
                parts: &mut Parts,
                service: &Arc<AuthService>,
            ) -> Result<Self, Refusal> {
                let $caller = caller(parts, service).await?;
                if $check {
                    Ok(Self($caller))
                } else {
                    Err(AuthError::denied("access denied").into())
                }
            }
        }
    };
}

impl FromRequestParts<Arc<AuthService>> for Known {
    type Rejection = Refusal;
    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<AuthService>,
    ) -> Result<Self, Refusal> {
        Ok(Self(caller(parts, service).await?))
    }
}

extract_caller!(UserOrAdmin, caller => caller.is_user() || caller.is_admin());
extract_caller!(ProxyOnly, caller => caller.is_proxy());
extract_caller!(NodeOnly, caller => caller.is_node());
extract_caller!(DbOnly, caller => caller.is_db());
extract_caller!(Service, caller => caller.is_service());

impl FromRequestParts<Arc<AuthService>> for Holder {
    type Rejection = Refusal;
    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<AuthService>,
    ) -> Result<Self, Refusal> {
        let shown = peer(parts)?.certificate.is_some();
        Ok(Self(if shown { caller(parts, service).await.ok() } else { None }))
    }
}

impl FromRequestParts<Arc<AuthService>> for Anybody {
    type Rejection = Refusal;
    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<AuthService>,
    ) -> Result<Self, Refusal> {
        let peer = peer(parts)?;
        service.anonymous_turn(peer.address.ip(), Instant::now())?;
        Ok(Self(peer.address))
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<AuthService>> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &Arc<AuthService>) -> Result<Self, Refusal> {
        Ok(Self(parsed(&read(request, limits::MAX_REQUEST).await?)?))
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<AuthService>> for BriefBody<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &Arc<AuthService>) -> Result<Self, Refusal> {
        let bytes = tokio::time::timeout(BRIEF, read(request, limits::MAX_ANONYMOUS))
            .await
            .map_err(|_| AuthError::bad_request("request body takes too long"))??;
        Ok(Self(parsed(&bytes)?))
    }
}

/// A JSON body.
pub(crate) fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AuthError> {
    // An absent body stands for an empty object where all is optional.
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(text)
        .map_err(|error| AuthError::bad_request(format!("request body: {error}")))
}

/// A body of at most `limit` bytes; neither its announced nor its real length is trusted beyond that.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Bytes, AuthError> {
    let limited = http_body_util::Limited::new(request.into_body(), limit);
    match http_body_util::BodyExt::collect(limited).await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(AuthError::bad_request(format!("request body is over {limit} bytes")))
        }
        Err(_) => Err(AuthError::bad_request("request body ended early")),
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| AuthError::bad_request(format!("query string: {error}")).into())
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|error| AuthError::bad_request(format!("path: {error}")).into())
    }
}
