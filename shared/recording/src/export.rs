//! A recording as JSON, YAML, text, an asciicast, or a page that plays. Control characters do not
//! leave JSON and YAML unescaped, so that they can be looked at in a terminal; text is the output,
//! byte for byte.

pub mod asciicast;
pub mod html;
mod transcript;
mod yaml;

use std::io::{self, Write};

use chrono::{DateTime, Utc};
use serde::Serialize as _;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter};
use shared_events::{AuditEvent, OutputGap};

use crate::database;
use crate::decoder::DecodeError;
pub use transcript::transcript;

/// An export that stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording is damaged. What came before is written.
    #[error(transparent)]
    Recording(#[from] DecodeError),
    /// The output cannot be written.
    #[error("write")]
    Write(#[from] io::Error),
}

/// Any source of events.
pub trait Events: Iterator<Item = Result<AuditEvent, DecodeError>> {}
impl<T: Iterator<Item = Result<AuditEvent, DecodeError>>> Events for T {}

/// An array of indented objects. Ids of events are left out, as in every export from a cluster.
pub fn json(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    out.write_all(b"[\n")?;
    let mut first = true;
    let mut result = Ok(());
    for event in events {
        let mut event = match event {
            Ok(event) => event,
            Err(error) => {
                // What is written stays JSON.
                result = Err(error.into());
                break;
            }
        };
        event.metadata_mut().uid.clear();
        let separator: &[u8] = if first { b"" } else { b",\n" };
        out.write_all(separator)?;
        first = false;
        let mut text = Vec::new();
        let formatter = Escaping(PrettyFormatter::with_indent(b"    "));
        event
            .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
            .map_err(io::Error::from)?;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let separator: &[u8] = if index == 0 { b"    " } else { b"\n    " };
            out.write_all(separator)?;
            out.write_all(line)?;
        }
    }
    out.write_all(b"]\n")?;
    result
}

/// One object a line, as recordings in files are shown.
pub fn json_lines(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    for event in events {
        let formatter = Escaping(serde_json::ser::CompactFormatter);
        event?
            .serialize(&mut serde_json::Serializer::with_formatter(&mut *out, formatter))
            .map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// One document an event, without ids.
pub fn yaml(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    for (index, event) in events.enumerate() {
        let mut event = event?;
        event.metadata_mut().uid.clear();
        if index > 0 {
            out.write_all(b"---\n")?;
        }
        let value = serde_json::to_value(&event).map_err(io::Error::from)?;
        yaml::document(&value, out)?;
    }
    Ok(())
}

/// The output alone, exactly as it was; of a database session, what a screen would have shown.
pub fn text(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    for event in database::shown(events) {
        if let AuditEvent::SessionPrint(print) = event? {
            out.write_all(&print.data)?;
        }
    }
    Ok(())
}

/// What stands where output is missing on purpose.
fn gap_note(gap: &OutputGap) -> String {
    format!("{} bytes of output were not recorded here", gap.bytes)
}

/// What an export says of the session above its output.
#[derive(Debug, Default)]
struct Heading {
    session: String,
    cluster: String,
    user: String,
    /// As whom, on the host or in the database.
    login: String,
    /// The host, or the database.
    target: String,
    command: String,
    start: Option<DateTime<Utc>>,
}

impl Heading {
    /// Of the event that begins a session.
    fn of(event: &AuditEvent) -> Option<Self> {
        let heading = match event {
            AuditEvent::SessionStart(start) => Self {
                session: start.session.sid.clone(),
                user: start.user.user.clone(),
                login: start.user.login.clone(),
                target: start.server.server_hostname.clone(),
                command: start.initial_command.join(" "),
                ..Self::default()
            },
            AuditEvent::DatabaseSessionStart(start) => Self {
                session: start.session.sid.clone(),
                user: start.user.user.clone(),
                login: start.database.db_user.clone(),
                target: start.database.db_service.clone(),
                ..Self::default()
            },
            _ => return None,
        };
        let metadata = event.metadata();
        Some(Self { cluster: metadata.cluster_name.clone(), start: metadata.time.get(), ..heading })
    }

    /// The session in a few words, harmless anywhere.
    fn title(&self) -> String {
        let names = [&self.login, &self.target];
        let clean = names.map(|name| name.chars().filter(|c| !c.is_control()).collect::<String>());
        clean.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join("@")
    }
}

/// JSON in which DEL and the C1 controls are escaped too; a terminal obeys them.
struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| matches!(c, '\u{7f}'..='\u{9f}')) {
            let (before, from) = rest.split_at(at);
            self.0.write_string_fragment(out, before)?;
            let mut chars = from.chars();
            let code = chars.next().map_or(0, u32::from);
            write!(out, "\\u{code:04x}")?;
            rest = chars.as_str();
        }
        self.0.write_string_fragment(out, rest)
    }
    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.0.write_char_escape(out, escape)
    }
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }
    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }
    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

/// A JSON string with every control character escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    let formatter = Escaping(serde_json::ser::CompactFormatter);
    // Writing text to a vector cannot fail.
    let _ = text.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
