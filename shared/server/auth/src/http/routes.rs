//! Routes and their handlers: extract, ask the service, answer. Who may call what stands in each
//! handler's first argument and is a golden file; what a caller may do with it is the service's matter.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use http::{HeaderValue, Method, header};
use serde_json::Value;
use shared_api::{
    AuthoritiesReply, ClusterState, CompleteUpload, CreateTokenReply, CreateTokenRequest,
    EmitRequest, ExportQuery, ForceQuery, HeartbeatReply, HostCertReply, HostCertRequest,
    InventoryReply, InviteInfo, InviteInfoRequest, InviteUserRequest, JoinReply, JoinRequest,
    LoginReply, LoginRequest, MeReply, NodeChanges, NodesQuery, NodesReply, OpensshUserRequest,
    ProxyHostCertRequest, QueryReply, QueryRequest, RecorderCertRequest, RecordingsQuery,
    RecordingsReply, RenewRequest, RenewSessions, RenewedSessions, ResetUserRequest, ResourceList,
    ResourceReply, SessionRecordingReply, SignupReply, SignupRequest, StateQuery, StatusReply,
    UpdateUserRequest, UserCertsRequest, UserTokenReply, limits, paths,
};
use shared_types::{Node, SessionId, UserName};
use uuid::Uuid;

use super::extract::{
    Anybody, Body, BriefBody, Holder, Known, NodeOnly, Path, ProxyOnly, Query, Service,
    UserOrAdmin, read,
};
use super::reply::{Json, Refusal, Reply};
use crate::error::AuthError;
use crate::service::AuthService;

/// How long a request may take before the caller is told to come back; a long poll and a query stay below it.
const REQUEST: Duration = Duration::from_secs(120);

/// Most requests that change something at a time; those of callers that hung up count too.
const MOST_RUNNING: usize = 8192;

pub(super) type Auth = State<Arc<AuthService>>;

/// All routes of the API.
pub(crate) fn router(service: Arc<AuthService>) -> Router {
    Router::new()
        .route(paths::LOGIN, post(login))
        .route(paths::INVITE_INFO, post(invite_info))
        .route(paths::SIGNUP, post(signup))
        .route(paths::JOIN, post(join))
        .route(paths::AUTHORITIES, get(authorities))
        .route(paths::AUTHORITIES_EXPORT, get(export))
        .route(paths::STATUS, get(status))
        .route(paths::ME, get(me))
        .route(paths::NODES, get(nodes))
        .route(paths::INVENTORY, get(inventory))
        .route(paths::NODE_VIEW, get(node_view))
        .route(paths::PRESENCE_NODE, put(heartbeat).delete(withdraw))
        .route(paths::SESSION_RECORDING, get(session_recording))
        .route(paths::RESOURCES, get(list_resources).post(create_resource))
        .route(paths::RESOURCE, get(read_resource).put(update_resource).delete(delete_resource))
        .route(paths::USERS_INVITE, post(invite_user))
        .route(paths::USER, patch(update_user))
        .route(paths::USER_RESET, post(reset_user))
        .route(paths::TOKENS, post(create_token))
        .route(paths::CERTS_HOST, post(sign_host))
        .route(paths::CERTS_USER, post(user_certs))
        .route(paths::CERTS_PROXY_HOST, post(sign_proxy_host))
        .route(paths::CERTS_OPENSSH_USER, post(sign_openssh_user))
        .route(paths::CERTS_RECORDER, post(sign_recorder))
        .route(paths::CERTS_RENEW, post(renew))
        .route(paths::QUERY, post(query))
        .route(paths::RECORDINGS, get(recordings))
        .route(paths::RECORDING, get(recording).delete(remove_recording))
        .route(paths::CLUSTER_STATE, get(cluster_state))
        .route(paths::EVENTS, post(emit))
        .route(paths::SESSIONS_RENEW, post(renew_sessions))
        .route(paths::UPLOAD_PART, put(upload_part))
        .route(paths::UPLOAD_COMPLETE, post(complete_upload))
        .merge(super::databases::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&service), limit_time))
        .with_state(service)
}

/// What changes something goes on when its caller hangs up: what was done is also written down. The rest ends with its
/// caller; a query is stopped by that.
async fn limit_time(State(auth): Auth, request: Request, next: Next) -> Response {
    if auth.running.len() >= MOST_RUNNING {
        return Refusal::from(AuthError::unavailable("too many requests")).into_response();
    }
    let only_reads = request.method() == Method::GET || request.uri().path() == paths::QUERY;
    let work = next.run(request);
    let answer =
        async { if only_reads { Some(work.await) } else { auth.running.spawn(work).await.ok() } };
    match tokio::time::timeout(REQUEST, answer).await {
        Ok(Some(response)) => response,
        Ok(None) => {
            Refusal::from(AuthError::internal("answer", "a handler failed")).into_response()
        }
        Err(_) => {
            Refusal::from(AuthError::unavailable("the request took too long")).into_response()
        }
    }
}

