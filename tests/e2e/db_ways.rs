//! The ways to a database: for clients that do without `tsh` once they have a certificate, and to agents however they
//! joined.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shared_testkit::process::command;
use shared_testkit::{
    ClusterOptions, DbAgent, DbOptions, DbResource, DbStage, Guard, MariaDb, Postgres, bin, run,
    until,
};

/// Ports of their own for both protocols that have them.
const PORTS: &str = "  postgres_listen_addr: 127.0.0.1:0\n  mysql_listen_addr: 127.0.0.1:0\n  \
                     postgres_public_addr: localhost:5432\n  mysql_server_version: 8.0.36-gate\n";

/// Another agent of a cluster, with a database service; `join` says where it finds the cluster.
pub(crate) fn agent(stage: &DbStage, name: &str, join: &str) -> Result<Guard> {
    let token = format!("token-of-the-agent-{name}");
    let value = format!("--value={token}");
    let _token = stage.cluster.tctl_ok(["tokens", "add", "--type=db", &value])?;
    let folder = stage.scratch.folder(name)?;
    let config = format!(
        "version: v3\nteleport:\n  nodename: {name}\n  data_dir: {}\n  {join}\n  auth_token: {token}\n  \
         ca_pin: \"{}\"\nauth_service:\n  enabled: no\nproxy_service:\n  enabled: no\nssh_service:\n  enabled: no\n\
         db_service:\n  enabled: yes\n  resources:\n  - labels:\n      '*': '*'\n",
        folder.join("data").display(),
        stage.cluster.ca_pin()?,
    );
    let config = stage.scratch.write(&format!("{name}/teleport.yaml"), config)?;
    let mut daemon = command(bin("teleport"), &folder);
    daemon.args(["start", "--config"]).arg(&config).env("RUST_LOG", "info");
    Guard::start(name, &mut daemon, &folder.join("log"))
}

/// What `tsh db login` left for a client, by the names of `tsh db config`.
fn login(stage: &DbStage, service: &str, name: &str) -> Result<impl Fn(&str) -> String + use<>> {
    let name = format!("--db-name={name}");
    let _login = stage.joe.run(["db", "login", "--db-user=alice", &name, service])?.ok();
    let text = stage.joe.run(["db", "config", "--format=json", service])?.ok().text();
    let config: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(move |key: &str| config[key].as_str().unwrap_or_default().to_owned())
}

fn stage(name: &str) -> Result<DbStage> {
    let cluster = ClusterOptions { proxy_extra: PORTS.to_owned(), ..ClusterOptions::default() };
    DbStage::with(name, &DbOptions { cluster, ..DbOptions::default() })
}

#[test]
fn psql_comes_without_tsh_on_a_port_of_its_own_and_on_the_one_port() -> Result<()> {
    let stage = stage("db-ways-psql")?;
    let Some(postgres) = Postgres::start(&stage.cluster, &["alice"])? else { return Ok(()) };
    let uri = postgres.uri();
    stage.serve(&DbResource { name: "shop", protocol: "postgres", uri, spec: "" })?;
    let config = login(&stage, "shop", "postgres")?;
    let psql = |port: u16| -> Command {
        let mut psql = command(postgres.program("psql"), &stage.joe.folder);
        psql.env("PGHOST", "localhost").env("PGHOSTADDR", "127.0.0.1");
        psql.env("PGPORT", port.to_string()).env("PGUSER", "alice").env("PGDATABASE", "postgres");
        // The host authority vouches for the proxy, by its public name.
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", config("ca"));
        psql.env("PGSSLCERT", config("cert")).env("PGSSLKEY", config("key"));
        psql.args(["-XqAt", "-c", "select current_user"]);
        psql
    };
    for port in ["postgres", "web"] {
        let outcome = run(&mut psql(stage.cluster.port(port)), "", 60)?;
        ensure!(outcome.text() == "alice\n", "{port}: {outcome:?}");
    }
    // Who does without TLS, or without the certificate, reads why that is not enough.
    let port = stage.cluster.port("postgres");
    for (mode, cert) in [("disable", true), ("require", false)] {
        let mut psql = psql(port);
        psql.env("PGSSLMODE", mode);
        if !cert {
            psql.env_remove("PGSSLCERT").env_remove("PGSSLKEY").env("PGSSLCERTMODE", "disable");
        }
        let outcome = run(&mut psql, "", 60)?;
        let words = "FATAL:  a client certificate is needed";
        ensure!(outcome.code != 0 && outcome.stderr.contains(words), "{mode}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn mariadb_comes_without_tsh_on_a_port_of_its_own() -> Result<()> {
    let stage = stage("db-ways-mariadb")?;
    let Some(mariadb) = MariaDb::start(&stage.cluster, &["alice"])? else { return Ok(()) };
    let uri = mariadb.uri();
    stage.serve(&DbResource { name: "shop", protocol: "mysql", uri, spec: "" })?;
    let config = login(&stage, "shop", "mysql")?;
    let client = |tls: &[String]| -> Command {
        let mut client = command("mariadb", &stage.joe.folder);
        client.args(["--no-defaults", "--protocol=tcp", "--host=localhost", "--user=alice", "-N"]);
        client.arg(format!("--port={}", stage.cluster.port("mysql"))).args(tls);
        client.args(["-e", "select concat('came in as ', current_user())"]);
        client
    };
    let tls = [
        format!("--ssl-ca={}", config("ca")),
        format!("--ssl-cert={}", config("cert")),
        format!("--ssl-key={}", config("key")),
        "--ssl-verify-server-cert".to_owned(),
    ];
    let outcome = run(&mut client(&tls), "", 60)?;
    ensure!(outcome.text().starts_with("came in as alice@"), "{outcome:?}");
    let outcome = run(&mut client(&["--skip-ssl".to_owned()]), "", 60)?;
    let words = "ERROR 1045 (28000): a client certificate is needed";
    ensure!(outcome.code != 0 && outcome.stderr.contains(words), "{outcome:?}");
    Ok(())
}

#[test]
fn an_agent_that_joined_through_the_auth_service_is_reached() -> Result<()> {
    let options = DbOptions { agent: DbAgent::Tunnel, two_processes: true, ..DbOptions::default() };
    let mut stage = DbStage::with("db-ways-auth", &options)?;
    let Some(postgres) = Postgres::start(&stage.cluster, &["alice"])? else { return Ok(()) };
    // The one that joined through the proxy goes; what is left knows of no proxy by itself.
    stage.agent = None;
    let join = format!("auth_server: {}", stage.cluster.address("auth"));
    let agent = agent(&stage, "inside", &join)?;
    let uri = postgres.uri();
    stage.serve(&DbResource { name: "shop", protocol: "postgres", uri, spec: "" })?;
    let tunnel = stage.tunnel("shop", "alice", "postgres")?;
    let mut last = String::new();
    until("the agent to be reached", 60, || {
        let mut psql = tunnel.postgres("psql");
        psql.args(["-XqAt", "-c", "select current_user"]);
        let outcome = run(&mut psql, "", 30).ok()?;
        last = format!("{outcome:?}");
        (outcome.text() == "alice\n").then_some(())
    })
    .with_context(|| format!("{last}\n{}", agent.log()))
}
