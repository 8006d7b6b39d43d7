//! What goes along with a session: forwarded ports, the user's agent, variables, terminals and signals.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{Guard, Terminal, free_port, run, until};

use crate::support::Stage;

const MIB: usize = 1 << 20;

/// A server that sends back what it gets, and its end, on a port of its own.
fn echo_server() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let (mut from, mut to) = (stream.try_clone()?, stream);
                std::io::copy(&mut from, &mut to)?;
                to.shutdown(Shutdown::Write)
            });
        }
    });
    Ok(port)
}

/// Sends `content` to `port` and ends its own direction; returns what came back until the far end.
fn through(port: u16, content: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut writer = stream.try_clone()?;
    let content = content.to_vec();
    let sender = std::thread::spawn(move || {
        // Whether it was taken shows in what comes back.
        writer.write_all(&content).ok();
        writer.shutdown(Shutdown::Write).ok();
    });
    let mut back = Vec::new();
    match stream.read_to_end(&mut back) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => drop(other?),
    }
    sender.join().ok();
    Ok(back)
}

/// Waits until somebody listens on `port`.
fn listening(guard: &mut Guard, port: u16) -> Result<()> {
    until("the forwarded port", 30, || {
        (TcpStream::connect(("127.0.0.1", port)).is_ok() || !guard.running()).then_some(())
    })?;
    ensure!(guard.running(), "it ended: {}", guard.log());
    Ok(())
}

fn log(stage: &Stage, name: &str) -> std::path::PathBuf {
    stage.scratch.path().join(format!("{name}.log"))
}

/// The rows about forwarded connections to `port`, once there are `count`.
fn port_events(stage: &Stage, port: u16, count: usize) -> Result<Vec<Vec<String>>> {
    let sql = format!(
        "select code, user, login, success, error from port where addr = '127.0.0.1:{port}' order by event_time, code"
    );
    until("the events of a forwarded port", 20, || {
        stage.cluster.query(&sql).ok().filter(|rows| rows.len() >= count)
    })
}

/// The plain client without any word about agents in the hop to the target.
fn plain(stage: &Stage, socket: &Path, options: &[&str], remote: &[&str]) -> Result<Command> {
    let config = stage.ssh_config()?;
    let mut ssh = command("ssh", &stage.joe.folder);
    ssh.arg("-F").arg(&config).env("SSH_AUTH_SOCK", socket).arg("-o").arg(format!(
        "ProxyCommand ssh -F {} -o 'ForwardAgent yes' -p {} %r@localhost -s proxy:%h:%p",
        config.display(),
        stage.cluster.port("ssh")
    ));
    ssh.args(["-p", &stage.sshd.port.to_string()]).args(options).arg(stage.target()).args(remote);
    Ok(ssh)
}

/// An agent that holds joe's certificate.
fn agent(stage: &Stage) -> Result<(Guard, std::path::PathBuf)> {
    let (guard, socket) = stage.agent("a")?;
    let _done =
        run(stage.joe.login_command().env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?
            .ok();
    Ok((guard, socket))
}

#[test]
fn ports_are_forwarded_and_named_in_the_log() -> Result<()> {
    let stage = Stage::new("tshl")?;
    let (echo, local) = (echo_server()?, free_port()?);
    let spec = format!("{local}:127.0.0.1:{echo}");
    let content: Vec<u8> = (0..3 * MIB).map(|at| (at / 7) as u8).collect();

    let mut tsh = stage.tsh_ssh(&["-N", "-L", &spec], &[]);
    let mut guard = Guard::start("tsh", &mut tsh, &log(&stage, "tsh"))?;
    // The readiness check of the port is itself a connection, and an event.
    listening(&mut guard, local)?;
    let before = port_events(&stage, echo, 2)?.len();
    assert_eq!(before, 2);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| through(local, &content));
        let second = scope.spawn(|| through(local, b"short"));
        (first.join(), second.join())
    });
    assert!(first.ok().context("a thread")?? == content, "3 MiB did not come back as they went");
    assert_eq!(second.ok().context("a thread")??, b"short");
    let login = stage.login.clone();
    let rows = port_events(&stage, echo, before + 4)?;
    assert_eq!(rows.len(), before + 4);
    for code in ["T3003I", "T3003S"] {
        let of_code: Vec<_> = rows.iter().filter(|row| row[0] == code).collect();
        assert_eq!(of_code.len(), 3, "{rows:?}");
        assert!(of_code.iter().all(|row| row[1..] == ["joe", &login, "true", ""]), "{rows:?}");
    }
    // Nothing ran on the server: there is no session.
    assert_eq!(stage.cluster.query("select sid from session_start")?, [[""; 0]; 0]);

    // A port that refuses: the connection ends at once, and says so.
    let closed = free_port()?;
    drop(guard);
    let spec = format!("{local}:127.0.0.1:{closed}");
    let mut tsh = stage.tsh_ssh(&["-N", "-L", &spec], &[]);
    let mut guard = Guard::start("tsh", &mut tsh, &log(&stage, "tsh2"))?;
    listening(&mut guard, local)?;
    assert_eq!(through(local, b"hello")?, b"");
    let rows = port_events(&stage, closed, 2)?;
    assert!(
        rows.iter().any(|row| row[0] == "T3003E" && row[3] == "false" && !row[4].is_empty()),
        "{rows:?}"
    );
    until("a word about it", 10, || guard.log().contains("onnect").then_some(()))?;

    // -N ends with its signal, like any program.
    let status = guard.stop(20)?;
    assert_eq!(status.code(), Some(128 + 15));
    Ok(())
}

