//! Making files and folders that survive a power cut: content, then name, then Ok.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// A folder and its parents, 0700 where new, durable when this returns.
pub(crate) fn create_dir_durable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir_durable(parent)?;
        match private_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        return sync_dir(parent);
    }
    private_dir(path)
}

fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A new or emptied file that only the owner reads.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Gives the finished file its name, unless something has that name: `false` then.
pub(crate) fn publish(temporary: &Path, name: &Path) -> io::Result<bool> {
    match fs::hard_link(temporary, name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::remove_file(temporary)?;
    if let Some(parent) = name.parent() {
        sync_dir(parent)?;
    }
    Ok(true)
}
