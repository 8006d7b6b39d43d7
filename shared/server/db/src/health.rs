//! Whether databases take connections, looked at again and again from where they are dialled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use server_core::chain;
use shared_types::Database;
use shared_types::resource::{DbHealth, HealthStatus};

/// How many are looked at together.
const TOGETHER: usize = 16;
/// What one may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How each of them is.
pub(crate) async fn look(databases: Vec<Arc<Database>>) -> HashMap<String, DbHealth> {
    futures::stream::iter(databases)
        .map(|database| async move { (database.name().to_owned(), one(&database).await) })
        .buffer_unordered(TOGETHER)
        .collect()
        .await
}

async fn one(database: &Database) -> DbHealth {
    let Some((host, port)) = database.spec.address() else {
        return unhealthy("its address is not HOST:PORT");
    };
    let addr =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match shared_transport::dial(&addr, LIMIT).await {
        Ok(mut stream) => {
            crate::engine::look(database, &mut stream).await;
            DbHealth { status: HealthStatus::Healthy, message: String::new() }
        }
        Err(error) => unhealthy(&chain(&error)),
    }
}

fn unhealthy(why: &str) -> DbHealth {
    let message = why.chars().take(200).collect();
    DbHealth { status: HealthStatus::Unhealthy, message }
}

#[cfg(test)]
mod tests {
    use shared_types::resource::{DatabaseSpec, DbProtocol};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn those_that_answer_and_those_that_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let database = |name: &str, listener: &TcpListener| {
            let uri = listener.local_addr().unwrap().to_string();
            Arc::new(Database::new(name, DatabaseSpec::new(DbProtocol::Postgres, uri)))
        };
        let both = vec![database("there", &listener), database("gone", &closed)];
        drop(closed);
        let seen = look(both).await;
        assert_eq!(seen["there"].status, HealthStatus::Healthy);
        assert_eq!(seen["gone"].status, HealthStatus::Unhealthy);
        assert!(seen["gone"].message.contains("connect to 127.0.0.1"), "{}", seen["gone"].message);
    }
}
