//! Kinds of resources and the names people use for them on a command line.

use serde::{Deserialize, Serialize};

/// A kind of resource this release stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ResourceKind {
    /// `role`
    Role,
    /// `user`
    User,
    /// `token`
    Token,
    /// `lock`
    Lock,
    /// `proxy`: what joined; it can be listed and removed, not written.
    Proxy,
    /// `node`: an SSH server. Agents write their own; registered servers are written as documents.
    Node,
    /// `db`: a database that agents may serve.
    Db,
    /// `db_server`: a database that an agent serves; it can be listed and removed, not written.
    DbServer,
    /// `session_recording_config`
    SessionRecordingConfig,
    /// `cluster_auth_preference`
    ClusterAuthPreference,
    /// `cluster_networking_config`
    ClusterNetworkingConfig,
}

/// The text names no kind this release has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsupported resource: {0:?} - resources should be expressed as 'type/name', for example 'connector/github'"
)]
pub struct ParseKindError(String);

impl ResourceKind {
    /// The kinds that are written as documents, in the order `get all` prints them.
    pub const ALL: [ResourceKind; 9] = [
        ResourceKind::Role,
        ResourceKind::User,
        ResourceKind::Token,
        ResourceKind::Lock,
        ResourceKind::Node,
        ResourceKind::Db,
        ResourceKind::ClusterAuthPreference,
        ResourceKind::ClusterNetworkingConfig,
        ResourceKind::SessionRecordingConfig,
    ];

    /// The name in documents, rules and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceKind::Role => "role",
            ResourceKind::User => "user",
            ResourceKind::Token => "token",
            ResourceKind::Lock => "lock",
            ResourceKind::Proxy => "proxy",
            ResourceKind::Node => "node",
            ResourceKind::Db => "db",
            ResourceKind::DbServer => "db_server",
            ResourceKind::SessionRecordingConfig => "session_recording_config",
            ResourceKind::ClusterAuthPreference => "cluster_auth_preference",
            ResourceKind::ClusterNetworkingConfig => "cluster_networking_config",
        }
    }

    /// The fixed name of a resource of which a cluster has one.
    pub fn singleton(self) -> Option<&'static str> {
        match self {
            ResourceKind::Role
            | ResourceKind::User
            | ResourceKind::Token
            | ResourceKind::Lock
            | ResourceKind::Proxy
            | ResourceKind::Node
            | ResourceKind::Db
            | ResourceKind::DbServer => None,
            ResourceKind::SessionRecordingConfig => Some("session-recording-config"),
            ResourceKind::ClusterAuthPreference => Some("cluster-auth-preference"),
            ResourceKind::ClusterNetworkingConfig => Some("cluster-networking-config"),
        }
    }
}

impl std::fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for ResourceKind {
    type Err = ParseKindError;
    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        Ok(match text.trim().to_ascii_lowercase().as_str() {
            "role" | "roles" => ResourceKind::Role,
            "user" | "users" => ResourceKind::User,
            "token" | "tokens" => ResourceKind::Token,
            "lock" | "locks" => ResourceKind::Lock,
            "proxy" | "proxies" => ResourceKind::Proxy,
            "node" | "nodes" => ResourceKind::Node,
            "db" | "dbs" | "database" | "databases" => ResourceKind::Db,
            "db_server" | "db_servers" => ResourceKind::DbServer,
            "session_recording_config" | "recconfig" | "recording_config" | "session_recording" => {
                ResourceKind::SessionRecordingConfig
            }
            "cluster_auth_preference" | "cluster_authentication_preferences" | "cap" => {
                ResourceKind::ClusterAuthPreference
            }
            "cluster_networking_config" | "netconfig" | "networking" => {
                ResourceKind::ClusterNetworkingConfig
            }
            _ => return Err(ParseKindError(text.chars().take(64).collect())),
        })
    }
}

impl TryFrom<String> for ResourceKind {
    type Error = ParseKindError;
    fn try_from(text: String) -> Result<Self, ParseKindError> {
        text.parse()
    }
}

impl From<ResourceKind> for String {
    fn from(kind: ResourceKind) -> String {
        kind.as_str().to_owned()
    }
}

/// What a user names on a command line: `role`, `role/access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRef {
    /// The kind.
    pub kind: ResourceKind,
    /// The name; none means all of the kind.
    pub name: Option<String>,
}

impl ResourceRef {
    /// Parses `KIND[/NAME][,KIND/NAME…]` or `all`; a comma inside a name is written `\,`.
    pub fn parse_list(text: &str) -> Result<Vec<ResourceRef>, ParseKindError> {
        if text.trim() == "all" {
            return Ok(ResourceKind::ALL
                .into_iter()
                .map(|kind| ResourceRef { kind, name: None })
                .collect());
        }
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, characters.peek()) {
                ('\\', Some(',')) => {
                    characters.next();
                    if let Some(part) = parts.last_mut() {
                        part.push(',');
                    }
                }
                (',', _) => parts.push(String::new()),
                (other, _) => {
                    if let Some(part) = parts.last_mut() {
                        part.push(other);
                    }
                }
            }
        }
        parts.iter().map(|part| part.parse()).collect()
    }
}

impl std::str::FromStr for ResourceRef {
    type Err = ParseKindError;
    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        let mut parts = text.splitn(3, '/');
        let kind = parts.next().unwrap_or_default().parse()?;
        let name = match (parts.next(), parts.next()) {
            // Names are unique within a kind, so of three parts the sub kind is not looked at.
            (Some(_), Some(name)) | (Some(name), None) if !name.is_empty() => Some(name.to_owned()),
            (None, _) => None,
            _ => return Err(ParseKindError(text.chars().take(64).collect())),
        };
        Ok(ResourceRef { kind, name })
    }
}

impl std::fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.kind),
            None => f.write_str(self.kind.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_case() {
        for (text, kind) in [
            ("Roles", ResourceKind::Role),
            ("users", ResourceKind::User),
            ("cap", ResourceKind::ClusterAuthPreference),
            ("netconfig", ResourceKind::ClusterNetworkingConfig),
            ("recconfig", ResourceKind::SessionRecordingConfig),
            ("TOKENS", ResourceKind::Token),
            ("locks", ResourceKind::Lock),
            ("proxies", ResourceKind::Proxy),
            ("Nodes", ResourceKind::Node),
            ("db", ResourceKind::Db),
            ("db_servers", ResourceKind::DbServer),
        ] {
            assert_eq!(text.parse::<ResourceKind>().unwrap(), kind);
        }
        assert_eq!(
            "frob".parse::<ResourceKind>().unwrap_err().to_string(),
            "unsupported resource: \"frob\" - resources should be expressed as 'type/name', for example 'connector/github'"
        );
    }

    #[test]
    fn lists_of_references() {
        let list = ResourceRef::parse_list("role/access,users,role/a\\,b").unwrap();
        let printed: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["role/access", "user", "role/a,b"]);
        assert_eq!(ResourceRef::parse_list("all").unwrap().len(), 9);
        assert!(ResourceRef::parse_list("role/").is_err());
        assert!(ResourceRef::parse_list("").is_err());
    }
}
