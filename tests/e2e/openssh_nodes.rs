//! A stock sshd as a registered node: `teleport join openssh`, labels, login without an agent, renewal, undo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use shared_api::client::{Client, ClientConfig, Route};
use shared_api::{ClientIdentity, OpensshUserRequest};
use shared_pki::{KeyPair, TrustedAuthority};
use shared_testkit::cluster::{Cluster, ClusterOptions, Home};
use shared_testkit::process::{Outcome, command};
use shared_testkit::sshd::make_key;
use shared_testkit::stage::login_name;
use shared_testkit::{Scratch, Sshd, SshdOptions, bin, run, until};

const TOKEN: &str = "node-join-token-of-the-tests";

/// A cluster, joe whose role admits `env=prod`, mia whose role does not, and a stock sshd that knows of nothing.
struct Scene {
    cluster: Cluster,
    joe: Home,
    mia: Home,
    sshd: Sshd,
    /// How often sshd was seen to listen.
    starts: AtomicUsize,
    login: String,
    /// The folder of sshd.
    folder: PathBuf,
    /// Last, so that it goes after the programs that use it.
    scratch: Scratch,
}

impl Scene {
    fn new(name: &str, recording: &str, two_processes: bool) -> Result<Self> {
        let tokens = if two_processes { "" } else { "  tokens:\n" };
        let options = ClusterOptions {
            recording: Some(recording.to_owned()),
            two_processes,
            auth_extra: format!("{tokens}  - \"node:{TOKEN}\"\n"),
            ..ClusterOptions::default()
        };
        let scratch = Scratch::new(name)?;
        let cluster = Cluster::start(&scratch.folder("c")?, &options)?;
        let login = login_name();
        for env in ["prod", "dev"] {
            let _created = cluster.create(&format!(
                "kind: role\nversion: v7\nmetadata:\n  name: {env}\nspec:\n  allow:\n    logins: [{login}]\n    \
                 node_labels:\n      env: {env}\n"
            ))?;
        }
        let joe = cluster.user("joe", "prod,auditor", &login)?;
        let mia = cluster.user("mia", "dev", &login)?;
        let folder = scratch.folder("sshd")?;
        let sshd = Sshd::start(&folder, &SshdOptions::default())?;
        Ok(Self { cluster, joe, mia, sshd, starts: AtomicUsize::new(1), login, folder, scratch })
    }

    fn config(&self) -> PathBuf {
        self.folder.join("sshd_config")
    }

    fn own(&self) -> PathBuf {
        self.folder.join("data/openssh")
    }

    /// `teleport join openssh` for this sshd.
    fn teleport(&self) -> Result<Command> {
        std::fs::create_dir_all(self.folder.join("cron"))?;
        let mut teleport = command(bin("teleport"), &self.folder);
        teleport.args(["join", "openssh"]);
        teleport.arg(format!("--data-dir={}", self.folder.join("data").display()));
        Ok(teleport)
    }

    fn join(&self, more: &[&str]) -> Result<Command> {
        let mut join = self.teleport()?;
        join.arg(format!("--proxy-server=localhost:{}", self.cluster.port("web")));
        join.arg(format!("--ca-pin={}", self.cluster.ca_pin()?));
        join.arg(format!("--openssh-config={}", self.config().display()));
        join.arg(format!("--address=127.0.0.1:{}", self.sshd.port));
        join.arg(format!("--timer-dir={}", self.folder.join("cron").display()));
        join.args(["--nodename=db-7", "--labels=env=prod", "--timer=cron"]).args(more);
        Ok(join)
    }

    fn joined(&self) -> Result<Outcome> {
        let outcome = run(&mut self.join(&[&format!("--token={TOKEN}")])?, "", 60)?.ok();
        self.listens()?;
        Ok(outcome)
    }

    /// Waits until sshd listens once more than at the last call: it starts itself anew when it is told of changes, and
    /// one that is told again before it can hear it ends.
    fn listens(&self) -> Result<()> {
        let before = self.starts.load(Ordering::Relaxed);
        let now = until("sshd to listen again", 10, || {
            let starts = self.sshd.log().matches("Server listening on 127.0.0.1 ").count();
            (starts > before).then_some(starts)
        })?;
        self.starts.store(now, Ordering::Relaxed);
        Ok(())
    }

