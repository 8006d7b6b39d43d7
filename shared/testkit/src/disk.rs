//! A small disk that can be full. Only root can make one.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A file system in memory, mounted until it is dropped. What uses it must have ended by then.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of this size at `path`, which is made. `None`, with a word, for who may not; in continuous
    /// integration that fails.
    pub fn mount(path: &Path, mib: u64) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            ensure!(std::env::var_os("CI").is_none(), "only root can mount a small disk");
            eprintln!("skipped: only root can mount a small disk");
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "gatehouse-test"])
            .arg(path)
            .status()
            .context("start mount")?;
        ensure!(status.success(), "mount on {} ended with {status}", path.display());
        Ok(Some(Self { path: path.to_owned() }))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        for size in [64 * 1024, 4096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also where somebody still has a file open in it.
        Command::new("umount").arg("--lazy").arg(&self.path).status().ok();
    }
}
