//! `--undo`: sshd is as it was before, byte for byte; what the cluster knows of it is taken back where it can be reached.

use std::time::Duration;

use shared_cli::CliError;

use super::args::OpensshArgs;
use super::cluster::Cluster;
use super::files::Changes;
use super::join::{leave, runtime, shown};
use super::kept::{self, Kept, Record};
use super::renew::not_joined;
use super::sshd::Sshd;

/// How long the cluster is waited for.
const WITHDRAW: Duration = Duration::from_secs(10);

pub(super) fn run(args: &OpensshArgs) -> Result<(), CliError> {
    if !kept::folder(&args.data_dir).is_dir() {
        return Err(not_joined());
    }
    let kept = Kept::open(&args.data_dir).map_err(shown)?;
    let record = kept.record().map_err(shown)?.ok_or_else(not_joined)?;
    let sshd = Sshd { program: record.sshd.clone(), config: record.openssh_config.clone() };
    let mut changes = Changes::default();
    leave(&record, &mut changes)?;
    sshd.check(&sshd.config).map_err(shown)?;
    let effective = sshd.effective(&sshd.config).map_err(shown)?;
    let reload = sshd.reload(record.restart_command.as_deref(), &effective);
    reload.run().map_err(shown)?;
    record.timer.remove(&mut changes).map_err(shown)?;
    changes.keep();
    match withdraw(&kept, &record) {
        Ok(()) => println!("The registration is taken back"),
        Err(error) => eprintln!(
            "the registration of {} stays: {}; remove it with: tctl rm node/{}",
            record.node_name,
            error.message(),
            kept.host_id().map_err(shown)?,
        ),
    }
    kept.clear();
    println!("{} is as it was; told sshd with: {reload}", record.openssh_config.display());
    Ok(())
}

fn withdraw(kept: &Kept, record: &Record) -> Result<(), CliError> {
    let identity = kept.identity().map_err(shown)?.ok_or_else(not_joined)?;
    let cluster = Cluster::new(&record.proxy_server);
    let done = runtime()?
        .block_on(async { tokio::time::timeout(WITHDRAW, cluster.withdraw(&identity)).await });
    match done {
        Ok(done) => done.map_err(shown),
        Err(_) => Err(CliError::new("the cluster did not answer")),
    }
}