    fn target(&self) -> String {
        format!("{}@db-7", self.login)
    }

    fn tsh(&self, home: &Home, host: &str, line: &str) -> Result<Outcome> {
        let mut tsh = home.tsh();
        tsh.arg("ssh").arg(format!("{}@{host}", self.login)).arg(line);
        run(&mut tsh, "", 60)
    }

    /// `tsh ssh`, until the proxy has heard of the node.
    fn reached(&self, line: &str) -> Result<Outcome> {
        until("the node to be known", 10, || {
            self.tsh(&self.joe, "db-7", line).ok().filter(|outcome| outcome.code != 255)
        })
    }

    /// The plain OpenSSH client with joe's key in a file: no agent runs, and none is forwarded.
    fn ssh(&self, target: &str, way: &[&str]) -> Result<Command> {
        let export = self.cluster.tctl_ok(["auth", "export", "--type=host"])?.text();
        let key = export.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
        let known = self.scratch.write("known_hosts", format!("@cert-authority * {key}\n"))?;
        let config = self.scratch.write(
            "ssh_config",
            format!(
                "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
                 BatchMode yes\n  ForwardAgent no\n  IdentitiesOnly yes\n  IdentityFile {}\n  CertificateFile {}\n",
                known.display(),
                self.joe.ssh_key().display(),
                self.joe.ssh_certificate().display(),
            ),
        )?;
        let mut ssh = command("ssh", &self.joe.folder);
        ssh.arg("-F").arg(&config).args(way).arg(target);
        Ok(ssh)
    }

    fn through_proxy(&self) -> String {
        format!(
            "ProxyCommand ssh -F {} -p {} %r@localhost -s proxy:%h:%p",
            self.scratch.path().join("ssh_config").display(),
            self.cluster.port("ssh"),
        )
    }

