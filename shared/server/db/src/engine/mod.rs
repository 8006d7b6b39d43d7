//! The seam between the service and the protocols: one [`Engine`] for each.
//!
//! What must stay true: an engine tells its client everything in the client's own protocol before it returns; it sends
//! nothing to a database before [`Session::authorize`] said so, and no statement before it is in [`Audit::statement`].
//! A new protocol is a new folder here and a line in [`engine`].
//!
//! [`Audit::statement`]: crate::audit::Audit::statement

mod dynamodb;
mod http;
mod mysql;
mod postgres;
mod redis;

use std::io;

use async_trait::async_trait;
use server_core::AccessRefused;
use server_core::tunnel::BoxedStream;
use shared_types::Database;
use shared_types::resource::DbProtocol;
use tokio::net::TcpStream;

use crate::audit::AuditError;
use crate::connect::ConnectError;
use crate::relay::Malformed;
use crate::session::Session;

/// Speaks one protocol with clients, and with their databases.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    /// Serves one client to its end. `client` stands at the first byte of the database's own protocol: TLS, and what a
    /// protocol asks for before it, were dealt with by the proxy.
    ///
    /// Whatever goes wrong, the client has read it when this returns: the error is for the log. The session's last
    /// events, and the end of its recording, are the caller's.
    async fn serve(&self, client: BoxedStream, session: &mut Session) -> Result<(), EngineError>;
}

/// Why an engine stopped serving. For the log: the client was told in its own protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The access was refused.
    #[error("access refused: {0}")]
    Refused(#[from] AccessRefused),
    /// The database is not reached.
    #[error("connect to the database")]
    Connect(#[from] ConnectError),
    /// What happened cannot be written down.
    #[error("write down what happens")]
    Audit(#[from] AuditError),
    /// The client's connection failed.
    #[error("client's connection")]
    Client(#[source] io::Error),
    /// The database's connection failed.
    #[error("database's connection")]
    Database(#[source] io::Error),
    /// Somebody does not speak the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The database refused the session, or answered something that makes no sense; its words.
    #[error("database refused: {0}")]
    DatabaseRefused(String),
    /// Something was asked for that is not passed on; the text the client read.
    #[error("refused to pass on: {0}")]
    NotPassedOn(String),
    /// It had to end: a lock, the certificate's end, idleness, the service's end.
    #[error("ended: {0}")]
    Ended(String),
    /// A step took too long.
    #[error("{0} took too long")]
    Slow(&'static str),
}

/// The engine of a protocol.
pub(crate) fn engine(protocol: DbProtocol) -> &'static dyn Engine {
    match protocol {
        DbProtocol::Postgres | DbProtocol::Cockroachdb => &postgres::Postgres,
        DbProtocol::Mysql => &mysql::Mysql,
        DbProtocol::Redis => &redis::Redis,
        DbProtocol::Dynamodb => &dynamodb::Dynamodb,
    }
}

/// Looks closer at a database that has taken a connection, where its protocol needs to know more than that.
pub(crate) async fn look(database: &Database, stream: &mut TcpStream) {
    if database.spec.protocol == DbProtocol::Mysql {
        mysql::learn(database, stream).await;
    }
}
