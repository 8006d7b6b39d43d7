//! The direction of dependencies between our crates (docs/architecture.md), checked on what cargo
//! itself says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::run;

/// Height of each crate: it may use only crates that stand lower.
const HEIGHTS: &[(&str, u8)] = &[
    ("shared-types", 0),
    ("shared-events", 1),
    ("shared-pki", 1),
    ("shared-authz", 1),
    ("shared-wire", 1),
    ("shared-recording", 2),
    ("shared-transfer", 2),
    ("shared-transport", 2),
    ("shared-config", 2),
    ("shared-ssh", 3),
    ("shared-api", 3),
    ("shared-cli", 3),
    ("server-core", 4),
    ("server-store", 4),
    ("server-audit", 5),
    ("server-query", 5),
    ("server-auth", 6),
    ("server-proxy", 6),
    ("server-ssh", 6),
    ("server-db", 6),
    ("local-proxy", 4),
    ("tsh", 7),
    ("tctl", 7),
    ("server-daemon", 7),
    ("shared-testkit", 8),
    ("e2e", 9),
    ("xtask", 9),
];

/// A crate from outside, and the only crates of ours that may name it.
const SINGLE_HOMES: &[(&str, &[&str])] = &[
    ("russh", &["shared-ssh", "shared-pki"]),
    ("datafusion", &["server-query"]),
    ("sqlx", &["server-store"]),
    ("object_store", &["server-store", "server-db"]),
    ("indicatif", &["shared-cli"]),
];

/// What never reaches a program, however indirectly.
const UNREACHABLE: &[(&str, &[&str])] = &[
    (
        "tsh",
        &[
            "datafusion",
            "sqlx",
            "libsqlite3-sys",
            "server-core",
            "server-auth",
            "server-proxy",
            "server-ssh",
            "server-db",
        ],
    ),
    (
        "tctl",
        &[
            "datafusion",
            "sqlx",
            "libsqlite3-sys",
            "server-core",
            "server-auth",
            "server-proxy",
            "server-ssh",
            "server-db",
        ],
    ),
    ("server-daemon", &["datafusion"]),
];

/// Names the first offender, or is content.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(run::root().join("Cargo.toml"))
        .other_options(vec!["--locked".into()])
        .exec()?;
    let heights: BTreeMap<&str, u8> = HEIGHTS.iter().copied().collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if let Some(resolve) = &metadata.resolve {
        let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
        for node in &resolve.nodes {
            let normal = node.deps.iter().filter(|dep| {
                dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development)
            });
            edges.entry(name(&node.id)).or_default().extend(normal.map(|dep| name(&dep.pkg)));
        }
    }
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(height) = heights.get(package.name.as_str()) else {
            faults.push(format!("{} has no height in xtask/src/layers.rs", package.name));
            continue;
        };
        for dep in edges.get(package.name.as_str()).into_iter().flatten() {
            if heights.get(dep.as_str()).is_some_and(|below| below >= height) {
                faults.push(format!("{} uses {dep}, which does not stand lower", package.name));
            }
            for (outside, homes) in SINGLE_HOMES {
                if dep == outside && !homes.contains(&package.name.as_str()) && height < &8 {
                    faults.push(format!(
                        "{} names {dep}, whose home is {}",
                        package.name,
                        homes.join(", ")
                    ));
                }
            }
        }
    }
    for (program, banned) in UNREACHABLE {
        let reached = reachable(&edges, program);
        for outside in *banned {
            if reached.contains(*outside) {
                faults.push(format!("{program} reaches {outside}"));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!("layers:\n  {}", faults.join("\n  ")) }
}

fn reachable(edges: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(next) = open.pop() {
        for dep in edges.get(&next).into_iter().flatten() {
            if seen.insert(dep.clone()) {
                open.push(dep.clone());
            }
        }
    }
    seen
}
