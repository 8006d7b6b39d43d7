//! A host that only dials out, beside a jump host: the way through its tunnel to its own SSH server.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use shared_testkit::agent::AgentOptions;
use shared_testkit::{ClusterOptions, until};

use super::{Bench, Way};
use crate::measure::{Table, median};

/// The node.
const NAME: &str = "inner";

/// From nothing to the end of `true`, where the proxy records and where the node does.
pub fn connect(rounds: usize) -> Result<()> {
    for recording in ["proxy", "node"] {
        let options = ClusterOptions {
            recording: Some("proxy".to_owned()),
            auth_extra: format!("  tokens:\n{}", AgentOptions::TOKENS),
            ..ClusterOptions::default()
        };
        let bench = Bench::start(&options)?;
        let way = format!("proxy_server: {}", bench.cluster.address("web"));
        let agent = AgentOptions { name: NAME, way, service: "" };
        let _agent = agent.start(&bench.cluster)?;
        let config = format!(
            "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: {recording}\n"
        );
        let _changed = bench.cluster.create(&config)?;
        until("the node", 60, || {
            bench.through_tunnel().status().ok().filter(|done| done.success())
        })?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (at, times) in times.iter_mut().enumerate() {
                let mut command = if at == 0 {
                    bench.command(Way::Jump, &[], &["true"])
                } else {
                    bench.through_tunnel()
                };
                let started = Instant::now();
                let status = command.stdin(Stdio::null()).status()?;
                ensure!(status.success(), "true ended with {status}");
                times.push(started.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let title =
            format!("connect and run true through a tunnel, recorded by the {recording}, ms");
        let mut table = Table::new(&title);
        let base = median(&times[0]);
        for (name, times) in ["ssh -J", "tunnel, tsh"].into_iter().zip(&times) {
            let time = median(times);
            table.row(name, format!("{time:.0}"), time / base, String::new());
        }
        table.print("ssh -J");
    }
    Ok(())
}

impl Bench {
    fn through_tunnel(&self) -> Command {
        let mut tsh = self.joe.tsh();
        tsh.args(["ssh", &format!("{}@{NAME}", self.login), "true"]);
        tsh.stdin(Stdio::null());
        tsh
    }
}
