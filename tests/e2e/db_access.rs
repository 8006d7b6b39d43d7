//! Who may not reach a database reads why, in the database's own protocol, and the database hears nothing of it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use shared_api::{Client, ClientConfig, ClientIdentity, ErrorKind, StoredLogin, UserCertsRequest};
use shared_config::ProfileDir;
use shared_pki::{CaKind, CertAuthority, DatabaseRoute, TlsIdentity, TlsKey};
use shared_testkit::process::{command, installed};
use shared_testkit::{DbAgent, DbOptions, DbResource, DbStage, DbTunnel, Home, run, until};

/// What stands for all databases: it takes connections, and counts those on which something was said. A look at whether
/// it is there says nothing.
struct Ear {
    port: u16,
    heard: Arc<AtomicUsize>,
}

impl Ear {
    fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    if matches!(stream.read(&mut [0; 1]), Ok(1)) {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(Self { port, heard })
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// Joe may use everything; Ann is `app` in `shop` on what is labelled `env: test`.
struct Scene {
    stage: DbStage,
    ann: Home,
    ear: Ear,
}

impl Scene {
    fn new(name: &str, agent: DbAgent, databases: &[(&str, &str)]) -> Result<Self> {
        let stage = DbStage::with(name, &DbOptions { agent, ..DbOptions::default() })?;
        let ear = Ear::open()?;
        for (name, protocol) in databases {
            let uri = format!(
                "{}127.0.0.1:{}",
                if *protocol == "dynamodb" { "http://" } else { "" },
                ear.port
            );
            stage.serve(&DbResource { name, protocol, uri, spec: "" })?;
        }
        let this = Self { ann: stage.cluster.home("ann")?, stage, ear };
        this.limited("app")?;
        this.stage.cluster.user("ann", "limited", "root")?;
        Ok(this)
    }

    /// Whom Ann may be.
    fn limited(&self, user: &str) -> Result<()> {
        let role = self.stage.scratch.write(
            "limited.yaml",
            format!(
                "kind: role\nversion: v7\nmetadata:\n  name: limited\nspec:\n  allow:\n    db_labels: {{env: test}}\n    \
                 db_users: [{user}]\n    db_names: [shop]\n"
            ),
        )?;
        let path = role.to_string_lossy().into_owned();
        let _written = self.stage.cluster.tctl_ok(["create", "--force", path.as_str()])?;
        Ok(())
    }

    fn tunnel(&self, service: &str) -> Result<DbTunnel> {
        let name = if service == "pg" { "shop" } else { "" };
        self.stage.tunnel_of(&self.ann, service, "app", name)
    }

    /// Why sessions did not begin, as the audit log tells.
    fn refused(&self, service: &str, like: &str) -> Result<()> {
        let sql = format!(
            "select error from db_session_start where not success and db_service = '{service}' and error like '%{like}%'"
        );
        self.stage.audited(&sql, |rows| !rows.is_empty()).map(drop)
    }
}

/// Says `bytes` to a tunnel and reads what comes back until its end.
fn say(port: u16, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(bytes)?;
    let mut heard = Vec::new();
    // Who is refused is hung up on; an unread rest of what was said makes that a reset.
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        heard.extend_from_slice(&piece[..read]);
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

/// PostgreSQL's StartupMessage, version 3.0.
fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body.as_slice()].concat()
}

/// What a PostgreSQL client is told: a fatal error of this code with this in its text.
fn postgres(port: u16, user: &str, database: &str, code: &str, text: &str) -> Result<()> {
    let heard = say(port, &startup(user, database))?;
    ensure!(heard.starts_with('E') && heard.contains("SFATAL\0"), "{heard:?}");
    ensure!(heard.contains(&format!("\0C{code}\0")) && heard.contains(text), "{heard:?}");
    Ok(())
}

const CONFIRM: &str =
    "access to db denied. User does not have permissions. Confirm database user and name";

#[test]
fn a_user_and_a_name_that_the_roles_do_not_give() -> Result<()> {
    for agent in [DbAgent::SameProcess, DbAgent::Tunnel] {
        let scene = Scene::new("dba-user", agent, &[("pg", "postgres")])?;
        let tunnel = scene.tunnel("pg")?;
        postgres(tunnel.port, "root", "shop", "28000", CONFIRM)?;
        postgres(tunnel.port, "app", "payroll", "28000", CONFIRM)?;
        // Nor does a name that only looks like one that is given.
        postgres(tunnel.port, "APP", "shop", "28000", CONFIRM)?;
        postgres(tunnel.port, "app", "shop ", "28000", CONFIRM)?;
        scene.refused("pg", "no role allows the database user \"root\" there")?;
        scene.refused("pg", "no role allows the database name \"payroll\" there")?;
        assert_eq!(scene.ear.heard(), 0, "a database was asked");
        // What is allowed does get there, and finds no PostgreSQL.
        let heard = say(tunnel.port, &startup("app", "shop"))?;
        assert!(heard.starts_with('E') && !heard.contains(CONFIRM), "{heard:?}");
        assert_eq!(scene.ear.heard(), 1);
    }
    Ok(())
}

#[test]
fn a_database_one_may_not_see_is_not_there() -> Result<()> {
    let scene = Scene::new("dba-hidden", DbAgent::SameProcess, &[("pg", "postgres")])?;
    let _hidden = scene.stage.cluster.create(&format!(
        "kind: db\nversion: v3\nmetadata:\n  name: payroll\n  labels:\n    env: prod\nspec:\n  protocol: postgres\n  \
         uri: 127.0.0.1:{}\n",
        scene.ear.port
    ))?;
    scene.stage.listed("payroll")?;
    let listed = scene.ann.run(["db", "ls"])?.ok().text();
    assert!(listed.contains("pg") && !listed.contains("payroll"), "{listed}");
    let ask = |name: &str| scene.ann.run(["db", "login", "--db-user=app", "--db-name=shop", name]);
    let (hidden, missing) = (ask("payroll")?, ask("nothing")?);
    assert_eq!(hidden.code, missing.code, "{}", hidden.stderr);
    assert_ne!(hidden.code, 0);
    assert_eq!(hidden.stderr.replace("payroll", "NAME"), missing.stderr.replace("nothing", "NAME"));
    // Who asks the API itself learns no more.
    let told = |name: &str| -> Result<String> {
        let error =
            certify(&scene.ann, route(name, "postgres"), None).err().context("a certificate")?;
        Ok(format!("{error:#}").replace(name, "NAME"))
    };
    assert_eq!(told("payroll")?, told("nothing")?);
    let refused = scene.ann.run(["db", "login", "--db-user=root", "--db-name=shop", "pg"])?;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("no role allows the database user"), "{}", refused.stderr);
    assert_eq!(scene.ear.heard(), 0);
    Ok(())
}

