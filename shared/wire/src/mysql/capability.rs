//! Capabilities that both sides name in the handshake ("Capabilities Flags"); MariaDB's own are the upper half.
//!
//! What is absent on purpose: compression, query attributes, metadata left out and progress reports are not offered, as
//! they change what statements and answers look like; a client that asks for them does without.

/// Long passwords; a MariaDB server leaves it out to say that it is one.
pub const LONG_PASSWORD: u64 = 1;
/// Affected rows count what was found.
pub const FOUND_ROWS: u64 = 1 << 1;
/// All column flags.
pub const LONG_FLAG: u64 = 1 << 2;
/// The handshake response names a database.
pub const CONNECT_WITH_DB: u64 = 1 << 3;
/// `database.table.column` is not understood.
pub const NO_SCHEMA: u64 = 1 << 4;
/// `LOAD DATA LOCAL`: the server may ask for a file.
pub const LOCAL_FILES: u64 = 1 << 7;
/// Spaces before parentheses.
pub const IGNORE_SPACE: u64 = 1 << 8;
/// The handshake and everything after as since 4.1.
pub const PROTOCOL_41: u64 = 1 << 9;
/// The interactive timeout holds.
pub const INTERACTIVE: u64 = 1 << 10;
/// TLS follows.
pub const SSL: u64 = 1 << 11;
/// The client ignores SIGPIPE.
pub const IGNORE_SIGPIPE: u64 = 1 << 12;
/// Status flags know of transactions.
pub const TRANSACTIONS: u64 = 1 << 13;
/// Passwords as since 4.1.
pub const SECURE_CONNECTION: u64 = 1 << 15;
/// Several statements in one query.
pub const MULTI_STATEMENTS: u64 = 1 << 16;
/// Several results of one query.
pub const MULTI_RESULTS: u64 = 1 << 17;
/// Several results of one prepared statement.
pub const PS_MULTI_RESULTS: u64 = 1 << 18;
/// Authentication by plugins.
pub const PLUGIN_AUTH: u64 = 1 << 19;
/// Attributes of the connection in the handshake response.
pub const CONNECT_ATTRS: u64 = 1 << 20;
/// The answer to the challenge has a length-encoded length.
pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
/// The client can deal with expired passwords.
pub const EXPIRED_PASSWORDS: u64 = 1 << 22;
/// An OK may tell of changed session variables.
pub const SESSION_TRACK: u64 = 1 << 23;
/// Results end with an OK instead of an EOF.
pub const DEPRECATE_EOF: u64 = 1 << 24;
/// MariaDB: execution of one statement with many rows of parameters.
pub const BULK: u64 = 1 << 34;
/// MariaDB: columns say more about their types.
pub const EXTENDED_METADATA: u64 = 1 << 35;

/// What every server of these years can do, and what changes no message.
pub const PLAIN: u64 = LONG_PASSWORD
    | FOUND_ROWS
    | LONG_FLAG
    | CONNECT_WITH_DB
    | NO_SCHEMA
    | LOCAL_FILES
    | IGNORE_SPACE
    | PROTOCOL_41
    | INTERACTIVE
    | IGNORE_SIGPIPE
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC
    | EXPIRED_PASSWORDS;
/// What changes messages, and is offered to clients only when the server is known to do it.
pub const NEGOTIATED: u64 = SESSION_TRACK | DEPRECATE_EOF | BULK | EXTENDED_METADATA;
