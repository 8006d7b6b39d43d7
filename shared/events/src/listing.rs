//! A line in a list of recordings, made of the event that ended the session.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// The columns of a listed recording. They hold what users and servers called things: a terminal
/// must not get them unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingRow {
    /// The session's id.
    pub id: String,
    /// `ssh`, `k8s`, `windows`, a database protocol.
    pub kind: String,
    /// Who took part.
    pub participants: String,
    /// The host, cluster, desktop or database.
    pub target: String,
    /// When it ended.
    pub time: String,
}

/// The line for an end event in JSON.
#[must_use]
pub fn recording_row(end: &Value) -> RecordingRow {
    let text = |key: &str| end.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let participants = || {
        let list = end.get("participants").and_then(Value::as_array);
        let names: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
        names.join(", ")
    };
    let (kind, participants, target) = match text("event").as_str() {
        "windows.desktop.session.end" => {
            ("windows".to_owned(), participants(), text("desktop_name"))
        }
        "db.session.end" => {
            // Not every protocol has names of databases.
            let name = Some(text("db_name")).filter(|name| !name.is_empty());
            (text("db_protocol"), text("user"), name.unwrap_or_else(|| text("db_service")))
        }
        _ => match text("kubernetes_cluster") {
            cluster if cluster.is_empty() => {
                (text("proto"), participants(), text("server_hostname"))
            }
            cluster => (text("proto"), participants(), cluster),
        },
    };
    let time = DateTime::parse_from_rfc3339(&text("time")).map_or_else(
        |_| String::new(),
        |time| time.with_timezone(&Utc).format("%b %e %Y %H:%M:%S UTC").to_string(),
    );
    RecordingRow { id: text("sid"), kind, participants, target, time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssh_session_is_listed_by_host() {
        let end = serde_json::json!({
            "event": "session.end", "sid": "s", "proto": "ssh", "participants": ["a", "b"],
            "server_hostname": "web-1", "time": "2025-03-04T09:21:07.93Z",
        });
        let row = recording_row(&end);
        assert_eq!(
            [row.id, row.kind, row.participants, row.target, row.time],
            ["s", "ssh", "a, b", "web-1", "Mar  4 2025 09:21:07 UTC"],
        );
    }

    #[test]
    fn a_database_session_is_listed_by_database() {
        let mut end = serde_json::json!({
            "event": "db.session.end", "sid": "s", "db_protocol": "postgres", "user": "bob",
            "db_name": "app", "db_service": "orders", "time": "2025-03-04T09:21:07.93Z",
        });
        let row = recording_row(&end);
        assert_eq!([row.kind, row.participants, row.target], ["postgres", "bob", "app"]);
        end["db_name"] = "".into();
        assert_eq!(recording_row(&end).target, "orders");
    }
}
