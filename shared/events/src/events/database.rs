//! Databases: sessions, what was sent to the server in them, and the resources.
//!
//! A statement that failed is the same message under another type, `db.session.query.failed`.

use crate::macros::messages;
use crate::parts::*;

/// The longest text of one statement in an event, in bytes: with it, the parameters, and what every event begins
/// with, an event fits a record. Longer texts are cut by whoever makes the event, and say so.
pub const MAX_STATEMENT: usize = 32 * 1024;
/// The most bytes that all parameters of one statement take together in an event.
pub const MAX_PARAMETERS: usize = 16 * 1024;

messages! {
    /// `db.session.start`. The mode of recording and what the roles' `record_session` says are members of our own.
    DatabaseSessionStart {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 server: part(ServerMetadata) ~ "",
        5 connection: part(ConnectionMetadata) ~ "",
        6 status: part(Status) ~ "",
        7 database: part(DatabaseMetadata) ~ "",
        8 postgres_pid: uint32 ? "postgres_pid",
        9 client: part(ClientMetadata) ~ "",
        1001 session_recording: string ? "session_recording",
        1002 record_session: string ? "record_session",
    }

    /// `db.session.query`, or `db.session.query.failed` when the status says so.
    DatabaseSessionQuery {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 query: string = "db_query",
        6 parameters: strings ? "db_query_parameters",
        7 status: part(Status) ~ "",
    }

    /// `db.session.result`: how the server answered a statement. In recordings only, never in the audit log.
    DatabaseSessionCommandResult {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 status: part(Status) ~ "",
        6 affected_records: uint64 ? "affected_records",
    }

    /// `db.session.end`. That it was made up, and by whom, and the mode of recording are members of our own.
    DatabaseSessionEnd {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 session_start: time = "session_start",
        6 session_stop: time = "session_stop",
        7 connection: part(ConnectionMetadata) ~ "",
        8 participants: strings ? "participants",
        1001 recovered: string ? "recovered",
        1002 session_recording: string ? "session_recording",
    }

    /// `db.session.malformed_packet`: a client sent what is not in its protocol.
    DatabaseSessionMalformedPacket {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 payload: bytes # "payload",
    }

    /// `db.session.postgres.statements.parse`
    PostgresParse {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_name: string = "statement_name",
        6 query: string = "query",
    }

    /// `db.session.postgres.statements.bind`
    PostgresBind {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_name: string = "statement_name",
        6 portal_name: string = "portal_name",
        7 parameters: strings = "parameters",
    }

    /// `db.session.postgres.statements.execute`
    PostgresExecute {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 portal_name: string = "portal_name",
    }

    /// `db.session.postgres.statements.close`: one of the two names is set.
    PostgresClose {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_name: string = "statement_name",
        6 portal_name: string = "portal_name",
    }

    /// `db.session.postgres.function`
    PostgresFunctionCall {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 function_oid: uint32 = "function_oid",
        6 function_args: strings ? "function_args",
    }

    /// `db.session.mysql.statements.prepare`
    MySqlStatementPrepare {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 query: string = "query",
    }

    /// `db.session.mysql.statements.execute`. The text of the statement, as far as it is known, is a member of our own.
    MySqlStatementExecute {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
        6 parameters: strings = "parameters",
        1001 query: string ? "query",
    }

    /// `db.session.mysql.statements.send_long_data`
    MySqlStatementSendLongData {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
        6 parameter_id: uint32 = "parameter_id",
        7 data_size: uint32 = "data_size",
    }

    /// `db.session.mysql.statements.close`
    MySqlStatementClose {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
    }

    /// `db.session.mysql.statements.reset`
    MySqlStatementReset {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
    }

    /// `db.session.mysql.statements.fetch`
    MySqlStatementFetch {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
        6 rows_count: uint32 = "rows_count",
    }

    /// `db.session.mysql.statements.bulk_execute`, with the text of the statement like the former.
    MySqlStatementBulkExecute {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 statement_id: uint32 = "statement_id",
        6 parameters: strings = "parameters",
        1001 query: string ? "query",
    }

    /// `db.session.mysql.init_db`
    MySqlInitDb {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 schema_name: string = "schema_name",
    }

    /// `db.session.mysql.create_db`
    MySqlCreateDb {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 schema_name: string = "schema_name",
    }

    /// `db.session.mysql.drop_db`
    MySqlDropDb {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 schema_name: string = "schema_name",
    }

    /// `db.session.mysql.shut_down`
    MySqlShutDown {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
    }

    /// `db.session.mysql.process_kill`
    MySqlProcessKill {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 process_id: uint32 = "process_id",
    }

    /// `db.session.mysql.debug`
    MySqlDebug {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
    }

    /// `db.session.mysql.refresh`
    MySqlRefresh {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 subcommand: string = "subcommand",
    }

    /// `db.session.dynamodb.request`
    DynamoDbRequest {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 session: part(SessionMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
        5 status_code: uint32 = "status_code",
        6 path: string = "path",
        7 raw_query: string = "raw_query",
        8 method: string = "method",
        9 target: string = "target",
        10 body: object = "body",
    }

    /// `db.create`: a database was made known.
    DatabaseCreate {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
    }

    /// `db.update`
    DatabaseUpdate {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
        4 database: part(DatabaseMetadata) ~ "",
    }

    /// `db.delete`
    DatabaseDelete {
        1 metadata: part(Metadata) ~ "",
        2 user: part(UserMetadata) ~ "",
        3 resource: part(ResourceMetadata) ~ "",
    }
}
