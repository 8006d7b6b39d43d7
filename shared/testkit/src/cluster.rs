//! A cluster of our own programs: the daemon in one process or two, users that are logged in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::forwarder::Forwarder;
use crate::process::{Guard, Outcome, bin, command, run};
use crate::sshd::{Sshd, SshdOptions};
use crate::wait::until;

/// The password of every user in tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// What differs between the clusters of tests.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// `session_recording` in `teleport.yaml`; nothing when left out.
    pub recording: Option<String>,
    /// `proxy_checks_host_keys`.
    pub checks_host_keys: bool,
    /// Auth and proxy as two processes.
    pub two_processes: bool,
    /// The proxy of two processes reaches auth through a [`Forwarder`] with this delay.
    pub link: Option<Duration>,
    /// More lines under `teleport`, indented by two blanks, for each process.
    pub global_extra: String,
    /// More lines under `auth_service`, indented by two blanks.
    pub auth_extra: String,
    /// More lines under `proxy_service`, indented by two blanks.
    pub proxy_extra: String,
    /// Variables of the daemon's environment.
    pub env: Vec<(String, String)>,
    /// Names that resolve to 127.0.0.1 for the daemon.
    pub hosts: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            recording: Some("proxy".into()),
            checks_host_keys: true,
            two_processes: false,
            link: None,
            global_extra: String::new(),
            auth_extra: String::new(),
            proxy_extra: String::new(),
            env: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    options: ClusterOptions,
    /// The all-in-one daemon, or the auth service.
    pub auth: Guard,
    /// The proxy, when it is a process of its own.
    pub proxy: Option<Guard>,
    addresses: BTreeMap<String, String>,
    /// The pin the proxy joined with; it starts again also while auth is away.
    pin: Option<String>,
    /// The way from proxy to auth, where it was asked for.
    pub link: Option<Forwarder>,
}

