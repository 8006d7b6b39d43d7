//! What certificates say about databases: which one a user is on the way to, who the cluster is towards one, and who a
//! database server is.

use serde::{Deserialize, Serialize};
use shared_types::ClusterName;

use crate::PkiError;

/// Longest user or name of a database in a certificate, in bytes.
const LONGEST: usize = 256;

/// What limits a user's certificate to connections to one database (an organisational unit of the subject).
pub const USAGE_DATABASE: &str = "usage:db";

/// The database that a user's certificate is for, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRoute {
    /// Name of the `db` resource.
    pub service: String,
    /// What it speaks, as resources write it.
    pub protocol: String,
    /// The user of the database; empty where the client says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The database on the server; empty where the client says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl DatabaseRoute {
    /// Refuses what does not belong into a certificate: no service, control characters, endless texts.
    pub fn check(&self) -> Result<(), PkiError> {
        for (text, what) in
            [(&self.service, "database service"), (&self.protocol, "database protocol")]
        {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if text.is_empty() || text.len() > LONGEST || !plain {
                return Err(PkiError::Identity(what));
            }
        }
        for (text, what) in [(&self.user, "database user"), (&self.name, "database name")] {
            if !is_name(text) && !text.is_empty() {
                return Err(PkiError::Identity(what));
            }
        }
        Ok(())
    }
}

/// Whether a text may be a user or a name of a database in a certificate.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The cluster towards a database, for one of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbClientSpec {
    /// The user of the database.
    pub user: String,
}

/// A database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbServerSpec {
    /// Names and addresses it is reached by, at least one. The first is its common name.
    pub hosts: Vec<String>,
    /// Another common name: CockroachDB wants `node`.
    pub common_name: Option<String>,
    /// Its organisation: MongoDB wants one, and the same for all of a replica set.
    pub organization: Option<ClusterName>,
}
