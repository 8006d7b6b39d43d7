//! Questions to the audit log in SQL, on what real sessions left there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shared_api::{Client, ClientConfig, Route, StoredLogin};
use shared_config::ProfileDir;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::{ClusterOptions, Home, Sshd, SshdOptions, Terminal, run, until};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};

use crate::support::Stage;

/// Users who ran commands touching /etc/passwd.
const GUIDE_1: &str = "SELECT
  DISTINCT user
FROM
  exec
WHERE
  command LIKE '%/etc/passwd%';";

/// Unique client addresses per user and day.
const GUIDE_2: &str = "SELECT
  event_date,
  identity_user AS user,
  COUNT(DISTINCT cert_create.identity_client_ip) AS unique_ip_count
FROM
  cert_create
GROUP BY
  event_date,
  identity_user
ORDER BY
  event_date;";

/// The same, users with more than one.
const GUIDE_3: &str = "SELECT * FROM (SELECT
  event_date,
  identity_user AS user,
  COUNT(DISTINCT cert_create.identity_client_ip) AS unique_ip_count
FROM
  cert_create
GROUP BY
  event_date,
  identity_user
ORDER BY
  event_date) AS data WHERE unique_ip_count > 1;";

/// Addresses of one user.
const GUIDE_4: &str = "SELECT
  DISTINCT identity_client_ip
FROM
  cert_create
WHERE identity_user = 'admin-annie';";

/// The command line's example.
const GUIDE_16: &str =
    "select event_time,identity_user from cert_create order by event_date limit 1;";

/// Logs `home` in as from the loopback address that ends with `last`.
fn login_from(stage: &Stage, home: &Home, last: u8) -> Result<()> {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let to: SocketAddr = stage.cluster.address("web").parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let port = listener.local_addr()?.port();
    runtime.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(from, 0))?;
                let mut far = socket.connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    let mut elsewhere = home.clone();
    elsewhere.proxy = format!("localhost:{port}");
    elsewhere.login()
}

/// One column of rows, sorted.
fn sorted(rows: Vec<Vec<String>>) -> Vec<String> {
    let mut column: Vec<_> = rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
    column.sort();
    column
}

fn guide_queries(options: &ClusterOptions) -> Result<()> {
    let stage = Stage::with("guidesql", options, "")?;
    let annie = stage.cluster.add_user("admin-annie", "access,editor,loopback", &stage.login)?;
    login_from(&stage, &stage.joe, 1)?;
    login_from(&stage, &stage.joe, 2)?;
    login_from(&stage, &annie, 3)?;
    login_from(&stage, &annie, 3)?;
    // And joe again where he was, because his profile now names a port that is gone.
    stage.joe.login()?;
    annie.login().context("annie from the machine itself")?;
    for command in ["cat /etc/passwd | wc -l", "head -1 /etc/passwd", "true"] {
        let _ran = run(&mut stage.tsh_ssh(&[], &[command]), "", 60)?.ok();
    }
    let port = format!("--port={}", stage.sshd.port);
    let _ran = annie.run(["ssh", &port, &stage.target(), "cat /etc/hosts"])?.ok();
    until("the last command's event", 20, || {
        let rows =
            stage.cluster.query("select user from exec where command = 'cat /etc/hosts'").ok()?;
        (rows == [["admin-annie"]]).then_some(())
    })?;

    assert_eq!(stage.cluster.query(GUIDE_1)?, [["joe"]]);
    let mut counted = stage.cluster.query(GUIDE_2)?;
    counted.sort();
    let today = stage.cluster.query("select distinct event_date from cert_create")?.concat();
    ensure!(today.len() == 1, "midnight has passed meanwhile: {today:?}");
    let day = &today[0];
    assert!(regex::Regex::new(r"^\d{4}-\d\d-\d\d$")?.is_match(day), "{day}");
    // 127.0.0.1 and .3; 127.0.0.1 and .2.
    assert_eq!(counted, [[day, "admin-annie", "2"], [day, "joe", "2"]]);
    let mut more_than_one = stage.cluster.query(GUIDE_3)?;
    more_than_one.sort();
    assert_eq!(more_than_one, counted);
    assert_eq!(sorted(stage.cluster.query(GUIDE_4)?), ["127.0.0.1", "127.0.0.3"]);
    let first = stage.cluster.query(GUIDE_16)?;
    let all = stage.cluster.query("select event_time, identity_user from cert_create")?;
    assert_eq!((first.len(), all.len()), (1, 7));
    assert!(all.contains(&first[0]), "{first:?}");
    Ok(())
}

