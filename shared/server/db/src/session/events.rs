//! The events of a session's beginning and end.

use chrono::{DateTime, Utc};
use server_core::ssh::events::{self, Party, cut};
use server_core::stable_uid;
use shared_events::{
    AuditEvent, ClientMetadata, ConnectionMetadata, DatabaseMetadata, DatabaseSessionEnd,
    DatabaseSessionStart, ServerMetadata, SessionMetadata, Status,
};
use shared_types::{RecordingMode, Strictness};

use super::{Begun, Session};
use crate::audit::Parts;
use crate::catalog::ORIGIN;

impl Session {
    /// What all events of the session share.
    pub(super) fn parts(&self, user: &str, name: &str) -> Parts {
        let database = self.database();
        Parts {
            user: events::user(self.identity(), ""),
            session: SessionMetadata {
                sid: self.id().to_string(),
                private_key_policy: "none".to_owned(),
                ..SessionMetadata::default()
            },
            database: DatabaseMetadata {
                db_service: database.name().to_owned(),
                db_protocol: database.spec.protocol.as_str().to_owned(),
                db_uri: database.spec.uri.clone(),
                db_name: cut(name),
                db_user: cut(user),
                db_labels: database.all_labels(),
                db_type: "self-hosted".to_owned(),
                db_origin: database.metadata.labels.get(ORIGIN).cloned().unwrap_or_default(),
                ..DatabaseMetadata::default()
            },
        }
    }

    fn connection(&self) -> ConnectionMetadata {
        ConnectionMetadata {
            remote_addr: self.client().to_string(),
            proto: self.database().spec.protocol.as_str().to_owned(),
            ..ConnectionMetadata::default()
        }
    }

    fn server(&self) -> ServerMetadata {
        let settings = &self.service.settings;
        events::node(settings.host_id, settings.hostname.as_ref(), &Default::default(), "")
    }

    /// Who, from where, to where, for events about recording.
    pub(super) fn party(&self) -> Party {
        Party {
            user: events::user(self.identity(), ""),
            server: self.server(),
            connection: self.connection(),
        }
    }

    /// `db.session.start`, accepted or refused.
    pub(super) fn started(
        &self,
        parts: &Parts,
        user_agent: &str,
        refused: Option<&str>,
    ) -> AuditEvent {
        let strictness = if self.is_strict() { Strictness::Strict } else { Strictness::BestEffort };
        DatabaseSessionStart {
            user: parts.user.clone(),
            session: parts.session.clone(),
            server: self.server(),
            connection: self.connection(),
            status: match refused {
                None => Status { success: true, ..Status::default() },
                Some(why) => Status {
                    error: cut(why),
                    message: "database access refused".to_owned(),
                    ..Status::default()
                },
            },
            database: parts.database.clone(),
            client: ClientMetadata { user_agent: cut(user_agent) },
            session_recording: self.service.mode().as_str().to_owned(),
            record_session: match strictness {
                Strictness::Strict => "strict".to_owned(),
                Strictness::BestEffort => "best_effort".to_owned(),
            },
            ..DatabaseSessionStart::default()
        }
        .into()
    }

    /// `db.session.end`. Where the auth service makes one up meanwhile, it is this one.
    pub(super) fn ended_event(&self, begun: &Begun, stop: DateTime<Utc>) -> AuditEvent {
        let mut end: AuditEvent = DatabaseSessionEnd {
            user: begun.parts.user.clone(),
            session: begun.parts.session.clone(),
            database: begun.parts.database.clone(),
            session_start: begun.at.into(),
            session_stop: stop.into(),
            connection: self.connection(),
            participants: vec![begun.parts.user.user.clone()],
            session_recording: begun.mode.as_str().to_owned(),
            ..DatabaseSessionEnd::default()
        }
        .into();
        end.metadata_mut().uid = stable_uid("db.session.end", self.id().uuid().as_bytes());
        end
    }

    /// The mode in which a session that begins now is recorded. The agent is where it happens, whatever the mode calls
    /// the place.
    pub(super) fn recording_mode(&self) -> RecordingMode {
        self.service.mode()
    }
}
