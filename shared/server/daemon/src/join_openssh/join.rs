//! Joining: everything is found out before anything is changed, and what is changed is put back on any error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use shared_api::Secret;
use shared_cli::CliError;
use shared_types::resource::{NodeSpec, host_of};
use shared_types::{HostName, Labels, Node, parse_labels};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::args::OpensshArgs;
use super::cluster::{Cluster, ClusterError, Wish};
use super::config::{DropIn, Included, is_plain};
use super::files::{self, Changes};
use super::host_key::HostKey;
use super::kept::{self, Identity, Kept, Record};
use super::sshd::{Effective, Sshd};
use super::timer::Timer;
use crate::host_identity::{read_pins, read_tokens};

/// How long taking back a registration may take.
const WITHDRAW: Duration = Duration::from_secs(10);
/// The usual port of sshd.
const PORT: u16 = 22;

/// An error of one of the steps, as the command shows it.
pub(super) fn shown(error: impl std::error::Error + 'static) -> CliError {
    CliError::from_error(&error)
}

pub(super) fn cluster_error(error: ClusterError) -> CliError {
    let hint = error.hint();
    let shown = shown(error);
    match hint {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// What requests to the cluster run on.
pub(super) fn runtime() -> Result<Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::wrap("start the runtime", &error))
}

/// What was decided before anything is done.
struct Plan {
    proxy_server: String,
    node_name: String,
    names: Vec<String>,
    labels: Labels,
    address: String,
    sshd: Sshd,
    /// What sshd's configuration comes to without us.
    before: Effective,
    included: Included,
    timer: Timer,
    program: PathBuf,
}

pub(super) fn run(args: &OpensshArgs) -> Result<(), CliError> {
    if args.dry_run {
        return dry_run(args);
    }
    if let Some(odd) =
        [&args.data_dir, &args.openssh_config].into_iter().find(|path| !is_plain(path))
    {
        return Err(CliError::usage(format!(
            "{} has to be an absolute path without blanks and signs",
            odd.display()
        )));
    }
    let kept = Kept::open(&args.data_dir).map_err(shown)?;
    let mut changes = Changes::default();
    if let Some(record) = kept.record().map_err(shown)? {
        leave(&record, &mut changes)?;
    }
    let plan = Plan::make(args, &kept.own_drop_in())?;
    let (key, made) = host_key(args, &plan, kept.folder())?;
    let runtime = runtime()?;
    let cluster = Cluster::new(&plan.proxy_server);
    let (identity, certificate) = runtime.block_on(member(args, &plan, &kept, &key, &cluster))?;
    let user_ca =
        runtime.block_on(cluster.user_ca(&identity, args.trust_user_ca)).map_err(cluster_error)?;

    if let Some(made) = made {
        changes.write(&kept.host_key(), made.as_bytes(), 0o600).map_err(shown)?;
    }
    changes.write(&kept.certificate(), certificate.as_bytes(), 0o644).map_err(shown)?;
    changes.write(&kept.user_ca(), user_ca.as_bytes(), 0o644).map_err(shown)?;
    configure(&plan, &kept, &key, &mut changes)?;
    let record = plan.record(args, &key);
    let minute = plan.minute(&kept)?;
    let timer = plan.timer.install(&mut changes, &plan.program, &args.data_dir, minute);
    timer.map_err(shown)?;

    let record = kept.record_text(&record).map_err(shown)?;
    changes.write(&kept.record_path(), &record, 0o600).map_err(shown)?;

    let node = plan.node(&kept)?;
    runtime.block_on(cluster.register(&identity, &node)).map_err(cluster_error)?;
    let reload = plan.sshd.reload(args.restart_command.as_deref(), &plan.before);
    let finished = reload.run().map_err(shown).and_then(|()| plan.timer.start().map_err(shown));
    if let Err(error) = finished {
        let _ = runtime
            .block_on(async { tokio::time::timeout(WITHDRAW, cluster.withdraw(&identity)).await });
        drop(changes);
        // Told again, so that it does not go on with what is not there any more.
        let _ = reload.run();
        return Err(error);
    }
    changes.keep();
    println!("{} is registered as {} ({})", plan.address, plan.node_name, node.name());
    println!("Configuration: {}", plan.included.path().display());
    println!("Host key: {}", key.path.display());
    println!("Told sshd with: {reload}");
    println!("Renewed by: {}", plan.timer);
    Ok(())
}

