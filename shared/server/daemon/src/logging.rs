//! Where log lines go. `RUST_LOG` beats `--debug`, which beats the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use shared_cli::CliError;
use shared_config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Libraries that would drown what we say ourselves.
const QUIET: &str = "hyper=info,h2=info,rustls=info,sqlx=warn,russh=info,tower=info";

/// Sets the log up for the whole process.
pub(crate) fn init(log: &LogConfig, debug: bool) -> Result<(), CliError> {
    let level = if debug { "debug" } else { log.severity.as_str() };
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| CliError::usage(format!("RUST_LOG: {error}")))?,
        _ => EnvFilter::new(format!("{level},{QUIET}")),
    };
    let (writer, colour) = match log.output.as_str() {
        "stderr" | "" => (BoxMakeWriter::new(std::io::stderr), colour_wanted()),
        "stdout" => (BoxMakeWriter::new(std::io::stdout), false),
        path => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| CliError::wrap(format!("open log file {path}"), &error))?;
            (BoxMakeWriter::new(Mutex::new(file)), false)
        }
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    let done = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| CliError::new(format!("set up logging: {error}")))
}

fn colour_wanted() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
