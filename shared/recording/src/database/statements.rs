//! Statements of the protocols that prepare them first and run them later.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use shared_events::{AuditEvent, DynamoDbRequest};

/// Most prepared statements and portals that are remembered.
const KEPT: usize = 1_000;
/// Most bytes of them together.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// What a client prepared, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Statements {
    prepared: HashMap<String, Arc<str>>,
    portals: HashMap<String, Portal>,
    bytes: usize,
}

/// A statement with its parameters.
#[derive(Clone, Debug)]
struct Portal {
    statement: String,
    parameters: Arc<[String]>,
}

impl Portal {
    fn bytes(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.len() + 32).sum::<usize>()
            + self.statement.len()
    }
}

impl Statements {
    /// What an event runs; nothing for one that only prepares, and for other events.
    pub(super) fn take(&mut self, event: &AuditEvent) -> Option<String> {
        use AuditEvent as E;
        Some(match event {
            E::PostgresParse(parse) => {
                self.prepare(&parse.statement_name, &parse.query);
                return None;
            }
            E::PostgresBind(bind) => {
                self.bind(
                    &bind.portal_name,
                    Portal {
                        statement: bind.statement_name.clone(),
                        parameters: bind.parameters.as_slice().into(),
                    },
                );
                return None;
            }
            E::PostgresClose(close) => {
                self.close(&close.statement_name, &close.portal_name);
                return None;
            }
            E::PostgresExecute(execute) => return self.execute(&execute.portal_name),
            E::MySqlStatementPrepare(prepare) => format!("PREPARE {}", prepare.query),
            E::MySqlStatementExecute(execute) => {
                mysql(execute.statement_id, &execute.query, &execute.parameters)
            }
            E::MySqlStatementBulkExecute(execute) => {
                mysql(execute.statement_id, &execute.query, &execute.parameters)
            }
            E::MySqlInitDb(database) => format!("USE {}", database.schema_name),
            E::MySqlCreateDb(database) => format!("CREATE DATABASE {}", database.schema_name),
            E::MySqlDropDb(database) => format!("DROP DATABASE {}", database.schema_name),
            E::MySqlShutDown(_) => "SHUTDOWN".to_owned(),
            E::MySqlProcessKill(kill) => format!("KILL {}", kill.process_id),
            E::MySqlDebug(_) => "DEBUG".to_owned(),
            E::MySqlRefresh(refresh) => format!("REFRESH {}", refresh.subcommand),
            _ => return None,
        })
    }

    fn prepare(&mut self, name: &str, query: &str) {
        self.forget_statement(name);
        if self.fits(name.len() + query.len()) {
            self.prepared.insert(name.to_owned(), query.into());
        }
    }

    fn bind(&mut self, name: &str, portal: Portal) {
        self.forget_portal(name);
        if self.fits(name.len() + portal.bytes()) {
            self.portals.insert(name.to_owned(), portal);
        }
    }

    /// Whether so many bytes more are remembered; then they are counted.
    fn fits(&mut self, bytes: usize) -> bool {
        let count = self.prepared.len() + self.portals.len();
        let fits = count < KEPT && self.bytes.saturating_add(bytes) <= KEPT_BYTES;
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    fn forget_statement(&mut self, name: &str) {
        if let Some(former) = self.prepared.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + former.len());
        }
    }

    fn forget_portal(&mut self, name: &str) {
        if let Some(former) = self.portals.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + former.bytes());
        }
    }

    /// How many names are remembered, and how many bytes they and their texts take.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.prepared.len() + self.portals.len(), self.bytes)
    }

    /// Forgets a statement, or a portal: whichever is named, or the portal without a name.
    fn close(&mut self, statement: &str, portal: &str) {
        if statement.is_empty() {
            self.forget_portal(portal);
        } else {
            self.forget_statement(statement);
        }
    }

    /// The statement of a portal. One with a name is run by it; its text stands below, as a comment.
    fn execute(&self, portal: &str) -> Option<String> {
        let portal = self.portals.get(portal)?;
        let text = self.prepared.get(&portal.statement);
        if portal.statement.is_empty() {
            return Some(with(text?, &portal.parameters));
        }
        let mut out = with(&format!("EXECUTE {}", portal.statement), &portal.parameters);
        for line in text.iter().flat_map(|text| text.trim().lines()) {
            let _ = write!(out, "\n-- {}", line.trim());
        }
        Some(out)
    }
}

/// A statement with its parameters behind it.
pub(super) fn with(text: &str, parameters: &[String]) -> String {
    let mut out = text.trim().to_owned();
    for (at, parameter) in parameters.iter().enumerate() {
        let before = if at == 0 { " (" } else { ", " };
        let _ = write!(out, "{before}${} = \"{parameter}\"", at + 1);
    }
    if !parameters.is_empty() {
        out.push(')');
    }
    out
}

/// A prepared statement that is run: its text, where that is known.
fn mysql(id: u32, query: &str, parameters: &[String]) -> String {
    if query.is_empty() {
        with(&format!("EXECUTE {id}"), parameters)
    } else {
        with(query, parameters)
    }
}

/// A request: what is to be done, and with what.
pub(super) fn dynamodb(request: &DynamoDbRequest) -> String {
    let target = if request.target.is_empty() {
        format!("{} {}", request.method, request.path)
    } else {
        request.target.clone()
    };
    match request.body.as_ref().map(serde_json::to_string) {
        Some(Ok(body)) => format!("{target} {body}"),
        _ => target,
    }
}
