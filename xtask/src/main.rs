//! Developer tasks: `cargo xtask demo|test|bench|chaos|stream|completions|layers`. Each sets up what it needs.

mod chaos;
mod completions;
mod layers;
mod packages;
mod run;
mod stream;
mod suites;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Gatehouse")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the main job on a real sshd, printing each command as a user types it
    Demo,
    /// Install what the tests need and run all of them
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure the hot paths against OpenSSH in one run
    Bench {
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Kill, freeze, fill and cut at random moments of live sessions, and check what must be true
    Chaos(chaos::ChaosArgs),
    /// Send gigabytes through the proxy in each recording mode, and say what they cost in memory
    Stream(stream::StreamArgs),
    /// Write the completion scripts into `completions/` and the manual pages into `man/`
    Completions {
        /// Only compare, and fail when they differ
        #[arg(long)]
        check: bool,
    },
    /// Check the direction of dependencies between crates
    Layers,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Demo => {
            packages::install(packages::DEMO)?;
            run::build(&["--bins"], false)?;
            run::binary("demo", false, &[])
        }
        Task::Test { args } => test::run(&args),
        Task::Bench { args } => {
            packages::install(packages::BENCH)?;
            run::build(&["--bins"], true)?;
            run::binary("bench", true, &args)
        }
        Task::Chaos(args) => chaos::run(&args),
        Task::Stream(args) => stream::run(&args),
        Task::Completions { check } => completions::run(check),
        Task::Layers => layers::check(),
    }
}
