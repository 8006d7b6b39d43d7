//! Users, tokens, certificates and resources.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, Traits, UserName};

use crate::Secret;

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReply {
    /// The cluster.
    pub cluster: ClusterName,
    /// Version of the auth service.
    pub version: String,
    /// Pins of the host CA, `sha256:…`, one per certificate.
    pub ca_pins: Vec<String>,
    /// The authorities and how they stand.
    pub authorities: Vec<AuthorityStatus>,
}

/// One authority in [`StatusReply`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// `user`, `host`, ….
    pub kind: String,
    /// `never updated`, or when it was rotated.
    pub state: String,
}

/// `GET /v1/resources/{kind}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceList {
    /// Resources with their envelopes, ordered by name.
    pub items: Vec<Value>,
}

/// Reply to creating or replacing a resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceReply {
    /// The resource as it is stored now.
    pub resource: Value,
    /// False where it replaced one of that name.
    pub created: bool,
}

/// `?force=true` of resource creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceQuery {
    /// Replace what has that name.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/users/invite`: creates the user without a password and an invitation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteUserRequest {
    /// The new user.
    pub user: UserName,
    /// Its roles, at least one.
    pub roles: Vec<RoleName>,
    /// Its attributes; `logins` are the OS logins.
    #[serde(default)]
    pub traits: Traits,
    /// Life of the invitation; an hour where unset, 48 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// `POST /v1/users/{name}/reset`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetUserRequest {
    /// Life of the token; 8 hours where unset, 24 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A token with which a user sets a password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserTokenReply {
    /// Whose.
    pub user: UserName,
    /// The token.
    pub token: Secret,
    /// When it ends.
    pub expires: DateTime<Utc>,
    /// `host:port` of a proxy that users can reach, as far as the cluster knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// `PATCH /v1/users/{name}`; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateUserRequest {
    /// The new roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<RoleName>>,
    /// The attributes named here are replaced, an empty list removes one.
    #[serde(default)]
    pub traits: Traits,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// What may join with it.
    pub roles: Vec<SystemRole>,
    /// The token itself, where the caller chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Secret>,
    /// Its life; 30 minutes where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Labels kept with it.
    #[serde(default)]
    pub labels: shared_types::Labels,
    /// Whether it lets one service in, and no second.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub single_use: bool,
}

/// Reply to [`CreateTokenRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateTokenReply {
    /// The token.
    pub token: Secret,
    /// What may join with it.
    pub roles: Vec<SystemRole>,
    /// When it ends.
    pub expires: DateTime<Utc>,
    /// Pins of the host CA.
    #[serde(default)]
    pub ca_pins: Vec<String>,
    /// `host:port` of the auth service, as it knows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// `host:port` of a proxy, as far as the cluster knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// `POST /v1/certs/host`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCertRequest {
    /// The certificate's principals, in this order; never empty.
    pub hosts: Vec<String>,
    /// SSH public key to certify, one line.
    pub public_key: String,
    /// Its life; no end where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// `POST /v1/certs/proxy-host`: always of role Proxy, always short-lived.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyHostCertRequest {
    /// The names the inner server is asked for by.
    pub principals: Vec<String>,
    /// SSH public key to certify, one line.
    pub public_key: String,
}

/// `POST /v1/certs/openssh-user`: a user on the way to a registered server without an agent. The auth service looks at
/// the certificate anew, and at what the user may there now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpensshUserRequest {
    /// The user's SSH certificate as the proxy was shown it, one line.
    pub certificate: String,
    /// Where the user is; certificates may be bound to that.
    pub client_ip: IpAddr,
    /// The OS login.
    pub login: Login,
    /// The node.
    pub node: HostId,
    /// SSH public key to certify, one line; the proxy's.
    pub public_key: String,
    /// The address the server will see the proxy come from, where that is sure; the certificate is bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

/// `POST /v1/certs/recorder`: for the caller's host and role, always short-lived.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderCertRequest {
    /// SSH public key to certify, Ed25519, one line.
    pub public_key: String,
}

/// A host certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostCertReply {
    /// OpenSSH text, one line.
    pub certificate: String,
    /// When it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<DateTime<Utc>>,
}

/// `?type=` of an export.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExportQuery {
    /// `user`, `host`, `tls-host`, `tls-user`, `recording`, …; host and user where unset.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}
