//! The parts that all events of a session share, put into each of them.

use shared_events::AuditEvent;

use crate::audit::Parts;

/// Sets user, session and database of an event that has them; a part that somebody filled stays.
pub(crate) fn fill(event: &mut AuditEvent, parts: &Parts) {
    macro_rules! fill {
        ($($name:ident)*) => {
            match event {
                $( AuditEvent::$name(event) if event.session.sid.is_empty() => {
                    event.user = parts.user.clone();
                    event.session = parts.session.clone();
                    event.database = parts.database.clone();
                } )*
                _ => {}
            }
        };
    }
    fill! {
        DatabaseSessionQuery DatabaseSessionCommandResult DatabaseSessionMalformedPacket
        PostgresParse PostgresBind PostgresExecute PostgresClose PostgresFunctionCall
        MySqlStatementPrepare MySqlStatementExecute MySqlStatementSendLongData MySqlStatementClose
        MySqlStatementReset MySqlStatementFetch MySqlStatementBulkExecute MySqlInitDb MySqlCreateDb
        MySqlDropDb MySqlShutDown MySqlProcessKill MySqlDebug MySqlRefresh DynamoDbRequest
    }
}
