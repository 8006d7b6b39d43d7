//! `tctl recordings verify`: whether recordings are as they were recorded. Files with an exported authority need no
//! server; a session id is fetched, and compared with what the audit log says of it.

use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use shared_api::QueryRequest;
use shared_cli::{CliError, ExitCode, Format, print_structured, printable};
use shared_pki::{CaKind, TrustedAuthority};
use shared_recording::verify::Place;
use shared_recording::{Report, Verdict, verify};
use shared_types::SessionId;

use crate::connect::Connection;

/// Kind of the authority that vouches for recordings.
const RECORDING: &str = "recording";
/// How far back the audit log is asked, where the recording does not say when it was made.
const DAYS: i64 = 7;

/// Flags of `tctl recordings verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Session ids, or paths of recording files
    #[arg(required = true, value_name = "SID|FILE")]
    recordings: Vec<String>,
    /// Recording CA as "tctl auth export --type=recording" prints it; the cluster is asked without it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl VerifyArgs {
    /// Whether no cluster is needed.
    pub(super) fn is_offline(&self) -> bool {
        self.ca.is_some() && self.recordings.iter().all(|name| session(name).is_none())
    }
}

/// A name that is a session id, and not a file that is called so.
fn session(name: &str) -> Option<SessionId> {
    name.parse().ok().filter(|_| !Path::new(name).exists())
}

/// Verifies all of them; the connection is needed for session ids, and without `--ca`.
pub(super) async fn run(
    connection: Option<&Connection>,
    args: &VerifyArgs,
) -> Result<ExitCode, CliError> {
    let authority = authority(connection, args).await?;
    let mut found = Vec::new();
    for name in &args.recordings {
        let report = match (session(name), connection) {
            (Some(session), Some(connection)) => fetched(connection, session, &authority).await,
            _ => in_file(Path::new(name), &authority),
        };
        found.push((name.as_str(), report));
    }
    show(&found, args.format)?;
    let missing = |outcome: &Result<Report, CliError>| matches!(outcome, Err(error) if error.exit_code() == ExitCode::NotFound);
    let intact = |outcome: &Result<Report, CliError>| matches!(outcome, Ok(report) if report.verdict == Verdict::Intact);
    Ok(if found.iter().all(|(_, outcome)| intact(outcome)) {
        ExitCode::Done
    } else if found.iter().all(|(_, outcome)| intact(outcome) || missing(outcome)) {
        ExitCode::NotFound
    } else {
        ExitCode::Failed
    })
}

async fn authority(
    connection: Option<&Connection>,
    args: &VerifyArgs,
) -> Result<TrustedAuthority, CliError> {
    let (text, place) = match (&args.ca, connection) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::wrap(format!("read {}", path.display()), &error).exit(ExitCode::Usage)
            })?;
            (text, path.display().to_string())
        }
        (None, Some(connection)) => {
            let text = connection.api.export_authority(Some(RECORDING)).await;
            (text.map_err(Connection::error)?, "the auth service".to_owned())
        }
        (None, None) => return Err(CliError::usage("--ca is required")),
    };
    TrustedAuthority::from_authorized_lines(CaKind::Recording, &text).map_err(|error| {
        CliError::wrap(format!("recording CA of {place}"), &error)
            .exit(ExitCode::Usage)
            .hint("tctl auth export --type=recording > FILE")
    })
}

fn in_file(path: &Path, authority: &TrustedAuthority) -> Result<Report, CliError> {
    let wrap = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => ExitCode::NotFound,
            _ => ExitCode::Failed,
        };
        CliError::wrap(format!("read {}", path.display()), &error).exit(exit)
    };
    let file = File::open(path).map_err(wrap)?;
    // A file that is called as a session must be that one's.
    let session = path.file_stem().and_then(|stem| stem.to_str()).and_then(|id| id.parse().ok());
    verify(BufReader::with_capacity(256 * 1024, file), authority, session).map_err(wrap)
}