#[test]
fn each_protocol_has_its_own_words() -> Result<()> {
    let databases =
        [("pg", "postgres"), ("my", "mysql"), ("cache", "redis"), ("table", "dynamodb")];
    let scene = Scene::new("dba-words", DbAgent::SameProcess, &databases)?;
    let [pg, my, cache, table] = ["pg", "my", "cache", "table"].map(|name| scene.tunnel(name));
    let (pg, my, cache, table) = (pg?, my?, cache?, table?);
    let every = |text: &str, mysql_code: &str, postgres_code: &str| -> Result<()> {
        postgres(pg.port, "app", "shop", postgres_code, text)?;
        let heard = say(cache.port, b"*1\r\n$4\r\nPING\r\n")?;
        ensure!(heard.starts_with("-NOPERM ") && heard.contains(text), "{heard:?}");
        let post = "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n\
                    Content-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        let heard = say(table.port, post.as_bytes())?;
        ensure!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("AccessDenied"), "{heard:?}");
        ensure!(heard.contains(&text.replace('"', "\\\"")), "{heard:?}");
        if installed("mariadb")? {
            let refused = run(my.mariadb("mariadb").args(["-e", "select 1"]), "", 60)?;
            ensure!(refused.code != 0, "{}", refused.text());
            ensure!(
                refused.stderr.contains(mysql_code) && refused.stderr.contains(text),
                "{}",
                refused.stderr
            );
        }
        Ok(())
    };
    // What the roles gave when the certificate was made, and do not give now.
    scene.limited("other")?;
    until("the role", 20, || {
        postgres(pg.port, "app", "shop", "28000", CONFIRM).is_ok().then_some(())
    })?;
    every(CONFIRM, "1045", "28000")?;
    for (service, _) in databases {
        scene.refused(service, "no role allows the database user \"app\" there")?;
    }
    // A lock says what it is about to whom it is on.
    let lock = ["lock", "--user=ann", "--message=ask the desk", "--ttl=1h"];
    let _locked = scene.stage.cluster.tctl_ok(lock)?;
    let locked = "lock targeting User:\"ann\" is in force: ask the desk";
    until("the lock", 20, || {
        postgres(pg.port, "app", "shop", "28000", locked).is_ok().then_some(())
    })?;
    every(locked, "1045", "28000")?;
    assert_eq!(scene.ear.heard(), 0, "a database was asked");
    Ok(())
}

