//! A folder for one test. It goes away with the test, unless the test fails or
//! `GATEHOUSE_KEEP` is set.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder that removes itself.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// A new folder whose name begins with `name`. Paths of Unix sockets are short, so this is too.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("gh-{name}-"))
            .rand_bytes(6)
            .tempdir()
            .context("make a scratch folder")?;
        Ok(Self { path: folder.keep(), keep: false })
    }

    /// Leaves it behind, for somebody to look at.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, made when missing, readable by its owner only.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.path.join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Writes a file readable by its owner only and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content.as_ref())?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() || std::env::var_os("GATEHOUSE_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}
