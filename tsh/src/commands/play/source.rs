//! Where a recording comes from: the cluster, a file, standard input. It ends up as a file that
//! several readers can read at once.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use shared_cli::{CliError, ExitCode, Progress};
use shared_recording::Decoder;
use shared_types::SessionId;

use crate::context::{Ctx, api_error};

/// A recording at hand.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Source {
    file: Arc<File>,
    /// The session it must be of, where that is known.
    session: Option<SessionId>,
    /// Whether the user named a file, or standard input.
    pub(in crate::commands) is_file: bool,
}

/// A reader of its own of a file.
pub(in crate::commands) type Reader = BufReader<Cursor>;

/// A place in a file that is shared.
#[derive(Debug)]
pub(in crate::commands) struct Cursor {
    file: Arc<File>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.file.metadata()?.len(), by),
        };
        self.at = from.checked_add_signed(by).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Source {
    /// Fetches a session's recording, opens a file, or reads standard input (`-`). Only the first
    /// needs a server and a login.
    pub(in crate::commands) async fn open(ctx: &Ctx, named: &str) -> Result<Self, CliError> {
        let source = Self::find(ctx, named).await?;
        match source.file.metadata() {
            Ok(file) if file.is_file() && file.len() == 0 => {
                Err(CliError::new("the recording is empty"))
            }
            _ => Ok(source),
        }
    }

    async fn find(ctx: &Ctx, named: &str) -> Result<Self, CliError> {
        if named == "-" {
            let mut file = shared_cli::unnamed_file()?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
            return Ok(Self { file: Arc::new(file), session: None, is_file: true });
        }
        let path = Path::new(named);
        let tar = path.extension().is_some_and(|kind| kind == "tar");
        if let Ok(session) = named.parse()
            && !tar
        {
            let file = Arc::new(fetch(ctx, session).await?);
            return Ok(Self { file, session: Some(session), is_file: false });
        }
        // Whatever is called like a recording, and whatever else exists, is a file.
        if !tar && (!path.exists() || path.is_dir()) {
            return Err(CliError::usage(format!(
                "'{named}' is not a valid session ID (must be GUID)"
            ))
            .hint("or the path of a recording file, or - for standard input"));
        }
        let mut file = File::open(path).map_err(|error| {
            CliError::wrap(format!("open {}", path.display()), &error).exit(ExitCode::NotFound)
        })?;
        if !file.metadata()?.is_file() {
            // A pipe, which can be read once.
            let mut copy = shared_cli::unnamed_file()?;
            std::io::copy(&mut file, &mut copy)?;
            file = copy;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let session = stem.and_then(|stem| stem.parse().ok());
        Ok(Self { file: Arc::new(file), session, is_file: true })
    }

    /// The recording from its start.
    pub(in crate::commands) fn decoder(&self) -> Decoder<Reader> {
        let cursor = Cursor { file: Arc::clone(&self.file), at: 0 };
        let reader = BufReader::with_capacity(256 * 1024, cursor);
        match self.session {
            Some(session) => Decoder::of_session(reader, session),
            None => Decoder::new(reader),
        }
    }
}

async fn fetch(ctx: &Ctx, session: SessionId) -> Result<File, CliError> {
    let mut file = shared_cli::unnamed_file()?;
    fetch_into(ctx, session, &mut file).await?;
    Ok(file)
}

/// Writes a session's recording to `out` as it is stored, with progress on a terminal.
pub(in crate::commands) async fn fetch_into(
    ctx: &Ctx,
    session: SessionId,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let mut stream = ctx.api()?.recording(&session).await.map_err(|error| {
        let shown = api_error(error);
        if shown.exit_code() == ExitCode::NotFound {
            CliError::with_exit(
                ExitCode::NotFound,
                format!("Recording for session {session} not found."),
            )
            .hint("tsh recordings ls; a session that still runs has no recording yet")
        } else {
            shown
        }
    })?;
    let progress = Progress::bytes("Fetching recording", stream.remaining());
    while let Some(piece) = stream.next().await.map_err(api_error)? {
        progress.add(piece.len() as u64);
        out.write_all(&piece)?;
    }
    progress.finish();
    Ok(())
}