impl Plan {
    fn make(args: &OpensshArgs, own_drop_in: &Path) -> Result<Self, CliError> {
        let sshd = Sshd::find(args.sshd.as_deref(), &args.openssh_config).map_err(shown)?;
        sshd.check(&sshd.config).map_err(shown)?;
        let before = sshd.effective(&sshd.config).map_err(shown)?;
        check(args, &before)?;
        let main = files::read_text(&sshd.config).map_err(shown)?.unwrap_or_default();
        let node_name = args.nodename.clone().unwrap_or_else(crate::services::host_name);
        let names = args.additional_principals.iter().chain([&node_name]);
        for name in names {
            HostName::new(name.as_str())
                .map_err(|error| CliError::usage(format!("{name:?}: {error}")))?;
        }
        let labels = parse_labels(args.labels.as_deref().unwrap_or_default())
            .map_err(|error| CliError::usage(format!("--labels: {error}")))?;
        let program = std::env::current_exe()
            .and_then(|path| path.canonicalize())
            .map_err(|error| CliError::wrap("find this program", &error))?;
        Ok(Self {
            proxy_server: args.proxy_server.clone().unwrap_or_default(),
            address: address(args.address.as_deref(), before.port),
            names: names_of(args),
            node_name,
            labels,
            included: Included::find(&main, own_drop_in),
            timer: Timer::choose(args.timer, args.timer_dir.as_deref()).map_err(shown)?,
            sshd,
            before,
            program,
        })
    }

    fn wish<'a>(&'a self, host_id: shared_types::HostId, key: &'a HostKey) -> Wish<'a> {
        Wish { host_id, node_name: &self.node_name, names: &self.names, host_key: &key.public }
    }

    fn node(&self, kept: &Kept) -> Result<Node, CliError> {
        let spec = NodeSpec {
            addr: self.address.clone(),
            hostname: self.node_name.clone(),
            public_addrs: self.names.clone(),
            ..NodeSpec::default()
        };
        let mut node = Node::new_openssh(kept.host_id().map_err(shown)?, spec);
        node.metadata.labels = self.labels.clone();
        Ok(node)
    }

    /// A minute of the hour that is not that of every other host.
    fn minute(&self, kept: &Kept) -> Result<u8, CliError> {
        let id = kept.host_id().map_err(shown)?.to_string();
        Ok(id.bytes().fold(0, u8::wrapping_add) % 60)
    }

    fn record(&self, args: &OpensshArgs, key: &HostKey) -> Record {
        Record {
            proxy_server: self.proxy_server.clone(),
            node_name: self.node_name.clone(),
            names: self.names.clone(),
            labels: self.labels.clone(),
            address: self.address.clone(),
            sshd: self.sshd.program.clone(),
            openssh_config: self.sshd.config.clone(),
            restart_command: args.restart_command.clone(),
            host_key: key.path.clone(),
            own_host_key: key.own,
            trust_user_ca: args.trust_user_ca,
            drop_in: self.included.path().to_owned(),
            added_line: matches!(self.included, Included::Line(_)),
            timer: self.timer.clone(),
        }
    }
}

/// Refuses where our lines would have no effect, or take away another's.
fn check(args: &OpensshArgs, before: &Effective) -> Result<(), CliError> {
    if !before.public_keys {
        return Err(CliError::new(
            "sshd's configuration has PubkeyAuthentication no, and certificates need it",
        )
        .hint("set PubkeyAuthentication yes in sshd's configuration"));
    }
    let own = kept::folder(&args.data_dir).join("user_ca.pub");
    match &before.trusted_ca {
        Some(path) if !args.replace_user_ca && *path != own => Err(CliError::new(format!(
            "sshd already trusts the authorities in {} (TrustedUserCAKeys), and reads only one such file",
            path.display()
        ))
        .hint("remove that line, or give --replace-user-ca; with --trust-user-ca the cluster's user authority stays trusted")),
        _ => Ok(()),
    }
}

