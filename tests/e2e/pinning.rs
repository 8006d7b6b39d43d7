//! Servers without a host certificate, where the cluster allows them; the agent's life; and a remote
//! command's end by a signal, as `ssh` reports it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use shared_testkit::cluster::PASSWORD;
use shared_testkit::process::command;
use shared_testkit::{ClusterOptions, Guard, Sshd, SshdOptions, Terminal, bin, run, until};

use crate::support::Stage;

const NAMED: &str = "127.0.0.1";

/// A cluster that does not check host keys, and a server that has a plain one.
struct Scene {
    stage: Stage,
    plain: Option<Sshd>,
    folder: PathBuf,
    port: u16,
}

impl Scene {
    fn new(name: &str, recording: &str, checked: bool) -> Result<Self> {
        let recording = Some(recording.to_owned());
        let options = ClusterOptions { checks_host_keys: checked, recording, ..Default::default() };
        let stage = Stage::with(name, &options, "")?;
        let folder = stage.scratch.folder("plain")?;
        let plain = start(&stage, &folder, None)?;
        let port = plain.port;
        Ok(Self { stage, plain: Some(plain), folder, port })
    }

    /// The server comes back with another key.
    fn change_key(&mut self) -> Result<()> {
        self.plain = None;
        for name in ["host_key", "host_key.pub"] {
            std::fs::remove_file(self.folder.join(name))?;
        }
        self.plain = Some(start(&self.stage, &self.folder, Some(self.port))?);
        Ok(())
    }

    fn ssh(&self, remote: &[&str]) -> Command {
        self.ssh_to(self.port, remote)
    }

    fn ssh_to(&self, port: u16, remote: &[&str]) -> Command {
        let mut tsh = self.stage.joe.tsh();
        tsh.arg("ssh").arg(format!("--port={port}")).arg(self.stage.target()).args(remote);
        tsh
    }

    fn fingerprint(&self) -> Result<String> {
        let key = self.folder.join("host_key.pub");
        let text =
            run(command("ssh-keygen", &self.folder).arg("-lf").arg(key), "", 10)?.ok().text();
        text.split(' ')
            .find(|word| word.starts_with("SHA256:"))
            .map(str::to_owned)
            .context(text.clone())
    }

    fn pins(&self) -> PathBuf {
        self.stage.joe.folder.join(".tsh/keys/localhost/pinned/example.test.known_hosts")
    }