async fn unknown_path() -> Refusal {
    AuthError::not_found("no such path").into()
}

async fn unknown_method() -> Refusal {
    AuthError::bad_request("this path does not take this method").into()
}

// Without a certificate.

async fn login(
    Anybody(from): Anybody,
    State(auth): Auth,
    BriefBody(ask): BriefBody<LoginRequest>,
) -> Reply<LoginReply> {
    Ok(Json(auth.login(ask, from).await?))
}

async fn invite_info(
    _: Anybody,
    State(auth): Auth,
    BriefBody(ask): BriefBody<InviteInfoRequest>,
) -> Reply<InviteInfo> {
    Ok(Json(auth.invite_info(&ask.token).await?))
}

async fn signup(
    Anybody(from): Anybody,
    State(auth): Auth,
    BriefBody(ask): BriefBody<SignupRequest>,
) -> Reply<SignupReply> {
    Ok(Json(auth.signup(ask, from).await?))
}

async fn join(
    Anybody(from): Anybody,
    Holder(holder): Holder,
    State(auth): Auth,
    BriefBody(ask): BriefBody<JoinRequest>,
) -> Reply<JoinReply> {
    Ok(Json(auth.join(ask, from, holder.as_ref()).await?))
}

async fn authorities(_: Anybody, State(auth): Auth) -> Reply<AuthoritiesReply> {
    Ok(Json(auth.authorities()))
}

// Users and the administrator; some also services.

async fn export(
    _: Known,
    State(auth): Auth,
    Query(ask): Query<ExportQuery>,
) -> Result<String, Refusal> {
    Ok(auth.export(ask.kind.as_deref())?)
}

async fn status(_: Known, State(auth): Auth) -> Reply<StatusReply> {
    Ok(Json(auth.status()?))
}

async fn me(UserOrAdmin(caller): UserOrAdmin, State(auth): Auth) -> Reply<MeReply> {
    Ok(Json(auth.me(&caller).await?))
}

async fn nodes(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Query(ask): Query<NodesQuery>,
) -> Reply<NodesReply> {
    Ok(Json(auth.nodes(&caller, &ask).await?))
}

async fn inventory(UserOrAdmin(caller): UserOrAdmin, State(auth): Auth) -> Reply<InventoryReply> {
    Ok(Json(auth.inventory(&caller).await?))
}

async fn session_recording(
    Known(caller): Known,
    State(auth): Auth,
) -> Reply<SessionRecordingReply> {
    Ok(Json(auth.session_recording(&caller)))
}

async fn list_resources(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(kind): Path<String>,
) -> Reply<ResourceList> {
    Ok(Json(auth.list_resources(&caller, &kind).await?))
}

async fn create_resource(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(kind): Path<String>,
    Query(ask): Query<ForceQuery>,
    Body(resource): Body<Value>,
) -> Reply<ResourceReply> {
    Ok(Json(auth.create_resource(&caller, &kind, resource, ask.force).await?))
}

async fn read_resource(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path((kind, name)): Path<(String, String)>,
) -> Reply<Value> {
    Ok(Json(auth.read_resource(&caller, &kind, &name).await?))
}

async fn update_resource(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path((kind, name)): Path<(String, String)>,
    Query(ask): Query<ForceQuery>,
    Body(resource): Body<Value>,
) -> Reply<ResourceReply> {
    Ok(Json(auth.update_resource(&caller, &kind, &name, resource, ask.force).await?))
}

async fn delete_resource(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path((kind, name)): Path<(String, String)>,
) -> Reply<Value> {
    auth.delete_resource(&caller, &kind, &name).await?;
    Ok(Json(empty()))
}

async fn invite_user(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<InviteUserRequest>,
) -> Reply<UserTokenReply> {
    Ok(Json(auth.invite_user(&caller, ask).await?))
}

async fn update_user(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(name): Path<UserName>,
    Body(ask): Body<UpdateUserRequest>,
) -> Reply<Value> {
    Ok(Json(auth.update_user(&caller, &name, ask).await?))
}

async fn reset_user(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(name): Path<UserName>,
    Body(ask): Body<ResetUserRequest>,
) -> Reply<UserTokenReply> {
    Ok(Json(auth.reset_user(&caller, &name, ask).await?))
}

async fn create_token(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<CreateTokenRequest>,
) -> Reply<CreateTokenReply> {
    Ok(Json(auth.create_token(&caller, ask).await?))
}