impl Cluster {
    /// Starts one in `folder` and waits until it answers.
    pub fn start(folder: &Path, options: &ClusterOptions) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let hosts: String =
            options.hosts.iter().map(|host| format!("127.0.0.1 {host}\n")).collect();
        std::fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n{hosts}"))?;
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            options: options.clone(),
            auth: Self::spawn(folder, options, "auth", &Self::auth_config(folder, options, None))?,
            proxy: None,
            addresses: BTreeMap::new(),
            pin: None,
            link: None,
        };
        cluster.wait_auth()?;
        if let Some(delay) = options.link {
            cluster.link = Some(Forwarder::start(cluster.address("auth"), delay)?);
        }
        if options.two_processes {
            cluster.join_proxy()?;
        }
        Ok(cluster)
    }

    fn auth_config(
        folder: &Path,
        options: &ClusterOptions,
        listen: Option<&BTreeMap<String, String>>,
    ) -> String {
        let port = |name: &str| {
            listen
                .and_then(|listen| listen.get(name))
                .cloned()
                .unwrap_or_else(|| "127.0.0.1:0".into())
        };
        let mut text = format!(
            "version: v3\nteleport:\n  nodename: gate\n  data_dir: {}\n{}auth_service:\n  enabled: yes\n  \
             cluster_name: example.test\n  listen_addr: {}\n",
            folder.join("auth").display(),
            options.global_extra,
            port("auth"),
        );
        if let Some(mode) = &options.recording {
            text += &format!("  session_recording: \"{mode}\"\n");
        }
        if !options.checks_host_keys {
            text += "  proxy_checks_host_keys: no\n";
        }
        if options.two_processes {
            text += "  tokens:\n  - \"proxy:proxy-join-token-of-the-tests\"\n";
        }
        text += &options.auth_extra;
        if options.two_processes {
            text += "proxy_service:\n  enabled: no\n";
        } else {
            text += &format!(
                "proxy_service:\n  enabled: yes\n  web_listen_addr: {}\n  listen_addr: {}\n  public_addr: localhost\n{}",
                port("web"),
                port("ssh"),
                options.proxy_extra
            );
        }
        text + "ssh_service:\n  enabled: no\n"
    }

    fn spawn(folder: &Path, options: &ClusterOptions, name: &str, config: &str) -> Result<Guard> {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, config)?;
        let mut daemon = command(bin("teleport"), folder);
        daemon.args(["start", "--config"]).arg(&path).env("RUST_LOG", "info");
        daemon.envs(options.env.iter().map(|(name, value)| (name, value)));
        if !options.hosts.is_empty() {
            daemon
                .env("LD_PRELOAD", "libnss_wrapper.so")
                .env("NSS_WRAPPER_HOSTS", folder.join("hosts"));
        }
        Guard::start(name, &mut daemon, &folder.join(format!("{name}.log")))
    }

    fn wait_auth(&mut self) -> Result<()> {
        let listen = self.folder.join("auth/listen.json");
        let wanted: &[&str] =
            if self.options.two_processes { &["auth"] } else { &["auth", "web", "ssh"] };
        let addresses = wait_listen(&listen, wanted, &mut self.auth)?;
        self.addresses.extend(addresses);
        Ok(())
    }

    fn join_proxy(&mut self) -> Result<()> {
        let token = self.folder.join("token");
        std::fs::write(&token, "proxy-join-token-of-the-tests\n")?;
        let pin = match &self.pin {
            Some(pin) => pin.clone(),
            None => self.ca_pin()?,
        };
        self.pin = Some(pin.clone());
        let port =
            |name: &str| self.addresses.get(name).cloned().unwrap_or_else(|| "127.0.0.1:0".into());
        let config = format!(
            "version: v3\nteleport:\n  nodename: door\n  data_dir: {}\n  auth_server: {}\n  auth_token: {}\n  ca_pin: \"{pin}\"\n{}\
             auth_service:\n  enabled: no\nproxy_service:\n  enabled: yes\n  web_listen_addr: {}\n  listen_addr: {}\n  \
             public_addr: localhost\n{}ssh_service:\n  enabled: no\n",
            self.folder.join("proxy").display(),
            self.link.as_ref().map_or_else(|| self.address("auth").to_owned(), Forwarder::address),
            token.display(),
            self.options.global_extra,
            port("web"),
            port("ssh"),
            self.options.proxy_extra,
        );
        let mut proxy = Self::spawn(&self.folder, &self.options, "proxy", &config)?;
        let addresses =
            wait_listen(&self.folder.join("proxy/listen.json"), &["web", "ssh"], &mut proxy)?;
        self.addresses.extend(addresses);
        self.proxy = Some(proxy);
        Ok(())
    }

    /// Starts the daemon again after it was killed or stopped, on the same ports and data.
    pub fn restart_auth(&mut self) -> Result<()> {
        std::fs::remove_file(self.folder.join("auth/listen.json")).ok();
        let config = Self::auth_config(&self.folder, &self.options, Some(&self.addresses));
        self.auth = Self::spawn(&self.folder, &self.options, "auth", &config)?;
        self.wait_auth()
    }

    /// Starts the proxy of a two-process cluster again.
    pub fn restart_proxy(&mut self) -> Result<()> {
        std::fs::remove_file(self.folder.join("proxy/listen.json")).ok();
        self.join_proxy()
    }

    /// `web`, `ssh` or `auth`, as `127.0.0.1:port`.
    pub fn address(&self, name: &str) -> &str {
        self.addresses.get(name).map_or("", String::as_str)
    }

    /// The port of `web`, `ssh` or `auth`.
    pub fn port(&self, name: &str) -> u16 {
        self.address(name).rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    /// The folder with configuration, logs and data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory of the auth service.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("auth")
    }

    /// `tctl` as on the auth host, with the local admin identity.
    pub fn tctl(&self) -> Command {
        let mut tctl = command(bin("tctl"), &self.folder);
        tctl.arg("--config").arg(self.folder.join("auth.yaml"));
        tctl
    }

    /// Runs `tctl` and demands success.
    pub fn tctl_ok<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Outcome> {
        Ok(run(self.tctl().args(args), "", 60)?.ok())
    }

    /// The pin of the host authority.
    pub fn ca_pin(&self) -> Result<String> {
        let text = self.tctl_ok(["status"])?.text();
        text.split_whitespace()
            .find(|word| word.starts_with("sha256:"))
            .map(str::to_owned)
            .context("tctl status shows no pin")
    }

    /// Creates a resource from YAML.
    pub fn create(&self, yaml: &str) -> Result<Outcome> {
        Ok(run(self.tctl().args(["create", "-f"]), yaml, 60)?.ok())
    }

    /// A role that may reach sshds on 127.0.0.1 as these logins.
    pub fn loopback_role(&self, name: &str, logins: &[&str]) -> Result<()> {
        let logins = logins.join(", ");
        let _created = self.create(&format!(
            "kind: role\nversion: v7\nmetadata:\n  name: {name}\nspec:\n  options:\n    forward_agent: true\n  allow:\n    \
             logins: [{logins}]\n    node_labels:\n      'teleport.dev/host': ['127.0.0.1', 'localhost', '*.example.com']\n"
        ))?;
        Ok(())
    }

    /// Adds a user with a password, as an admin and the user would.
    pub fn add_user(&self, user: &str, roles: &str, logins: &str) -> Result<Home> {
        let invited = self.tctl_ok(["users", "add", user, "--roles", roles, "--logins", logins])?;
        let text = invited.text();
        let url = text
            .split_whitespace()
            .find(|word| word.contains("/web/invite/"))
            .context("tctl users add printed no invitation")?
            .to_owned();
        let home = self.home(user)?;
        let mut signup = home.tsh();
        let _done = run(
            signup.args(["signup", &url, "--insecure", "--ca-pin", &home.pin]),
            format!("{PASSWORD}\n{PASSWORD}\n"),
            60,
        )?
        .ok();
        Ok(home)
    }

    /// Adds a user and logs in.
    pub fn user(&self, user: &str, roles: &str, logins: &str) -> Result<Home> {
        let home = self.add_user(user, roles, logins)?;
        home.login()?;
        Ok(home)
    }

    /// A home folder for a person.
    pub fn home(&self, user: &str) -> Result<Home> {
        let folder = self.folder.join("home").join(user);
        std::fs::create_dir_all(&folder)?;
        Ok(Home {
            folder,
            user: user.to_owned(),
            proxy: format!("localhost:{}", self.port("web")),
            ssh_port: self.port("ssh"),
            pin: self.ca_pin()?,
        })
    }

    /// An sshd that trusts this cluster, with a host certificate for `hosts`.
    pub fn sshd(&self, name: &str, hosts: &str, extra: &str) -> Result<Sshd> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let host_key = folder.join("host");
        let _signed = self.tctl_ok([
            "auth".into(),
            "sign".into(),
            format!("--host={hosts}"),
            "--format=openssh".into(),
            format!("--out={}", host_key.display()),
            "--overwrite".into(),
        ])?;
        let user_ca = self.user_ca(&folder)?;
        Sshd::start(
            &folder,
            &SshdOptions {
                user_ca: Some(user_ca),
                host_certificate: Some(folder.join("host-cert.pub")),
                host_key: Some(host_key),
                extra: extra.to_owned(),
                port: None,
            },
        )
    }

    /// The user authority as sshd reads it.
    pub fn user_ca(&self, folder: &Path) -> Result<PathBuf> {
        let export = self.tctl_ok(["auth", "export", "--type=user"])?.text();
        ensure!(export.starts_with("cert-authority "), "unexpected export: {export}");
        let path = folder.join("user_ca.pub");
        std::fs::write(&path, export.replace("cert-authority ", ""))?;
        Ok(path)
    }

    /// Runs SQL and returns the rows without the column names.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let text = self.tctl_ok(["audit", "query", "exec", sql])?.text();
        let value: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let rows = value.as_array().context("a list of rows")?;
        let row = |row: &serde_json::Value| -> Vec<String> {
            row["data"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|cell| cell.as_str().map(str::to_owned))
                .collect()
        };
        Ok(rows.iter().skip(1).map(row).collect())
    }
}

