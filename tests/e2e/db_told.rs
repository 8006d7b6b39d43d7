//! What the recording and the audit log tell of a database session.

use anyhow::{Context, Result};
use serde_json::Value;
use shared_testkit::DbStage;

/// The sessions of a service that have ended, oldest first; waits until there are so many.
pub(crate) fn ended(stage: &DbStage, service: &str, count: usize) -> Result<Vec<String>> {
    let sql = format!(
        "select sid from db_session_end where db_service = '{service}' order by event_time"
    );
    stage.audited(&sql, |sids| sids.len() >= count)
}

/// The events of a session's recording.
pub(crate) fn recorded(stage: &DbStage, sid: &str) -> Result<Vec<Value>> {
    stage.recording(sid)?;
    let played = stage.joe.run(["play", "--format=json", sid])?.ok().text();
    let values = serde_json::Deserializer::from_str(&played).into_iter();
    let values: Vec<Value> = values.collect::<Result<_, _>>().with_context(|| played.clone())?;
    Ok(values
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(list) => list,
            one => vec![one],
        })
        .collect())
}

/// The events of a session in the audit log whose type begins with `kind`, in the session's order, once there are so
/// many.
pub(crate) fn logged(stage: &DbStage, sid: &str, kind: &str, count: usize) -> Result<Vec<Value>> {
    let sql = format!(
        "select event_data from events where event_type like '{kind}%' and event_data like '%\"sid\":\"{sid}\"%'"
    );
    let rows = stage.audited(&sql, |rows| rows.len() >= count)?;
    let events = rows.iter().map(|row| serde_json::from_str(row).with_context(|| row.clone()));
    let mut events: Vec<Value> = events.collect::<Result<_>>()?;
    events.sort_by_key(|event| event["ei"].as_i64());
    Ok(events)
}

/// A text of an event, empty where it has none.
pub(crate) fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}
