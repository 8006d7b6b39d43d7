//! Both directions of a session, as the audit log tells of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared_events::{
    AuditEvent, DatabaseSessionCommandResult, DatabaseSessionQuery, MAX_PARAMETERS, MAX_STATEMENT,
    PostgresBind, PostgresClose, PostgresExecute, PostgresFunctionCall, PostgresParse, Status,
};
use shared_wire::postgres::{
    Backend, Cut, Frames, Frontend, Message, Parameter, Parameters, ServerError, Text, backend,
    frontend,
};

use crate::audit::{cut_text, fit, fit_to};
use crate::relay::{Malformed, Step, Tap};

/// What is kept of a message that comes in pieces: more than an event holds.
const KEEP: usize = 48 << 10;
/// The same of a server's.
const KEEP_RESULT: usize = 8 << 10;
/// What an event holds of a name.
const MAX_NAME: usize = 512;
/// What an event holds of an error of the server.
const MAX_ERROR: usize = 4 << 10;
/// What a value costs in an event besides its own bytes.
const VALUE: usize = 4;

const _: () = assert!(KEEP > MAX_STATEMENT + MAX_NAME && KEEP > MAX_PARAMETERS + 2 * MAX_NAME);

/// What a client sends.
#[derive(Debug)]
pub(super) struct Up {
    frames: Frames,
    /// Found behind what could still be passed on.
    broken: Option<Malformed>,
}

impl Up {
    pub(super) fn new() -> Self {
        Self { frames: Frames::frontend(KEEP), broken: None }
    }
}

impl Tap for Up {
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let mut at = 0;
        loop {
            let begin = at;
            let what = match self.frames.next(chunk, &mut at) {
                Ok(None) => return Ok(Step::Pass),
                Ok(Some(message)) => match frontend(&message) {
                    Some(read) => {
                        events.extend(event(&read));
                        continue;
                    }
                    None => {
                        let tag = char::from(message.tag);
                        let what = format!("body of a message {tag:?}");
                        let malformed = Malformed { what, payload: message.body.to_vec() };
                        return stop(&mut self.broken, begin, malformed);
                    }
                },
                Err(error) => error.to_string(),
            };
            let payload = chunk.get(begin..).unwrap_or_default().to_vec();
            return stop(&mut self.broken, begin, Malformed { what, payload });
        }
    }

    fn is_settled(&self) -> bool {
        self.frames.between()
    }
}

/// What stands before it in the chunk was told of and is passed on first.
fn stop(
    broken: &mut Option<Malformed>,
    pass: usize,
    malformed: Malformed,
) -> Result<Step, Malformed> {
    if pass == 0 {
        return Err(malformed);
    }
    *broken = Some(malformed);
    Ok(Step::Instead { pass, skip: 0, reply: Vec::new() })
}

/// The event that tells of a message; none for those that only structure the others.
fn event(message: &Frontend<'_>) -> Option<AuditEvent> {
    Some(match message {
        Frontend::Query(text) => DatabaseSessionQuery {
            query: statement(text),
            status: Status { success: true, ..Status::default() },
            ..DatabaseSessionQuery::default()
        }
        .into(),
        Frontend::Parse { name: of, text } => PostgresParse {
            statement_name: name(of),
            query: statement(text),
            ..PostgresParse::default()
        }
        .into(),
        Frontend::Bind(bind) => PostgresBind {
            statement_name: name(bind.statement),
            portal_name: name(bind.portal),
            parameters: values(&bind.parameters, bind.cut),
            ..PostgresBind::default()
        }
        .into(),
        Frontend::Execute { portal } => {
            PostgresExecute { portal_name: name(portal), ..PostgresExecute::default() }.into()
        }
        Frontend::CloseStatement(of) => {
            PostgresClose { statement_name: name(of), ..PostgresClose::default() }.into()
        }
        Frontend::ClosePortal(of) => {
            PostgresClose { portal_name: name(of), ..PostgresClose::default() }.into()
        }
        Frontend::FunctionCall(call) => PostgresFunctionCall {
            function_oid: call.oid,
            function_args: values(&call.arguments, call.cut),
            ..PostgresFunctionCall::default()
        }
        .into(),
        Frontend::Terminate | Frontend::Other => return None,
    })
}

