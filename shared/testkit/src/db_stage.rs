//! A cluster with a database service, a user who may use all databases, and tunnels to them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, ClusterOptions, Home};
use crate::process::{Guard, bin, command};
use crate::scratch::Scratch;
use crate::wait::{free_port, until};

/// The token of agents with a database service.
const TOKEN: &str = "db-join-token-of-the-tests";

/// Where the database service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbAgent {
    /// In the process of auth and proxy.
    SameProcess,
    /// In a process of its own, which holds a tunnel to the proxy.
    Tunnel,
}

/// What differs between such clusters.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// Where the service runs.
    pub agent: DbAgent,
    /// `session_recording`.
    pub recording: String,
    /// Auth and proxy as two processes; the service is in a third then.
    pub two_processes: bool,
    /// More lines of the cluster.
    pub cluster: ClusterOptions,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self {
            agent: DbAgent::SameProcess,
            recording: "node".to_owned(),
            two_processes: false,
            cluster: ClusterOptions::default(),
        }
    }
}

/// A database as a service serves it.
#[derive(Debug, Clone)]
pub struct DbResource<'a> {
    /// The service's name.
    pub name: &'a str,
    /// `postgres`, `mysql`, `redis`, `dynamodb`.
    pub protocol: &'a str,
    /// `host:port`.
    pub uri: String,
    /// More lines below `spec`, indented by two blanks.
    pub spec: &'a str,
}

/// Such a cluster, and joe.
#[derive(Debug)]
pub struct DbStage {
    /// The cluster.
    pub cluster: Cluster,
    /// Joe, who is logged in and may use every database as everybody.
    pub joe: Home,
    /// The agent, when it is a process of its own.
    pub agent: Option<Guard>,
    /// Last, so that it goes after the programs that use it.
    pub scratch: Scratch,
}

