//! The command line of `teleport`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shared_cli::{CliError, ExitCode};

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
    /// Print the version
    Version,
    /// Say whether this shell runs inside a recorded session
    Status,
}

/// Start the services that the configuration enables
///
/// Without a file, auth and proxy run in one process on the ports users know (auth 3025, proxy
/// 3080 and 3023). The actual addresses are written to DATA_DIR/listen.json once all listen.
/// TERM and INT let running sessions end; a second signal ends at once.
#[derive(Debug, Args)]
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
    /// Address of the auth service to join
    #[arg(long, value_name = "ADDR")]
    pub auth_server: Option<String>,
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
}

/// Print or test a configuration file
#[derive(Debug, Args)]
pub struct ConfigureArgs {
    /// Where to write: stdout, file (/etc/teleport.yaml) or file:///PATH
    #[arg(short, long, default_value = "stdout", value_name = "WHERE")]
    pub output: String,
    /// Name of the cluster; cannot change after the first start
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Address under which users reach the proxy
    #[arg(long, value_name = "HOST:PORT")]
    pub public_addr: Option<String>,
    /// Directory for state, keys and recordings
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Only check this file: prints OK or FAIL and the reason
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "cluster_name", "public_addr", "data_dir"])]
    pub test: Option<PathBuf>,
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    match cli.command {
        Command::Start(args) => crate::start::run(args),
        Command::Configure(args) => crate::configure::run(args),
        Command::Version => crate::version::print(),
        Command::Status => crate::version::status(),
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