fn name(bytes: &[u8]) -> String {
    fit_to(&String::from_utf8_lossy(bytes), MAX_NAME).into_owned()
}

fn statement(text: &Text<'_>) -> String {
    let readable = String::from_utf8_lossy(text.bytes);
    match text.cut {
        Some(Cut { length, sha256 }) => cut_text(&readable, MAX_STATEMENT, length, &sha256),
        None => fit(&readable).into_owned(),
    }
}

/// Values as the reference has them: text as it is, binary in base64, other forms `<unknown>`, no value `<null>`. The
/// last one says how many there is no room for.
fn values(parameters: &Parameters<'_>, cut: Option<Cut>) -> Vec<String> {
    let (mut shown, mut room) = (Vec::new(), MAX_PARAMETERS);
    for value in parameters.iter() {
        let text = match value {
            Parameter::Null => "<null>".to_owned(),
            Parameter::Unknown => "<unknown>".to_owned(),
            Parameter::Text(bytes) => fit_to(&String::from_utf8_lossy(bytes), room).into_owned(),
            Parameter::Binary(bytes) => fit_to(&STANDARD.encode(bytes), room).into_owned(),
            Parameter::Part(_, length) => format!("… [cut: {length} bytes]"),
        };
        if text.len() + VALUE > room {
            break;
        }
        room -= text.len() + VALUE;
        shown.push(text);
    }
    let missing = parameters.count() - shown.len();
    match cut {
        Some(Cut { length, sha256 }) => {
            shown.push(cut_text(
                &format!("… {missing} more; the message"),
                MAX_NAME,
                length,
                &sha256,
            ));
        }
        None if missing > 0 => shown.push(format!("… [cut: {missing} more]")),
        None => {}
    }
    shown
}

/// What a server sends.
#[derive(Debug)]
pub(super) struct Down {
    frames: Frames,
}

impl Down {
    pub(super) fn new() -> Self {
        Self { frames: Frames::backend(KEEP_RESULT) }
    }
}

impl Tap for Down {
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed> {
        let mut at = 0;
        loop {
            let begin = at;
            let what = match self.frames.next(chunk, &mut at) {
                Ok(None) => return Ok(Step::Pass),
                Ok(Some(message)) => match result(&message) {
                    Ok(result) => {
                        events.extend(result);
                        continue;
                    }
                    Err(what) => what,
                },
                Err(error) => error.to_string(),
            };
            let payload = chunk.get(begin..).unwrap_or_default().to_vec();
            return Err(Malformed { what: format!("from the database: {what}"), payload });
        }
    }

    fn is_settled(&self) -> bool {
        self.frames.between()
    }
}

/// The event that tells how a statement ended.
fn result(message: &Message<'_>) -> Result<Option<AuditEvent>, String> {
    let (status, rows) = match backend(message) {
        Some(Backend::Complete(tag)) => (Status { success: true, ..Status::default() }, tag.rows()),
        Some(Backend::Error(error)) => {
            let error = fit_to(&words(&error), MAX_ERROR).into_owned();
            (Status { success: false, error, ..Status::default() }, 0)
        }
        Some(Backend::Authentication(_) | Backend::KeyData { .. }) => {
            return Err("start-up in the middle of a session".to_owned());
        }
        Some(_) => return Ok(None),
        None => return Err(format!("body of a message {:?}", char::from(message.tag))),
    };
    Ok(Some(
        DatabaseSessionCommandResult { status, affected_records: rows, ..Default::default() }
            .into(),
    ))
}

/// An error of the server in one line.
pub(super) fn words(error: &ServerError<'_>) -> String {
    let [severity, message, code] =
        [error.severity, error.message, error.code].map(String::from_utf8_lossy);
    format!("{severity}: {message} (SQLSTATE {code})")
}

#[cfg(test)]
mod tests;
