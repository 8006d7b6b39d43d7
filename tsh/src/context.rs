//! What commands share: the profile folder, the login in it, and how the auth service is reached.

use std::cell::OnceCell;

use chrono::Utc;
use shared_api::client::{Confirm, Timeouts, fetch_authorities};
use shared_api::stored::stored_authorities;
use shared_api::{
    Client, ClientError, ErrorKind, LoginReply, Route, StoredLogin, StoredLoginError,
};
use shared_cli::{CliError, ExitCode, Prompter, printable};
use shared_config::{Profile, ProfileDir, ProfileError};
use shared_pki::{CaKind, KeyPair, TlsKey, TrustedAuthority};
use shared_ssh::agent::{AgentKey, Loaded, load_into_running_agent, unload_from_running_agent};

use crate::GlobalArgs;

/// Most host names kept for completion.
const MOST_HOSTS: usize = 1000;

/// One run of the program.
#[derive(Debug)]
pub struct Ctx {
    /// Flags every command takes.
    pub global: GlobalArgs,
    /// The profile folder.
    pub dir: ProfileDir,
    profile: OnceCell<Option<Profile>>,
}

/// A login read back, with what commands ask of it.
#[derive(Debug)]
pub struct Login(StoredLogin);

impl std::ops::Deref for Login {
    type Target = StoredLogin;
    fn deref(&self) -> &StoredLogin {
        &self.0
    }
}

impl Login {
    /// The logins a person may type, without the internal ones.
    pub fn logins(&self) -> Vec<String> {
        let names = self.identity.logins.iter().map(ToString::to_string);
        names.filter(|login| !login.starts_with("-teleport-")).collect()
    }

    /// Names of the SSH certificate's extensions.
    pub fn extensions(&self) -> Vec<String> {
        let internal = |name: &&str| !name.starts_with("teleport-");
        self.ssh_cert
            .extensions()
            .keys()
            .map(String::as_str)
            .filter(internal)
            .map(str::to_owned)
            .collect()
    }

    /// The key and certificate as an agent holds them.
    pub fn agent_key(&self, comment: &str) -> Result<AgentKey, CliError> {
        AgentKey::new(self.ssh_key.private().clone(), self.ssh_cert.clone(), comment)
            .map_err(|error| CliError::wrap("use the stored key", &error))
    }
}

/// What a login has brought, before it is stored.
pub struct NewLogin {
    /// The proxy's host name: the profile's name.
    pub proxy_host: String,
    /// The proxy's web address.
    pub web_proxy_addr: String,
    /// The proxy's SSH address.
    pub ssh_proxy_addr: String,
    /// Where PostgreSQL clients connect; empty where that is the web address.
    pub postgres_proxy_addr: String,
    /// Where MySQL clients connect; empty where there is no such port.
    pub mysql_proxy_addr: String,
    /// Whether one port serves everything.
    pub tls_routing: bool,
    /// The key whose certificate is in the reply.
    pub ssh_key: KeyPair,
    /// The same for TLS.
    pub tls_key: TlsKey,
    /// What auth answered.
    pub reply: LoginReply,
}

