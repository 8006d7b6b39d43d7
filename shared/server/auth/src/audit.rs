//! Questions to the audit log.

use std::collections::BTreeMap;

use chrono::Duration;
use server_audit::QueryErrorKind;
use shared_api::{ApiError, NodeInfo, NodesReply, QueryColumn, QueryReply, QueryRequest};
use shared_authz::Verb;
use shared_events::{AuditEvent, SessionStart};

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// How many days a query reaches back unless it says.
const DAYS: u32 = 7;
/// How far back, and how many sessions, the list of hosts looks.
const HOSTS: (i64, usize) = (30, 2000);

impl AuthService {
    /// One read statement over the events. Needs list, read and use on `audit_query`; who asked what is itself an event.
    pub async fn query(&self, caller: &Caller, ask: QueryRequest) -> Result<QueryReply> {
        for verb in [Verb::List, Verb::Read, Verb::Use] {
            self.check(caller, "audit_query", verb)?;
        }
        let days = ask.days.unwrap_or(DAYS);
        let started = std::time::Instant::now();
        let answer = self
            .queries
            .run(server_audit::QueryRequest { sql: ask.sql.clone(), days: Some(days) })
            .await;
        let millis = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let error = answer.as_ref().err().map(ToString::to_string);
        let outcome = match &error {
            None => Ok(()),
            Some(text) => Err(text.as_str()),
        };
        self.record(vec![events::query_run(&ask.sql, days, millis, outcome, caller)]).await?;
        let answer = answer.map_err(|error| {
            let text = error.to_string();
            let answer = match error.kind {
                QueryErrorKind::Statement | QueryErrorKind::Limit => ApiError::bad_request(text),
                QueryErrorKind::NotInstalled | QueryErrorKind::Busy => ApiError::unavailable(text),
                QueryErrorKind::Internal => ApiError::internal(text),
            };
            AuthError::Answer(match error.hint {
                Some(hint) => answer.with_hint(hint),
                None => answer,
            })
        })?;
        let columns = answer.columns.into_iter();
        Ok(QueryReply {
            columns: columns
                .map(|column| QueryColumn { name: column.name, sql_type: column.sql_type })
                .collect(),
            rows: answer.rows,
        })
    }

    /// The hosts on which the caller lately had sessions. Nothing registers with the cluster yet, so this is what it
    /// knows of hosts, and nobody sees another user's.
    pub async fn nodes(&self, caller: &Caller) -> Result<NodesReply> {
        let now = self.now();
        let (days, most) = HOSTS;
        let found = self
            .newest(
                now - Duration::days(days),
                now + Duration::minutes(5),
                SessionStart::KIND,
                most,
            )
            .await?;
        let mut hosts = BTreeMap::new();
        for event in found {
            let AuditEvent::SessionStart(start) = event else { continue };
            if start.user.user != caller.name() || start.server.server_hostname.is_empty() {
                continue;
            }
            // Newest first: the first address of a name is its latest.
            hosts
                .entry(start.server.server_hostname)
                .or_insert((start.server.server_addr, start.server.server_labels));
        }
        let items = hosts.into_iter().map(|(hostname, (address, labels))| NodeInfo {
            hostname,
            address,
            labels,
        });
        Ok(NodesReply { items: items.collect() })
    }
}