#[test]
fn a_forwarded_port_beside_a_command() -> Result<()> {
    let stage = Stage::new("tshlc")?;
    let (echo, local) = (echo_server()?, free_port()?);
    let spec = format!("{local}:127.0.0.1:{echo}");
    // The server reaches back through the user's machine: the command runs while the port is forwarded.
    let remote = format!("exec 3<>/dev/tcp/127.0.0.1/{local} && echo around >&3 && head -1 <&3");
    let line = format!("bash -c '{remote}'");
    let outcome = run(&mut stage.tsh_ssh(&["-L", &spec], &[&line]), "", 60)?.ok();
    assert_eq!(outcome.text(), "around\n");
    // What is wrong with a port shows before anything is asked of the cluster.
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let spec = format!("{}:127.0.0.1:{echo}", taken.local_addr()?.port());
    let _refused = run(&mut stage.tsh_ssh(&["-L", &spec], &["true"]), "", 60)?.fails(255, "in use");
    for bad in ["nonsense", "80", "1:2:3:4:5", "99999:host:1", "1:host:0x1", ":"] {
        let _usage = run(&mut stage.tsh_ssh(&["-L", bad], &["true"]), "", 60)?.fails(2, "");
    }
    Ok(())
}

#[test]
fn the_plain_client_forwards_ports_too() -> Result<()> {
    let stage = Stage::new("sshl")?;
    let (_guard, socket) = agent(&stage)?;
    let (echo, local) = (echo_server()?, free_port()?);
    let spec = format!("{local}:127.0.0.1:{echo}");
    let mut ssh =
        plain(&stage, &socket, &["-N", "-L", &spec, "-o", "ExitOnForwardFailure=yes"], &[])?;
    let mut guard = Guard::start("ssh", &mut ssh, &log(&stage, "ssh"))?;
    listening(&mut guard, local)?;
    let content = vec![7_u8; MIB];
    assert!(through(local, &content)? == content);
    let rows = port_events(&stage, echo, 4)?;
    assert!(rows.iter().all(|row| row[1] == "joe" && row[3] == "true"), "{rows:?}");
    drop(guard);

    // Remote forwarding, Unix sockets and X11 are not in the table.
    let far = free_port()?;
    let back = format!("{far}:127.0.0.1:{echo}");
    let mut ssh =
        plain(&stage, &socket, &["-R", &back, "-o", "ExitOnForwardFailure=yes"], &["true"])?;
    let _refused = run(&mut ssh, "", 60)?.fails(255, "remote port forwarding failed");
    Ok(())
}

