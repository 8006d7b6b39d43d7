//! To the server.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use russh_sftp::client::SftpSession;
use russh_sftp::client::fs::Metadata;
use russh_sftp::protocol::OpenFlags;
use shared_cli::CliError;

use super::place::{Plan, join, last_name};
use super::{CHUNK, How, MAX_DEPTH, Report};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Copies everything that was asked for.
pub(super) async fn all(
    sftp: &SftpSession,
    plan: &Plan,
    how: How,
    report: &mut Report,
) -> Result<(), CliError> {
    let to = plan.remote.first().map(String::as_str).filter(|to| !to.is_empty()).unwrap_or(".");
    let is_folder = sftp.metadata(to).await.is_ok_and(|told| told.is_dir());
    if plan.local.len() > 1 && !is_folder {
        return Err(CliError::new(format!("{to}: not a folder on the server")));
    }
    for from in &plan.local {
        if let Err(why) = one(sftp, from, (to, is_folder), how, report).await {
            report.failed(&from.display().to_string(), &why);
        }
    }
    Ok(())
}

/// One place that the user named.
async fn one(
    sftp: &SftpSession,
    from: &Path,
    (to, is_folder): (&str, bool),
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    let told = std::fs::metadata(from)?;
    let to = match (is_folder, from.to_str().and_then(last_name)) {
        (true, Some(name)) => join(to, name),
        // `.` and the like into a folder: its content.
        (true, None) if told.is_dir() => to.to_owned(),
        (true, None) => return Err("is no file".into()),
        (false, _) => to.to_owned(),
    };
    if told.is_file() {
        return file(sftp, from, &to, how, report).await;
    }
    if !told.is_dir() {
        return Err("neither a file nor a folder".into());
    }
    if !how.recursive {
        return Err("is a folder (-r copies it with everything in it)".into());
    }
    tree(sftp, from, &to, how, report).await
}

/// A folder with everything in it. What fails is told, and the rest goes on.
async fn tree(
    sftp: &SftpSession,
    from: &Path,
    to: &str,
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    let mut open = vec![(to.to_owned(), begin(sftp, from, to).await?)];
    while let Some((folder, paths)) = open.last_mut() {
        let Some(path) = paths.pop() else {
            open.pop();
            continue;
        };
        let shown = path.display().to_string();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            report.left_out(&shown, "its name is no text");
            continue;
        };
        let place = join(folder, name);
        let result = match std::fs::metadata(&path) {
            Ok(told) if told.is_dir() && open.len() >= MAX_DEPTH => {
                report.left_out(&shown, "too deep");
                Ok(())
            }
            Ok(told) if told.is_dir() => match begin(sftp, &path, &place).await {
                Ok(paths) => {
                    open.push((place, paths));
                    Ok(())
                }
                Err(why) => Err(why),
            },
            Ok(told) if told.is_file() => file(sftp, &path, &place, how, report).await,
            Ok(_) => {
                report.left_out(&shown, "neither a file nor a folder");
                Ok(())
            }
            Err(why) => Err(why.into()),
        };
        if let Err(why) = result {
            report.failed(&shown, &why);
        }
    }
    Ok(())
}

/// Makes a folder there, and lists the one here.
async fn begin(sftp: &SftpSession, from: &Path, to: &str) -> Result<Vec<PathBuf>, Failed> {
    let entries = std::fs::read_dir(from)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort_by(|a, b| b.cmp(a));
    if !sftp.metadata(to).await.is_ok_and(|told| told.is_dir()) {
        sftp.create_dir(to).await?;
    }
    Ok(paths)
}

async fn file(
    sftp: &SftpSession,
    from: &Path,
    to: &str,
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    let mut local = tokio::fs::File::open(from).await?;
    local.set_max_buf_size(CHUNK);
    let told = local.metadata().await?;
    let mode = told.permissions().mode() & 0o777;
    let attributes = Metadata { permissions: Some(mode), ..Metadata::empty() };
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let mut remote = sftp.open_with_flags_and_attributes(to, flags, attributes).await?;
    let progress = report.begins(&from.display().to_string(), Some(told.len()));
    let copied = super::copy(&mut local, &mut remote, progress).await?;
    if how.preserve {
        let time = |seconds: i64| u32::try_from(seconds).ok();
        let kept = Metadata {
            permissions: Some(mode),
            atime: time(told.atime()),
            mtime: time(told.mtime()),
            ..Metadata::empty()
        };
        remote.set_metadata(kept).await?;
    }
    remote.close().await?;
    report.copied(&from.display().to_string(), copied);
    Ok(())
}
