//! Other people's SSH clients through the proxy: PuTTY's, paramiko and asyncssh, each with the user's certificate and
//! all by itself (both hops are its own); and those that know no certificates, dropbear's among them, through the
//! listener of `tsh proxy ssh`. The scripts are `tests/clients/*.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shared_testkit::process::{command, installed};
use shared_testkit::{Guard, Outcome, free_port, run, until};

use crate::support::Stage;

/// What is moved and compared.
const BLOB: usize = 64 << 20;
/// The largest of it that anybody has to wait for on a busy machine, in seconds.
const PATIENCE: u64 = 180;

/// A stage with what such clients need in one folder: key, certificate, authority, something to move.
struct Clients {
    stage: Stage,
    folder: PathBuf,
    socket: PathBuf,
    _agent: Guard,
}

impl Clients {
    fn new(name: &str) -> Result<Self> {
        let stage = Stage::new(name)?;
        let (agent, socket) = stage.agent_of_joe("a")?;
        let folder = stage.scratch.folder("clients")?;
        let user = folder.join("user");
        std::fs::copy(stage.joe.ssh_key(), &user)?;
        std::fs::copy(stage.joe.ssh_certificate(), folder.join("user-cert.pub"))?;
        let export = stage.cluster.tctl_ok(["auth", "export", "--type=host"])?.text();
        let authority = export.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
        std::fs::write(folder.join("ca.pub"), authority + "\n")?;
        // No two pieces are the same.
        let blob: Vec<u8> = (0_u64..BLOB as u64 / 8)
            .flat_map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes())
            .collect();
        std::fs::write(folder.join("blob"), blob)?;
        Ok(Self { stage, folder, socket, _agent: agent })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program, &self.folder);
        command.env("SSH_AUTH_SOCK", &self.socket);
        command
    }

    /// Runs a script of `tests/clients` to its end, with the port it goes to and what else it asks for.
    fn python(&self, script: &str, port: u16, more: &[&str]) -> Result<()> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let mut python = self.command("python3");
        python.arg("-B").arg(scripts.join(script)).arg(&self.folder);
        python.args([port, self.stage.sshd.port].map(|port| port.to_string()));
        python.arg(&self.stage.login).arg(&self.socket).args(more);
        let outcome = run(&mut python, "", PATIENCE)?.ok();
        ensure!(outcome.text() == "done\n", "{}", outcome.text());
        Ok(())
    }

    /// The hash of the blob, or of a file that should be like it.
    fn hash(&self, file: &str) -> Result<String> {
        let mut sum = self.command("sha256sum");
        let text = run(sum.arg(self.folder.join(file)), "", 30)?.ok().text();
        text.split_whitespace().next().map(str::to_owned).context("sha256sum says nothing")
    }

    fn blob(&self) -> String {
        self.folder.join("blob").display().to_string()
    }
}

/// Whether the interpreter in the path has a library; in continuous integration it must.
fn has_library(name: &str) -> Result<bool> {
    if !installed("python3")? {
        return Ok(false);
    }
    let found = Command::new("python3").args(["-c", &format!("import {name}")]).output()?;
    if !found.status.success() {
        ensure!(
            std::env::var_os("CI").is_none(),
            "{name} is not installed; cargo xtask test brings it"
        );
        eprintln!("skipped: {name} is not installed; cargo xtask test brings it");
    }
    Ok(found.status.success())
}

#[test]
fn paramiko_reaches_a_host() -> Result<()> {
    if !has_library("paramiko")? {
        return Ok(());
    }
    let clients = Clients::new("paramiko")?;
    clients.python("hop_paramiko.py", clients.stage.cluster.port("ssh"), &[])
}

#[test]
fn asyncssh_reaches_a_host() -> Result<()> {
    if !has_library("asyncssh")? {
        return Ok(());
    }
    let clients = Clients::new("asyncssh")?;
    clients.python("hop_asyncssh.py", clients.stage.cluster.port("ssh"), &[])
}

/// PuTTY's programs, with keys in files of their own format.
struct Putty {
    clients: Clients,
    /// The host key the proxy shows, as PuTTY is told of it.
    host_key: String,
}

