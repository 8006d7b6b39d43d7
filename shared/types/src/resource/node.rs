//! SSH servers of the cluster: agents that say of themselves that they are there, and registered `sshd`s.
//!
//! An agent's node lives as long as it is heard of. One of sub kind `openssh` is written by an administrator, and
//! says nothing of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ResourceKind;
use super::object::{Object, ResourceError, Spec};
use crate::{GoDuration, HostId, HostName, Labels, NameError, flex};

/// An SSH server of the cluster; its name is its host id.
pub type Node = Object<NodeSpec>;

/// Most labels of a resource that is served, of each sort.
pub(super) const MOST_LABELS: usize = 256;
/// Longest key of a label, in bytes.
const LONGEST_KEY: usize = 256;
/// Longest value of a label, in bytes.
const LONGEST_VALUE: usize = 1024;
/// Most further addresses.
pub(super) const MOST_ADDRS: usize = 64;
/// Longest text of any other field, in bytes.
const LONGEST: usize = 1024;

/// Sub kinds that are agents.
const AGENT: &str = "teleport";
/// Sub kind of a server without an agent.
const OPENSSH: &str = "openssh";

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSpec {
    /// Where it listens, `host:port`; empty for one that is reached through a tunnel only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Its name, as users type it.
    pub hostname: String,
    /// Further addresses it is known by, with or without a port.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub public_addrs: Vec<String>,
    /// Labels whose values commands on the node give.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub cmd_labels: BTreeMap<String, CommandLabel>,
    /// Whether it is reached through the tunnel it holds to the proxies.
    #[serde(deserialize_with = "flex::bool", skip_serializing_if = "std::ops::Not::not")]
    pub use_tunnel: bool,
    /// Version of the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The proxies it holds tunnels to.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "Vec::is_empty")]
    pub proxy_ids: Vec<HostId>,
}

/// A label whose value is what a command prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLabel {
    /// The program and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// How often it runs.
    pub period: GoDuration,
    /// What it printed last, trimmed.
    #[serde(default)]
    pub result: String,
}

impl Spec for NodeSpec {
    const KIND: ResourceKind = ResourceKind::Node;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_host_id(name)
    }

    /// A registered server may be written without an id; it gets one.
    fn name_where_missing(sub_kind: Option<&str>) -> Option<String> {
        (sub_kind == Some(OPENSSH)).then(|| HostId::random().to_string())
    }

    fn check(&self) -> Result<(), ResourceError> {
        if let Err(error) = HostName::new(self.hostname.as_str()) {
            return refuse("spec.hostname", error.to_string());
        }
        if !self.addr.is_empty() && !is_host_and_port(&self.addr) {
            return refuse("spec.addr", "expected HOST:PORT, such as 10.0.0.7:22".to_owned());
        }
        if self.public_addrs.len() > MOST_ADDRS || self.proxy_ids.len() > MOST_ADDRS {
            return refuse("spec", format!("more than {MOST_ADDRS} addresses or proxies"));
        }
        if let Some(bad) = self.public_addrs.iter().find(|addr| !is_host(host_of(addr))) {
            let shown: String = bad.chars().take(64).collect();
            return refuse("spec.public_addrs", format!("{shown:?} is no HOST or HOST:PORT"));
        }
        if self.version.len() > 64 || !self.version.chars().all(|c| c.is_ascii_graphic()) {
            return refuse("spec.version", "is no version".to_owned());
        }
        if self.cmd_labels.len() > MOST_LABELS {
            return refuse("spec.cmd_labels", format!("more than {MOST_LABELS}"));
        }
        for (key, label) in &self.cmd_labels {
            check_label("spec.cmd_labels", key, &label.result)?;
            if label.command.iter().map(String::len).sum::<usize>() > LONGEST {
                return refuse("spec.cmd_labels", format!("the command of {key:?} is too long"));
            }
        }
        Ok(())
    }

    fn check_object(object: &Node) -> Result<(), ResourceError> {
        // Names are compared as text, so there is one spelling of each.
        if object.host_id().is_none_or(|host| host.to_string() != object.name()) {
            let why = "expected a UUID in small letters, the host id".to_owned();
            return refuse("metadata.name", why);
        }
        match object.sub_kind.as_deref() {
            None | Some(AGENT) => {}
            Some(OPENSSH) if object.spec.addr.is_empty() => {
                return refuse(
                    "spec.addr",
                    "is missing; expected HOST:PORT of the sshd".to_owned(),
                );
            }
            Some(OPENSSH) => {}
            Some(other) => {
                let shown: String = other.chars().take(64).collect();
                return refuse("sub_kind", format!("{shown:?}; expected teleport or openssh"));
            }
        }
        let labels = &object.metadata.labels;
        if labels.len() > MOST_LABELS {
            return refuse("metadata.labels", format!("more than {MOST_LABELS}"));
        }
        labels.iter().try_for_each(|(key, value)| check_label("metadata.labels", key, value))
    }
}

