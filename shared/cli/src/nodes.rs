//! Nodes and labels as tables show them.

use shared_types::{Labels, Node};

use crate::table::Table;

/// The address of a node that is reached through its tunnel.
pub const TUNNEL: &str = "⟵ Tunnel";
/// Labels of the cluster itself; people did not set them.
const HIDDEN: [&str; 3] = ["teleport.dev/", "teleport.hidden/", "teleport.internal/"];

/// Labels as `k=v,k2=v2`, without those of the cluster itself.
pub fn labels_text(labels: &Labels) -> String {
    let shown = labels.iter().filter(|(key, _)| !HIDDEN.iter().any(|space| key.starts_with(space)));
    shown.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Where a node is.
pub fn node_address(node: &Node) -> &str {
    if node.spec.use_tunnel { TUNNEL } else { &node.spec.addr }
}

/// The table of `tsh ls`; with the ids and whole labels where `verbose`.
pub fn node_table<'a>(nodes: impl IntoIterator<Item = &'a Node>, verbose: bool) -> Table {
    let mut table = if verbose {
        Table::new(&["Node Name", "Node ID", "Address", "Labels"])
    } else {
        Table::new(&["Node Name", "Address", "Labels"]).elastic("Labels")
    };
    for node in nodes {
        let labels = labels_text(&node.all_labels());
        let (name, address) = (node.spec.hostname.as_str(), node_address(node));
        if verbose {
            table.row([name, node.name(), address, &labels]);
        } else {
            table.row([name, address, &labels]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use shared_types::resource::NodeSpec;

    use super::*;

    #[test]
    fn a_node_behind_a_tunnel_has_no_address() {
        let id = "5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11";
        let spec = NodeSpec {
            hostname: "db-1".to_owned(),
            addr: "10.0.0.7:3022".to_owned(),
            ..NodeSpec::default()
        };
        let mut node = Node::new(id, spec);
        node.metadata.labels = [
            ("env".to_owned(), "prod".to_owned()),
            ("teleport.internal/x".to_owned(), "1".to_owned()),
        ]
        .into();
        let shown = |node: &Node, verbose| {
            let mut out = Vec::new();
            node_table([node], verbose).write(80, &mut out).unwrap();
            String::from_utf8(out).unwrap().lines().last().unwrap().to_owned()
        };
        assert_eq!(shown(&node, false), "db-1      10.0.0.7:3022 env=prod");
        node.spec.use_tunnel = true;
        assert_eq!(shown(&node, true), format!("db-1      {id} ⟵ Tunnel env=prod"));
    }
}