/// The further names of the host's certificate: those given, and the host of an address that was given.
fn names_of(args: &OpensshArgs) -> Vec<String> {
    let mut names = args.additional_principals.clone();
    if let Some(address) = &args.address {
        let host = host_of(address);
        let everybody = host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback());
        if !everybody && !names.iter().any(|name| name == host) {
            names.push(host.to_owned());
        }
    }
    names
}

/// `host:port` of sshd. Without a host the cluster takes the address from which it is asked.
fn address(wanted: Option<&str>, port: u16) -> String {
    let port = if port == 0 { PORT } else { port };
    match wanted {
        None => format!("0.0.0.0:{port}"),
        Some(address) if host_of(address) != address => address.to_owned(),
        Some(address) if address.contains(':') => format!("[{address}]:{port}"),
        Some(address) => format!("{address}:{port}"),
    }
}

/// The key to certify; one that is made is not written yet.
fn host_key(
    args: &OpensshArgs,
    plan: &Plan,
    folder: &Path,
) -> Result<(HostKey, Option<Zeroizing<String>>), CliError> {
    let certificate = folder.join("ssh_host-cert.pub");
    let of_sshd = HostKey::of_sshd(&plan.before, &certificate);
    match of_sshd.filter(|_| !args.new_host_key) {
        Some(key) => Ok((key, None)),
        None => {
            let beside = &plan.before.host_keys;
            HostKey::own(&folder.join("ssh_host_key"), args.new_host_key, beside).map_err(shown)
        }
    }
}

/// Certificates: by those in hand, else with the token.
async fn member(
    args: &OpensshArgs,
    plan: &Plan,
    kept: &Kept,
    key: &HostKey,
    cluster: &Cluster,
) -> Result<(Identity, String), CliError> {
    let wish = plan.wish(kept.host_id().map_err(shown)?, key);
    let identity = kept.identity().map_err(shown)?;
    if let Some(identity) = identity.filter(|identity| identity.valid_until > Utc::now()) {
        match cluster.renew(kept, &identity, &wish).await {
            Ok(renewed) => return Ok(renewed),
            Err(error) if args.token.is_none() || error.is_transient() => {
                return Err(cluster_error(error));
            }
            Err(error) => eprintln!("{}; joining with the token", server_core::chain(&error)),
        }
    }
    let token = args.token.as_deref().ok_or_else(|| {
        CliError::usage("--token is missing").hint("make one with: tctl tokens add --type=node")
    })?;
    let token = match token.starts_with('/') {
        false => Secret::new(token),
        true => read_tokens(Path::new(token))
            .map_err(|error| CliError::wrap(format!("read {token}"), &error))?
            .swap_remove(0),
    };
    let pins = read_pins(&args.ca_pin).map_err(shown)?;
    cluster.join(kept, &wish, &token, &pins).await.map_err(cluster_error)
}

/// Writes our lines, after sshd has found the whole valid, and has it looked at once more where it is.
fn configure(
    plan: &Plan,
    kept: &Kept,
    key: &HostKey,
    changes: &mut Changes,
) -> Result<(), CliError> {
    let sshd = &plan.sshd;
    let main = files::read_text(&sshd.config).map_err(shown)?.unwrap_or_default();
    let certificate = kept.certificate();
    let user_ca = kept.user_ca();
    let text = |host_keys: &[PathBuf]| {
        DropIn { host_keys, certificate: &certificate, user_ca: &user_ca }.text()
    };
    let tried = |host_keys: &[PathBuf]| -> Result<Effective, CliError> {
        let path = kept.path("sshd_config.try");
        let all = format!("{}{main}", text(host_keys));
        files::replace(&path, all.as_bytes(), 0o600, None).map_err(shown)?;
        let found = sshd.check(&path).and_then(|()| sshd.effective(&path));
        std::fs::remove_file(&path).ok();
        found.map_err(shown)
    };
    let mut host_keys = if key.own { vec![key.path.clone()] } else { Vec::new() };
    let found = tried(&host_keys)?;
    // Naming one key takes away those that nobody named.
    let lost = plan.before.host_keys.iter().filter(|path| !found.host_keys.contains(path));
    let lost: Vec<PathBuf> = lost.filter(|path| path.exists()).cloned().collect();
    host_keys.splice(0..0, lost);
    if !host_keys.is_empty() {
        tried(&host_keys)?;
    }

    if let Included::Line(_) = plan.included {
        let copy = kept.path("sshd_config.before");
        files::replace(&copy, main.as_bytes(), 0o600, None).map_err(shown)?;
    }
    changes
        .write(plan.included.path(), text(&host_keys).as_bytes(), 0o644)
        .and_then(|()| changes.write(&sshd.config, plan.included.added(&main).as_bytes(), 0o644))
        .map_err(shown)?;
    sshd.check(&sshd.config).map_err(shown)?;
    let now = sshd.effective(&sshd.config).map_err(shown)?;
    took_effect(&now, &certificate, &user_ca, key, &sshd.config)
}