pub(super) fn refuse<T>(field: &str, why: String) -> Result<T, ResourceError> {
    Err(ResourceError::Field { field: field.to_owned(), why })
}

pub(super) fn check_label(field: &str, key: &str, value: &str) -> Result<(), ResourceError> {
    if !is_label_key(key) {
        let shown: String = key.chars().take(64).collect();
        return refuse(
            field,
            format!(
                "{shown:?} is no key of a label; expected letters, digits and any of / . _ : * -"
            ),
        );
    }
    if value.len() > LONGEST_VALUE {
        return refuse(field, format!("the value of {key:?} has more than {LONGEST_VALUE} bytes"));
    }
    Ok(())
}

/// Whether a text may be the key of a label.
pub fn is_label_key(key: &str) -> bool {
    (1..=LONGEST_KEY).contains(&key.len())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "/._:*-".contains(c))
}

/// `host:port`, an IPv6 address in brackets.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    has_port && is_host(host_of(text)) && host_of(text) != text
}

fn is_host(text: &str) -> bool {
    HostName::new(text).is_ok()
}

/// The host of `HOST`, `HOST:PORT`, `[V6]:PORT` or a bare IPv6 address.
pub fn host_of(addr: &str) -> &str {
    if let Some((host, _)) = addr.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match addr.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => addr,
    }
}

impl Node {
    /// Its host id.
    pub fn host_id(&self) -> Option<HostId> {
        self.name().parse().ok()
    }

    /// Whether it is a server without an agent.
    pub fn is_openssh(&self) -> bool {
        self.sub_kind.as_deref() == Some(OPENSSH)
    }

    /// A registered server without an agent.
    pub fn new_openssh(host: HostId, spec: NodeSpec) -> Self {
        Self { sub_kind: Some(OPENSSH.to_owned()), ..Self::new(host.to_string(), spec) }
    }

    /// Its labels: those that commands give, and over them the fixed ones.
    pub fn all_labels(&self) -> Labels {
        let commands = self.spec.cmd_labels.iter();
        let mut labels: Labels =
            commands.map(|(key, label)| (key.clone(), label.result.clone())).collect();
        labels.extend(self.metadata.labels.clone());
        labels
    }

    /// The address it listens on, where that is a literal one.
    pub fn ip(&self) -> Option<IpAddr> {
        host_of(&self.spec.addr).parse().ok()
    }