#[test]
fn the_guides_queries_give_the_right_rows() -> Result<()> {
    guide_queries(&ClusterOptions::default())
}

/// The proxy passes bytes to an auth service elsewhere, and yet logins have their clients' addresses.
#[test]
fn the_guides_queries_give_the_right_rows_with_two_processes() -> Result<()> {
    guide_queries(&ClusterOptions { two_processes: true, ..ClusterOptions::default() })
}

/// Who claims another address needs a proxy's certificate: a user's own is not enough.
#[test]
fn only_a_proxy_says_where_clients_are() -> Result<()> {
    let stage = Stage::new("handover")?;
    shared_transport::install_crypto();
    let dir = ProfileDir::at(&stage.joe.folder.join(".tsh"));
    let profile = dir.current()?.context("a profile")?;
    let login = StoredLogin::load(&dir, &profile)?.context("a login")?;
    let route = Route::Direct { addr: stage.cluster.address("auth").to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for identity in [Some(login.tls.clone()), None] {
        let client =
            Client::new(ClientConfig::new(route.clone(), login.authorities.clone(), identity))?;
        let closed = runtime.block_on(async {
            let Ok(mut stream) = client.hand_over("192.0.2.7:1".parse()?).await else {
                return Ok(());
            };
            // Closed at once: one that is let in may take its time with the client's handshake.
            let answer = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await?;
            ensure!(answer.is_err(), "auth said something");
            Ok(())
        });
        closed.context("the connection was taken")?;
    }
    let said = stage.cluster.auth.log();
    assert_eq!(said.matches("only a proxy hands connections over").count(), 2, "{said}");
    Ok(())
}

#[test]
fn users_with_one_address_are_left_out_by_query_three() -> Result<()> {
    let stage = Stage::new("oneaddr")?;
    stage.joe.login()?;
    assert_eq!(stage.cluster.query(GUIDE_3)?, [[""; 0]; 0]);
    assert_eq!(stage.cluster.query(GUIDE_4)?, [[""; 0]; 0]);
    assert_eq!(stage.cluster.query(GUIDE_1)?, [[""; 0]; 0]);
    Ok(())
}

/// Whatever a program has answered, and whatever a session shows, is in the log already: nothing here waits.
#[test]
fn an_event_can_be_queried_once_it_is_acknowledged() -> Result<()> {
    let stage = Stage::new("atonce")?;
    let count = |sql: &str| -> Result<usize> { Ok(stage.cluster.query(sql)?.len()) };
    for round in 1..=3 {
        stage.joe.login()?;
        assert_eq!(count("select uid from cert_create where identity_user = 'joe'")?, round + 1);
        assert_eq!(count("select uid from user_login where user = 'joe' and success")?, round + 1);
        let name = format!("user-{round}");
        let _added = stage.cluster.tctl_ok(["users", "add", &name, "--roles=access"])?;
        assert_eq!(count(&format!("select uid from user_create where name = '{name}'"))?, 1);
        // What the target says comes after the durable session.start.
        let mut terminal =
            Terminal::start(&mut stage.tsh_ssh(&["-t"], &["echo st''arted; read line"]), 80, 24)?;
        terminal.expect("started", 0)?;
        assert_eq!(count("select sid from session_start")?, round);
        terminal.send("\n")?;
        assert_eq!(terminal.finish(30)?.0, 0);
    }
    Ok(())
}

#[test]
fn rows_as_text_csv_and_json() -> Result<()> {
    let stage = Stage::new("formats")?;
    let exec = |format: &str, sql: &str| -> Result<String> {
        Ok(stage.cluster.tctl_ok(["audit", "query", "exec", format, sql])?.text())
    };
    let sql = "select identity_user, 'a\"b,c' as odd, cast(null as varchar) as nothing, identity_roles from cert_create";
    assert_eq!(
        exec("--format=csv", sql)?,
        "identity_user,odd,nothing,identity_roles\njoe,\"a\"\"b,c\",,\"[access, auditor, loopback]\"\n"
    );
    let text = exec("--format=text", sql)?;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("identity_user"), "{text}");
    assert!(lines[1].starts_with("-----") && lines[2].starts_with("joe "), "{text}");
    assert!(lines[2].contains("[access, auditor, loopback]"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&exec("--format=json", sql)?)?;
    let wanted = serde_json::json!([
        {"data": ["identity_user", "odd", "nothing", "identity_roles"]},
        {"data": ["joe", "a\"b,c", "", "[access, auditor, loopback]"]},
    ]);
    assert_eq!(json, wanted);
    // What a log holds cannot drive the terminal that shows it.
    let escape = exec("--format=text", "select chr(27) || ']0;owned' || chr(7) as title")?;
    assert!(!escape.contains('\x1b') && !escape.contains('\x07'), "{escape:?}");
    Ok(())
}

/// The value of a column in the only row of `sql`.
fn row(stage: &Stage, columns: &[&str], from: &str) -> Result<Vec<String>> {
    let sql = format!("select {} from {from}", columns.join(", "));
    let mut rows =
        until(&sql, 20, || stage.cluster.query(&sql).ok().filter(|rows| !rows.is_empty()))?;
    ensure!(rows.len() == 1, "{sql}: {rows:?}");
    Ok(rows.remove(0))
}

/// Asserts columns of the only row: an empty value stands for any but none, `ANY` for a column that need only be there.
fn assert_row(stage: &Stage, from: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let columns: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    for ((name, value), found) in wanted.iter().zip(row(stage, &columns, from)?) {
        match *value {
            "ANY" => {}
            "" => assert!(!found.is_empty(), "{from}: {name} is empty"),
            "NULL" => assert_eq!(found, "", "{from}: {name}"),
            value => assert_eq!(found, value, "{from}: {name}"),
        }
    }
    Ok(())
}

#[test]
fn views_have_the_documented_columns_filled() -> Result<()> {
    let stage = Stage::new("columns")?;
    let terminal = Terminal::start(&mut stage.tsh_ssh(&["-t"], &["echo sh''own; exit 3"]), 91, 17)?;
    terminal.expect("shown", 0)?;
    assert_eq!(terminal.finish(30)?.0, 3);
    let sid = stage.last_session()?;
    let login = stage.login.as_str();
    let base = [
        ("event_date", ""),
        ("event_time", ""),
        ("ei", ""),
        ("uid", ""),
        ("time", ""),
        ("cluster_name", "example.test"),
    ];
    let server = [
        ("namespace", "default"),
        ("server_id", ""),
        ("server_hostname", "127.0.0.1"),
        ("server_addr", &format!("127.0.0.1:{}", stage.sshd.port)),
        ("server_sub_kind", "openssh"),
        ("server_version", ""),
        ("forwarded_by", ""),
        ("addr_remote", ""),
        ("proto", "ssh"),
    ];
    let user = [
        ("user", "joe"),
        ("login", login),
        ("user_kind", "1"),
        ("impersonator", "NULL"),
        ("access_requests", "NULL"),
    ];
    let session = [("sid", sid.as_str()), ("private_key_policy", "none"), ("with_mfa", "NULL")];
    let all = [&base[..], &server[..], &user[..], &session[..]].concat();
    let with = |more: &[(&'static str, &'static str)]| [&all[..], more].concat();
    assert_row(
        &stage,
        "session_start",
        &with(&[
            ("event", "session.start"),
            ("code", "T2000I"),
            ("size", "91:17"),
            ("initial_command", "[echo sh''own; exit 3]"),
            ("session_recording", "proxy"),
            ("addr_local", ""),
            ("kubernetes_cluster", "NULL"),
            ("kubernetes_pod_name", "NULL"),
            ("server_labels_key", "NULL"),
            ("reason", "NULL"),
        ]),
    )?;
    assert_row(
        &stage,
        "session_end",
        &with(&[
            ("event", "session.end"),
            ("code", "T2004I"),
            ("interactive", "true"),
            ("enhanced_recording", "false"),
            ("participants", "[joe]"),
            ("session_start", ""),
            ("session_stop", ""),
            ("initial_command", "[echo sh''own; exit 3]"),
            ("session_recording", "proxy"),
        ]),
    )?;
    assert_row(
        &stage,
        "exec",
        &with(&[
            ("event", "exec"),
            ("code", "T3002E"),
            ("command", "echo sh''own; exit 3"),
            ("exitCode", "3"),
            ("exiterror", "exit status 3"),
            ("kubernetes_container_name", "NULL"),
        ]),
    )?;
    assert_row(
        &stage,
        "user_login",
        &[
            &base[..],
            &[
                ("event", "user.login"),
                ("code", "T1000I"),
                ("user", "joe"),
                ("success", "true"),
                ("method", "local"),
                ("addr_remote", ""),
                ("user_agent", "ANY"),
                ("error", "NULL"),
                ("mfa_device_mfa_device_name", "NULL"),
                ("applied_login_rules", "NULL"),
            ],
        ]
        .concat(),
    )?;
    let logins = stage.cluster.query("select identity_logins from cert_create")?;
    assert!(logins[0][0].contains(login), "{logins:?}");
    assert_row(
        &stage,
        "cert_create",
        &[
            &base[..],
            &[
                ("event", "cert.create"),
                ("code", "TC000I"),
                ("cert_type", "user"),
                ("identity_user", "joe"),
                ("identity_expires", ""),
                ("identity_client_ip", "127.0.0.1"),
                ("identity_roles", "[access, auditor, loopback]"),
                ("identity_route_to_cluster", "example.test"),
                ("identity_teleport_cluster", "example.test"),
                ("identity_mfa_device_uuid", "NULL"),
                ("identity_database_names", "NULL"),
                ("identity_allowed_resource_ids", "NULL"),
                ("user_agent", "ANY"),
            ],
        ]
        .concat(),
    )?;
    let lived = "select identity_user from cert_create where from_iso8601_timestamp(identity_expires) - from_iso8601_timestamp(time) between INTERVAL '11' HOUR and INTERVAL '13' HOUR";
    assert_eq!(stage.cluster.query(lived)?, [["joe"]]);
    let _refused = stage
        .joe
        .run(["ssh", &format!("--port={}", stage.sshd.port), "nobody@127.0.0.1", "true"])?
        .fails(255, "");
    assert_row(
        &stage,
        "auth",
        &[
            &base[..],
            &[
                ("event", "auth"),
                ("code", "T3007W"),
                ("login", "nobody"),
                ("success", "false"),
                (
                    "error",
                    "principal \"nobody\" not in the set of valid principals for given certificate",
                ),
                ("message", "NULL"),
                ("addr_remote", ""),
                ("proto", "ssh"),
            ],
        ]
        .concat(),
    )?;
    Ok(())
}

/// Runs something that must be refused, and waits for the one event about it.
fn refused(stage: &Stage, sql: &str, wanted: &str) -> Result<()> {
    let rows = until(sql, 20, || stage.cluster.query(sql).ok().filter(|rows| !rows.is_empty()))?;
    assert!(rows.iter().any(|row| row[0].contains(wanted)), "wanted {wanted:?} in {rows:?}");
    Ok(())
}

#[test]
fn refusals_on_the_way_to_a_target_have_their_events() -> Result<()> {
    let stage = Stage::new("whynot")?;
    let port = format!("--port={}", stage.sshd.port);
    let login = stage.login.clone();
    let error = |login: &str, what: &str| {
        format!(
            "select error from auth where not success and login = '{login}' and server_addr like '%{what}' and code = 'T3007W'"
        )
    };

    // No role for the target; the client does not learn whether it exists.
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    let _refused = ann
        .run(["ssh", &port, &stage.target(), "true"])?
        .fails(255, "is not authorized to login as");
    refused(
        &stage,
        &format!("{} and user = 'ann'", error(&login, &format!(":{}", stage.sshd.port))),
        "loopback addresses need the literal address in a role",
    )?;

    // No host certificate.
    let folder = stage.scratch.folder("plain")?;
    let options =
        SshdOptions { user_ca: Some(stage.cluster.user_ca(&folder)?), ..SshdOptions::default() };
    let plain = Sshd::start(&folder, &options)?;
    let text =
        "ssh: handshake failed: remote host presented a public key, expected a host certificate";
    let _refused = stage
        .joe
        .run(["ssh", &format!("--port={}", plain.port), &stage.target(), "true"])?
        .fails(255, text);
    refused(&stage, &error(&login, &format!(":{}", plain.port)), text)?;

    // A host certificate for another name.
    let other = stage.cluster.sshd("other", "elsewhere.example.com", "")?;
    let _refused = stage
        .joe
        .run(["ssh", &format!("--port={}", other.port), &stage.target(), "true"])?
        .fails(255, "");
    refused(
        &stage,
        &error(&login, &format!(":{}", other.port)),
        "principal \"127.0.0.1\" not in the set of valid principals",
    )?;

    // Nobody there.
    let nobody = shared_testkit::free_port()?;
    let _refused = stage
        .joe
        .run(["ssh", &format!("--port={nobody}"), &stage.target(), "true"])?
        .fails(255, "is offline or does not exist");
    refused(&stage, &error(&login, &format!(":{nobody}")), "onnection refused")?;

    // A role that forbids copies and forwarding.
    let _created = stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: careful\nspec:\n  options:\n    ssh_file_copy: false\n    port_forwarding: false\n",
    )?;
    let bob = stage.cluster.user("bob", "access,loopback,careful", &stage.login)?;
    let copied = bob.run(["ssh", &port, &stage.target(), "scp -f /etc/hostname"])?;
    assert!(copied.code != 0 && copied.text().is_empty(), "{copied:?}");
    refused(
        &stage,
        "select exitError from scp where code = 'T3006E' or code like 'T%E'",
        "file copying is not permitted",
    )?;
    Ok(())
}

