//! Events of what passes.

use shared_events::{
    AuditEvent, DatabaseSessionCommandResult, DatabaseSessionQuery, MAX_STATEMENT, MySqlCreateDb,
    MySqlDebug, MySqlDropDb, MySqlInitDb, MySqlProcessKill, MySqlRefresh, MySqlShutDown,
    MySqlStatementBulkExecute, MySqlStatementClose, MySqlStatementExecute, MySqlStatementFetch,
    MySqlStatementPrepare, MySqlStatementReset, MySqlStatementSendLongData, Status,
};
use shared_wire::mysql::{Answers, Outcome, Request, Requests, Text};

use crate::audit::{cut_text, fit, fit_to};
use crate::relay::{Malformed, Step, Tap};

/// What is kept of a packet that cannot be read.
const KEEP: usize = 4096;
/// What is kept of an error's text.
const MAX_ERROR: usize = 4096;

/// What a client sends.
#[derive(Debug)]
pub(super) struct Up {
    requests: Requests,
    /// Told when what stood before it has been passed on.
    broken: Option<Malformed>,
}

impl Up {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests, broken: None }
    }
}

impl Tap for Up {
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let mut at = 0;
        loop {
            match self.requests.next(chunk, &mut at) {
                Ok(None) => return Ok(Step::Pass),
                Ok(Some(seen)) => match seen.request {
                    Request::NotPassed(name) => {
                        return Ok(Step::End {
                            pass: seen.from,
                            why: format!("{name} is not supported"),
                        });
                    }
                    request => events.extend(event(request)),
                },
                Err(error) => {
                    let from = self.requests.from();
                    let payload = chunk.get(from..).unwrap_or_default();
                    let payload =
                        payload.get(..payload.len().min(KEEP)).unwrap_or_default().to_vec();
                    let broken = Malformed { what: error.to_string(), payload };
                    if from == 0 {
                        return Err(broken);
                    }
                    self.broken = Some(broken);
                    return Ok(Step::Instead { pass: from, skip: 0, reply: Vec::new() });
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.requests.is_settled()
    }
}

/// The event that tells of a command; none for those that ask for no data.
fn event(request: Request<'_>) -> Option<AuditEvent> {
    Some(match request {
        Request::Query(text) => DatabaseSessionQuery {
            query: statement(text),
            status: Status { success: true, ..Status::default() },
            ..Default::default()
        }
        .into(),
        Request::Prepare(text) => {
            MySqlStatementPrepare { query: statement(text), ..Default::default() }.into()
        }
        Request::Execute { statement, text, parameters } => MySqlStatementExecute {
            statement_id: statement,
            parameters,
            query: prepared(text.as_deref()),
            ..Default::default()
        }
        .into(),
        Request::Bulk { statement, text, parameters } => MySqlStatementBulkExecute {
            statement_id: statement,
            parameters,
            query: prepared(text.as_deref()),
            ..Default::default()
        }
        .into(),
        Request::LongData { statement, parameter, size } => MySqlStatementSendLongData {
            statement_id: statement,
            parameter_id: parameter.into(),
            data_size: u32::try_from(size).unwrap_or(u32::MAX),
            ..Default::default()
        }
        .into(),
        Request::Close(statement_id) => {
            MySqlStatementClose { statement_id, ..Default::default() }.into()
        }
        Request::Reset(statement_id) => {
            MySqlStatementReset { statement_id, ..Default::default() }.into()
        }
        Request::Fetch { statement, rows } => {
            MySqlStatementFetch { statement_id: statement, rows_count: rows, ..Default::default() }
                .into()
        }
        Request::InitDb(name) => {
            MySqlInitDb { schema_name: statement(name), ..Default::default() }.into()
        }
        Request::CreateDb(name) => {
            MySqlCreateDb { schema_name: statement(name), ..Default::default() }.into()
        }
        Request::DropDb(name) => {
            MySqlDropDb { schema_name: statement(name), ..Default::default() }.into()
        }
        Request::ShutDown => MySqlShutDown::default().into(),
        Request::Kill(process_id) => MySqlProcessKill { process_id, ..Default::default() }.into(),
        Request::Debug => MySqlDebug::default().into(),
        Request::Refresh(what) => {
            MySqlRefresh { subcommand: what.to_string(), ..Default::default() }.into()
        }
        Request::Quit | Request::Quiet | Request::NotPassed(_) => return None,
    })
}

fn statement(text: Text<'_>) -> String {
    match text.cut {
        Some(hash) => cut_text(&text.to_text(), MAX_STATEMENT, text.size, &hash),
        None => fit(&text.to_text()).into_owned(),
    }
}

fn prepared(text: Option<&str>) -> String {
    fit(text.unwrap_or_default()).into_owned()
}

/// What a server sends.
#[derive(Debug)]
pub(super) struct Down {
    answers: Answers,
    outcomes: Vec<Outcome>,
}

impl Down {
    pub(super) fn new(answers: Answers) -> Self {
        Self { answers, outcomes: Vec::new() }
    }

    /// Number of the packet that follows what the server has sent.
    pub(super) fn next(&self) -> u8 {
        self.answers.next()
    }
}

impl Tap for Down {
    fn see(&mut self, chunk: &[u8], events: &mut Vec<AuditEvent>) -> Result<Step, Malformed> {
        let seen = self.answers.see(chunk, &mut self.outcomes);
        events.extend(self.outcomes.drain(..).map(result));
        seen.map(|()| Step::Pass).map_err(|error| Malformed {
            what: format!("from the database: {error}"),
            payload: chunk.get(..chunk.len().min(KEEP)).unwrap_or_default().to_vec(),
        })
    }

    fn is_settled(&self) -> bool {
        self.answers.is_settled()
    }
}

/// The event that tells how a command ended.
fn result(outcome: Outcome) -> AuditEvent {
    let (success, error, affected_records) = match outcome {
        Outcome::Done(rows) => (true, String::new(), rows),
        Outcome::Failed(failure) => {
            let text = format!("ERROR {} ({}): {}", failure.code, failure.state, failure.message);
            (false, fit_to(&text, MAX_ERROR).into_owned(), 0)
        }
    };
    let status = Status { success, error, ..Status::default() };
    DatabaseSessionCommandResult { status, affected_records, ..Default::default() }.into()
}

#[cfg(test)]
mod tests;