    /// Every name it is known by: its id, its name, and the hosts of its addresses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let addrs = std::iter::once(&self.spec.addr).chain(&self.spec.public_addrs);
        [self.name(), self.spec.hostname.as_str()]
            .into_iter()
            .chain(addrs.map(|addr| host_of(addr)))
            .filter(|name| !name.is_empty())
    }

    /// Whether each of `terms` stands somewhere in its names, addresses or labels, whatever the case.
    pub fn contains_all(&self, terms: &[String]) -> bool {
        let labels = self.all_labels();
        let texts: Vec<String> = self
            .names()
            .chain([self.spec.addr.as_str()])
            .chain(labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]))
            .chain(self.spec.use_tunnel.then_some("tunnel"))
            .map(str::to_lowercase)
            .collect();
        terms.iter().all(|term| {
            let term = term.to_lowercase();
            texts.iter().any(|text| text.contains(&term))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Resource;

    fn read(document: serde_json::Value) -> Result<Node, String> {
        serde_json::from_value::<Node>(document).map_err(|error| error.to_string())
    }

    const ID: &str = "5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11";

    #[test]
    fn a_registered_server_gets_an_id_and_an_agent_has_one() {
        let spec = json!({"addr": "10.0.0.7:22", "hostname": "db-1"});
        let openssh = json!({"kind": "node", "sub_kind": "openssh", "spec": spec});
        let node = read(openssh.clone()).unwrap();
        assert!(node.is_openssh() && node.host_id().is_some());
        assert_ne!(node.name(), read(openssh).unwrap().name());
        assert!(
            read(json!({"kind": "node", "spec": spec})).unwrap_err().contains("no metadata.name")
        );
        let node = read(json!({"kind": "node", "metadata": {"name": ID}, "spec": spec})).unwrap();
        assert_eq!(node.host_id().unwrap().to_string(), ID);
        assert_eq!(read(Resource::from(node.clone()).to_json()).unwrap(), node);
    }

    #[test]
    fn what_could_mislead_is_refused() {
        let node = |sub: &str, name: &str, spec: serde_json::Value| {
            read(json!({"kind": "node", "sub_kind": sub, "metadata": {"name": name}, "spec": spec}))
        };
        for (sub, name, spec, expected) in [
            ("", "db-1", json!({"hostname": "db-1"}), "metadata.name"),
            ("", ID, json!({"hostname": "db 1"}), "spec.hostname"),
            ("", ID, json!({"hostname": ""}), "spec.hostname"),
            ("", ID, json!({"hostname": "a", "addr": "a"}), "spec.addr: expected HOST:PORT"),
            ("", ID, json!({"hostname": "a", "addr": "a:0"}), "spec.addr"),
            ("openssh", ID, json!({"hostname": "a"}), "spec.addr: is missing"),
            ("other", ID, json!({"hostname": "a"}), "sub_kind"),
            ("", ID, json!({"hostname": "a", "public_addrs": ["a b"]}), "spec.public_addrs"),
            ("", ID, json!({"hostname": "a", "version": "1\n2"}), "spec.version"),
            (
                "",
                ID,
                json!({"hostname": "a", "cmd_labels": {"a b": {"period": "1m"}}}),
                "spec.cmd_labels",
            ),
        ] {
            let error = node(sub, name, spec.clone()).unwrap_err();
            assert!(error.contains(expected), "{spec}: {error}");
        }
        let many: Labels = (0..300).map(|n| (format!("k{n}"), String::new())).collect();
        let labels = json!({"kind": "node", "metadata": {"name": ID, "labels": many}, "spec": {"hostname": "a"}});
        assert!(read(labels).unwrap_err().contains("metadata.labels"));
    }

    #[test]
    fn fixed_labels_win() {
        let mut node = Node::new(ID, NodeSpec { hostname: "a".to_owned(), ..NodeSpec::default() });
        let label = |result: &str| CommandLabel {
            command: vec!["x".to_owned()],
            period: GoDuration::from_secs(60),
            result: result.to_owned(),
        };
        node.spec.cmd_labels =
            [("env".to_owned(), label("prod")), ("os".to_owned(), label("linux"))].into();
        node.metadata.labels = [("env".to_owned(), "dev".to_owned())].into();
        let labels = node.all_labels();
        assert_eq!((labels["env"].as_str(), labels["os"].as_str()), ("dev", "linux"));
        assert!(node.contains_all(&["LIN".to_owned(), "dev".to_owned()]));
        assert!(!node.contains_all(&["prod".to_owned()]), "a value that does not count");
        assert!(node.contains_all(&[]));
    }

    #[test]
    fn hosts_of_addresses() {
        for (addr, host) in [
            ("a", "a"),
            ("a:1", "a"),
            ("::1", "::1"),
            ("[::1]:3", "::1"),
            ("10.0.0.1:3", "10.0.0.1"),
        ] {
            assert_eq!(host_of(addr), host);
        }
    }
}
