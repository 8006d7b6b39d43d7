//! `tsh recordings export`: a recording for people who have none of our programs.

use std::io::Write;
use std::path::PathBuf;

use shared_cli::{CliError, ExitCode, OutputFile};
use shared_recording::export::asciicast::Version;
use shared_recording::export::{self, ExportError};

use crate::commands::play::source::Source;
use crate::commands::play::{damaged, refuse_other_kinds, warn_about_chain};
use crate::context::Ctx;

/// Flags of `tsh recordings export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Session id, or path of a recording file (.tar); `-` reads standard input
    session: String,
    /// What to make of it
    #[arg(short = 'f', long, value_enum, default_value = "html")]
    format: ExportFormat,
    /// Where to; `-` is standard output. SESSION.html, .cast, .txt or .json when left out
    #[arg(short = 'o', long, visible_alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
    /// Version of the asciicast format
    #[arg(long, value_name = "VERSION", default_value = "2", value_parser = ["2", "3"])]
    asciicast_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ExportFormat {
    /// One page that plays from disk in any browser, with seeking, speed and search
    Html,
    /// For asciinema and its kin
    Asciicast,
    /// What could be read on the screen, without colours
    Text,
    /// The events
    Json,
}

impl ExportFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Asciicast => "cast",
            Self::Text => "txt",
            Self::Json => "json",
        }
    }
}

pub(super) async fn run(ctx: &Ctx, args: &ExportArgs) -> Result<ExitCode, CliError> {
    let source = Source::open(ctx, &args.session).await?;
    if args.format != ExportFormat::Json {
        refuse_other_kinds(&source)?;
    }
    let target = args.output.clone().unwrap_or_else(|| args.usual_name());
    let mut decoder = source.decoder();
    let exported = if target.as_os_str() == "-" {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let exported = args.write(&mut decoder, &mut out);
        out.flush()?;
        exported
    } else {
        let mut file = OutputFile::create(&target, args.overwrite)?;
        let exported = args.write(&mut decoder, &mut file);
        // Of a damaged recording, what is before the damage is worth having.
        if !matches!(exported, Err(ExportError::Write(_))) {
            file.finish()?;
            eprintln!("Wrote recording to {}", target.display());
        }
        exported
    };
    match exported {
        Ok(()) => {}
        Err(ExportError::Recording(error)) => return Err(damaged(&error)),
        Err(ExportError::Write(error)) => return Err(error.into()),
    }
    warn_about_chain(&decoder);
    Ok(ExitCode::Done)
}

impl ExportArgs {
    /// The recording's own name with another ending, in the folder one is in.
    fn usual_name(&self) -> PathBuf {
        let named = PathBuf::from(&self.session);
        let stem =
            named.file_stem().filter(|_| self.session != "-").unwrap_or("recording".as_ref());
        let mut name = stem.to_owned();
        name.push(".");
        name.push(self.format.extension());
        name.into()
    }

    fn write(&self, events: impl export::Events, out: &mut impl Write) -> Result<(), ExportError> {
        match self.format {
            ExportFormat::Html => export::html::html(events, out),
            ExportFormat::Asciicast => {
                let three = self.asciicast_version == "3";
                let version = if three { Version::Three } else { Version::Two };
                export::asciicast::asciicast(events, version, out)
            }
            ExportFormat::Text => export::transcript(events, out),
            ExportFormat::Json => export::json(events, out),
        }
    }
}
