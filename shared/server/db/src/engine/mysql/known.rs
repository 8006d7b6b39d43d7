//! What is known of servers before anybody logs in to them: they say it first, but a client is greeted before its
//! server may be dialled.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_types::Database;
use shared_wire::mysql::{Greeting, VERSION, capability};
use tokio::io::AsyncRead;

use super::packets;
use crate::engine::EngineError;

/// Servers at a time; beyond them, clients are greeted as if nothing were known.
const MAX_SERVERS: usize = 10_000;
/// What a server may take to greet whoever only looks.
const LOOK: Duration = Duration::from_secs(2);

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traits {
    version: String,
    capabilities: u64,
}

/// By the address in the configuration.
static KNOWN: Mutex<BTreeMap<String, Traits>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<String, Traits>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers how a server greets.
pub(super) fn remember(database: &Database, greeting: &Greeting) {
    let traits = Traits { version: greeting.version.clone(), capabilities: greeting.capabilities };
    let mut known = known();
    if known.len() < MAX_SERVERS || known.contains_key(&database.spec.uri) {
        known.insert(database.spec.uri.clone(), traits);
    }
}

/// Listens how a server greets whoever connects to it, as a look at its health does; nothing comes of it if it does
/// not.
pub(in crate::engine) async fn learn<S: AsyncRead + Unpin>(database: &Database, stream: &mut S) {
    let Ok(Ok((_, payload))) =
        tokio::time::timeout(LOOK, packets::read(stream, EngineError::Database)).await
    else {
        return;
    };
    if let Ok(greeting) = Greeting::parse(&payload) {
        remember(database, &greeting);
    }
}

/// How a client of this server is greeted: with the version that is configured, that it has, or that every client
/// understands; and with what it can do, as far as that is known.
pub(super) fn greeting(database: &Database, connection_id: u32, salt: [u8; 20]) -> Greeting {
    let traits = known().get(&database.spec.uri).cloned();
    let configured = database.spec.mysql.as_ref().map(|mysql| mysql.server_version.as_str());
    let has = traits.as_ref().map(|traits| traits.version.as_str());
    let version = configured.filter(|version| !version.is_empty()).or(has).unwrap_or(VERSION);
    let mut greeting = Greeting::plain(version, connection_id, salt);
    if let Some(Traits { capabilities, .. }) = traits {
        greeting.capabilities = (capabilities & (capability::PLAIN | capability::NEGOTIATED))
            | (capability::PLAIN & ALWAYS);
    }
    greeting
}

/// What clients are offered whatever the server can do: it only shapes their login, which ends here.
const ALWAYS: u64 = capability::PROTOCOL_41
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::PLUGIN_AUTH_LENENC
    | capability::CONNECT_WITH_DB
    | capability::CONNECT_ATTRS;

#[cfg(test)]
mod tests {
    use shared_types::resource::{DatabaseSpec, DbProtocol};
    use shared_wire::mysql::HEADER;

    use super::*;

    fn database(uri: &str) -> Database {
        Database::new("d", DatabaseSpec::new(DbProtocol::Mysql, uri.to_owned()))
    }

    #[tokio::test]
    async fn clients_are_greeted_as_the_server_greets() {
        let database = database("127.0.0.1:1");
        assert_eq!(greeting(&database, 1, [1; 20]), Greeting::plain(VERSION, 1, [1; 20]));
        let mut server = Greeting::plain("5.5.5-10.11.6-MariaDB", 9, [2; 20]).with_tls();
        server.capabilities &= !capability::LONG_PASSWORD;
        server.capabilities |= capability::BULK | capability::DEPRECATE_EOF;
        let packet = server.packet();
        learn(&database, &mut packet.as_slice()).await;
        let shown = greeting(&database, 1, [1; 20]);
        assert_eq!((shown.version.as_str(), shown.connection_id), ("5.5.5-10.11.6-MariaDB", 1));
        assert_eq!(shown.capabilities, server.capabilities & !capability::SSL);
        let other = self::database("127.0.0.1:2");
        learn(&other, &mut &packet[..packet.len() - 1]).await;
        learn(&other, &mut &packet[HEADER..]).await;
        assert_eq!(greeting(&other, 1, [1; 20]).version, VERSION);
    }
}
