//! Questions to the audit log.

use server_audit::QueryErrorKind;
use shared_api::{ApiError, QueryColumn, QueryReply, QueryRequest};
use shared_authz::Verb;

use crate::caller::Caller;
use crate::error::{AuthError, Result};
use crate::events;
use crate::service::AuthService;

/// How many days a query reaches back unless it says.
const DAYS: u32 = 7;

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
}