fn wait_listen(
    path: &Path,
    wanted: &[&str],
    process: &mut Guard,
) -> Result<BTreeMap<String, String>> {
    let found = until(&format!("{} to name its addresses", path.display()), 30, || {
        if !process.running() {
            return Some(None);
        }
        let text = std::fs::read_to_string(path).ok()?;
        let addresses: BTreeMap<String, String> = serde_json::from_str(&text).ok()?;
        wanted.iter().all(|name| addresses.contains_key(*name)).then_some(Some(addresses))
    })?;
    found.with_context(|| format!("the daemon ended:\n{}", process.log()))
}

/// A person's home folder on a client machine.
#[derive(Debug, Clone)]
pub struct Home {
    /// The folder.
    pub folder: PathBuf,
    /// The user's name.
    pub user: String,
    /// The proxy as the user types it.
    pub proxy: String,
    /// The proxy's SSH port.
    pub ssh_port: u16,
    pin: String,
}

impl Home {
    /// `tsh` in this home; no ssh-agent is known to it.
    pub fn tsh(&self) -> Command {
        command(bin("tsh"), &self.folder)
    }

    /// Logs in with the password.
    pub fn login(&self) -> Result<()> {
        let _done = run(&mut self.login_command(), format!("{PASSWORD}\n"), 60)?.ok();
        Ok(())
    }

    /// The login command.
    pub fn login_command(&self) -> Command {
        let mut login = self.tsh();
        login.args([
            "login",
            "--insecure",
            "--proxy",
            &self.proxy,
            "--user",
            &self.user,
            "--ca-pin",
            &self.pin,
        ]);
        login
    }

    /// Runs `tsh` with these arguments.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Outcome> {
        run(self.tsh().args(args), "", 120)
    }

    /// Where the profile keeps this user's SSH key.
    pub fn ssh_key(&self) -> PathBuf {
        self.folder.join(".tsh/keys/localhost").join(&self.user)
    }

    /// Where the profile keeps this user's SSH certificate.
    pub fn ssh_certificate(&self) -> PathBuf {
        self.folder
            .join(".tsh/keys/localhost")
            .join(format!("{}-ssh/example.test-cert.pub", self.user))
    }
}
