//! The daemon `teleport`.

use clap::Parser;

fn main() -> std::process::ExitCode {
    shared_cli::run_main(server_daemon::cli::run(server_daemon::cli::Cli::parse()))
}