async fn sign_host(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<HostCertRequest>,
) -> Reply<HostCertReply> {
    Ok(Json(auth.sign_host(&caller, ask).await?))
}

async fn user_certs(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<UserCertsRequest>,
) -> Reply<LoginReply> {
    Ok(Json(auth.user_certs(&caller, ask).await?))
}

async fn query(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Body(ask): Body<QueryRequest>,
) -> Reply<QueryReply> {
    Ok(Json(auth.query(&caller, ask).await?))
}

async fn recordings(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Query(ask): Query<RecordingsQuery>,
) -> Reply<RecordingsReply> {
    Ok(Json(auth.recordings(&caller, ask).await?))
}

async fn recording(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(session): Path<SessionId>,
) -> Result<Response, Refusal> {
    let stream = auth.recording(&caller, &session).await?;
    let mut response = HttpBody::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn remove_recording(
    UserOrAdmin(caller): UserOrAdmin,
    State(auth): Auth,
    Path(session): Path<SessionId>,
) -> Reply<Value> {
    auth.remove_recording(&caller, &session).await?;
    Ok(Json(empty()))
}

// Services of the cluster.

async fn renew(
    Service(caller): Service,
    State(auth): Auth,
    Body(ask): Body<RenewRequest>,
) -> Reply<JoinReply> {
    Ok(Json(auth.renew(&caller, ask).await?))
}

async fn sign_proxy_host(
    ProxyOnly(caller): ProxyOnly,
    State(auth): Auth,
    Body(ask): Body<ProxyHostCertRequest>,
) -> Reply<HostCertReply> {
    Ok(Json(auth.sign_proxy_host(&caller, ask).await?))
}

async fn sign_openssh_user(
    ProxyOnly(caller): ProxyOnly,
    State(auth): Auth,
    Body(ask): Body<OpensshUserRequest>,
) -> Reply<HostCertReply> {
    Ok(Json(auth.sign_openssh_user(&caller, ask).await?))
}

async fn sign_recorder(
    Service(caller): Service,
    State(auth): Auth,
    Body(ask): Body<RecorderCertRequest>,
) -> Reply<HostCertReply> {
    Ok(Json(auth.sign_recorder(&caller, ask).await?))
}

async fn node_view(
    _: ProxyOnly,
    State(auth): Auth,
    Query(ask): Query<StateQuery>,
) -> Reply<NodeChanges> {
    Ok(Json(auth.node_changes(ask.after).await))
}

async fn heartbeat(
    NodeOnly(caller): NodeOnly,
    State(auth): Auth,
    Body(node): Body<Node>,
) -> Reply<HeartbeatReply> {
    Ok(Json(auth.heartbeat(&caller, node).await?))
}

async fn withdraw(NodeOnly(caller): NodeOnly, State(auth): Auth) -> Reply<Value> {
    auth.withdraw(&caller).await?;
    Ok(Json(empty()))
}

async fn cluster_state(
    Service(caller): Service,
    State(auth): Auth,
    Query(ask): Query<StateQuery>,
) -> Reply<Arc<ClusterState>> {
    let mut state = auth.next_state(ask.after).await;
    // A node has nothing to do with databases.
    if caller.is_node() && !state.databases.is_empty() {
        Arc::make_mut(&mut state).databases.clear();
    }
    Ok(Json(state))
}

async fn emit(
    Service(caller): Service,
    State(auth): Auth,
    Body(ask): Body<EmitRequest>,
) -> Reply<Value> {
    auth.emit(&caller, ask.decode().map_err(AuthError::from)?).await?;
    Ok(Json(empty()))
}

async fn upload_part(
    Service(caller): Service,
    State(auth): Auth,
    Path((upload, session, part)): Path<(Uuid, SessionId, u64)>,
    request: Request,
) -> Reply<Value> {
    let bytes = read(request, limits::MAX_PART).await?;
    auth.upload_part(&caller, upload, &session, part, bytes).await?;
    Ok(Json(empty()))
}

async fn renew_sessions(
    Service(caller): Service,
    State(auth): Auth,
    Body(ask): Body<RenewSessions>,
) -> Reply<RenewedSessions> {
    let within = auth.renew_sessions(&caller, &ask.sessions)?;
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(RenewedSessions { within_ms }))
}

async fn complete_upload(
    Service(caller): Service,
    State(auth): Auth,
    Path((upload, session)): Path<(Uuid, SessionId)>,
    Body(ask): Body<CompleteUpload>,
) -> Reply<Value> {
    auth.complete_upload(&caller, upload, &session, ask).await?;
    Ok(Json(empty()))
}

pub(super) fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}
