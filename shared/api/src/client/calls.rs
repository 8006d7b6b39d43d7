//! One method per call.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared_events::AuditEvent;
use shared_types::{Node, Resource, ResourceKind, SessionId, UserName};
use uuid::Uuid;

use super::conn::{Body, full};
use super::stream::{RecordingStream, collect, refusal};
use super::{Client, ClientError};
use crate::types::*;
use crate::{limits, paths};

/// `?a=b&c=d` out of a struct of optional scalars.
pub(super) fn query(params: &impl Serialize) -> String {
    let Ok(Value::Object(map)) = serde_json::to_value(params) else { return String::new() };
    let mut out = String::new();
    for (key, value) in map {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(&paths::encode(&key));
        out.push('=');
        out.push_str(&paths::encode(&text));
    }
    out
}

impl Client {
    fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
        content: &str,
    ) -> Result<Request<Body>, ClientError> {
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.server_name()))
            .header(http::header::CONTENT_TYPE, content)
            .header(http::header::USER_AGENT, concat!("gatehouse/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|err| crate::ApiError::bad_request(err.to_string()).into())
    }

    /// Any call that takes and gives JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let bytes = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|source| ClientError::Reply { what: what.clone(), source })?,
            None => Vec::new(),
        };
        let request = self.request(method, path, full(bytes), "application/json")?;
        let response = self.send(request, &what, wait).await?;
        if !response.status().is_success() {
            return Err(refusal(response, &what, wait).await);
        }
        let bytes = collect(response.into_body(), &what, limits::MAX_REPLY, wait).await?;
        // A reply without a body is an empty one.
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Reply { what, source })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, None::<&()>, self.inner.timeouts.request).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.json(Method::POST, path, Some(body), self.inner.timeouts.request).await
    }

    /// Certificates for a password. Anonymous.
    pub async fn login(&self, request: &LoginRequest) -> Result<LoginReply, ClientError> {
        self.post(paths::LOGIN, request).await
    }

    /// What a sign-up token is for. Anonymous.
    pub async fn invite_info(
        &self,
        request: &InviteInfoRequest,
    ) -> Result<InviteInfo, ClientError> {
        self.post(paths::INVITE_INFO, request).await
    }

    /// Sets a password with a token. Anonymous.
    pub async fn signup(&self, request: &SignupRequest) -> Result<SignupReply, ClientError> {
        self.post(paths::SIGNUP, request).await
    }

    /// A service's certificates for a join token. Anonymous.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinReply, ClientError> {
        self.post(paths::JOIN, request).await
    }

    /// A service's certificates anew.
    pub async fn renew(&self, request: &RenewRequest) -> Result<JoinReply, ClientError> {
        self.post(paths::CERTS_RENEW, request).await
    }

    /// The public halves of all authorities. Anonymous.
    pub async fn authorities(&self) -> Result<AuthoritiesReply, ClientError> {
        self.get(paths::AUTHORITIES).await
    }

    /// The text of `tctl auth export --type=`.
    pub async fn export_authority(&self, kind: Option<&str>) -> Result<String, ClientError> {
        let path = format!(
            "{}{}",
            paths::AUTHORITIES_EXPORT,
            query(&ExportQuery { kind: kind.map(str::to_owned) })
        );
        let wait = self.inner.timeouts.request;
        let response = self
            .send(self.request(Method::GET, &path, full(""), "text/plain")?, "an export", wait)
            .await?;
        if !response.status().is_success() {
            return Err(refusal(response, "an export", wait).await);
        }
        let bytes = collect(response.into_body(), "an export", limits::MAX_REQUEST, wait).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The cluster as `tctl status` shows it.
    pub async fn status(&self) -> Result<StatusReply, ClientError> {
        self.get(paths::STATUS).await
    }

    /// Who the caller is.
    pub async fn me(&self) -> Result<MeReply, ClientError> {
        self.get(paths::ME).await
    }

    /// The nodes that the caller may reach.
    pub async fn nodes(&self, request: &NodesQuery) -> Result<NodesReply, ClientError> {
        self.get(&format!("{}{}", paths::NODES, query(request))).await
    }

    /// The processes that serve the cluster.
    pub async fn inventory(&self) -> Result<Vec<Instance>, ClientError> {
        Ok(self.get::<InventoryReply>(paths::INVENTORY).await?.items)
    }

    /// Says that this node is there. Answers when to come again.
    pub async fn heartbeat(&self, node: &Node) -> Result<HeartbeatReply, ClientError> {
        let wait = self.inner.timeouts.request;
        self.json(Method::PUT, paths::PRESENCE_NODE, Some(node), wait).await
    }

    /// Says that this node goes.
    pub async fn withdraw(&self) -> Result<(), ClientError> {
        let wait = self.inner.timeouts.request;
        self.json::<Value>(Method::DELETE, paths::PRESENCE_NODE, None::<&()>, wait).await.map(drop)
    }

    /// What has changed of the nodes; with `after` waits for a change and answers none after a while.
    pub async fn node_changes(&self, after: Option<u64>) -> Result<NodeChanges, ClientError> {
        let path = format!("{}{}", paths::NODE_VIEW, query(&StateQuery { after }));
        let wait = self.inner.timeouts.request + limits::STATE_WAIT;
        self.json(Method::GET, &path, None::<&()>, wait).await
    }

    /// All resources of a kind as they are stored, ordered by name.
    pub async fn list_resources(&self, kind: ResourceKind) -> Result<Vec<Value>, ClientError> {
        Ok(self.get::<ResourceList>(&paths::fill(paths::RESOURCES, &[kind.as_str()])).await?.items)
    }

    /// One resource.
    pub async fn get_resource(&self, kind: ResourceKind, name: &str) -> Result<Value, ClientError> {
        self.get(&paths::fill(paths::RESOURCE, &[kind.as_str(), name])).await
    }

    /// Creates a resource; with `force` replaces one of that name.
    pub async fn create_resource(
        &self,
        resource: &Resource,
        force: bool,
    ) -> Result<ResourceReply, ClientError> {
        let path = paths::fill(paths::RESOURCES, &[resource.kind().as_str()]);
        let path = if force { format!("{path}?force=true") } else { path };
        self.post(&path, &resource.to_json()).await
    }

    /// Replaces a resource; where it carries a revision, only if nobody changed it since.
    pub async fn update_resource(&self, resource: &Resource) -> Result<ResourceReply, ClientError> {
        let path = paths::fill(paths::RESOURCE, &[resource.kind().as_str(), resource.name()]);
        self.json(Method::PUT, &path, Some(&resource.to_json()), self.inner.timeouts.request).await
    }

    /// Deletes a resource.
    pub async fn delete_resource(&self, kind: ResourceKind, name: &str) -> Result<(), ClientError> {
        let path = paths::fill(paths::RESOURCE, &[kind.as_str(), name]);
        self.json::<Value>(Method::DELETE, &path, None::<&()>, self.inner.timeouts.request)
            .await
            .map(drop)
    }

    /// Creates a user and an invitation.
    pub async fn invite_user(
        &self,
        request: &InviteUserRequest,
    ) -> Result<UserTokenReply, ClientError> {
        self.post(paths::USERS_INVITE, request).await
    }

    /// Takes a user's password away and makes a token to set another.
    pub async fn reset_user(
        &self,
        user: &UserName,
        request: &ResetUserRequest,
    ) -> Result<UserTokenReply, ClientError> {
        self.post(&paths::fill(paths::USER_RESET, &[user.as_ref()]), request).await
    }

    /// Changes a user's roles and attributes; answers the user.
    pub async fn update_user(
        &self,
        user: &UserName,
        request: &UpdateUserRequest,
    ) -> Result<Value, ClientError> {
        self.json(
            Method::PATCH,
            &paths::fill(paths::USER, &[user.as_ref()]),
            Some(request),
            self.inner.timeouts.request,
        )
        .await
    }

    /// A join token.
    pub async fn create_token(
        &self,
        request: &CreateTokenRequest,
    ) -> Result<CreateTokenReply, ClientError> {
        self.post(paths::TOKENS, request).await
    }

    /// A host certificate for an sshd.
    pub async fn sign_host(&self, request: &HostCertRequest) -> Result<HostCertReply, ClientError> {
        self.post(paths::CERTS_HOST, request).await
    }

    /// New certificates for the caller, or for another user.
    pub async fn sign_user(&self, request: &UserCertsRequest) -> Result<LoginReply, ClientError> {
        self.post(paths::CERTS_USER, request).await
    }

    /// A host certificate of role Proxy.
    pub async fn sign_proxy_host(
        &self,
        request: &ProxyHostCertRequest,
    ) -> Result<HostCertReply, ClientError> {
        self.post(paths::CERTS_PROXY_HOST, request).await
    }

    /// A certificate for a user's login on a node without an agent.
    pub async fn sign_openssh_user(
        &self,
        request: &OpensshUserRequest,
    ) -> Result<HostCertReply, ClientError> {
        self.post(paths::CERTS_OPENSSH_USER, request).await
    }

    /// A certificate for the key this service signs recordings with.
    pub async fn sign_recorder(
        &self,
        request: &RecorderCertRequest,
    ) -> Result<HostCertReply, ClientError> {
        self.post(paths::CERTS_RECORDER, request).await
    }

    /// Runs an SQL query over the audit log.
    pub async fn query(&self, request: &QueryRequest) -> Result<QueryReply, ClientError> {
        self.json(Method::POST, paths::QUERY, Some(request), self.inner.timeouts.query).await
    }

    /// The `session.end` events of recordings, newest first.
    pub async fn recordings(&self, request: &RecordingsQuery) -> Result<Vec<Value>, ClientError> {
        Ok(self
            .get::<RecordingsReply>(&format!("{}{}", paths::RECORDINGS, query(request)))
            .await?
            .items)
    }

    /// A recording's bytes as they are stored.
    pub async fn recording(&self, session: &SessionId) -> Result<RecordingStream, ClientError> {
        let path = paths::fill(paths::RECORDING, &[&session.to_string()]);
        let wait = self.inner.timeouts.request;
        let response = self
            .send(
                self.request(Method::GET, &path, full(""), "application/json")?,
                "a recording",
                wait,
            )
            .await?;
        if !response.status().is_success() {
            return Err(refusal(response, "a recording", wait).await);
        }
        Ok(RecordingStream::new(response, self.inner.timeouts.idle))
    }

    /// Removes a recording for good.
    pub async fn remove_recording(&self, session: &SessionId) -> Result<(), ClientError> {
        let path = paths::fill(paths::RECORDING, &[&session.to_string()]);
        let wait = self.inner.timeouts.request;
        self.json::<Value>(Method::DELETE, &path, None::<&()>, wait).await.map(drop)
    }

    /// Where sessions are recorded.
    pub async fn session_recording(&self) -> Result<SessionRecordingReply, ClientError> {
        self.get(paths::SESSION_RECORDING).await
    }

    /// The cluster's state; with `after` waits for a newer one and answers the same after a while.
    pub async fn cluster_state(&self, after: Option<u64>) -> Result<ClusterState, ClientError> {
        let path = format!("{}{}", paths::CLUSTER_STATE, query(&StateQuery { after }));
        let wait = self.inner.timeouts.request + limits::STATE_WAIT;
        self.json(Method::GET, &path, None::<&()>, wait).await
    }

    /// Makes events durable. They must be prepared; at most [`limits::MAX_EVENTS`] at a time.
    pub async fn emit(&self, events: &[AuditEvent]) -> Result<(), ClientError> {
        self.post::<Value>(paths::EVENTS, &EmitRequest::new(events)).await.map(drop)
    }

    /// Stores one part of a recording.
    pub async fn upload_part(
        &self,
        upload: Uuid,
        session: &SessionId,
        part: u64,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let path = paths::upload_part(upload, session, part);
        // A large part on a slow line takes its time; 64 KiB a second is the least that counts as moving.
        let wait =
            self.inner.timeouts.request + Duration::from_secs(bytes.len() as u64 / (64 * 1024));
        let request = self.request(Method::PUT, &path, full(bytes), "application/octet-stream")?;
        let response = self.send(request, "an upload", wait).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(refusal(response, "an upload", wait).await)
        }
    }

    /// Says that sessions run here. Answers when to come again.
    pub async fn renew_sessions(
        &self,
        request: &RenewSessions,
    ) -> Result<RenewedSessions, ClientError> {
        self.post(paths::SESSIONS_RENEW, request).await
    }

    /// Makes a recording out of its parts.
    pub async fn complete_upload(
        &self,
        upload: Uuid,
        session: &SessionId,
        request: &CompleteUpload,
    ) -> Result<(), ClientError> {
        self.post::<Value>(&paths::upload_complete(upload, session), request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_leave_out_what_is_unset() {
        assert_eq!(query(&StateQuery { after: None }), "");
        assert_eq!(query(&StateQuery { after: Some(7) }), "?after=7");
        assert_eq!(query(&ExportQuery { kind: Some("a&b".to_owned()) }), "?type=a%26b");
    }
}
