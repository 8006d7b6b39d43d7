//! Developer tasks: `cargo xtask demo|test|bench|completions|layers`. Each sets up what it needs.

mod completions;
mod layers;
mod packages;
mod run;
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
        Task::Completions { check } => completions::run(check),
        Task::Layers => layers::check(),
    }
}
