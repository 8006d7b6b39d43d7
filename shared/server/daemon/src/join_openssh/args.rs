//! The flags of `teleport join openssh`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::timer::TimerChoice;

/// What joins.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTarget {
    Openssh(Box<OpensshArgs>),
}

/// Register this host's sshd with a cluster; no agent runs here
///
/// Joins with a token for a node, has the cluster certify sshd's host key, lets sshd trust the
/// cluster's openssh authority, and registers the host with its labels. Users then reach it through
/// the proxy, as their roles allow, without agent forwarding; sessions are recorded at the proxy.
/// sshd reads the new configuration only after it has found it valid itself; else everything is put
/// back. Said again, the command brings names, labels and configuration up to date, without a token.
#[derive(Debug, Args)]
pub(crate) struct OpensshArgs {
    /// Address of the cluster's proxy
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["undo", "renew"])]
    pub(crate) proxy_server: Option<String>,
    /// Join token, or the absolute path of a file that holds it
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// How this host proves that it may join
    #[arg(long, value_name = "METHOD", default_value = "token", value_parser = ["token"])]
    pub(crate) join_method: String,
    /// Pin of the cluster's host CA (sha256:…), or the path of a file with pins; may be given several times
    #[arg(long, value_name = "PIN")]
    pub(crate) ca_pin: Vec<String>,
    /// Labels of the host, as env=prod,team=db
    #[arg(long, value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// Where the proxy reaches sshd [default: the address the cluster sees, and sshd's port]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) address: Option<String>,
    /// Name of this host in the cluster [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) nodename: Option<String>,
    /// Further names users know this host by
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) additional_principals: Vec<String>,
    /// Configuration of sshd
    #[arg(long, value_name = "FILE", default_value = super::sshd::USUAL_CONFIG)]
    pub(crate) openssh_config: PathBuf,
    /// Program sshd [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) sshd: Option<PathBuf>,
    /// Directory for keys and state, below which this command uses openssh/
    #[arg(long, value_name = "DIR", default_value = "/var/lib/teleport")]
    pub(crate) data_dir: PathBuf,
    /// How to tell sshd of changes [default: systemctl reload, else HUP to the process of its PidFile]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) restart_command: Option<String>,
    /// Let sshd also trust the cluster's user authority, for users who come with their own certificates
    #[arg(long)]
    pub(crate) trust_user_ca: bool,
    /// Replace another TrustedUserCAKeys of sshd's configuration; sshd reads only one
    #[arg(long)]
    pub(crate) replace_user_ca: bool,
    /// Certify a new host key instead of one that sshd has; with --renew, replace the one made before
    #[arg(long)]
    pub(crate) new_host_key: bool,
    /// What renews the certificate
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto")]
    pub(crate) timer: TimerChoice,
    /// Where the timer's files go
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) timer_dir: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with_all = ["undo", "renew"])]
    pub(crate) dry_run: bool,
    /// Renew the host certificate when half of its life is over, and read the authority again
    #[arg(long, conflicts_with = "undo")]
    pub(crate) renew: bool,
    /// With --renew: whatever the age of the certificate
    #[arg(long, requires = "renew")]
    pub(crate) force: bool,
    /// Take back what was added: configuration, timer, keys, and the registration
    #[arg(long)]
    pub(crate) undo: bool,
}
