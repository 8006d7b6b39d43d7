//! What databases speak.

use serde::{Deserialize, Serialize};

/// What a database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DbProtocol {
    /// PostgreSQL.
    Postgres,
    /// CockroachDB, which speaks as PostgreSQL does.
    Cockroachdb,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis and Valkey.
    Redis,
    /// DynamoDB.
    Dynamodb,
}

/// The text names no protocol that is served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database protocol {0:?} is not supported yet; supported are {names}", names = supported())]
pub struct UnknownDbProtocol(String);

fn supported() -> String {
    DbProtocol::ALL.map(DbProtocol::as_str).join(", ")
}

impl DbProtocol {
    /// All of them.
    pub const ALL: [DbProtocol; 5] = [
        DbProtocol::Postgres,
        DbProtocol::Cockroachdb,
        DbProtocol::Mysql,
        DbProtocol::Redis,
        DbProtocol::Dynamodb,
    ];

    /// As resources and certificates write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DbProtocol::Postgres => "postgres",
            DbProtocol::Cockroachdb => "cockroachdb",
            DbProtocol::Mysql => "mysql",
            DbProtocol::Redis => "redis",
            DbProtocol::Dynamodb => "dynamodb",
        }
    }

    /// As people write it.
    #[must_use]
    pub fn display(self) -> &'static str {
        match self {
            DbProtocol::Postgres => "PostgreSQL",
            DbProtocol::Cockroachdb => "CockroachDB",
            DbProtocol::Mysql => "MySQL",
            DbProtocol::Redis => "Redis",
            DbProtocol::Dynamodb => "DynamoDB",
        }
    }

    /// The name by which a client asks a proxy for it inside TLS.
    #[must_use]
    pub fn alpn(self) -> &'static str {
        match self {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => "teleport-postgres",
            DbProtocol::Mysql => "teleport-mysql",
            DbProtocol::Redis => "teleport-redis",
            DbProtocol::Dynamodb => "teleport-dynamodb",
        }
    }

    /// Whether a server holds several databases that a session chooses from, so that roles say which.
    #[must_use]
    pub fn has_names(self) -> bool {
        matches!(self, DbProtocol::Postgres | DbProtocol::Cockroachdb)
    }

    /// Where such a database listens that does not say so.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            DbProtocol::Postgres => 5432,
            DbProtocol::Cockroachdb => 26257,
            DbProtocol::Mysql => 3306,
            DbProtocol::Redis => 6379,
            DbProtocol::Dynamodb => 443,
        }
    }

    /// How addresses of it may begin.
    pub(super) fn schemes(self) -> &'static [&'static str] {
        match self {
            DbProtocol::Postgres | DbProtocol::Cockroachdb => &["postgres", "postgresql"],
            DbProtocol::Mysql => &["mysql"],
            DbProtocol::Redis => &["redis", "rediss"],
            DbProtocol::Dynamodb => &["https", "http"],
        }
    }
}

impl std::fmt::Display for DbProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for DbProtocol {
    type Err = UnknownDbProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownDbProtocol> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| UnknownDbProtocol(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for DbProtocol {
    type Error = UnknownDbProtocol;
    fn try_from(text: String) -> Result<Self, UnknownDbProtocol> {
        text.parse()
    }
}

impl From<DbProtocol> for String {
    fn from(protocol: DbProtocol) -> String {
        protocol.as_str().to_owned()
    }
}