impl DbStage {
    /// One whose service is in the same process.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, &DbOptions::default())
    }

    /// One with these options. The service serves the dynamic databases that [`DbStage::serve`] creates.
    pub fn with(name: &str, options: &DbOptions) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let mut cluster = options.cluster.clone();
        cluster.recording = Some(options.recording.clone());
        cluster.two_processes = options.two_processes;
        if !options.two_processes {
            cluster.auth_extra += "  tokens:\n";
        }
        cluster.auth_extra += &format!("  - \"db:{TOKEN}\"\n");
        if options.agent == DbAgent::SameProcess {
            // A section of its own behind the proxy's.
            cluster.proxy_extra += DB_SERVICE;
        }
        let cluster = Cluster::start(&scratch.folder("c")?, &cluster)?;
        let _role = cluster.create(
            "kind: role\nversion: v7\nmetadata:\n  name: databases\nspec:\n  allow:\n    db_labels: {'*': '*'}\n    \
             db_users: ['*']\n    db_names: ['*']\n",
        )?;
        let joe = cluster.user("joe", "auditor,databases", "root")?;
        let mut stage = Self { cluster, joe, agent: None, scratch };
        if options.agent != DbAgent::SameProcess {
            stage.agent = Some(stage.start_agent("agent")?);
        }
        Ok(stage)
    }

    /// Starts an agent with a database service; several of the same name are the same host again.
    pub fn start_agent(&self, name: &str) -> Result<Guard> {
        let folder = self.scratch.folder(name)?;
        let join = format!("proxy_server: localhost:{}", self.cluster.port("web"));
        let config = format!(
            "version: v3\nteleport:\n  nodename: {name}\n  data_dir: {}\n  {join}\n  auth_token: {TOKEN}\n  ca_pin: \"{}\"\n\
             auth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: no\n{DB_SERVICE}",
            folder.join("data").display(),
            self.cluster.ca_pin()?,
        );
        let config = self.scratch.write(&format!("{name}/teleport.yaml"), config)?;
        let mut daemon = command(bin("teleport"), &folder);
        daemon.args(["start", "--config"]).arg(&config).env("RUST_LOG", "info");
        Guard::start(name, &mut daemon, &folder.join("log"))
    }

    /// Creates the database and waits until joe sees it.
    pub fn serve(&self, database: &DbResource<'_>) -> Result<()> {
        let DbResource { name, protocol, uri, spec } = database;
        let _created = self.cluster.create(&format!(
            "kind: db\nversion: v3\nmetadata:\n  name: {name}\n  labels:\n    env: test\nspec:\n  protocol: {protocol}\n  \
             uri: \"{uri}\"\n{spec}"
        ))?;
        self.listed(name)
    }

    /// Waits until joe sees a database of that name.
    pub fn listed(&self, name: &str) -> Result<()> {
        let mut last = String::new();
        let listed = until("the database to be listed", 60, || {
            let outcome = self.joe.run(["db", "ls"]).ok()?;
            last = outcome.text() + &outcome.stderr;
            last.contains(name).then_some(())
        });
        listed.with_context(|| last)
    }

    /// `tsh proxy db --tunnel` to a database, by joe.
    pub fn tunnel(&self, service: &str, user: &str, name: &str) -> Result<DbTunnel> {
        self.tunnel_of(&self.joe, service, user, name)
    }

    /// The same by somebody else. An empty user or name is left out.
    pub fn tunnel_of(
        &self,
        home: &Home,
        service: &str,
        user: &str,
        name: &str,
    ) -> Result<DbTunnel> {
        let port = free_port()?;
        let mut tsh = home.tsh();
        tsh.args(["proxy", "db", "--tunnel", &format!("--port={port}")]);
        for (flag, value) in [("--db-user", user), ("--db-name", name)] {
            if !value.is_empty() {
                tsh.arg(format!("{flag}={value}"));
            }
        }
        tsh.arg(service);
        let log = self.scratch.path().join(format!("tunnel-{port}.log"));
        let mut process = Guard::start("tsh proxy db", &mut tsh, &log)?;
        until("the tunnel", 30, || {
            (!process.running() || process.log().contains("Started authenticated tunnel"))
                .then_some(())
        })?;
        ensure!(process.running(), "tsh proxy db ended: {}", process.log());
        Ok(DbTunnel {
            port,
            process,
            home: home.folder.clone(),
            user: user.to_owned(),
            name: name.to_owned(),
        })
    }

    /// One column of the audit log's answer to `sql`, once `enough` says that it is all there.
    pub fn audited(&self, sql: &str, enough: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let mut last = Vec::new();
        let found = until("the audit log", 30, || {
            last = self.cluster.query(sql).ok()?.into_iter().flatten().collect();
            enough(&last).then(|| last.clone())
        });
        found.with_context(|| format!("{sql}\n{last:?}"))
    }

    /// The path of a session's recording, once it has arrived.
    pub fn recording(&self, sid: &str) -> Result<PathBuf> {
        let path = self.cluster.data_dir().join(format!("log/records/{sid}.tar"));
        until("the recording to arrive", 30, || path.exists().then_some(()))?;
        Ok(path)
    }
}

const DB_SERVICE: &str = "db_service:\n  enabled: yes\n  resources:\n  - labels:\n      '*': '*'\n";

/// A running `tsh proxy db --tunnel`.
#[derive(Debug)]
pub struct DbTunnel {
    /// Its port on loopback.
    pub port: u16,
    /// The program.
    pub process: Guard,
    home: PathBuf,
    user: String,
    name: String,
}

impl DbTunnel {
    /// A PostgreSQL client that goes through it as the tunnel's user.
    pub fn postgres(&self, program: &str) -> Command {
        let mut client = command(program, &self.home);
        client.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string());
        client.env("PGUSER", &self.user).env("PGDATABASE", &self.name);
        client
    }

    /// A client of MariaDB's that goes through it as the tunnel's user.
    pub fn mariadb(&self, program: &str) -> Command {
        let mut client = command(program, &self.home);
        client.args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            &format!("--port={}", self.port),
        ]);
        client.arg(format!("--user={}", self.user));
        client
    }

    /// `psql -c sql` with plain output.
    pub fn psql(&self, sql: &str) -> Command {
        let mut psql = self.postgres("psql");
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        psql
    }
}