fn route(service: &str, protocol: &str) -> DatabaseRoute {
    DatabaseRoute {
        service: service.to_owned(),
        protocol: protocol.to_owned(),
        user: "app".to_owned(),
        name: "shop".to_owned(),
    }
}

fn api(home: &Home) -> Result<ClientConfig> {
    shared_transport::install_crypto();
    let dir = ProfileDir::at(&home.folder.join(".tsh"));
    let profile = dir.current()?.context("no profile")?;
    let login = StoredLogin::load(&dir, &profile)?.context("no login")?;
    Ok(login.client_config(&profile))
}

/// A certificate for a database from the API, and its key.
fn certify(home: &Home, route: DatabaseRoute, ttl: Option<u64>) -> Result<Shown> {
    let key = TlsKey::generate()?;
    let ask = UserCertsRequest {
        user: None,
        ssh_public_key: String::new(),
        tls_public_key: key.public().to_pem(),
        ttl_seconds: ttl,
        database: Some(route),
    };
    let client = Client::new(api(home)?)?;
    let reply = tokio::runtime::Runtime::new()?.block_on(client.sign_user(&ask))?;
    Ok(Shown { cert: reply.tls_cert, key: key.to_pem().to_string(), until: reply.valid_until })
}

struct Shown {
    cert: String,
    key: String,
    until: chrono::DateTime<Utc>,
}

impl Shown {
    /// Kept as files that only their owner reads.
    fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        use std::os::unix::fs::PermissionsExt as _;
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert)?;
        std::fs::write(&key, &self.key)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
        Ok((cert, key))
    }
}

/// `psql` straight to the proxy with a certificate; what it says on its standard error.
fn psql(scene: &Scene, shown: &Shown, name: &str) -> Result<String> {
    let (cert, key) = shown.write(&scene.ann.folder, name)?;
    let mut psql = command("psql", &scene.ann.folder);
    psql.env("PGHOST", "localhost").env("PGPORT", scene.stage.cluster.port("web").to_string());
    psql.env("PGSSLMODE", "require").env("PGSSLCERT", cert).env("PGSSLKEY", key);
    psql.args(["-XqAt", "-U", "app", "-d", "shop", "-c", "select 1"]);
    let refused = run(&mut psql, "", 60)?;
    ensure!(refused.code != 0, "{}", refused.text());
    Ok(refused.stderr)
}

#[test]
fn a_certificate_that_is_not_right_opens_no_database() -> Result<()> {
    if !installed("psql")? {
        return Ok(());
    }
    let scene =
        Scene::new("dba-certs", DbAgent::SameProcess, &[("pg", "postgres"), ("cache", "redis")])?;
    let brief = certify(&scene.ann, route("pg", "postgres"), Some(20))?;

    let cache = certify(&scene.ann, route("cache", "redis"), None)?;
    let told = psql(&scene, &cache, "other")?;
    assert!(told.contains("certificate is for a database that speaks redis"), "{told}");

    let config = api(&scene.ann)?;
    let login = config.identity.clone().context("no identity")?;
    let until_then = Utc::now();
    let plain =
        Shown { cert: login.cert_pem.clone(), key: login.key_pem.to_string(), until: until_then };
    let told = psql(&scene, &plain, "plain")?;
    assert!(told.contains("the certificate is not for a database"), "{told}");

    let forged = forged(Utc::now())?;
    let told = psql(&scene, &forged, "forged")?;
    assert!(told.contains("not one of this cluster's users"), "{told}");
    assert_eq!(scene.ear.heard(), 0, "a database was asked");

    // In time it gets to the database, and afterwards not.
    let good = psql(&scene, &brief, "brief")?;
    assert!(!good.contains("certificate"), "{good}");
    assert_eq!(scene.ear.heard(), 1, "{good}");
    let left = (brief.until - Utc::now()).to_std().unwrap_or_default();
    std::thread::sleep(left + Duration::from_secs(1));
    let told = psql(&scene, &brief, "brief")?;
    assert!(told.contains("expired") && told.contains("tsh"), "{told}");

    // A route to what is not served any more, shown again.
    let good = certify(&scene.ann, route("pg", "postgres"), None)?;
    let _removed = scene.stage.cluster.tctl_ok(["rm", "db/pg"])?;
    until("the database to go", 60, || {
        psql(&scene, &good, "gone")
            .is_ok_and(|told| told.contains("does not exist or"))
            .then_some(())
    })?;
    assert_eq!(scene.ear.heard(), 1);
    Ok(())
}

