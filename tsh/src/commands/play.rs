//! `tsh play`: a recording by its session id, from the cluster, or from a file, with no server.
//!
//! No recorded byte reaches a terminal but through the player's filter. What is no terminal, or
//! `--raw`, gets exactly what was recorded.

mod terminal;

use std::fs::File;
use std::io::{BufReader, IsTerminal, Seek, Write};
use std::path::Path;

use shared_cli::{CliError, ExitCode, Progress};
use shared_events::AuditEvent;
use shared_recording::export::{self, ExportError};
use shared_recording::timeline::Pace;
use shared_recording::{ChainStatus, DecodeError, Decoder, Filter};
use shared_types::SessionId;

use crate::context::{Ctx, api_error};

/// Flags of `tsh play`.
#[derive(Debug, clap::Args)]
pub struct PlayArgs {
    /// Session id, or path of a recording file (.tar); `-` reads standard input
    session: String,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value = "pty")]
    format: PlayFormat,
    /// How fast
    #[arg(long, default_value = "1x", value_parser = ["0.5x", "1x", "2x", "4x", "8x"])]
    speed: String,
    /// Cap each wait at half a second
    #[arg(long)]
    skip_idle_time: bool,
    /// Write exactly what was recorded, also to a terminal
    #[arg(long)]
    raw: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PlayFormat {
    /// In time, on the terminal
    Pty,
    /// Events as JSON
    Json,
    /// Events as YAML
    Yaml,
    /// Output only, at once
    Text,
}

/// Fetches and plays.
pub async fn run(ctx: &Ctx, args: &PlayArgs) -> Result<ExitCode, CliError> {
    if args.format != PlayFormat::Pty && args.speed != "1x" {
        eprintln!("--speed is not applicable for formats other than pty");
    }
    let (file, session, from_file) = open(ctx, args).await?;
    if file.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(CliError::new("the recording is empty"));
    }
    let source = BufReader::with_capacity(256 * 1024, file);
    let mut decoder = match session {
        Some(session) => Decoder::of_session(source, session),
        None => Decoder::new(source),
    };
    let stdout = std::io::stdout();
    let mut out = std::io::BufWriter::new(stdout.lock());
    let on_terminal = stdout.is_terminal() && !args.raw;
    let result = match args.format {
        PlayFormat::Json if from_file => {
            export::json_lines(&mut decoder, &mut out).map_err(Failed::from)
        }
        PlayFormat::Json => export::json(&mut decoder, &mut out).map_err(Failed::from),
        PlayFormat::Yaml => export::yaml(&mut decoder, &mut out).map_err(Failed::from),
        PlayFormat::Pty if on_terminal && std::io::stdin().is_terminal() => {
            refuse_other_kinds(&mut decoder)?;
            let pace = pace(args)?;
            drop(out);
            return terminal::play(decoder, pace);
        }
        PlayFormat::Pty | PlayFormat::Text if on_terminal => filtered(&mut decoder, &mut out),
        PlayFormat::Pty | PlayFormat::Text => {
            export::text(&mut decoder, &mut out).map_err(Failed::from)
        }
    };
    let flushed = out.flush();
    result.map_err(Failed::shown)?;
    flushed?;
    warn_about_chain(&decoder);
    Ok(ExitCode::Done)
}

fn pace(args: &PlayArgs) -> Result<Pace, CliError> {
    let speed = args.speed.trim_end_matches('x').parse().unwrap_or(1.0);
    Pace::new(speed, args.skip_idle_time)
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))
}

/// Why playing stopped.
enum Failed {
    Recording(DecodeError),
    Write(std::io::Error),
}

impl From<ExportError> for Failed {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Recording(error) => Self::Recording(error),
            ExportError::Write(error) => Self::Write(error),
        }
    }
}

impl Failed {
    fn shown(self) -> CliError {
        match self {
            Self::Recording(error) => damaged(&error),
            Self::Write(error) => error.into(),
        }
    }
}

/// What was shown so far is whole; behind it the recording is damaged.
fn damaged(error: &DecodeError) -> CliError {
    CliError::from_error(error)
        .context("the recording is damaged; what is before the damage was played")
}

/// Says how far the recording's chain vouches for what was played.
fn warn_about_chain<R: std::io::Read>(decoder: &Decoder<R>) {
    match decoder.chain_status() {
        ChainStatus::Intact => {}
        ChainStatus::Unsigned => eprintln!(
            "note: this recording has no hash chain, so it is not known whether it was altered"
        ),
        ChainStatus::MissingEnd => eprintln!("WARNING: the recording's end is missing"),
        ChainStatus::Broken { slice, why } => {
            eprintln!(
                "WARNING: the recording was altered at part {slice}: {}",
                shared_cli::printable(&why)
            );
        }
    }
}

/// The output at once, harmless for a terminal.
fn filtered(decoder: &mut Decoder<BufReader<File>>, out: &mut dyn Write) -> Result<(), Failed> {
    let mut filter = Filter::new();
    let result = loop {
        match decoder.next_event() {
            Ok(Some(AuditEvent::SessionPrint(print))) => {
                out.write_all(&filter.filter(&print.data)).map_err(Failed::Write)?;
            }
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(Failed::Recording(error)),
        }
    };
    out.write_all(Filter::restore()).map_err(Failed::Write)?;
    result
}

/// The first event says what kind of session it is; only terminals are played in time.
fn refuse_other_kinds(decoder: &mut Decoder<BufReader<File>>) -> Result<(), CliError> {
    let Some(start) = decoder.mark() else { return Ok(()) };
    let first = decoder.next_event().map_err(|error| damaged(&error))?;
    decoder.seek(&start).map_err(|error| damaged(&error))?;
    let kind = first.as_ref().map_or("", |event| event.kind());
    if kind.starts_with("db.") || kind.starts_with("app.") {
        return Err(CliError::usage(
            "Interactive session replay is only supported for SSH and Kubernetes sessions. To play app or database sessions, specify --format=json or --format=yaml.",
        ));
    }
    Ok(())
}

/// The recording as a file, the session it must be of, and whether the user named a file.
async fn open(ctx: &Ctx, args: &PlayArgs) -> Result<(File, Option<SessionId>, bool), CliError> {
    let path = Path::new(&args.session);
    if args.session == "-" {
        let mut file = temporary()?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.rewind()?;
        return Ok((file, None, true));
    }
    if path.extension().is_some_and(|kind| kind == "tar") {
        let file = File::open(path).map_err(|error| {
            CliError::wrap(format!("open {}", path.display()), &error).exit(ExitCode::NotFound)
        })?;
        let session =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        return Ok((file, session, true));
    }
    let session: SessionId = args.session.parse().map_err(|_| {
        CliError::usage(format!("'{}' is not a valid session ID (must be GUID)", args.session))
    })?;
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
    let mut file = temporary()?;
    let progress = Progress::bytes("Fetching recording", stream.remaining());
    while let Some(piece) = stream.next().await.map_err(api_error)? {
        progress.add(piece.len() as u64);
        file.write_all(&piece)?;
    }
    progress.finish();
    file.rewind()?;
    Ok((file, Some(session), false))
}

/// A file without a name, readable by nobody else, that goes with the program.
fn temporary() -> Result<File, CliError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("tsh-{}", uuid::Uuid::new_v4()));
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| CliError::wrap(format!("make {}", path.display()), &error))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
