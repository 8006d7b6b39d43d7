//! The web API: what `curl` in a guide asks for, and what clients ask before they know anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use server_core::Authority;
use shared_api::{ApiError, ErrorKind};

use crate::ping::{self, ListenAddrs};
use crate::settings::ProxySettings;
use server_core::ssh::rate::RateLimit;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

struct Web {
    authority: Arc<dyn Authority>,
    settings: Arc<ProxySettings>,
    listen: ListenAddrs,
    limit: RateLimit,
}

type Shared = State<Arc<Web>>;

/// The routes, each also below `/v1`.
pub(crate) fn router(
    authority: Arc<dyn Authority>,
    settings: Arc<ProxySettings>,
    listen: ListenAddrs,
) -> Router {
    let web = Arc::new(Web {
        authority,
        settings,
        listen,
        limit: RateLimit::new(20, Duration::from_secs(60), 40),
    });
    let limited = Router::new()
        .route("/webapi/ping", get(ping))
        .route("/webapi/ping/{connector}", get(ping_connector))
        .route("/webapi/auth/export", get(export))
        .route("/webapi/sites/{cluster}/auth/export", get(export))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&web), limit));
    let routes = Router::new().route("/webapi/find", get(find)).merge(limited);
    Router::new().nest("/v1", routes.clone()).merge(routes).fallback(not_found).with_state(web)
}

/// An error as clients know it.
struct WebError(StatusCode, String);

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "message": self.1 } });
        (self.0, Json(body)).into_response()
    }
}

impl From<ApiError> for WebError {
    fn from(err: ApiError) -> Self {
        let status = match err.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, err.message)
    }
}

async fn limit(
    State(web): Shared,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if web.limit.admit(peer.ip(), Instant::now()) {
        return next.run(request).await;
    }
    WebError(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded".to_owned()).into_response()
}

async fn find(State(web): Shared) -> impl IntoResponse {
    Json(ping::document(&web.authority.state(), &web.settings, &web.listen, false))
}

async fn ping(State(web): Shared) -> impl IntoResponse {
    Json(ping::document(&web.authority.state(), &web.settings, &web.listen, true))
}

async fn ping_connector(
    State(web): Shared,
    Path(connector): Path<String>,
) -> Result<impl IntoResponse, WebError> {
    // "local" is the one way to log in there is.
    if connector != "local" {
        return Err(WebError(StatusCode::NOT_FOUND, "connector not found".to_owned()));
    }
    Ok(ping(State(web)).await)
}

#[derive(serde::Deserialize)]
struct ExportQuery {
    #[serde(rename = "type")]
    kind: Option<String>,
}

async fn export(
    State(web): Shared,
    Query(query): Query<ExportQuery>,
) -> Result<impl IntoResponse, WebError> {
    let kind = query.kind.as_deref().filter(|kind| !kind.is_empty());
    match web.authority.export(kind).await {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)),
        Err(server_core::AuthorityError::Refused(err)) => Err(err.into()),
        Err(server_core::AuthorityError::Unavailable(why)) => {
            tracing::warn!(error = %why, "export of authorities");
            Err(WebError(StatusCode::SERVICE_UNAVAILABLE, "auth service is unavailable".to_owned()))
        }
    }
}

async fn not_found() -> WebError {
    WebError(StatusCode::NOT_FOUND, "path not found".to_owned())
}
