//! The completion scripts in `completions/` are what the programs print.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// Program, shell, file name.
const SCRIPTS: &[(&str, &str, &str)] = &[
    ("tsh", "bash", "tsh.bash"),
    ("tsh", "zsh", "_tsh"),
    ("tsh", "fish", "tsh.fish"),
    ("tctl", "bash", "tctl.bash"),
    ("tctl", "zsh", "_tctl"),
    ("tctl", "fish", "tctl.fish"),
];

/// Writes the scripts, or compares them.
pub(crate) fn run(check: bool) -> Result<()> {
    run::build(&["--bins"], false)?;
    let folder = run::root().join("completions");
    std::fs::create_dir_all(&folder)?;
    for (program, shell, file) in SCRIPTS {
        let output = Command::new(run::target(false).join(program))
            .args(["completion", shell])
            .output()
            .with_context(|| format!("run {program}"))?;
        if !output.status.success() || output.stdout.is_empty() {
            bail!("{program} completion {shell} ended with {}", output.status);
        }
        let path = folder.join(file);
        if !check {
            std::fs::write(&path, &output.stdout)?;
        } else if std::fs::read(&path).unwrap_or_default() != output.stdout {
            bail!("{} is not what {program} prints; run: cargo xtask completions", path.display());
        }
    }
    Ok(())
}
