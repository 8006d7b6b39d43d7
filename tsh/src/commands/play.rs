//! `tsh play`: a recording by its session id, from the cluster, or from a file, with no server.
//!
//! No recorded byte reaches a terminal: what is shown there is painted from a model of the recorded
//! screen. What is no terminal, or `--raw`, gets exactly what was recorded.

mod bar;
mod keys;
mod search;
pub(in crate::commands) mod source;
mod terminal;

use std::io::{IsTerminal, Read, Write};

use shared_cli::{CliError, ExitCode};
use shared_events::AuditEvent;
use shared_recording::export::{self, ExportError};
use shared_recording::grep::{Hits, Pattern};
use shared_recording::timeline::Pace;
use shared_recording::{DecodeError, Decoder, Filter, Position, database};

use crate::context::Ctx;
use source::{Reader, Source};

/// What the keys do, below the help.
const KEYS: &str = "\
Keys on a terminal:
  space            pause, go on
  left, right      10 seconds back, forward
  up, down, +, -   faster, slower
  / n N            search; next and previous match
  b                hide or show the progress line
  q, Ctrl-C        end";

/// Flags of `tsh play`.
#[derive(Debug, clap::Args)]
#[command(after_help = KEYS)]
pub struct PlayArgs {
    /// Session id, or path of a recording file (.tar); `-` reads standard input
    session: String,
    /// Output format
    #[arg(short = 'f', long, value_enum, default_value = "pty")]
    format: PlayFormat,
    /// How fast: 0.25x to 16x
    #[arg(long, default_value = "1x", value_parser = speed)]
    speed: f64,
    /// Cap each wait at half a second
    #[arg(long)]
    skip_idle_time: bool,
    /// Begin at this time: 12:31, 1:02:03, 1h02m, 90s
    #[arg(long, value_name = "TIME", default_value = "0", hide_default_value = true)]
    at: Position,
    /// Print times and lines that match; on a terminal, begin at the first
    #[arg(long, value_name = "PATTERN")]
    grep: Option<Pattern>,
    /// Write exactly what was recorded, also to a terminal
    #[arg(long, conflicts_with = "grep")]
    raw: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    let speed = number.parse().map_err(|_| "examples: 0.5x, 1x, 2x, 4x, 8x".to_owned())?;
    Pace::new(speed, false).map(|_| speed).map_err(|error| error.to_string())
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
    if args.format != PlayFormat::Pty && args.speed != 1.0 {
        eprintln!("--speed is not applicable for formats other than pty");
    }
    let stdout = std::io::stdout();
    let on_terminal = stdout.is_terminal() && !args.raw;
    let source = Source::open(ctx, &args.session).await?;
    if matches!(args.format, PlayFormat::Pty | PlayFormat::Text) {
        refuse_other_kinds(&source)?;
    }
    // Keys come from standard input, unless that brings the recording.
    let keys = std::io::stdin().is_terminal() || args.session == "-";
    if args.format == PlayFormat::Pty && on_terminal && keys {
        return in_time(&source, args);
    }
    let mut out = std::io::BufWriter::new(stdout.lock());
    if let (Some(pattern), PlayFormat::Pty | PlayFormat::Text) = (&args.grep, args.format) {
        return grep(&source, pattern, args.at, &mut out);
    }
    let mut decoder = source.decoder();
    let result = match args.format {
        PlayFormat::Json if source.is_file => {
            export::json_lines(&mut decoder, &mut out).map_err(Failed::from)
        }
        PlayFormat::Json => export::json(&mut decoder, &mut out).map_err(Failed::from),
        PlayFormat::Yaml => export::yaml(&mut decoder, &mut out).map_err(Failed::from),
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

/// Plays on the terminal, from the time or the first match that was asked for.
fn in_time(source: &Source, args: &PlayArgs) -> Result<ExitCode, CliError> {
    let pace = Pace::new(args.speed, args.skip_idle_time)
        .map_err(|error| CliError::from_error(&error).exit(ExitCode::Usage))?;
    let mut at_ms = args.at.0;
    if let Some(pattern) = &args.grep {
        let mut hits = Hits::new(source.decoder(), pattern.clone());
        at_ms = loop {
            match hits.next() {
                Some(Ok(hit)) if hit.at_ms >= at_ms => break hit.at_ms,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(damaged(&error)),
                None => return Err(no_match()),
            }
        };
    }
    terminal::play(source, terminal::Options { pace, at_ms, pattern: args.grep.clone() })
}

/// Prints when lines that match came, and the lines.
fn grep(
    source: &Source,
    pattern: &Pattern,
    from: Position,
    out: &mut impl Write,
) -> Result<ExitCode, CliError> {
    let mut any = false;
    for hit in Hits::new(source.decoder(), pattern.clone()) {
        let hit = match hit {
            Ok(hit) if hit.at_ms < from.0 => continue,
            Ok(hit) => hit,
            Err(error) => {
                out.flush()?;
                return Err(damaged(&error));
            }
        };
        any = true;
        let line = shared_cli::printable(hit.line.trim_end());
        writeln!(out, "{:#}  {line}", Position(hit.at_ms))?;
    }
    out.flush()?;
    if any { Ok(ExitCode::Done) } else { Err(no_match()) }
}

fn no_match() -> CliError {
    CliError::with_exit(ExitCode::NotFound, "nothing that was on the screen matches")
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
pub(in crate::commands) fn damaged(error: &DecodeError) -> CliError {
    CliError::from_error(error)
        .context("the recording is damaged; what is before the damage was played")
}

/// Says on standard error where the recording's chain is broken or without its end.
pub(in crate::commands) fn warn_about_chain<R: Read>(decoder: &Decoder<R>) {
    if let Some(warning) = shared_recording::verify::warning(&decoder.chain_status()) {
        eprintln!("WARNING: {}", shared_cli::printable(&warning));
    }
}

/// The output at once, harmless for a terminal.
fn filtered(decoder: &mut Decoder<Reader>, out: &mut dyn Write) -> Result<(), Failed> {
    let mut filter = Filter::new();
    let mut result = Ok(());
    for event in database::shown(decoder) {
        match event {
            Ok(AuditEvent::SessionPrint(print)) => {
                out.write_all(&filter.filter(&print.data)).map_err(Failed::Write)?;
            }
            Ok(_) => {}
            Err(error) => {
                result = Err(Failed::Recording(error));
                break;
            }
        }
    }
    out.write_all(Filter::restore()).map_err(Failed::Write)?;
    result
}

/// The first event says what kind of session it is: one with output, or one that can be shown as output.
pub(in crate::commands) fn refuse_other_kinds(source: &Source) -> Result<(), CliError> {
    // Whatever is wrong with the recording is found, and said, where it is played.
    let Ok(Some(first)) = source.decoder().next_event() else { return Ok(()) };
    refuse_kind(&first)
}

fn refuse_kind(first: &AuditEvent) -> Result<(), CliError> {
    let shown = match first {
        AuditEvent::DatabaseSessionStart(start) => database::is_shown(&start.database.db_protocol),
        _ => false,
    };
    let kind = first.event_type();
    if (kind.starts_with("db.") || kind.starts_with("app.")) && !shown {
        return Err(CliError::usage(
            "Interactive session replay is only supported for SSH and Kubernetes sessions. To play app or database sessions, specify --format=json or --format=yaml.",
        ));
    }
    if kind.starts_with("windows.desktop.") || kind.starts_with("linux.desktop.") {
        return Err(CliError::usage("Desktop sessions cannot be played with tsh play."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_without_output_are_refused_unless_they_can_be_shown() {
        let start = |protocol: &str| -> AuditEvent {
            let mut start = shared_events::DatabaseSessionStart::default();
            start.database.db_protocol = protocol.to_owned();
            start.into()
        };
        for protocol in ["postgres", "mysql", "redis", "dynamodb", "cockroachdb"] {
            assert!(refuse_kind(&start(protocol)).is_ok(), "{protocol}");
        }
        let refused = refuse_kind(&start("mongodb")).unwrap_err();
        assert!(refused.message().contains("--format=json or --format=yaml"), "{refused:?}");
        for kind in ["app.session.start", "windows.desktop.session.start"] {
            let mut other = shared_events::OtherEvent::default();
            other.metadata.event = kind.to_owned();
            assert!(refuse_kind(&AuditEvent::Other(other)).is_err(), "{kind}");
        }
        assert!(refuse_kind(&shared_events::SessionStart::default().into()).is_ok());
    }

    #[test]
    fn speeds_are_the_documented_ones_and_more() {
        for (text, wanted) in [("0.5x", 0.5), ("1x", 1.0), ("8x", 8.0), ("3", 3.0), ("16x", 16.0)] {
            assert_eq!(speed(text), Ok(wanted));
        }
        for text in ["", "x", "0", "32x", "-1x", "NaN", "inf", "2xx"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
