//! What is checked in of the command lines: completion scripts in `completions/` and manual pages in `man/` are what
//! the programs say of themselves.

use std::collections::BTreeMap;
use std::path::Path;
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

type Files = BTreeMap<String, Vec<u8>>;

/// Writes scripts and pages, or compares them.
pub(crate) fn run(check: bool) -> Result<()> {
    run::build(&["--bins"], false)?;
    keep("completions", scripts()?, check)?;
    keep("man", pages()?, check)
}

fn scripts() -> Result<Files> {
    let mut files = Files::new();
    for (program, shell, file) in SCRIPTS {
        let output = Command::new(run::target(false).join(program))
            .args(["completion", shell])
            .output()
            .with_context(|| format!("run {program}"))?;
        if !output.status.success() || output.stdout.is_empty() {
            bail!("{program} completion {shell} ended with {}", output.status);
        }
        files.insert((*file).to_owned(), output.stdout);
    }
    Ok(files)
}

fn pages() -> Result<Files> {
    let folder = run::target(false).join("man");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    run::binary("manual", false, &[folder.display().to_string()])?;
    read(&folder)
}

fn read(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(err) => return Err(err).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, std::fs::read(&path)?);
    }
    Ok(files)
}

/// The folder holds these files and no others.
fn keep(name: &str, files: Files, check: bool) -> Result<()> {
    let folder = run::root().join(name);
    let have = read(&folder)?;
    if check {
        let names = have.keys().chain(files.keys());
        if let Some(file) = names.into_iter().find(|file| have.get(*file) != files.get(*file)) {
            bail!("{name}/{file} is not what the programs say; run: cargo xtask completions");
        }
        return Ok(());
    }
    std::fs::create_dir_all(&folder)?;
    for file in have.keys().filter(|file| !files.contains_key(*file)) {
        std::fs::remove_file(folder.join(file))?;
    }
    for (file, bytes) in files {
        std::fs::write(folder.join(file), bytes)?;
    }
    Ok(())
}