#[test]
fn a_role_can_forbid_forwarded_ports_and_agents() -> Result<()> {
    let stage = Stage::new("nofwd")?;
    let _created = stage.cluster.create(
        "kind: role\nversion: v7\nmetadata:\n  name: narrow\nspec:\n  options:\n    port_forwarding: false\n    forward_agent: false\n  allow:\n    logins: ['{{internal.logins}}']\n    node_labels:\n      'teleport.dev/host': ['127.0.0.1']\n",
    )?;
    let ann = stage.cluster.user("ann", "narrow", &stage.login)?;
    let (echo, local) = (echo_server()?, free_port()?);
    let port = format!("--port={}", stage.sshd.port);
    let mut tsh = ann.tsh();
    tsh.args(["ssh", &port, "-N", "-L", &format!("{local}:127.0.0.1:{echo}"), &stage.target()]);
    let mut guard = Guard::start("tsh", &mut tsh, &log(&stage, "tsh"))?;
    listening(&mut guard, local)?;
    assert_eq!(through(local, b"hello")?, b"");
    let rows = port_events(&stage, echo, 1)?;
    for row in &rows {
        assert_eq!(
            row[..],
            ["T3003E", "ann", &stage.login, "false", "port forwarding not permitted"]
        );
    }
    until("a word about it", 10, || {
        guard.log().contains("port forwarding not permitted").then_some(())
    })?;
    drop(guard);

    // The session itself goes on without the agent. Another role that allows both would win.
    let (_guard, socket) = stage.agent("a")?;
    let mut tsh = ann.tsh();
    tsh.env("SSH_AUTH_SOCK", &socket);
    tsh.args(["ssh", &port, "-A", &stage.target(), "echo ${SSH_AUTH_SOCK:-none}"]);
    assert_eq!(run(&mut tsh, "", 60)?.ok().text(), "none\n");
    Ok(())
}

#[test]
fn the_agent_reaches_the_target_only_when_asked() -> Result<()> {
    let stage = Stage::new("asked")?;
    let (_guard, socket) = agent(&stage)?;
    let key = stage.scratch.path().join("another");
    shared_testkit::sshd::make_key(&key)?;
    let mut add = command("ssh-add", &stage.joe.folder);
    let _added = run(add.env("SSH_AUTH_SOCK", &socket).arg("-q").arg(&key), "", 20)?.ok();
    let public = std::fs::read_to_string(key.with_extension("pub"))?;
    let blob = public.split_whitespace().nth(1).context("a public key")?.to_owned();
    // Lists, and has the agent sign: `ssh-keygen -Y sign` takes a public key file and the agent's private half.
    let line = format!(
        "[ -n \"$SSH_AUTH_SOCK\" ] || {{ echo none; exit; }}; ssh-add -L | grep -cF {blob}; \
         d=$(mktemp -d); echo '{}' > $d/k.pub; echo text > $d/m; ssh-keygen -q -Y sign -f $d/k.pub -n test $d/m && head -1 $d/m.sig; rm -r $d",
        public.trim()
    );
    let mut with = stage.tsh_ssh(&["-A"], &[&line]);
    let outcome = run(with.env("SSH_AUTH_SOCK", &socket), "", 60)?;
    assert_eq!(outcome.text(), "1\n-----BEGIN SSH SIGNATURE-----\n", "{}", outcome.stderr);
    let mut without = stage.tsh_ssh(&[], &[&line]);
    assert_eq!(run(without.env("SSH_AUTH_SOCK", &socket), "", 60)?.ok().text(), "none\n");

    let outcome = run(&mut plain(&stage, &socket, &["-A"], &[&line])?, "", 60)?;
    assert_eq!(outcome.text(), "1\n-----BEGIN SSH SIGNATURE-----\n", "{}", outcome.stderr);
    assert_eq!(run(&mut plain(&stage, &socket, &["-a"], &[&line])?, "", 60)?.ok().text(), "none\n");
    // No agent at home: the target gets the login's own key, and nothing else.
    let outcome = run(&mut stage.tsh_ssh(&["-A"], &["ssh-add -L | cut -d' ' -f1"]), "", 60)?.ok();
    assert!(
        outcome.text().lines().all(|line| line.starts_with("ssh-ed25519")),
        "{}",
        outcome.text()
    );
    assert!(outcome.text().contains("ssh-ed25519-cert-v01@openssh.com\n"), "{}", outcome.text());
    Ok(())
}

#[test]
fn language_goes_along_and_nothing_else() -> Result<()> {
    let stage = Stage::new("env")?;
    let shown = "env | grep -E '^(LANG|LC_|GH_|SECRET)' | sort";
    let mut tsh = stage.tsh_ssh(&[], &[shown]);
    tsh.env("LANG", "de_DE.UTF-8")
        .env("LC_TIME", "C")
        .env("LC_ODD", "a b;$(id)")
        .env("GH_X", "1")
        .env("SECRET", "s");
    assert_eq!(
        run(&mut tsh, "", 60)?.ok().text(),
        "LANG=de_DE.UTF-8\nLC_ODD=a b;$(id)\nLC_TIME=C\n"
    );
    // The plain client chooses for itself, within what the target takes.
    let (_guard, socket) = agent(&stage)?;
    let mut ssh = plain(&stage, &socket, &["-o", "SendEnv=GH_* SECRET"], &[shown])?;
    ssh.env("GH_ONE", "1").env("GH_TWO", "zwei é").env("SECRET", "s").env_remove("LANG");
    assert_eq!(run(&mut ssh, "", 60)?.ok().text(), "GH_ONE=1\nGH_TWO=zwei é\n");
    Ok(())
}

