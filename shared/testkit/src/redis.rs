//! A real Redis with TLS, which lets in whom the cluster vouches for. What tests do behind the scenes goes by its
//! socket.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::process::{Guard, command, installed, run};
use crate::scratch::Scratch;
use crate::wait::{free_port, until};

/// A running server on loopback.
#[derive(Debug)]
pub struct Redis {
    /// Its port.
    pub port: u16,
    /// Its process.
    pub process: Guard,
    scratch: Scratch,
}

impl Redis {
    /// One that trusts this cluster, with more lines of `redis.conf`. None, loudly, where it is not installed.
    pub fn start(cluster: &Cluster, extra: &str) -> Result<Option<Self>> {
        if !installed("redis-server")? {
            return Ok(None);
        }
        let scratch = Scratch::new("redis")?;
        let signed = scratch.path().join("server");
        let out = format!("--out={}", signed.display());
        let sign =
            ["auth", "sign", "--format=redis", "--host=localhost,127.0.0.1", "--ttl=24h", &out];
        let _signed = cluster.tctl_ok(sign)?;
        let port = free_port()?;
        let (signed, folder) = (signed.display(), scratch.path().display());
        let config = format!(
            "port 0\nbind 127.0.0.1\ntls-port {port}\ntls-cert-file {signed}.crt\ntls-key-file {signed}.key\n\
             tls-ca-cert-file {signed}.cas\ntls-auth-clients yes\nunixsocket {folder}/socket\ndir {folder}\n\
             save \"\"\nappendonly no\ndaemonize no\nmaxclients 2000\n{extra}\n"
        );
        let config = scratch.write("redis.conf", config)?;
        let mut server = command("redis-server", scratch.path());
        let process = Guard::start("redis", server.arg(config), &scratch.path().join("log"))?;
        let mut this = Self { port, process, scratch };
        until("Redis", 30, || {
            let answered =
                run(this.direct().arg("PING"), "", 30).is_ok_and(|outcome| outcome.code == 0);
            (answered || !this.process.running()).then_some(())
        })?;
        ensure!(this.process.running(), "Redis ended: {}", this.process.log());
        Ok(Some(this))
    }

    /// `localhost:PORT`.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The answer to a command, past the cluster, as `default`.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        let mut client = self.direct();
        Ok(run(client.args(args), "", 30)?.ok().text().trim_end().to_owned())
    }

    /// `redis-cli` by the socket.
    pub fn direct(&self) -> Command {
        let mut client = command("redis-cli", self.scratch.path());
        client.arg("-s").arg(self.scratch.path().join("socket"));
        client
    }
}