/// Signed by an authority that says of itself what the cluster's says.
fn forged(now: chrono::DateTime<Utc>) -> Result<Shown> {
    let cluster: shared_types::ClusterName = "example.test".parse()?;
    let authority = CertAuthority::generate(CaKind::User, &cluster, now)?;
    let key = TlsKey::generate()?;
    let identity = TlsIdentity {
        user: "ann".parse()?,
        roles: vec!["limited".parse()?],
        logins: Vec::new(),
        traits: Default::default(),
        cluster,
        usage: Vec::new(),
        login_ip: None,
        pinned_ip: None,
        database: Some(route("pg", "postgres")),
    };
    let life = Duration::from_secs(3600);
    let cert = authority.tls_ca()?.sign_client(&identity, &key.public(), now, life)?;
    Ok(Shown { cert: cert.pem(), key: key.to_pem().to_string(), until: now + life })
}

#[test]
fn a_certificate_for_a_database_opens_nothing_else() -> Result<()> {
    let scene = Scene::new("dba-use", DbAgent::SameProcess, &[("pg", "postgres")])?;
    let shown = certify(&scene.ann, route("pg", "postgres"), None)?;
    let identity = ClientIdentity { cert_pem: shown.cert, key_pem: shown.key.into() };
    let client = Client::new(ClientConfig { identity: Some(identity), ..api(&scene.ann)? })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let refused = runtime.block_on(client.me()).err().context("it opened the API")?;
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
    // Not even for another one of its kind.
    let key = TlsKey::generate()?;
    let ask = UserCertsRequest {
        user: None,
        ssh_public_key: String::new(),
        tls_public_key: key.public().to_pem(),
        ttl_seconds: None,
        database: Some(route("pg", "postgres")),
    };
    let refused = runtime.block_on(client.sign_user(&ask)).err().context("it made another")?;
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
    Ok(())
}

#[test]
fn an_agent_that_is_put_out_serves_nothing() -> Result<()> {
    let scene = Scene::new("dba-out", DbAgent::Tunnel, &[("pg", "postgres")])?;
    let tunnel = scene.tunnel("pg")?;
    postgres(tunnel.port, "root", "shop", "28000", CONFIRM)?;
    let listed = scene.stage.cluster.tctl_ok(["get", "db_servers", "--format=json"])?.text();
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let host = listed[0]["spec"]["host_id"].as_str().context("no host id")?.to_owned();
    let _removed = scene.stage.cluster.tctl_ok(["rm", &format!("db_server/{host}")])?;
    // It is gone at once, and its tunnels with it; who asks reads the same as of what never was there.
    until("the agent to go", 20, || {
        postgres(tunnel.port, "app", "shop", "3D000", "does not exist or").is_ok().then_some(())
    })?;
    let listed = scene.stage.joe.run(["db", "ls"])?.ok().text();
    assert!(!listed.contains("pg"), "{listed}");
    let locks = scene.stage.cluster.tctl_ok(["get", "locks"])?.text();
    assert!(locks.contains(&host), "{locks}");
    // Nor does it come back with what it has, nor with the token under its id.
    let mut again = scene.stage.start_agent("agent")?;
    until("the agent to be refused", 30, || {
        let log = again.log();
        (!again.running() || log.contains("locked") || log.contains("lock targeting")).then_some(())
    })?;
    let listed = scene.stage.joe.run(["db", "ls"])?.ok().text();
    assert!(!listed.contains("pg"), "{listed}");
    assert_eq!(scene.ear.heard(), 0, "a database was asked");
    Ok(())
}
