//! Database sessions as what a screen would have shown: statements behind a prompt, how many rows they touched,
//! errors. Playback, search and exports then take them as they take terminals.
//!
//! Memory is bounded, whatever a client prepared: names and texts beyond [`KEPT`] and [`KEPT_BYTES`] are forgotten.
//! Control characters of statements show as escapes: no statement drives a terminal.

mod statements;

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use shared_events::{AuditEvent, DatabaseMetadata, DatabaseSessionStart, Metadata, SessionPrint};

use crate::decoder::DecodeError;
use crate::export::Events;
use statements::Statements;

/// Days and minutes, as the first and the last line have them.
const MINUTE: &str = "%a %b %e %H:%M UTC";
/// When a statement was sent.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S%.3f UTC";

/// Most characters of a name before a statement.
const LONGEST_NAME: usize = 64;

/// The protocols whose sessions can be shown.
const SHOWN: [&str; 5] = ["postgres", "cockroachdb", "mysql", "redis", "dynamodb"];

/// Whether sessions of this protocol can be shown.
#[must_use]
pub fn is_shown(protocol: &str) -> bool {
    SHOWN.contains(&protocol)
}

/// The events, with what a screen would have shown behind each event of a database session.
pub fn shown<E: Events>(events: E) -> Shown<E> {
    Shown { events, translator: Translator::default(), waiting: None }
}

/// What [`shown`] gives.
pub struct Shown<E> {
    events: E,
    translator: Translator,
    waiting: Option<AuditEvent>,
}

impl<E: Events> Iterator for Shown<E> {
    type Item = Result<AuditEvent, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(print) = self.waiting.take() {
            return Some(Ok(print));
        }
        let next = self.events.next();
        if let Some(Ok(event)) = &next {
            self.waiting = self.translator.print(event).map(AuditEvent::from);
        }
        next
    }
}

/// Makes output of the events of a database session, in their order. Events of other sessions make none.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    session: Option<Session>,
}

#[derive(Clone, Debug)]
struct Session {
    start: Option<DateTime<Utc>>,
    prompt: String,
    statements: Statements,
    /// Statements whose result has not come.
    pending: u64,
    chunks: i64,
    bytes: i64,
}

impl Translator {
    /// What a screen would show of this event.
    pub fn print(&mut self, event: &AuditEvent) -> Option<SessionPrint> {
        if let (None, AuditEvent::DatabaseSessionStart(start)) = (&self.session, event)
            && is_shown(&start.database.db_protocol)
        {
            self.session = Some(Session::begin(start));
        }
        let session = self.session.as_mut()?;
        let text = session.text(event)?;
        Some(session.output(event.metadata(), text))
    }
}

impl Session {
    fn begin(start: &DatabaseSessionStart) -> Self {
        Self {
            start: start.metadata.time.get(),
            prompt: prompt(&start.database),
            statements: Statements::default(),
            pending: 0,
            chunks: 0,
            bytes: 0,
        }
    }

    fn output(&mut self, metadata: &Metadata, text: String) -> SessionPrint {
        let since = metadata
            .time
            .get()
            .zip(self.start)
            .map(|(time, start)| (time - start).num_milliseconds());
        let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let print = SessionPrint {
            metadata: Metadata {
                event: SessionPrint::KIND.to_owned(),
                uid: String::new(),
                code: String::new(),
                ..metadata.clone()
            },
            chunk_index: self.chunks,
            data: text.into(),
            bytes,
            ms: since.unwrap_or(0).max(0),
            offset: self.bytes,
        };
        self.chunks = self.chunks.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        print
    }

    /// The lines of an event, where it has any.
    fn text(&mut self, event: &AuditEvent) -> Option<String> {
        use AuditEvent as E;
        let at = event.metadata().time.get();
        match event {
            E::DatabaseSessionStart(start) => {
                let to = clean(&start.database.db_service);
                let mut text =
                    format!("Session started to database \"{to}\" at {}\r\n", time(at, MINUTE));
                if !start.status.success && !start.status.error.is_empty() {
                    let _ = write!(text, "{}\r\n", clean(&start.status.error));
                }
                Some(text)
            }
            E::DatabaseSessionEnd(_) => {
                Some(format!("\r\nSession ended at {}\r\n", time(at, MINUTE)))
            }
            E::DatabaseSessionQuery(query) => {
                let mut text =
                    self.statement(at, &statements::with(&query.query, &query.parameters));
                if !query.status.success {
                    // It was not sent on: no result follows.
                    self.pending = self.pending.saturating_sub(1);
                    let _ = write!(text, "{}\r\n", clean(&query.status.error));
                }
                Some(text)
            }
            E::DatabaseSessionCommandResult(result) => {
                self.pending = self.pending.checked_sub(1)?;
                if !result.status.success {
                    return Some(format!("{}\r\n", clean(&result.status.error)));
                }
                let (rows, s) =
                    (result.affected_records, if result.affected_records == 1 { "" } else { "s" });
                Some(format!("SUCCESS\r\n({rows} row{s} affected)\r\n"))
            }
            E::DatabaseSessionMalformedPacket(packet) => Some(format!(
                "\r\nThe client sent a packet that is none ({} bytes).\r\n",
                packet.payload.len()
            )),
            E::DynamoDbRequest(request) => {
                let mut text = self.statement(at, &statements::dynamodb(request));
                self.pending = self.pending.saturating_sub(1);
                let _ = write!(text, "HTTP {}\r\n", request.status_code);
                Some(text)
            }
            other => {
                let text = self.statements.take(other)?;
                Some(self.statement(at, &text))
            }
        }
    }

    /// A statement behind the prompt, below the time it was sent; further lines stand below its first.
    fn statement(&mut self, at: Option<DateTime<Utc>>, text: &str) -> String {
        self.pending = self.pending.saturating_add(1);
        let mut out = format!("\r\n-- {}\r\n", time(at, MOMENT));
        let mut margin = self.prompt.clone();
        for line in text.trim().lines() {
            let _ = write!(out, "{margin}{}\r\n", clean(line.trim()));
            margin = " ".repeat(self.prompt.chars().count());
        }
        out
    }
}

/// What stands before a statement, and as wide before each of its further lines: a name too long is cut.
fn prompt(database: &DatabaseMetadata) -> String {
    let name = if database.db_name.is_empty() { &database.db_service } else { &database.db_name };
    let sql = matches!(database.db_protocol.as_str(), "postgres" | "cockroachdb");
    let sign = if sql { "=> " } else { "> " };
    let name: String = clean(name).chars().take(LONGEST_NAME).collect();
    name + sign
}

fn time(at: Option<DateTime<Utc>>, format: &str) -> String {
    at.map_or_else(|| "an unknown time".to_owned(), |at| at.format(format).to_string())
}

/// The text with control characters as escapes.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
