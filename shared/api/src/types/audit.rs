//! Events, recordings and questions about both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared_events::{AuditEvent, EventError};
use shared_types::SessionId;
use shared_types::resource::RecordingMode;

use crate::{ApiError, limits};

/// `POST /v1/events`. Answered when all of them are durable; repeats of a `uid` count once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmitRequest {
    /// Each event as base64 of [`pack_event`], so that nothing is lost on the way, unknown members included.
    pub events: Vec<String>,
}

impl EmitRequest {
    /// Packs prepared events.
    pub fn new(events: &[AuditEvent]) -> Self {
        Self { events: events.iter().map(|event| STANDARD.encode(pack_event(event))).collect() }
    }

    /// Unpacks; names the first event that is none.
    pub fn decode(&self) -> Result<Vec<AuditEvent>, ApiError> {
        if self.events.len() > limits::MAX_EVENTS {
            return Err(ApiError::bad_request(format!(
                "more than {} events in a batch",
                limits::MAX_EVENTS
            )));
        }
        self.events
            .iter()
            .enumerate()
            .map(|(at, text)| {
                STANDARD
                    .decode(text)
                    .ok()
                    .and_then(|bytes| unpack_event(&bytes).ok())
                    .filter(|event| !event.metadata().event.is_empty())
                    .ok_or_else(|| {
                        ApiError::bad_request(format!(
                            "event {at} of the batch is not an audit event"
                        ))
                    })
            })
            .collect()
    }
}

/// An event as bytes: its `events.OneOf`, or, where it has no member number, its JSON. The first byte tells them
/// apart: no protobuf key of a member ends in the bits of `{`.
pub fn pack_event(event: &AuditEvent) -> Vec<u8> {
    let packed = event.encode_one_of();
    if packed.is_empty() { event.to_json().into_bytes() } else { packed }
}

/// Reads what [`pack_event`] wrote.
pub fn unpack_event(bytes: &[u8]) -> Result<AuditEvent, EventError> {
    match bytes.first() {
        Some(b'{') => AuditEvent::from_json(&String::from_utf8_lossy(bytes)),
        _ => AuditEvent::decode_one_of(bytes),
    }
}

/// `POST /v1/query`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One read statement.
    pub sql: String,
    /// How many days back the views reach; 7 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// Reply to [`QueryRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// The columns, in order.
    pub columns: Vec<QueryColumn>,
    /// The rows, each as long as `columns`; null is absent.
    pub rows: Vec<Vec<Option<String>>>,
}

/// One column of a [`QueryReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryColumn {
    /// Its name.
    pub name: String,
    /// Its SQL type.
    #[serde(rename = "type")]
    pub sql_type: String,
}

/// `GET /v1/recordings`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecordingsQuery {
    /// Ended at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// At most so many, newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only sessions in which this user took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Only sessions with this login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Only sessions on this host; case does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only recordings in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RecordingState>,
}

/// What has become of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    /// Stored, to the end the recorder gave it.
    Complete,
    /// Stored as far as it goes; its recorder did not live to end it.
    Truncated,
    /// Not stored, or not as it was recorded.
    Failed,
    /// Not here yet.
    Uploading,
}

impl RecordingState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Truncated, Self::Failed, Self::Uploading];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Failed => "failed",
            Self::Uploading => "uploading",
        }
    }
}

impl std::fmt::Display for RecordingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state of a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of complete, truncated, failed, uploading")]
pub struct UnknownRecordingState;

impl std::str::FromStr for RecordingState {
    type Err = UnknownRecordingState;

    fn from_str(text: &str) -> Result<Self, UnknownRecordingState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownRecordingState)
    }
}

/// `POST /v1/sessions/renew`: these sessions run on the sender, or their recordings wait there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewSessions {
    /// At most [`limits::MAX_RENEWED`]; the rest comes in further requests.
    pub sessions: Vec<SessionId>,
}

/// Reply to [`RenewSessions`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewedSessions {
    /// Milliseconds within which to come again.
    pub within_ms: u64,
}

/// Reply to [`RecordingsQuery`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecordingsReply {
    /// The `session.end` events as documented JSON with `recording_state` (a [`RecordingState`]), newest first.
    pub items: Vec<Value>,
}

/// `GET /v1/session-recording`: what a client decides by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRecordingReply {
    /// Where sessions are recorded.
    pub mode: RecordingMode,
    /// Whether the proxy demands host certificates of targets.
    pub proxy_checks_host_keys: bool,
    /// Whether the caller's roles allow only logins that name the server.
    #[serde(default)]
    pub hostbound_only: bool,
}

/// `POST /v1/uploads/{upload}/{sid}/complete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// Parts 1 to `parts` were sent; auth refuses when one is missing.
    pub parts: u64,
    /// Bytes of all parts together.
    pub bytes: u64,
    /// True where the recorder ended without closing the recording, and what follows its last whole slice is lost.
    #[serde(default)]
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use shared_events::SessionStart;

    use super::*;

    #[test]
    fn events_come_back_as_they_were() {
        let mut start = AuditEvent::from(SessionStart::default());
        start.prepare(DateTime::UNIX_EPOCH, "example.com");
        let other = AuditEvent::from_json(r#"{"ei":3,"event":"some.future","uid":"u","code":"X1","time":"2024-03-20T12:12:03Z","thing":{"a":[1]}}"#).unwrap();
        let batch = EmitRequest::new(&[start.clone(), other.clone()]);
        let back = EmitRequest { events: batch.events.clone() }.decode().unwrap();
        assert_eq!(
            back.iter().map(AuditEvent::to_json).collect::<Vec<_>>(),
            [start.to_json(), other.to_json()]
        );
    }

    #[test]
    fn what_is_no_event_is_named() {
        for bad in ["", "!", "AAAA", "e30="] {
            let err = EmitRequest { events: vec![bad.to_owned()] }.decode();
            assert!(err.is_err_and(|err| err.message.contains("event 0")), "{bad}");
        }
        let many = EmitRequest { events: vec![String::new(); limits::MAX_EVENTS + 1] };
        assert!(many.decode().is_err());
    }
}