#[test]
fn a_terminal_for_a_command_only_when_asked() -> Result<()> {
    let stage = Stage::new("tty")?;
    let outcome = run(&mut stage.tsh_ssh(&[], &["tty"]), "", 60)?;
    assert_eq!((outcome.code, outcome.text().as_str()), (1, "not a tty\n"));
    let outcome = run(&mut stage.tsh_ssh(&["-t"], &["tty; exit 5"]), "", 60)?;
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.text().starts_with("/dev/pts/"), "{}", outcome.text());
    // Input goes to the far terminal, which echoes it.
    let outcome =
        run(&mut stage.tsh_ssh(&["-t"], &["read word; echo got-$word"]), "it\n", 60)?.ok();
    assert_eq!(outcome.text().replace('\r', ""), "it\ngot-it\n");
    // In a terminal without -t a command has none there; words stay apart only by blanks, as with ssh.
    let terminal =
        Terminal::start(&mut stage.tsh_ssh(&[], &["tty;", "echo", "a  b", "c"]), 80, 24)?;
    let (code, seen) = terminal.finish(30)?;
    assert_eq!((code, String::from_utf8_lossy(&seen).as_ref()), (0, "not a tty\r\na b c\r\n"));
    // The far side knows the type and the size.
    let terminal =
        Terminal::start(&mut stage.tsh_ssh(&["-t"], &["echo $TERM; stty size"]), 101, 33)?;
    let (code, seen) = terminal.finish(30)?;
    assert_eq!(code, 0);
    assert!(
        String::from_utf8_lossy(&seen).starts_with("xterm-256color\r\n33 101\r\n"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    let _usage = run(&mut stage.tsh_ssh(&["-t", "-T"], &["true"]), "", 60)?.fails(2, "not both");
    Ok(())
}

#[test]
fn signals_and_interrupts() -> Result<()> {
    let stage = Stage::new("signals")?;
    // Ctrl-C is a byte for the far terminal.
    let mut terminal = Terminal::start(
        &mut stage
            .tsh_ssh(&["-t"], &["trap 'echo int''errupted; exit 7' INT; echo st''arted; sleep 60"]),
        80,
        24,
    )?;
    terminal.expect("started", 0)?;
    terminal.send("\x03")?;
    terminal.expect("interrupted", 0)?;
    assert_eq!(terminal.finish(30)?.0, 7);
    // A command that dies of a signal is not taken for one that ended well; like ssh, tsh does not say more.
    let outcome = run(&mut stage.tsh_ssh(&[], &["kill -KILL $$"]), "", 60)?.fails(255, "");
    assert!(outcome.text().is_empty() && outcome.stderr.is_empty(), "{}", outcome.stderr);
    let rows = stage
        .cluster
        .query("select exitCode, exitError from exec where command = 'kill -KILL $$'")?;
    assert_eq!(rows, [["255", "killed by signal KILL"]]);
    // A signal to tsh ends it, with the number in its status, and what ran there loses its reader.
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let started = stage.scratch.path().join(format!("started-{number}"));
        let line = format!("echo $$ > {}; while echo; do sleep 0.2; done", started.display());
        let mut child = stage
            .tsh_ssh(&[], &[&line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let far = until("the far command", 30, || {
            std::fs::read_to_string(&started).ok()?.trim().parse::<i32>().ok()
        })?;
        let begun = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal)?;
        // Its pipe is read, as a shell's would be.
        let reader = child.stdout.take().map(|mut out| {
            std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()))
        });
        let status = until("tsh to end", 20, || child.try_wait().ok().flatten())?;
        assert_eq!(status.code(), Some(128 + number), "after {:?}", begun.elapsed());
        drop(reader);
        until("the far command to end", 20, || {
            let far = rustix::process::Pid::from_raw(far)?;
            rustix::process::test_kill_process(far).is_err().then_some(())
        })?;
    }
    Ok(())
}
