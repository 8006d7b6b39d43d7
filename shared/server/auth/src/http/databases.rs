//! Routes about databases.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{get, post, put};
use serde_json::Value;
use shared_api::{
    DatabaseCertReply, DatabaseCertRequest, DatabaseServerCertReply, DatabaseServerCertRequest,
    DatabasesQuery, DatabasesReply, DbPresence, DbPresenceReply, limits, paths,
};

use super::extract::{Body, DbOnly, Query, UserOrAdmin, parsed, read};
use super::reply::{Json, Reply};
use super::routes::{Auth, empty};
use crate::service::AuthService;

pub(super) fn routes() -> Router<Arc<AuthService>> {
    Router::new()
        .route(paths::DATABASES, get(databases))
        .route(paths::PRESENCE_DB, put(heartbeat).delete(withdraw))
        .route(paths::CERTS_DATABASE, post(sign_client))
        .route(paths::CERTS_DATABASE_SERVER, post(sign_server))
}

async fn databases(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Query(ask): Query<DatabasesQuery>,
) -> Reply<DatabasesReply> {
    Ok(Json(auth.databases(&caller, &ask)?))
}

async fn sign_server(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<DatabaseServerCertRequest>,
) -> Reply<DatabaseServerCertReply> {
    Ok(Json(auth.sign_database_server(&caller, ask)?))
}

async fn sign_client(
    DbOnly(caller): DbOnly,
    State(auth): Auth,
    Body(ask): Body<DatabaseCertRequest>,
) -> Reply<DatabaseCertReply> {
    Ok(Json(auth.sign_database_client(&caller, ask).await?))
}

async fn heartbeat(
    DbOnly(caller): DbOnly,
    State(auth): Auth,
    request: Request,
) -> Reply<DbPresenceReply> {
    // A host may serve more than other requests have room for.
    let bytes = read(request, limits::MAX_PRESENCE).await?;
    let served: DbPresence = parsed(&bytes)?;
    Ok(Json(auth.heartbeat_db(&caller, served).await?))
}

async fn withdraw(DbOnly(caller): DbOnly, State(auth): Auth) -> Reply<Value> {
    auth.withdraw_db(&caller).await?;
    Ok(Json(empty()))
}
