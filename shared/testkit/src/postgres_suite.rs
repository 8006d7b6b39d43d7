//! PostgreSQL's own regression suite, as `cargo xtask test` brings it: its SQL and what has to come of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::postgres::Postgres;
use crate::process::{command, run};
use crate::scratch::Scratch;
use crate::stores::tools;

/// Where the suite lies, below [`tools`].
pub const FOLDER: &str = "postgres-regress";
/// What runs it (package `postgresql-client-15`).
const RUNNER: &str = "/usr/lib/postgresql/15/lib/pgxs/src/test/regress/pg_regress";

/// The suite of one server.
#[derive(Debug)]
pub struct Suite {
    folder: PathBuf,
    scratch: Scratch,
}

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Names of tests with `ok` or `FAILED`, in the order of the schedule.
    pub tests: Vec<(String, bool)>,
    /// What the failed ones did otherwise.
    pub differences: String,
    /// How long it took.
    pub took: Duration,
}

impl Suite {
    /// None, loudly, where it is not there; in continuous integration it must be.
    pub fn new() -> Result<Option<Self>> {
        let folder = tools().join(FOLDER);
        if !folder.join("regress.so").is_file() {
            let text = format!("no {}; cargo xtask test brings it", folder.display());
            anyhow::ensure!(std::env::var_os("CI").is_none(), text);
            eprintln!("skipped: {text}");
            return Ok(None);
        }
        let scratch = Scratch::new("pgsuite")?;
        // The server reads data and writes tablespaces here, as a user of its own.
        let _copied =
            run(Command::new("cp").arg("-r").arg(&folder).arg(scratch.path().join("in")), "", 60)?
                .ok();
        let _open =
            run(Command::new("chmod").args(["-R", "a+rwX"]).arg(scratch.path()), "", 60)?.ok();
        Ok(Some(Self { folder: scratch.path().join("in"), scratch }))
    }

    /// Runs the whole schedule; `client` says which server (`PGHOST` and so on) and as whom.
    pub fn run(&self, name: &str, client: &Command, postgres: &Postgres) -> Result<Ran> {
        let out = self.scratch.path().join(name);
        std::fs::create_dir_all(out.join("results"))?;
        let _open = run(Command::new("chmod").args(["-R", "a+rwX"]).arg(&out), "", 10)?.ok();
        let mut runner = command(RUNNER, self.scratch.path());
        let settings = client.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let settings =
            settings.filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("PG")));
        let find = |name: &str| {
            let value =
                client.get_envs().find(|(have, _)| *have == name).and_then(|(_, value)| value);
            value
                .and_then(|value| value.to_str())
                .map(str::to_owned)
                .with_context(|| name.to_owned())
        };
        runner.envs(settings.collect::<Vec<_>>());
        runner
            .arg(format!("--host={}", find("PGHOST")?))
            .arg(format!("--port={}", find("PGPORT")?));
        runner.arg(format!("--user={}", find("PGUSER")?));
        runner.arg(format!("--bindir={}", postgres.program("").display()));
        for (flag, path) in
            [("inputdir", &self.folder), ("dlpath", &self.folder), ("outputdir", &out)]
        {
            runner.arg(format!("--{flag}={}", path.display()));
        }
        runner.arg(format!("--schedule={}", self.folder.join("parallel_schedule").display()));
        runner.arg("--max-concurrent-tests=20").arg("--dbname=regression");
        let begun = Instant::now();
        let outcome = run(&mut runner, "", 600)?;
        let took = begun.elapsed();
        let tests = outcome.text().lines().filter_map(result).collect();
        let differences = std::fs::read_to_string(out.join("regression.diffs")).unwrap_or_default();
        Ok(Ran { tests, differences, took })
    }
}

/// `     boolean                      ... ok          123 ms`, or `test …` in front.
fn result(line: &str) -> Option<(String, bool)> {
    let (name, outcome) = line.split_once(" ... ")?;
    let name = name.trim().trim_start_matches("test ").trim();
    let passed = outcome.trim_start().starts_with("ok");
    (passed || outcome.trim_start().starts_with("FAILED")).then(|| (name.to_owned(), passed))
}