/// What a failed call means to a person.
pub fn api_error(error: ClientError) -> CliError {
    let exit = match error.kind() {
        ErrorKind::Unauthenticated => ExitCode::NotLoggedIn,
        ErrorKind::Denied | ErrorKind::Locked => ExitCode::Denied,
        ErrorKind::NotFound => ExitCode::NotFound,
        _ => ExitCode::Failed,
    };
    let shown = CliError::from_error(&error).exit(exit);
    match error.hint() {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// Trouble with the profile folder.
pub fn config_error(error: ProfileError) -> CliError {
    CliError::from_error(&error)
}

fn stored_error(error: StoredLoginError) -> CliError {
    CliError::from_error(&error).hint("tsh logout, then tsh login, makes new ones")
}

fn not_logged_in() -> CliError {
    CliError::with_exit(ExitCode::NotLoggedIn, "Not logged in.").hint("tsh login --proxy=HOST")
}

impl Ctx {
    /// Opens the profile folder; makes nothing.
    pub fn new(global: GlobalArgs) -> Result<Self, CliError> {
        let dir = match &global.home {
            Some(home) => ProfileDir::at(home),
            None => ProfileDir::from_env().map_err(config_error)?,
        };
        Ok(Self { global, dir, profile: OnceCell::new() })
    }

    /// The profile that `--proxy` names, or the current one.
    pub fn current_profile(&self) -> Result<Option<Profile>, CliError> {
        if let Some(known) = self.profile.get() {
            return Ok(known.clone());
        }
        let profile = match &self.global.proxy {
            Some(proxy) => {
                let proxy: crate::ping::ProxyAddr = proxy.parse()?;
                self.dir.load(&proxy.host).map_err(config_error)?
            }
            None => self.dir.current().map_err(config_error)?,
        };
        Ok(self.profile.get_or_init(|| profile).clone())
    }

    /// As [`Ctx::current_profile`]; for a login, one that cannot be read counts as none.
    pub fn profile_for_login(&self) -> Result<Option<Profile>, CliError> {
        Ok(self.current_profile().unwrap_or_default())
    }

    /// The profile, or what to type to get one.
    pub fn profile(&self) -> Result<Profile, CliError> {
        self.current_profile()?.ok_or_else(not_logged_in)
    }

    /// The login stored for `profile`, whether or not it has ended.
    pub fn login_of(&self, profile: &Profile) -> Result<Option<Login>, CliError> {
        Ok(StoredLogin::load(&self.dir, profile).map_err(stored_error)?.map(Login))
    }

    /// The current login; one that has ended is an error.
    pub fn login(&self) -> Result<Login, CliError> {
        let login = self.login_of(&self.profile()?)?.ok_or_else(not_logged_in)?;
        if login.identity.valid_until <= Utc::now() {
            return Err(CliError::with_exit(ExitCode::NotLoggedIn, "Active profile expired.")
                .hint("tsh login"));
        }
        Ok(login)
    }

    /// The auth API as the current user, through the proxy, end to end.
    pub fn api(&self) -> Result<Client, CliError> {
        let profile = self.profile()?;
        Client::new(self.login()?.client_config(&profile)).map_err(api_error)
    }

    /// The cluster's authorities before a login: those kept from an earlier one, or new ones that
    /// match a pin or that the person accepts.
    pub async fn authorities(
        &self,
        proxy_host: &str,
        route: &Route,
        pins: &[String],
    ) -> Result<shared_api::AuthoritiesReply, CliError> {
        let found = self.find_authorities(proxy_host, route, pins).await?;
        self.refuse_namesake(proxy_host, &found)?;
        Ok(found)
    }

    /// Keys of hosts are kept by the cluster's name: another cluster of that name would become the one that is known
    /// through another proxy, to `tsh` and to OpenSSH.
    fn refuse_namesake(
        &self,
        proxy_host: &str,
        found: &shared_api::AuthoritiesReply,
    ) -> Result<(), CliError> {
        let pins = |authorities: &[TrustedAuthority]| {
            let hosts = authorities.iter().filter(|authority| authority.kind == CaKind::Host);
            hosts.flat_map(TrustedAuthority::pins).collect::<Vec<_>>()
        };
        let claimed = pins(&found.authorities);
        for profile in self.dir.profiles().map_err(config_error)? {
            if profile.cluster != found.cluster || profile.name() == proxy_host {
                continue;
            }
            let known = pins(&stored_authorities(&self.dir, &profile).map_err(stored_error)?);
            if !known.is_empty() && !known.iter().any(|pin| claimed.contains(pin)) {
                return Err(CliError::with_exit(
                    ExitCode::Denied,
                    format!(
                        "{proxy_host} leads to another cluster than {}, and both say they are {}",
                        profile.name(),
                        found.cluster
                    ),
                )
                .hint(format!(
                    "if the cluster was set up anew: tsh logout --proxy={}",
                    profile.name()
                )));
            }
        }
        Ok(())
    }

    async fn find_authorities(
        &self,
        proxy_host: &str,
        route: &Route,
        pins: &[String],
    ) -> Result<shared_api::AuthoritiesReply, CliError> {
        let timeouts = Timeouts::default();
        if !pins.is_empty() {
            return fetch_authorities(route, timeouts, Confirm::Pins(pins))
                .await
                .map_err(api_error);
        }
        if let Some(profile) = self.dir.load(proxy_host).map_err(config_error)? {
            let known = stored_authorities(&self.dir, &profile).map_err(stored_error)?;
            if !known.is_empty() {
                return Ok(shared_api::AuthoritiesReply {
                    cluster: profile.cluster,
                    authorities: known,
                });
            }
        }
        let mut unasked = None;
        let mut ask = |ca: &shared_api::client::UnverifiedCa| {
            eprintln!(
                "The host authority of cluster {} is not known here yet. Its pin:",
                printable(ca.cluster.as_ref())
            );
            for pin in &ca.pins {
                eprintln!("  {pin}");
            }
            match Prompter.confirm("Does `tctl status` on the auth server show the same CA pin?") {
                Ok(answer) => answer,
                Err(error) => {
                    unasked = Some(error);
                    false
                }
            }
        };
        let result = fetch_authorities(route, timeouts, Confirm::Ask(&mut ask)).await;
        match (result, unasked) {
            (Err(_), Some(error)) => Err(CliError::from_error(&error)
                .hint("--ca-pin=sha256:…, as `tctl status` prints it on the auth server")),
            (result, _) => result.map_err(api_error),
        }
    }

    /// Stores a login and makes it the current one.
    pub fn save_login(&self, login: &NewLogin) -> Result<Profile, CliError> {
        let reply = &login.reply;
        let mut profile = Profile::new(
            login.web_proxy_addr.clone(),
            login.ssh_proxy_addr.clone(),
            reply.username.clone(),
            reply.cluster.clone(),
            login.tls_routing,
        );
        profile.postgres_proxy_addr.clone_from(&login.postgres_proxy_addr);
        profile.mysql_proxy_addr.clone_from(&login.mysql_proxy_addr);
        let write = |path: std::path::PathBuf, text: &str| {
            self.dir.write_secret(&path, text.as_bytes()).map_err(config_error)
        };
        let ssh_key = login
            .ssh_key
            .to_openssh_private_pem()
            .map_err(|error| CliError::wrap("write the key", &error))?;
        write(self.dir.ssh_key_path(&profile), &ssh_key)?;
        write(
            self.dir.ssh_public_key_path(&profile),
            &format!("{}\n", login.ssh_key.public_openssh()),
        )?;
        write(self.dir.ssh_cert_path(&profile), &format!("{}\n", reply.ssh_cert.trim_end()))?;
        write(self.dir.tls_key_path(&profile), &login.tls_key.to_pem())?;
        write(self.dir.tls_cert_path(&profile), &reply.tls_cert)?;
        let host: Vec<&TrustedAuthority> =
            reply.authorities.iter().filter(|authority| authority.kind == CaKind::Host).collect();
        let pems: String =
            host.iter().flat_map(|authority| authority.tls_certs.iter().cloned()).collect();
        write(self.dir.cas_path(&profile), &pems)?;
        let name = login.proxy_host.parse().ok();
        let lines: Vec<String> =
            host.iter().map(|authority| authority.known_hosts_line(name.as_ref())).collect();
        self.dir.set_known_hosts(&profile, &lines).map_err(config_error)?;
        self.dir.save(&profile).map_err(config_error)?;
        Ok(profile)
    }

    /// Puts the certificate into a running ssh-agent; what goes wrong there is a warning.
    pub async fn load_into_agent(&self, profile: &Profile) {
        let loaded = async {
            let login = self.login_of(profile)?.ok_or_else(not_logged_in)?;
            let key = login.agent_key(&shared_ssh::agent::agent_comment(&profile.user))?;
            load_into_running_agent(&key, &profile.user)
                .await
                .map_err(|error| CliError::from_error(&error))
        };
        match loaded.await {
            Ok(Loaded::Yes | Loaded::NoAgent) => {}
            Ok(Loaded::Refused(text)) => eprintln!("WARNING: {text}"),
            Err(error) => {
                eprintln!(
                    "WARNING: the certificate was not put into the running ssh-agent: {}",
                    printable(error.message())
                );
            }
        }
    }

    /// Removes a profile's keys, also from a running ssh-agent.
    pub async fn forget(&self, profile: &Profile) -> Result<(), CliError> {
        if let Ok(Some(login)) = self.login_of(profile) {
            unload_from_running_agent(&login.ssh_cert, &profile.user).await.ok();
        }
        for database in self.dir.databases(profile).map_err(config_error)? {
            crate::commands::db::forget(&self.dir, profile, &database)?;
        }
        self.dir.remove(profile).map_err(config_error)
    }

    /// Keeps host names for completion.
    pub fn remember_hosts<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let Ok(Some(profile)) = self.current_profile() else { return };
        let mut hosts = self.remembered_hosts();
        for name in names.filter(|name| name.parse::<shared_types::HostName>().is_ok()) {
            hosts.retain(|known| known != name);
            hosts.insert(0, name.to_owned());
        }
        hosts.truncate(MOST_HOSTS);
        // Completion is a convenience: what cannot be written is not worth an error.
        self.dir
            .write_secret(&self.dir.hosts_path(&profile), (hosts.join("\n") + "\n").as_bytes())
            .ok();
    }

    /// Keeps the names of all databases for completion.
    pub fn remember_databases<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let Ok(Some(profile)) = self.current_profile() else { return };
        let names: Vec<&str> = names.take(MOST_HOSTS).collect();
        let path = self.dir.database_names_path(&profile);
        self.dir.write_secret(&path, (names.join("\n") + "\n").as_bytes()).ok();
    }

    /// Names of databases kept for completion.
    pub fn remembered_databases(&self) -> Vec<String> {
        let Ok(Some(profile)) = self.current_profile() else { return Vec::new() };
        let path = self.dir.database_names_path(&profile);
        let text = self.dir.read_secret(&path).ok().flatten().unwrap_or_default();
        // A name is one word of a command line.
        let plain = |line: &&str| !line.is_empty() && !line.contains(char::is_control);
        text.lines().filter(plain).map(str::to_owned).collect()
    }

    /// Host names kept for completion, the newest first.
    pub fn remembered_hosts(&self) -> Vec<String> {
        let Ok(Some(profile)) = self.current_profile() else { return Vec::new() };
        let text =
            self.dir.read_secret(&self.dir.hosts_path(&profile)).ok().flatten().unwrap_or_default();
        text.lines()
            .filter(|line| line.parse::<shared_types::HostName>().is_ok())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shared_pki::CertAuthority;

    use super::*;

    #[test]
    fn a_cluster_of_a_known_name_with_another_authority_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let global = GlobalArgs { home: Some(folder.path().to_owned()), ..GlobalArgs::default() };
        let ctx = Ctx::new(global).unwrap();
        let cluster: shared_types::ClusterName = "example.test".parse().unwrap();
        let authority =
            || CertAuthority::generate(CaKind::Host, &cluster, Utc::now()).unwrap().trusted();
        let (known, other) = (authority(), authority());
        let profile = Profile::new(
            "good:3080".into(),
            "good:3023".into(),
            "joe".parse().unwrap(),
            cluster.clone(),
            false,
        );
        ctx.dir
            .write_secret(&ctx.dir.cas_path(&profile), known.tls_certs.concat().as_bytes())
            .unwrap();
        ctx.dir.save(&profile).unwrap();
        let reply = |authority: &TrustedAuthority| shared_api::AuthoritiesReply {
            cluster: cluster.clone(),
            authorities: vec![authority.clone()],
        };
        let refused = ctx.refuse_namesake("evil", &reply(&other)).unwrap_err();
        assert_eq!(refused.exit_code(), ExitCode::Denied);
        ctx.refuse_namesake("second-door", &reply(&known)).unwrap();
        // The same proxy is compared by its stored authority in the connection itself.
        ctx.refuse_namesake("good", &reply(&other)).unwrap();
        let elsewhere = shared_api::AuthoritiesReply {
            cluster: "other.test".parse().unwrap(),
            ..reply(&other)
        };
        ctx.refuse_namesake("evil", &elsewhere).unwrap();
    }
}
