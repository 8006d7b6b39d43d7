//! Agents: `teleport` processes that join a cluster and serve their host.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::process::{Guard, bin, command};

/// The token in [`AgentOptions::TOKENS`].
pub const TOKEN: &str = "node-join-token-of-the-tests";

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions<'a> {
    /// Its node name, and its folder's.
    pub name: &'a str,
    /// `proxy_server: …` or `auth_server: …`.
    pub way: String,
    /// More lines below `ssh_service`.
    pub service: &'a str,
}

impl AgentOptions<'_> {
    /// What stands below `auth_service.tokens` of a cluster that these agents join.
    pub const TOKENS: &'static str = "  - \"node:node-join-token-of-the-tests\"\n";

    /// Writes the configuration, with the label `env: dev`.
    pub fn configure(&self, cluster: &Cluster) -> Result<PathBuf> {
        let folder = cluster.folder().join(self.name);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("teleport.yaml");
        let text = format!(
            "version: v3\nteleport:\n  nodename: {}\n  data_dir: {}\n  {}\n  auth_token: {TOKEN}\n  ca_pin: \"{}\"\n\
             auth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: yes\n  labels:\n    \
             env: dev\n{}",
            self.name,
            folder.join("data").display(),
            self.way,
            cluster.ca_pin()?,
            self.service,
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts it as a process of this host.
    pub fn start(&self, cluster: &Cluster) -> Result<Guard> {
        let config = self.configure(cluster)?;
        start_agent(command(bin("teleport"), &cluster.folder().join(self.name)), &config)
    }
}

/// Starts an agent with the program that `teleport` names, which may be in a place of its own.
pub fn start_agent(mut teleport: Command, config: &std::path::Path) -> Result<Guard> {
    let log = config.with_file_name("agent.log");
    teleport.args(["start", "--config"]).arg(config).env("RUST_LOG", "info");
    Guard::start("agent", &mut teleport, &log)
}
