//! Ends of sessions that nobody told of: made out of what is known, and marked so.

use chrono::{DateTime, Utc};
use server_core::stable_uid;
use shared_events::{
    AuditEvent, DatabaseSessionEnd, DatabaseSessionStart, Metadata, SessionEnd, SessionMetadata,
    SessionStart,
};
use shared_recording::Decoder;
use shared_types::SessionId;

/// Most names of participants in an end that is made here.
const MOST_PARTICIPANTS: usize = 100;
/// Who made an end up, and why.
const MADE_UP: &str = "made up by the auth service: the recorder did not end the recording";

/// Reads the recording and answers with its end event, or with one made out of its beginning. A recording says what
/// its recorder wrote: it tells of this session in this cluster, or it counts for nothing.
pub(crate) fn synthesise<R: std::io::Read>(
    decoder: &mut Decoder<R>,
    session: SessionId,
    cluster: &str,
) -> Option<AuditEvent> {
    let sid = session.to_string();
    let mut beginning: Option<AuditEvent> = None;
    let mut participants: Vec<String> = Vec::new();
    let mut last: Option<DateTime<Utc>> = None;
    let mut index = 0;
    // An error is the place where the recorder died; what is before it counts.
    while let Ok(Some(mut event)) = decoder.next_event() {
        last = event.metadata().time.get().or(last);
        index = event.metadata().index;
        let here = is_of(&event, &sid, cluster);
        match &event {
            end if here && end.ends_recording() => {
                let kind = event.kind();
                let metadata = event.metadata_mut();
                kind.clone_into(&mut metadata.event);
                if uuid::Uuid::try_parse(&metadata.uid).is_err() {
                    metadata.uid = stable_uid(kind, session.uuid().as_bytes());
                }
                return Some(event);
            }
            AuditEvent::SessionStart(start) if here => {
                participants.push(start.user.user.clone());
                beginning = Some(event);
            }
            AuditEvent::DatabaseSessionStart(start) if here => {
                participants.push(start.user.user.clone());
                beginning = Some(event);
            }
            AuditEvent::SessionJoin(join)
                if participants.len() < MOST_PARTICIPANTS
                    && !participants.contains(&join.user.user) =>
            {
                participants.push(join.user.user.clone());
            }
            _ => {}
        }
    }
    let at = At { session, cluster, index: index.saturating_add(1) };
    end_of(beginning?, participants, last, &at)
}

/// Of what an end is made up.
pub(crate) struct At<'a> {
    pub(crate) session: SessionId,
    pub(crate) cluster: &'a str,
    /// Its number in the session.
    pub(crate) index: i64,
}

/// An end for a session that began like this, and of which nothing is known after `last`.
pub(crate) fn end_of(
    beginning: AuditEvent,
    participants: Vec<String>,
    last: Option<DateTime<Utc>>,
    at: &At<'_>,
) -> Option<AuditEvent> {
    let mut end = match beginning {
        AuditEvent::SessionStart(start) => end_of_session(start, participants, last),
        AuditEvent::DatabaseSessionStart(start) => end_of_database(start, participants, last),
        _ => return None,
    };
    let uid = stable_uid(end.kind(), at.session.uuid().as_bytes());
    *end.metadata_mut() = Metadata {
        index: at.index,
        uid,
        time: last.into(),
        cluster_name: at.cluster.to_owned(),
        ..Metadata::default()
    };
    Some(end)
}

/// Whether an event tells of this session in this cluster.
fn is_of(event: &AuditEvent, sid: &str, cluster: &str) -> bool {
    let named = event.metadata().cluster_name.as_str();
    (named.is_empty() || named == cluster)
        && event.part::<SessionMetadata>().is_some_and(|session| session.sid == sid)
}

fn end_of_session(
    start: SessionStart,
    participants: Vec<String>,
    last: Option<DateTime<Utc>>,
) -> AuditEvent {
    let end = SessionEnd {
        interactive: !start.size.is_empty(),
        participants,
        session_start: start.metadata.time,
        session_stop: last.into(),
        user: start.user,
        session: start.session,
        connection: start.connection,
        server: start.server,
        initial_command: start.initial_command,
        session_recording: start.session_recording,
        recovered: MADE_UP.to_owned(),
        ..SessionEnd::default()
    };
    end.into()
}

fn end_of_database(
    start: DatabaseSessionStart,
    participants: Vec<String>,
    last: Option<DateTime<Utc>>,
) -> AuditEvent {
    let end = DatabaseSessionEnd {
        participants,
        session_start: start.metadata.time,
        session_stop: last.into(),
        user: start.user,
        session: start.session,
        database: start.database,
        connection: start.connection,
        session_recording: start.session_recording,
        recovered: MADE_UP.to_owned(),
        ..DatabaseSessionEnd::default()
    };
    end.into()
}