    /// Runs on a terminal, answers the question, and gives the exit status and what was shown.
    fn answer(&self, answer: &str, remote: &[&str]) -> Result<(i32, String)> {
        let mut terminal = Terminal::start(&mut self.ssh(remote), 200, 30)?;
        let asked = terminal.expect("[y/N]:", 0)?;
        let shown = String::from_utf8_lossy(&terminal.seen()).into_owned();
        for part in [NAMED, &self.port.to_string(), "ssh-ed25519", &self.fingerprint()?] {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
        terminal.send(answer)?;
        terminal.expect("\n", asked)?;
        let (code, seen) = terminal.finish(60)?;
        Ok((code, String::from_utf8_lossy(&seen).into_owned()))
    }
}

fn start(stage: &Stage, folder: &Path, port: Option<u16>) -> Result<Sshd> {
    let user_ca = Some(stage.cluster.user_ca(folder)?);
    Sshd::start(folder, &SshdOptions { user_ca, port, ..SshdOptions::default() })
}

fn asked_and_pinned(mut scene: Scene) -> Result<()> {
    let known = "is not known here, and there is no terminal to ask on";
    let refused = run(&mut scene.ssh(&["echo", "in"]), "", 60)?.fails(255, known);
    assert!(refused.stderr.contains(&scene.fingerprint()?), "{}", refused.stderr);
    let (code, shown) = scene.answer("n\n", &["echo", "in"])?;
    assert!(
        code == 255 && shown.contains("was not accepted") && !shown.contains("\nin"),
        "{code} {shown}"
    );
    assert!(!scene.pins().exists());

    let (code, shown) = scene.answer("y\n", &["echo", "in; exit 5"])?;
    assert!(code == 5 && shown.contains("in\r\n"), "{code} {shown}");
    let text = std::fs::read_to_string(scene.pins())?;
    assert!(text.starts_with(&format!("[{NAMED}]:{} ssh-ed25519 AAAA", scene.port)), "{text}");
    assert_eq!(text.lines().count(), 1);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(scene.pins())?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    let name = format!("[{NAMED}]:{}", scene.port);
    let mut find = command("ssh-keygen", &scene.folder);
    let _found = run(find.args(["-F", &name, "-f"]).arg(scene.pins()), "", 10)?.ok();

    // Known now: no terminal is needed, and on one nothing is asked.
    let echoed = run(&mut scene.ssh(&["cat"]), "piped", 60)?.ok();
    assert_eq!(echoed.text(), "piped");
    let mut terminal = Terminal::start(&mut scene.ssh(&[]), 100, 30)?;
    let prompt = terminal.expect("\x1b[?2004h", 0)?;
    terminal.send("exit 3\n")?;
    terminal.expect("exit", prompt)?;
    let (code, shown) = terminal.finish(30)?;
    assert_eq!(code, 3);
    assert!(!String::from_utf8_lossy(&shown).contains("fingerprint"));

    // The same key at another port is another server.
    let other = scene.stage.scratch.folder("other")?;
    for name in ["host_key", "host_key.pub"] {
        std::fs::copy(scene.folder.join(name), other.join(name))?;
    }
    let options = SshdOptions {
        user_ca: Some(scene.stage.cluster.user_ca(&other)?),
        host_key: Some(other.join("host_key")),
        ..SshdOptions::default()
    };
    let clone = Sshd::start(&other, &options)?;
    let _refused = run(&mut scene.ssh_to(clone.port, &["true"]), "", 60)?.fails(255, known);

    scene.change_key()?;
    let refused = run(&mut scene.ssh(&["echo", "in"]), "", 60)?.fails(255, "has changed");
    for part in
        [format!("{} line 1", scene.pins().display()), scene.fingerprint()?, "ssh-keygen -R".into()]
    {
        assert!(refused.stderr.contains(&part), "{part} is missing in {}", refused.stderr);
    }
    assert!(refused.text().is_empty());
    // Also where somebody could be asked.
    let (code, shown) = Terminal::start(&mut scene.ssh(&["echo", "in"]), 200, 30)?.finish(60)?;
    let shown = String::from_utf8_lossy(&shown);
    assert!(code == 255 && shown.contains("has changed") && !shown.contains("[y/N]"), "{shown}");
    // The remedy, as it was printed.
    let remedy = refused.stderr.split_once("ssh-keygen -R").context("no remedy")?.1;
    let remedy = format!("ssh-keygen -R{}", remedy.lines().next().unwrap_or_default());
    let _forgot = run(command("bash", &scene.folder).args(["-c", &remedy]), "", 10)?.ok();
    let (code, shown) = scene.answer("yes\n", &["echo", "in"])?;
    assert!(code == 0 && shown.contains("in\r\n"), "{code} {shown}");
    Ok(())
}

#[test]
fn a_plain_key_is_asked_about_kept_and_a_changed_one_refused() -> Result<()> {
    let scene = Scene::new("pin", "proxy", false)?;
    // A server with a host certificate needs no question, and its certificate has to be its own.
    let echoed = run(&mut scene.stage.tsh_ssh(&[], &["echo", "certified"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "certified\n");
    let elsewhere = scene.stage.cluster.sshd("elsewhere", "web.example.com", "")?;
    let refused = run(&mut scene.ssh_to(elsewhere.port, &["true"]), "", 60)?;
    let _refused = refused.fails(255, "the agent refused to sign for the proxy: host certificate");
    assert!(!scene.pins().exists());
    asked_and_pinned(scene)
}

#[test]
fn a_plain_key_is_asked_about_also_where_nothing_is_recorded() -> Result<()> {
    asked_and_pinned(Scene::new("pinoff", "off", false)?)
}

#[test]
fn a_kept_key_counts_for_nothing_where_host_keys_are_checked() -> Result<()> {
    let scene = Scene::new("pinyes", "proxy", true)?;
    let key = std::fs::read_to_string(scene.folder.join("host_key.pub"))?;
    std::fs::create_dir_all(scene.pins().parent().context("no folder")?)?;
    std::fs::write(scene.pins(), format!("[{NAMED}]:{} {key}", scene.port))?;
    let wanted = "remote host presented a public key, expected a host certificate";
    let _refused = run(&mut scene.ssh(&["true"]), "", 60)?.fails(255, wanted);
    let (code, shown) = Terminal::start(&mut scene.ssh(&["true"]), 200, 30)?.finish(60)?;
    let shown = String::from_utf8_lossy(&shown);
    assert!(code == 255 && shown.contains(wanted) && !shown.contains("[y/N]"), "{shown}");
    Ok(())
}

#[test]
fn an_interrupt_at_the_question_ends_it() -> Result<()> {
    let scene = Scene::new("pinint", "proxy", false)?;
    let mut terminal = Terminal::start(&mut scene.ssh(&["true"]), 200, 30)?;
    terminal.expect("[y/N]:", 0)?;
    terminal.send("\x03")?;
    let (code, _) = terminal.finish(30)?;
    assert_ne!(code, 0);
    assert!(!scene.pins().exists());
    Ok(())
}

#[test]
fn the_agent_takes_up_a_new_login_and_forgets_at_logout() -> Result<()> {
    let stage = Stage::new("renew")?;
    let folder = stage.scratch.folder("sock")?;
    let socket = folder.join("agent");
    let mut agent = stage.joe.tsh();
    agent.arg("agent").arg("--socket").arg(&socket);
    let mut agent = Guard::start("tsh-agent", &mut agent, &folder.join("log"))?;
    until("the agent's socket", 20, || socket.exists().then_some(()))?;
    let listed = || -> Result<String> {
        let mut list = command("ssh-add", &stage.joe.folder);
        Ok(run(list.arg("-L").env("SSH_AUTH_SOCK", &socket), "", 10)?.text())
    };
    let on_disk = || -> Result<String> {
        let text = std::fs::read_to_string(stage.joe.ssh_certificate())?;
        text.split_whitespace().nth(1).map(str::to_owned).context("no certificate")
    };
    let serves = || -> Result<()> {
        let wanted = on_disk()?;
        until("the agent to serve the login", 20, || listed().ok()?.contains(&wanted).then_some(()))
    };
    serves()?;
    let before = on_disk()?;
    stage.joe.login()?;
    assert_ne!(on_disk()?, before);
    serves()?;
    let echoed = run(&mut stage.ssh(&socket, &[], &["echo renewed"])?, "", 60)?.ok();
    assert_eq!(echoed.text(), "renewed\n");

    let _done = run(stage.joe.tsh().arg("logout"), "", 30)?.ok();
    until("the agent to forget", 20, || {
        listed().ok().filter(|text| !text.contains("ssh-")).map(drop)
    })?;
    stage.joe.login()?;
    serves()?;
    assert!(agent.running() && agent.log().contains("A new login was taken up"), "{}", agent.log());
    Ok(())
}

#[test]
fn an_ended_signal_is_reported_as_ssh_does() -> Result<()> {
    let stage = Stage::new("signal")?;
    let (_guard, socket) = stage.agent("a")?;
    let _done =
        run(stage.joe.login_command().env("SSH_AUTH_SOCK", &socket), format!("{PASSWORD}\n"), 60)?
            .ok();
    for remote in ["echo out; kill -KILL $$", "kill -TERM $$", "exit 143"] {
        let theirs = run(&mut stage.ssh(&socket, &[], &[remote])?, "", 60)?;
        let ours = run(&mut stage.tsh_ssh(&[], &[remote]), "", 60)?;
        assert_eq!(
            (ours.code, ours.text(), &ours.stderr),
            (theirs.code, theirs.text(), &theirs.stderr),
            "{remote}"
        );
    }
    let remote = "echo out; kill -KILL $$";
    let (code, theirs) =
        Terminal::start(&mut stage.ssh(&socket, &["-t"], &[remote])?, 80, 24)?.finish(60)?;
    let (ours_code, ours) =
        Terminal::start(&mut stage.tsh_ssh(&["-t"], &[remote]), 80, 24)?.finish(60)?;
    assert_eq!(
        (ours_code, String::from_utf8_lossy(&ours)),
        (code, String::from_utf8_lossy(&theirs))
    );
    assert!(ours.trim_ascii_end().ends_with(b"Connection to 127.0.0.1 closed."));
    Ok(())
}

#[test]
fn the_key_is_locked_in_memory_where_that_is_allowed() -> Result<()> {
    let stage = Stage::new("lock")?;
    let terminal = Terminal::start(&mut stage.tsh_ssh(&[], &["echo here; read line"]), 80, 24)?;
    terminal.expect("here", 0)?;
    let (tsh, port) = (bin("tsh"), format!("--port={}", stage.sshd.port));
    let ours = |process: &Path| {
        std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe == tsh)
            && std::fs::read_to_string(process.join("cmdline"))
                .is_ok_and(|text| text.contains(&port))
    };
    let found =
        std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).find(|path| ours(path));
    let status = std::fs::read_to_string(found.context("tsh is not running")?.join("status"))?;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    if allowed.is_some_and(|bytes| bytes < 64 * 1024) {
        eprintln!("SKIPPED: this system does not let us lock memory");
        return Ok(());
    }
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap_or_default();
    assert!(locked.trim().ends_with("kB") && locked.trim() != "0 kB", "{status}");
    Ok(())
}

#[test]
fn a_login_that_names_the_server_can_be_demanded() -> Result<()> {
    let stage = Stage::new("hostbound")?;
    let echoed = run(&mut stage.tsh_ssh(&["--hostbound-only"], &["echo", "bound"]), "", 60)?.ok();
    assert_eq!(echoed.text(), "bound\n");
    Ok(())
}
