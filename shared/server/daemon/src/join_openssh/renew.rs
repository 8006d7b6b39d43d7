//! `--renew`, which the timer runs: a new certificate when half of the life of the one there is over or its key is
//! another by now, and the authority as the cluster has it now. sshd is told when something has changed.

use chrono::{DateTime, Utc};
use shared_cli::CliError;
use zeroize::Zeroizing;

use super::args::OpensshArgs;
use super::cluster::{Cluster, Wish};
use super::files::{self, Changes};
use super::host_key::HostKey;
use super::join::{cluster_error, runtime, shown};
use super::kept::{self, Kept, Record};
use super::sshd::Sshd;

pub(super) const NOT_JOINED: &str = "this host's sshd has not joined a cluster";

/// The certificate that is there.
struct Shown {
    /// When half of its life is over.
    half: DateTime<Utc>,
    end: DateTime<Utc>,
    /// Whether it is for the host key of now.
    fits: bool,
}

pub(super) fn run(args: &OpensshArgs) -> Result<(), CliError> {
    if !kept::folder(&args.data_dir).is_dir() {
        return Err(not_joined());
    }
    let kept = Kept::open(&args.data_dir).map_err(shown)?;
    let record = kept.record().map_err(shown)?.ok_or_else(not_joined)?;
    let identity = kept.identity().map_err(shown)?.ok_or_else(not_joined)?;
    let now = Utc::now();
    if identity.valid_until <= now {
        return Err(CliError::new(format!(
            "the certificates of this host ended at {}",
            identity.valid_until
        ))
        .hint("join again, with a new token: teleport join openssh --proxy-server=… --token=…"));
    }
    let (key, made) = host_key(args, &record, &kept)?;
    let due = match certificate(&kept, &key)? {
        Some(there) if there.fits && now < there.half && !args.force && made.is_none() => {
            Some(there)
        }
        _ => None,
    };

    let (runtime, cluster) = (runtime()?, Cluster::new(&record.proxy_server));
    let mut changes = Changes::default();
    let mut identity = identity;
    if due.is_none() {
        let wish = Wish {
            host_id: kept.host_id().map_err(shown)?,
            node_name: &record.node_name,
            names: &record.names,
            host_key: &key.public,
        };
        let renewed = runtime.block_on(cluster.renew(&kept, &identity, &wish));
        let (new, text) = renewed.map_err(cluster_error)?;
        identity = new;
        if let Some(made) = made {
            changes.write(&record.host_key, made.as_bytes(), 0o600).map_err(shown)?;
        }
        changes.write(&kept.certificate(), text.as_bytes(), 0o644).map_err(shown)?;
    }
    let user_ca = runtime.block_on(cluster.user_ca(&identity, record.trust_user_ca));
    let user_ca = user_ca.map_err(cluster_error)?;
    changes.write(&kept.user_ca(), user_ca.as_bytes(), 0o644).map_err(shown)?;
    if !changes.is_empty() {
        tell(&record)?;
    }
    changes.keep();
    match (due, certificate(&kept, &key)?) {
        (None, Some(there)) => {
            println!("The host certificate was renewed, it is valid until {}", there.end)
        }
        (Some(there), _) => println!("Nothing to renew before {}", there.half),
        (None, None) => return Err(CliError::new("the new host certificate is not readable")),
    }
    Ok(())
}

pub(super) fn not_joined() -> CliError {
    CliError::new(NOT_JOINED)
        .hint("teleport join openssh --proxy-server=… --token=…; --data-dir where that is another")
}

/// Checks what is there now, and has sshd read it.
fn tell(record: &Record) -> Result<(), CliError> {
    let sshd = Sshd { program: record.sshd.clone(), config: record.openssh_config.clone() };
    sshd.check(&sshd.config).map_err(shown)?;
    let effective = sshd.effective(&sshd.config).map_err(shown)?;
    sshd.reload(record.restart_command.as_deref(), &effective).run().map_err(shown)
}

fn host_key(
    args: &OpensshArgs,
    record: &Record,
    kept: &Kept,
) -> Result<(HostKey, Option<Zeroizing<String>>), CliError> {
    if !record.own_host_key {
        if args.new_host_key {
            let what = format!(
                "the host key {} is sshd's own and is not replaced here",
                record.host_key.display()
            );
            return Err(CliError::new(what).hint(
                "replace it with ssh-keygen, then say --renew; or join again with --new-host-key",
            ));
        }
        return HostKey::read(&record.host_key, false).map(|key| (key, None)).map_err(shown);
    }
    let sshd = Sshd { program: record.sshd.clone(), config: record.openssh_config.clone() };
    let beside = sshd.effective(&sshd.config).map_err(shown)?.host_keys;
    HostKey::own(&kept.host_key(), args.new_host_key, &beside).map_err(shown)
}

/// The certificate that sshd has now; none where it is not readable.
fn certificate(kept: &Kept, key: &HostKey) -> Result<Option<Shown>, CliError> {
    let Some(text) = files::read_text(&kept.certificate()).map_err(shown)? else { return Ok(None) };
    let Ok(certificate) = shared_pki::parse_certificate_line(text.trim()) else { return Ok(None) };
    let at = |seconds: u64| {
        i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0))
    };
    let (Some(start), Some(end)) = (at(certificate.valid_after()), at(certificate.valid_before()))
    else {
        return Ok(None);
    };
    let fits = shared_pki::parse_public_key(&key.public)
        .is_ok_and(|key| key.key_data() == certificate.public_key());
    Ok(Some(Shown { half: start + (end - start) / 2, end, fits }))
}
