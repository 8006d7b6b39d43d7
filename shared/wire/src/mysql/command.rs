//! What clients ask for ("Command Phase").

use std::fmt;
use std::sync::Arc;

use super::Malformed;
use super::conversation::{Expected, State};
use super::placeholders;
use super::read::Reader;
use super::statements::Executed;
use super::text::Text;

/// What a client asks for, as far as it is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// It ends the connection.
    Quit,
    /// Statements, as text.
    Query(Text<'a>),
    /// A statement is prepared.
    Prepare(Text<'a>),
    /// A prepared statement is executed.
    Execute {
        /// Its number.
        statement: u32,
        /// What was prepared, where that is known.
        text: Option<Arc<str>>,
        /// Its parameters, as text.
        parameters: Vec<String>,
    },
    /// A prepared statement is executed with many rows of parameters (MariaDB).
    Bulk {
        /// Its number.
        statement: u32,
        /// What was prepared, where that is known.
        text: Option<Arc<str>>,
        /// Its parameters, row after row.
        parameters: Vec<String>,
    },
    /// A parameter is sent ahead, or a part of it.
    LongData {
        /// The statement's number.
        statement: u32,
        /// The parameter's, from 0.
        parameter: u16,
        /// How much, in bytes.
        size: u64,
    },
    /// A prepared statement is closed.
    Close(u32),
    /// What a prepared statement has of cursors and parameters sent ahead is dropped.
    Reset(u32),
    /// Rows of a cursor.
    Fetch {
        /// The statement's number.
        statement: u32,
        /// At most so many.
        rows: u32,
    },
    /// Another database becomes the current one.
    InitDb(Text<'a>),
    /// A database is created.
    CreateDb(Text<'a>),
    /// A database is dropped.
    DropDb(Text<'a>),
    /// The server is to end.
    ShutDown,
    /// A connection is to end.
    Kill(u32),
    /// The server is to write debugging information to its log.
    Debug,
    /// Caches and logs are renewed.
    Refresh(Refresh),
    /// Something that asks for no data and changes none, such as a ping; or a part of a file.
    Quiet,
    /// Something that is not passed on; its name.
    NotPassed(&'static str),
}

/// What is renewed, as flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh(pub u8);

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] =
            ["GRANT", "LOG", "TABLES", "HOSTS", "STATUS", "THREADS", "REPLICA", "MASTER"];
        let names: Vec<_> = (0..)
            .zip(NAMES)
            .filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| name)
            .collect();
        match names.as_slice() {
            [] => f.write_str("NONE"),
            names => f.write_str(&names.join("|")),
        }
    }
}

/// What a command is called where it is not passed on.
const CHANGE_USER: u8 = 0x11;
/// Parameters sent ahead: only their size is told.
pub(super) const LONG_DATA: u8 = 0x18;

/// Reads a command, and notes what the server will answer.
pub(super) fn read<'a>(
    opcode: u8,
    body: Text<'a>,
    state: &mut State,
) -> Result<Request<'a>, Malformed> {
    if let Some(name) = not_passed(opcode) {
        return Ok(Request::NotPassed(name));
    }
    let request = parse(opcode, body, state)?
        .ok_or_else(|| Malformed::new(format!("command {opcode:#04x} is too short")))?;
    if let Some(expected) = expected(opcode, body.bytes) {
        state.expect(expected)?;
    }
    Ok(request)
}

/// Commands that would leave the user, or the audit log, behind.
fn not_passed(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        CHANGE_USER => "COM_CHANGE_USER",
        0x12 => "COM_BINLOG_DUMP",
        0x13 => "COM_TABLE_DUMP",
        0x15 => "COM_REGISTER_SLAVE",
        0x1e => "COM_BINLOG_DUMP_GTID",
        0x20 => "COM_CLONE",
        _ => return None,
    })
}

/// What answers a command; none when nothing does.
fn expected(opcode: u8, body: &[u8]) -> Option<Expected> {
    Some(match opcode {
        0x01 | LONG_DATA | 0x19 => return None,
        // The statement, then flags, of which those that are there ask for a cursor.
        0x17 if body.get(4).is_some_and(|&flags| flags != 0) => Expected::Cursor,
        0x03 | 0x17 | 0xfa => Expected::Results,
        0x0a => Expected::List,
        0x04 => Expected::Fields,
        0x09 => Expected::Words,
        0x16 => Expected::Prepared,
        0x1c => Expected::Rows,
        0x1f => Expected::Forgotten,
        0x0e | 0x1b => Expected::Quiet,
        _ => Expected::Done,
    })
}

fn parse<'a>(
    opcode: u8,
    body: Text<'a>,
    state: &mut State,
) -> Result<Option<Request<'a>>, Malformed> {
    let mut reader = Reader::new(body.bytes);
    Ok(match opcode {
        0x01 => Some(Request::Quit),
        0x02 => Some(Request::InitDb(body)),
        0x03 => Some(Request::Query(body)),
        0x05 => Some(Request::CreateDb(body)),
        0x06 => Some(Request::DropDb(body)),
        0x07 => reader.u8().map(|flags| Request::Refresh(Refresh(flags))),
        0x08 => Some(Request::ShutDown),
        0x0c => reader.u32().map(Request::Kill),
        0x0d => Some(Request::Debug),
        0x16 => {
            state.statements.conceive(placeholders::count(body.bytes), body);
            Some(Request::Prepare(body))
        }
        0x17 => match (reader.u32(), reader.take(5)) {
            (Some(statement), Some(_)) => {
                let rest = Text { bytes: reader.rest(), ..body };
                let Executed { id: statement, text, parameters } =
                    state.statements.execute(statement, rest, state.room)?;
                Some(Request::Execute { statement, text, parameters })
            }
            _ => None,
        },
        0xfa => match reader.u32() {
            Some(statement) => {
                let rest = Text { bytes: reader.rest(), ..body };
                let Executed { id: statement, text, parameters } =
                    state.statements.bulk(statement, rest, state.room)?;
                Some(Request::Bulk { statement, text, parameters })
            }
            None => None,
        },
        LONG_DATA => match (reader.u32(), reader.u16()) {
            (Some(statement), Some(parameter)) => {
                let size = body.size - 6;
                state.statements.long_data(statement, parameter, size)?;
                Some(Request::LongData { statement, parameter, size })
            }
            _ => None,
        },
        0x19 => reader.u32().map(|statement| {
            state.statements.close(statement);
            Request::Close(statement)
        }),
        0x1a => reader.u32().map(|statement| {
            state.statements.reset(statement);
            Request::Reset(statement)
        }),
        0x1c => match (reader.u32(), reader.u32()) {
            (Some(statement), Some(rows)) => Some(Request::Fetch { statement, rows }),
            _ => None,
        },
        // Fields, statistics, processes, ping, options, reset of the connection.
        0x04 | 0x09 | 0x0a | 0x0e | 0x1b | 0x1f => Some(Request::Quiet),
        _ => return Err(Malformed::new(format!("command {opcode:#04x} is not known"))),
    })
}

#[cfg(test)]
mod tests {
    use super::Refresh;

    #[test]
    fn what_is_renewed_is_named() {
        assert_eq!(Refresh(1 | 4).to_string(), "GRANT|TABLES");
        assert_eq!(Refresh(0).to_string(), "NONE");
    }
}