async fn fetched(
    connection: &Connection,
    session: SessionId,
    authority: &TrustedAuthority,
) -> Result<Report, CliError> {
    let mut stream = connection.api.recording(&session).await.map_err(Connection::error)?;
    let mut file = shared_cli::unnamed_file()?;
    while let Some(piece) = stream.next().await.map_err(Connection::error)? {
        file.write_all(&piece)?;
    }
    file.rewind()?;
    let source = BufReader::with_capacity(256 * 1024, file);
    let mut report = verify(source, authority, Some(session))?;
    if let Some(head) = logged_head(connection, session, &report).await {
        compare(&mut report, &head);
    }
    Ok(report)
}

/// The head that `session.upload` names. Where the audit log cannot be asked, the recording speaks for itself.
async fn logged_head(
    connection: &Connection,
    session: SessionId,
    report: &Report,
) -> Option<String> {
    let days = report.last_signed.map_or(DAYS, |time| (Utc::now() - time).num_days() + 2);
    let request = QueryRequest {
        sql: format!("select recording_head from session_upload where sid = '{session}'"),
        days: u32::try_from(days).ok(),
    };
    match connection.api.query(&request).await {
        Ok(reply) => reply.rows.into_iter().flatten().flatten().find(|head| !head.is_empty()),
        Err(error) => {
            tracing::debug!(%error, "session.upload is not available");
            None
        }
    }
}

/// Whoever can replace a recording with another one that is signed cannot change what the audit log says of it.
fn compare(report: &mut Report, logged: &str) {
    let head = report.head.map(hex::encode).unwrap_or_default();
    if head != logged
        && matches!(
            report.verdict,
            Verdict::Intact
                | Verdict::Unsigned
                | Verdict::Unvouched { .. }
                | Verdict::Truncated { .. }
        )
    {
        report.verdict = Verdict::Edited {
            place: Place { slice: 0, offset: 0 },
            why: "session.upload in the audit log names another head".to_owned(),
        };
    }
}

fn show(found: &[(&str, Result<Report, CliError>)], format: Format) -> Result<(), CliError> {
    if format != Format::Text {
        let items: Vec<Value> = found.iter().map(|(name, outcome)| item(name, outcome)).collect();
        return print_structured(&items, format);
    }
    let mut out = std::io::stdout().lock();
    for (name, outcome) in found {
        let text = match outcome {
            Ok(report) => format!("{}{}", report.verdict, particulars(report)),
            Err(error) => format!("unavailable: {error}"),
        };
        writeln!(out, "{}: {}", printable(name), printable(&text))?;
    }
    Ok(())
}

/// Who vouches for it, and when it was received.
fn particulars(report: &Report) -> String {
    let mut parts = Vec::new();
    if report.verdict == Verdict::Intact {
        parts.push(format!("{} slices", report.slices));
    }
    if let (Some(origin), Some(_)) = (&report.origin, report.last_signed) {
        parts.push(format!("signed by host {}", origin.recorder));
    }
    if let Some(seal) = &report.seal {
        parts.push(format!("received {} {}", seal.state.as_str(), time(seal.time)));
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn time(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_default()
}

fn item(name: &str, outcome: &Result<Report, CliError>) -> Value {
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            return json!({
                "recording": name,
                "verdict": "unavailable",
                "detail": error.to_string(),
            });
        }
    };
    let place = report.verdict.place();
    json!({
        "recording": name,
        "verdict": report.verdict.word(),
        "detail": report.verdict.to_string(),
        "slice": place.map(|place| place.slice),
        "offset": place.map(|place| place.offset),
        "session": report.origin.as_ref().map(|origin| origin.session.to_string()),
        "cluster": report.origin.as_ref().map(|origin| origin.cluster.to_string()),
        "recorder": report.origin.as_ref().map(|origin| origin.recorder.to_string()),
        "slices": report.slices,
        "signed": report.signed,
        "last_signed": report
            .last_signed
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        "head": report.head.map(hex::encode),
        "received": report.seal.as_ref().map(|seal| json!({
            "state": seal.state.as_str(),
            "slices": seal.slices,
            "bytes": seal.bytes,
            "time": time(seal.time),
        })),
    })
}