impl Putty {
    fn new() -> Result<Self> {
        let clients = Clients::new("putty")?;
        std::fs::write(clients.folder.join("empty"), "")?;
        let convert = |args: &str| -> Result<()> {
            let _made = run(clients.command("puttygen").args(args.split(' ')), "", 30)?.ok();
            Ok(())
        };
        convert("user -O private -o plain.ppk --new-passphrase empty")?;
        convert(
            "plain.ppk --certificate user-cert.pub -O private -o certified.ppk --old-passphrase empty \
             --new-passphrase empty",
        )?;
        let mut scan = clients.command("ssh-keyscan");
        let port = clients.stage.cluster.port("ssh").to_string();
        let keys = run(scan.args(["-t", "ed25519", "-p", &port, "127.0.0.1"]), "", 30)?.ok();
        let print =
            run(clients.command("ssh-keygen").args(["-l", "-f", "-"]), &keys.stdout, 30)?.ok();
        let host_key = print.text().split_whitespace().nth(1).context("a fingerprint")?.to_owned();
        Ok(Self { clients, host_key })
    }

    /// The first hop, with an agent.
    fn hop(&self, key: &str) -> Vec<String> {
        let stage = &self.clients.stage;
        let port = stage.cluster.port("ssh").to_string();
        let login = format!("{}@127.0.0.1", stage.login);
        let host_key = self.host_key.clone();
        [
            "plink", "-batch", "-ssh", "-A", "-P", &port, "-i", key, "-hostkey", &host_key, "-s",
            &login,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// `plink` or `psftp` at the host, through the first hop.
    fn there(&self, program: &str, options: &[&str]) -> Command {
        let stage = &self.clients.stage;
        // It goes to addresses of this machine without a proxy, so it knows the host by another name.
        let way = format!("{} proxy:127.0.0.1:%port", self.hop("certified.ppk").join(" "));
        let mut there = self.clients.command(program);
        there.args(["-batch", "-noagent", "-P", &stage.sshd.port.to_string()]);
        there.args(["-i", "certified.ppk", "-hostkey", &self.host_key, "-proxycmd", &way]);
        there.args(options).arg(format!("{}@host.test", stage.login));
        there
    }

    fn plink(&self, options: &[&str], remote: &str, input: impl AsRef<[u8]>) -> Result<Outcome> {
        let mut plink = self.there("plink", options);
        if !remote.is_empty() {
            plink.arg(remote);
        }
        run(&mut plink, input, PATIENCE)
    }
}

#[test]
fn putty_reaches_a_host() -> Result<()> {
    if !installed("plink")? {
        return Ok(());
    }
    let putty = Putty::new()?;
    let clients = &putty.clients;
    let mut uncertified = putty.hop("plain.ppk").into_iter();
    let mut refused = clients.command(&uncertified.next().context("a program")?);
    refused.args(uncertified).arg("proxysites").env_remove("SSH_AUTH_SOCK");
    assert_ne!(run(&mut refused, "", 30)?.code, 0, "a key without a certificate gets in");

    let said = putty.plink(&[], "echo here; exit 7", "")?;
    assert_eq!((said.code, said.text().as_str()), (7, "here\n"), "{}", said.stderr);
    let sid = clients.stage.last_session()?;
    assert_eq!(clients.stage.played(&sid)?, b"here\n");
    let shell = putty.plink(&["-t"], "", "stty size; exit 3\n")?;
    assert!(shell.code == 3 && shell.text().contains("24 80"), "{shell:?}");

    let (blob, wanted) = (std::fs::read(clients.folder.join("blob"))?, clients.hash("blob")?);
    let down = putty.plink(&[], &format!("cat {}", clients.blob()), "")?.ok();
    assert!(down.stdout == blob, "{} bytes arrived", down.stdout.len());
    let up = putty.plink(&[], "sha256sum", &blob)?.ok();
    assert!(up.text().starts_with(&wanted), "{}", up.text());

    let batch = format!(
        "put {} {}\nget {0} psftp-down\nquit\n",
        clients.blob(),
        clients.folder.join("psftp-up").display()
    );
    std::fs::write(clients.folder.join("batch"), batch)?;
    let _moved = run(&mut putty.there("psftp", &["-b", "batch"]), "", PATIENCE)?.ok();
    assert_eq!(clients.hash("psftp-up")?, wanted);
    assert_eq!(clients.hash("psftp-down")?, wanted);
    Ok(())
}

/// `tsh proxy ssh --port`, for clients that know no certificates.
struct Listener {
    clients: Clients,
    port: u16,
    password: String,
    host_key: String,
    _tsh: Guard,
}

impl Listener {
    fn new(name: &str) -> Result<Self> {
        let clients = Clients::new(name)?;
        let (stage, port) = (&clients.stage, free_port()?);
        let mut tsh = stage.joe.tsh();
        tsh.args(["proxy", "ssh", &format!("--port={port}")]);
        tsh.arg(format!("{}:{}", stage.target(), stage.sshd.port));
        let log = stage.scratch.path().join("listener.log");
        let tsh = Guard::start("tsh", &mut tsh, &log)?;
        let said = |what: &str| {
            let log = tsh.log();
            let line = log.lines().find(|line| line.starts_with(what))?;
            line.split_whitespace().last().map(str::to_owned)
        };
        let password = until("the listener's password", 30, || said("Password"))?;
        let host_key = said("Host key").with_context(|| tsh.log())?;
        Ok(Self { password, host_key, port, _tsh: tsh, clients })
    }

    fn target(&self) -> String {
        self.clients.stage.target()
    }

    /// dropbear's client, with a password.
    fn dbclient(&self, password: &str, options: &[&str], remote: &str) -> Command {
        let mut dbclient = self.clients.command("dbclient");
        dbclient.env("DROPBEAR_PASSWORD", password).args([
            "-y",
            "-y",
            "-p",
            &self.port.to_string(),
        ]);
        dbclient.args(options).arg(self.target());
        if !remote.is_empty() {
            dbclient.arg(remote);
        }
        dbclient
    }

    fn plink(&self, password: &str, remote: &str) -> Command {
        let mut plink = self.clients.command("plink");
        plink.args(["-batch", "-ssh", "-noagent", "-P", &self.port.to_string()]);
        plink.args(["-hostkey", &self.host_key, "-pw", password, &self.target(), remote]);
        plink
    }

    /// Exit status and a transfer both ways.
    fn check(&self, client: impl Fn(&str) -> Command) -> Result<()> {
        let said = run(&mut client("echo here; exit 7"), "", 60)?;
        assert_eq!((said.code, said.text().as_str()), (7, "here\n"), "{}", said.stderr);
        let (blob, wanted) =
            (std::fs::read(self.clients.folder.join("blob"))?, self.clients.hash("blob")?);
        let down = run(&mut client(&format!("cat {}", self.clients.blob())), "", PATIENCE)?.ok();
        assert!(down.stdout == blob, "{} bytes arrived", down.stdout.len());
        let up = run(&mut client("sha256sum"), &blob, PATIENCE)?.ok();
        assert!(up.text().starts_with(&wanted), "{}", up.text());
        Ok(())
    }
}

#[test]
fn dropbear_reaches_a_host_through_the_listener() -> Result<()> {
    if !installed("dbclient")? {
        return Ok(());
    }
    let listener = Listener::new("dropbear")?;
    let wrong = run(&mut listener.dbclient("wrong", &[], "true"), "", 60)?;
    assert_ne!(wrong.code, 0, "a wrong password gets in");
    listener.check(|remote| listener.dbclient(&listener.password, &[], remote))?;
    let mut shell = listener.dbclient(&listener.password, &["-T"], "");
    let shell = run(&mut shell, "echo shell; exit 3\n", 60)?;
    assert!(shell.code == 3 && shell.text().contains("shell\n"), "{shell:?}");
    Ok(())
}

#[test]
fn putty_reaches_a_host_through_the_listener() -> Result<()> {
    if !installed("plink")? {
        return Ok(());
    }
    let listener = Listener::new("plain-putty")?;
    let wrong = run(&mut listener.plink("wrong", "true"), "", 60)?;
    assert_ne!(wrong.code, 0, "a wrong password gets in");
    listener.check(|remote| listener.plink(&listener.password, remote))
}

#[test]
fn paramiko_reaches_a_host_through_the_listener() -> Result<()> {
    if !has_library("paramiko")? {
        return Ok(());
    }
    let listener = Listener::new("plain-paramiko")?;
    listener.clients.python("hop_paramiko.py", listener.port, &[&listener.password])
}