    /// Mode of the newest session's recording.
    fn newest_mode(&self) -> Result<(String, String)> {
        let sql = "select sid, session_recording from session_end order by event_time desc limit 1";
        let row =
            until("a session to end", 20, || self.cluster.query(sql).ok()?.into_iter().next())?;
        let [sid, mode] = row.try_into().map_err(|_| anyhow::anyhow!("two columns"))?;
        Ok((sid, mode))
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for folder in [self.folder.clone(), self.folder.join("cron")] {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_file() && path.extension().is_none_or(|end| end != "log") {
                    found.push((path.display().to_string(), std::fs::read(&path)?));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

#[test]
fn labels_decide_and_no_agent_is_needed() -> Result<()> {
    let scene = Scene::new("labels", "proxy", true)?;
    let told = scene.joined()?;
    ensure!(told.text().contains("is registered as db-7"), "{}", told.text());
    let mode = |path: &Path| -> Result<u32> {
        use std::os::unix::fs::PermissionsExt;
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
    };
    assert_eq!((mode(&scene.own())?, mode(&scene.own().join("identity.json"))?), (0o700, 0o600));
    let cron = std::fs::read_to_string(scene.folder.join("cron/gatehouse-openssh-renew"))?;
    ensure!(cron.contains("join openssh --renew --data-dir="), "{cron}");

    let outcome = scene.reached("echo through; exit 3")?;
    assert_eq!((outcome.code, outcome.text().as_str()), (3, "through\n"), "{}", outcome.stderr);
    let (sid, mode) = scene.newest_mode()?;
    assert_eq!(mode, "proxy");
    let played = until("the recording", 20, || {
        let played = scene.joe.run(["play", "--format=text", &sid]).ok()?;
        (played.code == 0).then_some(played)
    })?;
    assert_eq!(played.text(), "through\n");
    let sql = "select server_sub_kind, server_hostname from session_start limit 1";
    let row = scene.cluster.query(sql)?.concat().join(" ");
    assert_eq!(row, "openssh db-7");

    // Both by name and by address.
    for target in [scene.target(), format!("{}@127.0.0.1", scene.login)] {
        let port = scene.sshd.port.to_string();
        let mut ssh = scene.ssh(&target, &["-p", &port, "-o", &scene.through_proxy()])?;
        let outcome = run(ssh.arg("echo plain"), "", 60)?.ok();
        assert_eq!(outcome.text(), "plain\n");
    }

    // What mia may not see is as if it were not there.
    let hidden = scene.tsh(&scene.mia, "db-7", "true")?.fails(255, "is offline or does not exist");
    let absent = scene.tsh(&scene.mia, "db-8", "true")?.fails(255, "is offline or does not exist");
    assert_eq!(hidden.stderr.replace("db-7", "db-8"), absent.stderr);
    ensure!(!scene.mia.run(["ls"])?.ok().text().contains("db-7"));
    ensure!(scene.joe.run(["ls"])?.ok().text().contains("db-7"));

    // The user's own certificate opens nothing there.
    let port = scene.sshd.port.to_string();
    let mut ssh = scene.ssh(&format!("{}@127.0.0.1", scene.login), &["-p", &port])?;
    let _refused = run(ssh.arg("true"), "", 60)?.fails(255, "Permission denied");
    Ok(())
}

#[test]
fn each_mode_is_recorded_at_the_proxy() -> Result<()> {
    let scene = Scene::new("node-mode", "node", false)?;
    let _told = scene.joined()?;
    let outcome = scene.reached("echo by tsh")?.ok();
    assert_eq!(outcome.text(), "by tsh\n");
    let (first, mode) = scene.newest_mode()?;
    assert_eq!(mode, "proxy");
    let mut ssh = scene.ssh(&scene.target(), &["-o", "Port 3022"])?;
    let outcome = run(ssh.args(["-o", &scene.through_proxy(), "echo by ssh"]), "", 60)?.ok();
    assert_eq!(outcome.text(), "by ssh\n");

    for (mode, recorded_as) in [("node-sync", "proxy-sync"), ("off", "off")] {
        let config = format!(
            "kind: session_recording_config\nversion: v2\nmetadata:\n  name: session-recording-config\nspec:\n  mode: {mode}\n"
        );
        let _changed = scene.cluster.create(&config)?;
        let line = format!("echo mode {mode}");
        let outcome = until("the mode to be known", 20, || {
            let outcome = scene.tsh(&scene.joe, "db-7", &line).ok()?.ok();
            let newest = scene.newest_mode().ok()?;
            (newest.1 == recorded_as).then_some(outcome)
        })?;
        assert_eq!(outcome.text(), format!("mode {mode}\n"));
    }
    let (off, _) = scene.newest_mode()?;
    ensure!(scene.joe.run(["play", "--format=text", &off])?.code != 0, "mode off left a recording");
    let played = scene.joe.run(["play", "--format=text", &first])?.ok();
    assert_eq!(played.text(), "by tsh\n");
    Ok(())
}

#[test]
fn renewal_follows_the_host_key() -> Result<()> {
    let scene = Scene::new("renew", "proxy", false)?;
    let not_joined = run(scene.teleport()?.arg("--renew"), "", 60)?;
    let _refused = not_joined.fails(1, "has not joined");
    let _told = scene.joined()?;
    let certificate = || std::fs::read(scene.own().join("ssh_host-cert.pub"));
    let first = certificate()?;
    let nothing = run(scene.teleport()?.arg("--renew"), "", 60)?.ok();
    ensure!(nothing.text().contains("Nothing to renew before"), "{}", nothing.text());
    assert_eq!(certificate()?, first);
    let forced = run(scene.teleport()?.args(["--renew", "--force"]), "", 60)?.ok();
    ensure!(forced.text().contains("was renewed"), "{}", forced.text());
    assert_ne!(certificate()?, first);
    scene.listens()?;

    // The administrator replaces sshd's key.
    let key = scene.folder.join("host_key");
    std::fs::remove_file(&key)?;
    std::fs::remove_file(scene.folder.join("host_key.pub"))?;
    make_key(&key)?;
    let renewed = run(scene.teleport()?.arg("--renew"), "", 60)?.ok();
    ensure!(renewed.text().contains("was renewed"), "{}", renewed.text());
    scene.listens()?;
    assert_eq!(scene.reached("echo again")?.ok().text(), "again\n");
    let _refused = run(scene.teleport()?.args(["--renew", "--new-host-key"]), "", 60)?
        .fails(1, "is sshd's own and is not replaced here");

    // A key of our own, made and replaced; sshd keeps its other keys.
    let _told = run(&mut scene.join(&["--new-host-key"])?, "", 60)?.ok();
    let own = || std::fs::read(scene.own().join("ssh_host_key"));
    let made = own()?;
    scene.listens()?;
    assert_eq!(scene.reached("echo own")?.ok().text(), "own\n");
    let _told = run(scene.teleport()?.args(["--renew", "--new-host-key"]), "", 60)?.ok();
    assert_ne!(own()?, made);
    scene.listens()?;
    assert_eq!(scene.reached("echo other")?.ok().text(), "other\n");
    let mut scan = command("ssh-keyscan", &scene.folder);
    let scanned = run(scan.args(["-p", &scene.sshd.port.to_string(), "127.0.0.1"]), "", 30)?.ok();
    let public = std::fs::read_to_string(scene.folder.join("host_key.pub"))?;
    ensure!(scanned.text().contains(public.trim()), "the key that hosts know is gone");
    Ok(())
}

#[test]
fn an_error_puts_everything_back() -> Result<()> {
    let scene = Scene::new("rollback", "proxy", false)?;
    let token = format!("--token={TOKEN}");
    let _join = scene.teleport()?;
    let before = scene.files()?;

    let shown = run(&mut scene.join(&["--dry-run"])?, "", 60)?.ok();
    ensure!(
        shown.text().contains("TrustedUserCAKeys") && shown.text().contains("Nothing was changed")
    );
    ensure!(!scene.own().exists(), "a dry run made something");

    // sshd does not take what was written.
    let wrapper = scene.scratch.write(
        "wrapped-sshd",
        "#!/bin/sh\ncase \"$*\" in *-t*/sshd_config) grep -q ^Include \"$3\" && { echo 'Bad configuration option' >&2; exit 1; };; esac\n\
         exec /usr/sbin/sshd \"$@\"\n",
    )?;
    let _made = run(command("chmod", &scene.folder).arg("755").arg(&wrapper), "", 10)?.ok();
    let sshd = format!("--sshd={}", wrapper.display());
    let _refused =
        run(&mut scene.join(&[&token, &sshd])?, "", 60)?.fails(1, "Bad configuration option");
    assert_eq!(scene.files()?, before);

    // It cannot be told.
    let restart = "--restart-command=echo cannot >&2; exit 1";
    let _refused = run(&mut scene.join(&[&token, restart])?, "", 60)?.fails(1, "cannot");
    assert_eq!(scene.files()?, before);
    let nodes = scene.cluster.tctl_ok(["nodes", "ls"])?.text();
    ensure!(!nodes.contains("db-7"), "{nodes}");

    // What is broken already stays what it is, and another authority is not replaced unasked.
    for (line, why) in [
        ("NoSuchKeyword yes\n", "does not accept"),
        ("TrustedUserCAKeys /etc/ssh/other_ca.pub\n", "already trusts the authorities in"),
        ("PubkeyAuthentication no\n", "PubkeyAuthentication"),
    ] {
        let text = std::fs::read_to_string(scene.config())?;
        std::fs::write(scene.config(), format!("{line}{text}"))?;
        let broken = scene.files()?;
        let _refused = run(&mut scene.join(&[&token])?, "", 60)?.fails(1, why);
        assert_eq!(scene.files()?, broken);
        std::fs::write(scene.config(), text)?;
    }
    let _refused = run(&mut scene.join(&["--token=no-such-token-at-all-here"])?, "", 60)?;

    // Nothing of that stands in the way.
    let _told = run(&mut scene.join(&[&token])?, "", 60)?.ok();
    scene.listens()?;
    assert_eq!(scene.reached("echo fine")?.ok().text(), "fine\n");
    Ok(())
}

#[test]
fn undo_leaves_nothing_but_what_was_there() -> Result<()> {
    let scene = Scene::new("undo", "proxy", false)?;
    let text = std::fs::read_to_string(scene.config())?;
    std::fs::write(scene.config(), format!("# mine \t \r\n\n{text}# no newline at the end"))?;
    let _cron = scene.teleport()?;
    let before = scene.files()?;
    let _told = scene.joined()?;
    let _known = scene.reached("true")?.ok();
    // Said again with other labels, without a token.
    let _again = run(&mut scene.join(&["--labels=env=prod,team=db"])?, "", 60)?;
    let config = std::fs::read_to_string(scene.config())?;
    assert_eq!(config.matches("Include").count(), 1, "{config}");
    assert_ne!(scene.files()?, before);

    let undone = run(scene.teleport()?.arg("--undo"), "", 60)?.ok();
    ensure!(undone.text().contains("The registration is taken back"), "{}", undone.stderr);
    assert_eq!(scene.files()?, before);
    ensure!(!scene.own().exists(), "something is left in the data directory");
    scene.listens()?;
    let _gone = until("the node to be gone", 10, || {
        let outcome = scene.tsh(&scene.joe, "db-7", "true").ok()?;
        outcome.stderr.contains("is offline or does not exist").then_some(())
    });
    let _refused = run(scene.teleport()?.arg("--undo"), "", 60)?.fails(1, "has not joined");
    Ok(())
}

/// Somebody has taken the proxy's keys: what that gives, and what it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_one_server_opens_nothing_of_the_cluster() -> Result<()> {
    let scene = Scene::new("hostile-ca", "proxy", true)?;
    let _told = scene.joined()?;
    let _known = scene.reached("true")?.ok();
    let stolen = std::fs::read(scene.cluster.folder().join("proxy/proxy-identity.json"))?;
    let stolen: serde_json::Value = serde_json::from_slice(&stolen)?;
    let authorities: Vec<TrustedAuthority> = serde_json::from_value(stolen["authorities"].clone())?;
    let text = |key: &str| stolen[key].as_str().map(str::to_owned).context("identity");
    let identity = ClientIdentity { cert_pem: text("cert_pem")?, key_pem: text("key_pem")?.into() };
    let route = Route::Direct { addr: scene.cluster.address("auth").to_owned() };
    let client = Client::new(ClientConfig::new(route, authorities, Some(identity)))?;
    let record = std::fs::read_to_string(scene.own().join("host_uuid"))?;
    let key = KeyPair::generate()?;
    let ask = |home: &Home| -> Result<OpensshUserRequest> {
        Ok(OpensshUserRequest {
            certificate: std::fs::read_to_string(home.ssh_certificate())?.trim().to_owned(),
            client_ip: "127.0.0.1".parse()?,
            login: scene.login.parse()?,
            node: record.trim().parse()?,
            public_key: key.public_openssh(),
            source: None,
        })
    };
    // For mia there is none, whatever the proxy thinks.
    let refused = client.sign_openssh_user(&ask(&scene.mia)?).await.map(|reply| reply.certificate);
    ensure!(
        refused.as_ref().is_err_and(|error| error.to_string().contains("denied")),
        "{refused:?}"
    );
    let signed = client.sign_openssh_user(&ask(&scene.joe)?).await?.certificate;

    let path = scene.scratch.write("stolen", key.to_openssh_private_pem()?.as_bytes())?;
    let _private = run(command("chmod", &scene.folder).arg("600").arg(&path), "", 10)?.ok();
    let certificate = scene.scratch.write("stolen-cert.pub", &signed)?;
    let try_at = |port: u16, words: &[&str]| -> Result<Outcome> {
        let mut ssh = command("ssh", &scene.folder);
        ssh.args(["-F", "/dev/null", "-o", "BatchMode yes", "-o", "StrictHostKeyChecking no"]);
        ssh.args(["-o", "UserKnownHostsFile /dev/null", "-o", "IdentitiesOnly yes"]);
        ssh.arg("-o").arg(format!("CertificateFile {}", certificate.display()));
        ssh.arg("-i").arg(&path).args(["-p", &port.to_string()]);
        run(ssh.arg(format!("{}@127.0.0.1", scene.login)).args(words), "", 30)
    };
    // It is a real one.
    assert_eq!(try_at(scene.sshd.port, &["echo in"])?.ok().text(), "in\n");
    // Neither the proxy nor an sshd that trusts the cluster's users takes it.
    let _proxy =
        try_at(scene.cluster.port("ssh"), &["-s", "proxysites"])?.fails(255, "Permission denied");
    let other = scene.cluster.sshd("other", "127.0.0.1", "")?;
    let _other = try_at(other.port, &["true"])?.fails(255, "Permission denied");
    // And auth does not take it for that of a user to sign another by.
    let again = OpensshUserRequest { certificate: signed.trim().to_owned(), ..ask(&scene.joe)? };
    ensure!(client.sign_openssh_user(&again).await.is_err());
    Ok(())
}
