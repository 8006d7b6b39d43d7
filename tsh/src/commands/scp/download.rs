//! From the server.

use std::path::Path;

use russh_sftp::client::SftpSession;
use russh_sftp::client::fs::Metadata;
use shared_cli::CliError;

use super::local::{self, Folder, Name};
use super::place::{Plan, join, last_name};
use super::{CHUNK, How, MAX_DEPTH, Report};

/// Copies everything that was asked for.
pub(super) async fn all(
    sftp: &SftpSession,
    plan: &Plan,
    how: How,
    report: &mut Report,
) -> Result<(), CliError> {
    let to = plan.local.first().map(std::path::PathBuf::as_path).unwrap_or(Path::new("."));
    let is_folder = to.is_dir();
    if plan.remote.len() > 1 && !is_folder {
        return Err(CliError::new(format!("{}: not a folder", to.display())));
    }
    for from in &plan.remote {
        if let Err(why) = one(sftp, from, (to, is_folder), how, report).await {
            report.failed(from, &why);
        }
    }
    Ok(())
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One place that the user named.
async fn one(
    sftp: &SftpSession,
    from: &str,
    (to, is_folder): (&Path, bool),
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    let from = if from.is_empty() { "." } else { from };
    let told = sftp.metadata(from).await?;
    let name = last_name(from).map(Name::new).transpose()?;
    if told.is_dir() {
        if !how.recursive {
            return Err("is a folder (-r copies it with everything in it)".into());
        }
        let folder = match (is_folder, name) {
            (true, Some(name)) => Folder::open(to)?.folder(&name)?,
            // Its content, where it has no name of its own.
            (true, None) => Folder::open(to)?,
            (false, _) => {
                std::fs::create_dir(to)?;
                Folder::open(to)?
            }
        };
        return tree(sftp, from, &folder, how, report).await;
    }
    let (folder, name) = if is_folder {
        (Folder::open(to)?, name.ok_or("is no file")?)
    } else {
        // The name is the user's own; where it is a link, that is followed to where it points now.
        let to = std::fs::canonicalize(to).unwrap_or_else(|_| to.to_path_buf());
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = to.file_name().and_then(|name| name.to_str()).ok_or("is no file name")?;
        (Folder::open(parent.unwrap_or(Path::new(".")))?, Name::new(name)?)
    };
    file(sftp, from, &told, (&folder, &name), how, report).await
}

/// A folder with everything in it. What fails is told, and the rest goes on.
async fn tree(
    sftp: &SftpSession,
    from: &str,
    to: &Folder,
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    // Folders to go through, each with its own place here.
    let root = list(sftp, from).await?;
    let mut open = vec![(to.again()?, from.to_owned(), root)];
    while let Some((folder, path, names)) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            continue;
        };
        let place = join(path, &name);
        match entry(sftp, &place, &name, folder, how, report).await {
            Ok(None) => {}
            Ok(Some(_)) if open.len() >= MAX_DEPTH => report.left_out(&place, "too deep"),
            Ok(Some(below)) => match list(sftp, &place).await {
                Ok(names) => open.push((below, place, names)),
                Err(why) => report.failed(&place, &why),
            },
            Err(why) => report.failed(&place, &why),
        }
    }
    Ok(())
}

/// One name that the server gave; a folder is answered, and gone through next.
async fn entry(
    sftp: &SftpSession,
    place: &str,
    name: &str,
    to: &Folder,
    how: How,
    report: &mut Report,
) -> Result<Option<Folder>, Failed> {
    let name = Name::new(name)?;
    let told = sftp.metadata(place).await?;
    if told.is_dir() {
        return Ok(Some(to.folder(&name)?));
    }
    if told.permissions.is_some() && !told.is_regular() {
        report.left_out(place, "neither a file nor a folder");
        return Ok(None);
    }
    file(sftp, place, &told, (to, &name), how, report).await?;
    Ok(None)
}

async fn list(sftp: &SftpSession, path: &str) -> Result<Vec<String>, Failed> {
    let mut names: Vec<_> = sftp.read_dir(path).await?.map(|entry| entry.file_name()).collect();
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

async fn file(
    sftp: &SftpSession,
    from: &str,
    told: &Metadata,
    (folder, name): (&Folder, &Name),
    how: How,
    report: &mut Report,
) -> Result<(), Failed> {
    let mut remote = sftp.open(from).await?;
    let file = folder.file(name, told.permissions.unwrap_or(0o644))?;
    let kept = file.try_clone()?;
    let mut local = tokio::fs::File::from_std(file);
    local.set_max_buf_size(CHUNK);
    let progress = report.begins(name.as_str(), told.size);
    let copied = super::copy(&mut remote, &mut local, progress).await?;
    remote.close().await?;
    if how.preserve {
        local::keep(&kept, told.permissions, told.mtime)?;
    }
    report.copied(name.as_str(), copied);
    Ok(())
}