#[test]
fn refusals_at_the_door_have_their_events() -> Result<()> {
    let stage = Stage::new("atdoor")?;
    // A wrong password, and nobody.
    for user in ["joe", "nobody-such"] {
        let mut home = stage.joe.clone();
        home.user = user.to_owned();
        let _refused = run(&mut home.login_command(), "not the password\n", 60)?
            .fails(3, "invalid username or password");
        refused(
            &stage,
            &format!(
                "select error from user_login where user = '{user}' and not success and code = 'T1000W'"
            ),
            "invalid username or password",
        )?;
    }
    // No right to ask.
    let ann = stage.cluster.user("ann", "access", &stage.login)?;
    let mut tctl = shared_testkit::process::command(shared_testkit::bin("tctl"), &ann.folder);
    let _denied =
        run(tctl.args(["audit", "query", "exec", "select 1"]), "", 60)?.fails(4, "access denied");
    // A query that is wrong is an event too.
    let _wrong = run(
        stage.cluster.tctl().args(["audit", "query", "exec", "select nosuch from auth"]),
        "",
        60,
    )?
    .fails(1, "line 1:8");
    refused(
        &stage,
        "select error from secreports_audit_query_run where not success and query = 'select nosuch from auth'",
        "nosuch",
    )?;
    // No agent lent.
    let (_guard, socket) = stage.agent("a")?;
    let _done =
        run(stage.joe.login_command().env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?
            .ok();
    let mut ssh = shared_testkit::process::command("ssh", &stage.joe.folder);
    let config = stage.ssh_config()?;
    ssh.arg("-F").arg(&config).env("SSH_AUTH_SOCK", &socket).arg("-o").arg(format!(
        "ProxyCommand ssh -F {} -p {} %r@localhost -s proxy:%h:%p",
        config.display(),
        stage.cluster.port("ssh")
    ));
    ssh.args(["-p", &stage.sshd.port.to_string(), &stage.target(), "true"]);
    let _refused = run(&mut ssh, "", 60)?.fails(255, "agent forwarding");
    refused(
        &stage,
        "select error from auth where not success and user = 'joe' and error like 'agent%'",
        "agent forwarding has not been requested",
    )
}

#[test]
fn a_mode_that_a_plain_sshd_cannot_serve_has_its_event() -> Result<()> {
    let stage = Stage::with(
        "nodemode",
        &ClusterOptions { recording: None, ..ClusterOptions::default() },
        "",
    )?;
    let _refused = run(&mut stage.tsh_ssh(&[], &["true"]), "", 60)?.fails(255, "session_recording");
    refused(
        &stage,
        "select reason from session_rejected where user = 'joe'",
        "recorded at the node",
    )
}