/// Refuses where something of sshd's configuration stands in front of our lines.
fn took_effect(
    now: &Effective,
    certificate: &Path,
    user_ca: &Path,
    key: &HostKey,
    config: &Path,
) -> Result<(), CliError> {
    let missing = if now.trusted_ca.as_deref() != Some(user_ca) {
        "TrustedUserCAKeys"
    } else if !now.host_certificates.iter().any(|path| path == certificate) {
        "HostCertificate"
    } else if !now.host_keys.contains(&key.path) {
        "HostKey"
    } else {
        return Ok(());
    };
    let what = format!(
        "{missing} has no effect: {} sets it otherwise in front of its Include",
        config.display()
    );
    Err(CliError::new(what).hint("move the Include to the top of the file, or remove that line"))
}

/// Takes our lines out, as the first step of writing them anew or of going.
pub(super) fn leave(record: &Record, changes: &mut Changes) -> Result<(), CliError> {
    let included = record.included();
    if let Some(main) = files::read_text(&record.openssh_config).map_err(shown)? {
        let without = included.removed(&main);
        if without != main {
            changes.write(&record.openssh_config, without.as_bytes(), 0o644).map_err(shown)?;
        }
    }
    changes.remove(included.path()).map_err(shown)
}

/// Says what would be done. Of a host that has joined already, what is there counts as the administrator's.
fn dry_run(args: &OpensshArgs) -> Result<(), CliError> {
    let folder = kept::folder(&args.data_dir);
    let plan = Plan::make(args, &folder.join("sshd.conf"))?;
    let certificate = folder.join("ssh_host-cert.pub");
    let key = HostKey::of_sshd(&plan.before, &certificate).filter(|_| !args.new_host_key);
    let reload = plan.sshd.reload(args.restart_command.as_deref(), &plan.before);
    println!("Join the cluster at {} as {}", plan.proxy_server, plan.node_name);
    println!("Register sshd at {}", plan.address);
    match &key {
        Some(key) => println!("Certify the host key {}", key.path.display()),
        None => println!("Make a host key, and certify it"),
    }
    let user_ca = folder.join("user_ca.pub");
    let host_keys: Vec<PathBuf> = match key {
        Some(_) => Vec::new(),
        None => {
            plan.before.host_keys.iter().cloned().chain([folder.join("ssh_host_key")]).collect()
        }
    };
    let text =
        DropIn { host_keys: &host_keys, certificate: &certificate, user_ca: &user_ca }.text();
    println!("Write {}:", plan.included.path().display());
    text.lines().for_each(|line| println!("    {line}"));
    if let Included::Line(_) = plan.included {
        println!("Add an Include of it to the top of {}", plan.sshd.config.display());
    }
    println!("Tell sshd with: {reload}");
    println!("Renew by: {}", plan.timer);
    println!("Nothing was changed.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_port_of_sshd() {
        for (wanted, expected) in [
            (None, "0.0.0.0:2222"),
            (Some("db-7"), "db-7:2222"),
            (Some("db-7:22"), "db-7:22"),
            (Some("::1"), "[::1]:2222"),
            (Some("[fd00::7]:22"), "[fd00::7]:22"),
        ] {
            assert_eq!(address(wanted, 2222), expected);
        }
        assert_eq!(address(None, 0), "0.0.0.0:22");
    }
}
