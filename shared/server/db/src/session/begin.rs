//! The beginning of a session: its recording is there before its `db.session.start` is in the audit log, and that before
//! anything else happens.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::Utc;
use server_core::recorder::{
    EventOutlet, NewRecording, Notice, OnNotice, RecordError, Recorder, Window, WindowLimits,
};
use server_core::{EmitError, EventSink, chain};
use shared_events::AuditEvent;
use shared_types::RecordingMode;

use super::{Begun, Session};
use crate::audit::{Outlet, Parts};

/// What was opened by the time a session was let in.
#[derive(Default)]
pub(super) struct Opened {
    mode: Option<RecordingMode>,
    recorder: Option<Arc<Recorder>>,
    window: Option<Arc<Window>>,
}

/// Takes the one event of a decision: with it, the recording begins.
pub(super) struct Beginning<'a> {
    session: &'a Session,
    parts: Arc<Parts>,
    opened: Mutex<Opened>,
}

impl Opened {
    pub(super) fn into_begun(self, user: &str, name: &str, parts: Arc<Parts>) -> Begun {
        Begun {
            at: Utc::now(),
            user: user.to_owned(),
            name: name.to_owned(),
            mode: self.mode.unwrap_or_default(),
            recorder: self.recorder,
            window: self.window,
            parts,
        }
    }
}

impl<'a> Beginning<'a> {
    pub(super) fn new(session: &'a Session, parts: Arc<Parts>) -> Self {
        Self { session, parts, opened: Mutex::default() }
    }

    /// What was opened, once the decision is made.
    pub(super) fn opened(self) -> Opened {
        self.opened.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn allowed(&self, mut start: AuditEvent) -> Result<(), EmitError> {
        let (session, service) = (self.session, &self.session.service);
        let mode = session.recording_mode();
        let mut opened = Opened { mode: Some(mode), ..Opened::default() };
        if mode.is_sync() {
            let mut announced = [start];
            service.events.acknowledged(&mut announced, service.settings.recording_wait).await?;
            [start] = announced;
            let limits = WindowLimits::new(service.settings.recording_wait);
            opened.window = Some(Arc::new(Window::new(limits)));
        }
        if mode != RecordingMode::Off {
            match self.begin(opened.window.clone(), &start).await {
                Ok((recorder, numbered)) => {
                    (opened.recorder, start) = (Some(Arc::new(recorder)), numbered);
                }
                Err(error) => self.unrecorded(&error).await?,
            }
        }
        if !mode.is_sync() {
            service.events.emit(vec![start]).await?;
        }
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }

    async fn begin(
        &self,
        window: Option<Arc<Window>>,
        start: &AuditEvent,
    ) -> Result<(Recorder, AuditEvent), RecordError> {
        let service = &self.session.service;
        let outlet: Arc<dyn EventOutlet> =
            Arc::new(Outlet { parts: Arc::clone(&self.parts), queue: Arc::clone(&service.queue) });
        let recording = NewRecording {
            authority: &service.authority,
            recordings: &service.recordings,
            signer: &service.signer.shared(),
            cluster: service.authority.state().cluster.clone(),
            recorder: service.settings.host_id,
            session: self.session.id(),
            strict: self.session.is_strict(),
            window,
            bucket: None,
            on_notice: self.on_notice(),
            outlet: Some(outlet),
        };
        let recorder = recording.begin().await?;
        let numbered = recorder.event(start.clone()).await?;
        Ok((recorder, numbered))
    }

    /// A session that cannot be recorded is refused, or goes on without, as the roles say.
    async fn unrecorded(&self, error: &RecordError) -> Result<(), EmitError> {
        let (session, why) = (self.session, chain(error));
        tracing::error!(sid = %session.id(), error = why, "begin recording");
        let ends = session.is_strict();
        let outcome = if ends { "the session ends" } else { "the session goes on without" };
        let reason = format!("session {} cannot be recorded, {outcome}: {why}", session.id());
        session.service.emit(vec![session.party().rejected(&reason)]).await;
        if ends { Err(EmitError::Disk(why)) } else { Ok(()) }
    }

    /// Tells the log and the audit log of gaps.
    fn on_notice(&self) -> OnNotice {
        let (sid, party) = (self.session.id(), self.session.party());
        let service = Arc::clone(&self.session.service);
        Arc::new(move |notice| {
            let reason = match notice {
                Notice::GapBegins(error) => {
                    let why = chain(&error);
                    tracing::error!(%sid, error = why, "recording has a gap from here on");
                    format!(
                        "session {sid} cannot be recorded now and goes on, its recording has a gap from here on: {why}"
                    )
                }
                Notice::GapEnds => {
                    tracing::info!(%sid, "session is recorded again");
                    format!("session {sid} is recorded again, its recording has a gap up to here")
                }
            };
            let (event, service) = (party.rejected(&reason), Arc::clone(&service));
            tokio::spawn(async move { service.emit(vec![event]).await });
        })
    }
}

#[async_trait]
impl EventSink for Beginning<'_> {
    async fn emit(&self, mut events: Vec<AuditEvent>) -> Result<(), EmitError> {
        let accepted = |event: &AuditEvent| match event {
            AuditEvent::DatabaseSessionStart(start) => start.status.success,
            _ => false,
        };
        match events.pop() {
            Some(start) if events.is_empty() && accepted(&start) => self.allowed(start).await,
            last => {
                events.extend(last);
                self.session.service.events.emit(events).await
            }
        }
    }
}
