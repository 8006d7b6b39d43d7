//! What proxy and agent say to each other, as JSON.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of service a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnType {
    /// SSH.
    Node,
    /// HTTP and TCP applications.
    App,
    /// Databases.
    Db,
    /// Kubernetes.
    Kube,
    /// Windows desktops.
    WindowsDesktop,
}

/// A kind of connection that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown connection type {0:?}")]
pub struct UnknownConnType(String);

impl ConnType {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::App => "app",
            Self::Db => "db",
            Self::Kube => "kube",
            Self::WindowsDesktop => "windows_desktop",
        }
    }
}

impl FromStr for ConnType {
    type Err = UnknownConnType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Node, Self::App, Self::Db, Self::Kube, Self::WindowsDesktop]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownConnType(name.to_owned()))
    }
}

/// What a proxy asks for with a dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialRequest {
    /// The service: `@local-node` is the agent's own SSH server, `@local-db` its database service.
    pub address: String,
    /// `HOST-UUID.CLUSTER` of the agent that is meant.
    pub server_id: String,
    /// What kind of service.
    pub conn_type: ConnType,
    /// The proxy's version.
    pub teleport_version: String,
    /// Who connects.
    pub client_src_addr: SocketAddr,
    /// Where that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_dst_addr: Option<SocketAddr>,
}

impl DialRequest {
    /// The address of an agent's own SSH server.
    pub const LOCAL_NODE: &'static str = "@local-node";
    /// The address of an agent's database service; which database is for the preamble's certificate to say.
    pub const LOCAL_DB: &'static str = "@local-db";
}

/// A proxy that agents should be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProxyEntry {
    /// Its host id.
    pub host_id: String,
    /// `host:port` of its web port.
    pub addr: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_json_agree() {
        for kind in
            [ConnType::Node, ConnType::App, ConnType::Db, ConnType::Kube, ConnType::WindowsDesktop]
        {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
        assert!("ssh".parse::<ConnType>().is_err());
    }

    #[test]
    fn a_dial_request_as_documented() {
        let request = DialRequest {
            address: DialRequest::LOCAL_NODE.to_owned(),
            server_id: "4f1d.example.com".to_owned(),
            conn_type: ConnType::Node,
            teleport_version: "1".to_owned(),
            client_src_addr: "192.0.2.7:1".parse().unwrap(),
            client_dst_addr: None,
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(
            text,
            r#"{"address":"@local-node","server_id":"4f1d.example.com","conn_type":"node","teleport_version":"1","client_src_addr":"192.0.2.7:1"}"#
        );
        assert_eq!(serde_json::from_str::<DialRequest>(&text).unwrap(), request);
    }
}
