//! `cargo xtask test`: installs, builds everything once, runs every test, and closes with one line
//! that counts them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{completions, layers, packages, run, suites};

/// Python programs and libraries of the tests.
const PYTHON: &[&str] = &[
    "ssh-audit",
    "paramiko",
    "asyncssh",
    "psycopg[binary]",
    "redis",
    "boto3",
    "pymysql",
    "mysql-connector-python",
];

/// Runs all tests; `args` go to `cargo test`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    packages::install(packages::TEST)?;
    packages::stores()?;
    suites::bring()?;
    packages::dynamodb()?;
    let tools = packages::python(PYTHON)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?;
    layers::check()?;
    run::build(&["--bins"], false)?;
    completions::run(true)?;
    let mut child = run::cargo()
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .args(args)
        .env("PATH", path)
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut passed = 0;
    let mut failed = 0;
    let mut skipped = 0;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(counts) = line.strip_prefix("test result: ") {
                passed += count(counts, "passed");
                failed += count(counts, "failed");
                skipped += count(counts, "ignored");
            }
            println!("{line}");
        }
    }
    let status = child.wait()?;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if !status.success() || failed > 0 {
        bail!("tests failed");
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The number in front of `word`.
fn count(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().unwrap_or_default().trim_end();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_are_read_from_the_runner() {
        let line = "ok. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            (count(line, "passed"), count(line, "failed"), count(line, "ignored")),
            (12, 3, 1)
        );
    }
}
