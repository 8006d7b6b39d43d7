//! Login, sign-up, joining, and what a caller may know of itself.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_pki::{DatabaseRoute, TrustedAuthority};
use shared_types::{ClusterName, HostId, Login, RoleName, SystemRole, Traits, UserName};

use crate::Secret;

/// `POST /v1/login`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Who.
    pub user: UserName,
    /// The password.
    pub password: Secret,
    /// SSH public key to certify, one line as in `id_ed25519.pub`.
    pub ssh_public_key: String,
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo).
    pub tls_public_key: String,
    /// Wished life of the certificates; roles and the cluster's default limit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// Certificates of a user, with what is needed to trust the cluster back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginReply {
    /// Whom they are for.
    pub username: UserName,
    /// SSH certificate, OpenSSH text; empty where the TLS certificate is for a database only.
    pub ssh_cert: String,
    /// TLS certificate, PEM.
    pub tls_cert: String,
    /// Public halves of all authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// The cluster.
    pub cluster: ClusterName,
    /// When the certificates end.
    pub valid_until: DateTime<Utc>,
}

/// `POST /v1/certs/user`: new certificates for the caller, or, for who may, for another user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserCertsRequest {
    /// Another user than the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// SSH public key to certify, one line; empty where `database` is given.
    #[serde(default)]
    pub ssh_public_key: String,
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo).
    pub tls_public_key: String,
    /// Wished life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The database the certificate is to be for, and nothing else. There is no SSH certificate with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseRoute>,
}

/// `POST /v1/invite/info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteInfoRequest {
    /// The token of the invitation or reset.
    pub token: Secret,
}

/// What an invitation is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteInfo {
    /// The user who will have the password.
    pub user: UserName,
    /// The cluster.
    pub cluster: ClusterName,
    /// When the token ends.
    pub expires: DateTime<Utc>,
    /// True for a password reset.
    #[serde(default)]
    pub reset: bool,
}

/// `POST /v1/signup`: sets the password; the token is used up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignupRequest {
    /// The token of the invitation or reset.
    pub token: Secret,
    /// The new password.
    pub password: Secret,
}

/// Reply to [`SignupRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignupReply {
    /// Whose password is set now.
    pub user: UserName,
    /// The cluster.
    pub cluster: ClusterName,
}

/// `POST /v1/join`: a service asks for its certificates with a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The join token.
    pub token: Secret,
    /// Who joins, made once per data directory.
    pub host_id: HostId,
    /// Its name.
    pub node_name: String,
    /// The role it asks for; the token must carry it.
    pub role: SystemRole,
    /// SSH public key to certify, one line.
    pub ssh_public_key: String,
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo).
    pub tls_public_key: String,
    /// Further names and addresses the service answers to.
    #[serde(default)]
    pub additional_principals: Vec<String>,
    /// For a proxy: `host:port` under which users reach its web port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_addr: Option<String>,
}

/// `POST /v1/certs/renew`: as [`JoinRequest`], by the certificate in hand instead of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Its name.
    pub node_name: String,
    /// SSH public key to certify, one line.
    pub ssh_public_key: String,
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo).
    pub tls_public_key: String,
    /// Further names and addresses the service answers to.
    #[serde(default)]
    pub additional_principals: Vec<String>,
    /// For a proxy: `host:port` under which users reach its web port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_addr: Option<String>,
}

/// Certificates of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinReply {
    /// SSH host certificate, OpenSSH text.
    pub ssh_cert: String,
    /// TLS certificate, PEM, for both sides of a connection.
    pub tls_cert: String,
    /// Public halves of all authorities.
    pub authorities: Vec<TrustedAuthority>,
    /// The cluster.
    pub cluster: ClusterName,
    /// When the TLS certificate ends.
    pub valid_until: DateTime<Utc>,
}

/// `GET /v1/authorities`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthoritiesReply {
    /// The cluster.
    pub cluster: ClusterName,
    /// Public halves of all authorities.
    pub authorities: Vec<TrustedAuthority>,
}

/// `GET /v1/me`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeReply {
    /// Who asked.
    pub user: UserName,
    /// The roles in the certificate.
    pub roles: Vec<RoleName>,
    /// The OS logins these roles give now.
    pub logins: Vec<Login>,
    /// The user's attributes.
    #[serde(default)]
    pub traits: Traits,
    /// The cluster.
    pub cluster: ClusterName,
    /// When the certificate ends.
    pub valid_until: DateTime<Utc>,
}
