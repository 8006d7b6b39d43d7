//! Databases: who serves them, who may use them, and the certificates on the way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_types::resource::DbHealth;
use shared_types::{Database, DatabaseServer, HostId};

use super::ProxyInfo;
use crate::ApiError;

/// Largest certificate of a user in a request, in bytes.
const MAX_CERTIFICATE: usize = 32 * 1024;

/// `PUT /v1/presence/db`: all databases that the caller's host serves now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbPresence {
    /// Each once, by name.
    pub servers: Vec<DatabaseServer>,
}

/// Reply to `PUT /v1/presence/db`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbPresenceReply {
    /// When to come again, in seconds.
    pub again_seconds: u64,
    /// The proxies there are: databases are reached through tunnels to them, however the agent came to the cluster.
    #[serde(default)]
    pub proxies: Vec<ProxyInfo>,
}

/// What one host serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostDatabases {
    /// The host.
    pub host_id: HostId,
    /// All of its databases; none when it serves nothing any more.
    pub servers: Vec<DatabaseServer>,
}

/// `GET /v1/databases`: which of the databases that the caller may use. All that is given must hold.
pub type DatabasesQuery = super::NodesQuery;

/// `GET /v1/databases`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DatabasesReply {
    /// Databases of which the caller may be some user, by name.
    pub items: Vec<DatabaseEntry>,
}

/// One database as its users know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// The database; labels that commands give have their results.
    pub database: Database,
    /// How many agents serve it.
    pub servers: usize,
    /// Whether it answers, as the best of the agents sees it.
    #[serde(default)]
    pub health: DbHealth,
    /// Users of the database the caller may be; `*` is all but the denied.
    #[serde(default)]
    pub allowed_users: Vec<String>,
    /// Users the caller may not be, as roles write them.
    #[serde(default)]
    pub denied_users: Vec<String>,
    /// Databases on the server the caller may use; `*` is all but the denied.
    #[serde(default)]
    pub allowed_names: Vec<String>,
    /// Databases on the server the caller may not use, as roles write them.
    #[serde(default)]
    pub denied_names: Vec<String>,
}

/// `POST /v1/certs/database`: an agent on the way to a database, with a user. The auth service looks at the user's
/// certificate anew, and at what the user may there now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseCertRequest {
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo); the agent's.
    pub public_key_pem: String,
    /// The user's TLS certificate as the agent was shown it, DER in base64.
    pub user_certificate: String,
    /// The database.
    pub service: String,
    /// As which of its users.
    pub db_user: String,
}

impl DatabaseCertRequest {
    /// A request that shows a certificate, DER.
    pub fn new(
        public_key_pem: impl Into<String>,
        user_certificate: &[u8],
        service: impl Into<String>,
        db_user: impl Into<String>,
    ) -> Self {
        Self {
            public_key_pem: public_key_pem.into(),
            user_certificate: STANDARD.encode(user_certificate),
            service: service.into(),
            db_user: db_user.into(),
        }
    }

    /// The user's certificate, DER.
    pub fn user_certificate_der(&self) -> Result<Vec<u8>, ApiError> {
        Some(&self.user_certificate)
            .filter(|text| text.len() <= MAX_CERTIFICATE)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| ApiError::bad_request("user_certificate: expected DER in base64"))
    }
}

/// A certificate for TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseCertReply {
    /// The certificate, PEM.
    pub certificate: String,
    /// When it ends.
    pub valid_until: DateTime<Utc>,
}

/// What a database server's certificate is made for, since some want other names in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseCertFormat {
    /// The first host is the common name.
    #[default]
    Db,
    /// The common name is `node`.
    Cockroachdb,
    /// The organisation is the cluster's name.
    Mongodb,
}

/// `POST /v1/certs/database-server`: a certificate for a database server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseServerCertRequest {
    /// Names and addresses of the server, at least one.
    pub hosts: Vec<String>,
    /// TLS public key to certify, PEM (SubjectPublicKeyInfo).
    pub public_key_pem: String,
    /// Its life; 12 hours where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What it is made for.
    #[serde(default)]
    pub format: DatabaseCertFormat,
}

/// Reply to [`DatabaseServerCertRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseServerCertReply {
    /// The certificate, PEM.
    pub certificate: String,
    /// Whom the server has to trust as clients: the database client authority, PEM.
    pub client_authority: String,
    /// Who signed the certificate: the database authority, PEM.
    pub server_authority: String,
    /// When it ends.
    pub valid_until: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_survives_the_request() {
        let request = DatabaseCertRequest::new("key", &[0, 255, 7], "pg", "alice");
        assert_eq!(request.user_certificate_der().unwrap(), [0, 255, 7]);
        for bad in ["*".to_owned(), "A".repeat(MAX_CERTIFICATE + 1)] {
            let request = DatabaseCertRequest { user_certificate: bad, ..request.clone() };
            assert!(request.user_certificate_der().is_err());
        }
    }
}
