//! The command line of `teleport`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shared_cli::{CliError, ExitCode};

use crate::join_openssh::JoinTarget;

/// Auth and proxy services of Gatehouse in one program
#[derive(Debug, Parser)]
#[command(name = "teleport", disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(StartArgs),
    Configure(ConfigureArgs),
    Node(NodeArgs),
    Db(DbArgs),
    /// Join a cluster with something that runs without this program
    #[command(subcommand)]
    Join(JoinTarget),
    /// Print the version
    Version,
    /// Say whether this shell runs inside a recorded session
    Status,
    /// Run a session's program as its login; for the service itself
    #[command(hide = true)]
    Exec,
    /// Serve SFTP on standard input and output
    #[command(hide = true)]
    Sftp,
}

/// Start the services that the configuration enables
///
/// Without a file, the services that --roles names (auth and proxy when it is left out) run in one
/// process on the ports users know (auth 3025, proxy 3080 and 3023, node 3022). The actual addresses are written to DATA_DIR/listen.json once all listen.
/// TERM and INT let running sessions end; a second signal ends at once.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Configuration file [default: /etc/teleport.yaml when it exists]
    #[arg(short, long, value_name = "FILE", env = "TELEPORT_CONFIG_FILE")]
    pub config: Option<PathBuf>,
    /// Directory for state, keys and recordings; beats the file
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Services to run, out of those configured
    #[arg(short, long, value_name = "ROLES", value_delimiter = ',')]
    pub roles: Vec<Role>,
    /// Join token, or the absolute path of a file that holds it
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Address of the auth service to join; may be given several times
    #[arg(long, value_name = "ADDR", conflicts_with = "proxy_server")]
    pub auth_server: Vec<String>,
    /// Address of the proxy through which an agent joins and is reached
    #[arg(long, value_name = "ADDR")]
    pub proxy_server: Option<String>,
    /// Name of this host in the cluster
    #[arg(long, value_name = "NAME")]
    pub nodename: Option<String>,
    /// Labels of this host's node: k=v,k2=v2
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// Address under which others reach this host
    #[arg(long, value_name = "ADDR")]
    pub advertise_ip: Option<String>,
    /// Pin of the cluster's host CA (sha256:…); may be given several times
    #[arg(long, value_name = "PIN")]
    pub ca_pin: Vec<String>,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Log more
    #[arg(short, long)]
    pub debug: bool,
}

/// A service that `--roles` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// The auth service.
    Auth,
    /// The proxy service.
    Proxy,
    /// The SSH service.
    Node,
    /// The database service.
    Db,
}

/// Print or test a configuration file
#[derive(Debug, Args)]
pub struct ConfigureArgs {
    /// Where to write: stdout, file (/etc/teleport.yaml) or file:///PATH
    #[arg(short, long, default_value = "stdout", value_name = "WHERE")]
    pub output: String,
    /// Version of the file's form
    #[arg(long, default_value = "v3", value_parser = ["v1", "v2", "v3"])]
    pub version: String,
    /// Services to switch on
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    pub roles: Vec<Role>,
    /// Name of the cluster; cannot change after the first start
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// How it joins.
    #[command(flatten)]
    pub join: JoinArgs,
    /// Address under which users reach the proxy
    #[arg(long, value_name = "HOST:PORT")]
    pub public_addr: Option<String>,
    /// Directory for state, keys and recordings
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Only check this file: prints OK or FAIL and the reason
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "cluster_name", "public_addr", "data_dir", "roles"])]
    pub test: Option<PathBuf>,
}

/// How a service joins, in a new configuration file.
#[derive(Debug, Default, Args)]
pub struct JoinArgs {
    /// Join token, or the absolute path of a file that holds it
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How this host proves itself to the cluster
    #[arg(long, value_name = "METHOD", value_parser = ["token"])]
    pub join_method: Option<String>,
    /// Address of the auth service to join
    #[arg(long, value_name = "ADDR", conflicts_with = "proxy")]
    pub auth_server: Option<String>,
    /// Address of the proxy through which an agent joins and is reached
    #[arg(long, value_name = "ADDR")]
    pub proxy: Option<String>,
    /// Pin of the cluster's host CA (sha256:…); may be given several times
    #[arg(long, value_name = "PIN")]
    pub ca_pin: Vec<String>,
    /// Name of this host in the cluster
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Labels of this host's node: k=v,k2=v2
    #[arg(long, alias = "labels", value_name = "LABELS")]
    pub node_labels: Option<String>,
}

/// Work with SSH nodes
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: NodeVerb,
}

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Print a configuration file for an SSH node
    Configure(NodeConfigureArgs),
}

/// Print a configuration file for an SSH node
#[derive(Debug, Args)]
pub struct NodeConfigureArgs {
    /// Where to write: stdout, file (/etc/teleport.yaml) or file:///PATH
    #[arg(short, long, default_value = "stdout", value_name = "WHERE")]
    pub output: String,
    /// Version of the file's form
    #[arg(long, default_value = "v3", value_parser = ["v1", "v2", "v3"])]
    pub version: String,
    /// Address under which others reach the node
    #[arg(long, value_name = "HOST:PORT")]
    pub public_addr: Option<String>,
    /// Directory for state, keys and recordings
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How it joins.
    #[command(flatten)]
    pub join: JoinArgs,
}

/// Work with databases
#[derive(Debug, Args)]
pub struct DbArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: DbVerb,
}

/// What can be done with databases.
#[derive(Debug, Subcommand)]
pub enum DbVerb {
    /// Start an agent in front of a database
    Start(DbStartArgs),
}

/// Start an agent in front of a database
///
/// Without a configuration file, the flags say which database it is; with one, they add a database to its db_service.
#[derive(Debug, Args)]
pub struct DbStartArgs {
    /// Name of the database in the cluster
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Text for people
    #[arg(long, value_name = "TEXT", requires = "name")]
    pub description: Option<String>,
    /// What it speaks: postgres, cockroachdb, mysql, redis or dynamodb
    #[arg(long, value_name = "PROTOCOL", requires = "name")]
    pub protocol: Option<String>,
    /// Where it is
    #[arg(long, value_name = "HOST:PORT", requires = "name")]
    pub uri: Option<String>,
    /// File of those whom its certificate is checked by; the cluster's database CA when left out
    #[arg(long, value_name = "FILE", requires = "name")]
    pub ca_cert: Option<String>,
    /// How the agent runs.
    #[command(flatten)]
    pub start: StartArgs,
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    match cli.command {
        Command::Start(args) => crate::start::run(args),
        Command::Configure(args) => crate::configure::run(args),
        Command::Db(DbArgs { verb: DbVerb::Start(args) }) => crate::start::run_db(args),
        Command::Join(target) => crate::join_openssh::run(target),
        Command::Node(NodeArgs { verb: NodeVerb::Configure(args) }) => {
            crate::configure::run_node(args)
        }
        Command::Version => crate::version::print(),
        Command::Status => crate::version::status(),
        Command::Exec => Ok(ExitCode::Remote(server_ssh::child::run_exec())),
        Command::Sftp => Ok(ExitCode::Remote(server_ssh::child::run_sftp())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
