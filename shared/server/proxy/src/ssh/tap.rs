//! One session channel, seen by the proxy: what it was, its recording, its events.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use server_core::{EventSink as _, EventSpool, RecordingSpool};
use shared_events::AuditEvent;
use shared_recording::{Header, SessionRecorder, TokenBucket};
use shared_ssh::relay::{Ended, ForwardTap, Program, Size, Start, Stream, Tap, Watch};
use shared_types::{ClusterName, HostId, SessionId, Strictness};

use super::command::{Transfer, transfer};
use super::events::{Party, PortStep};
use super::recorder::{self, RecordError, Recorder};

/// What taps of one visit share.
#[derive(Clone)]
pub(crate) struct Recording {
    pub(crate) events: Arc<EventSpool>,
    pub(crate) recordings: Arc<RecordingSpool>,
    pub(crate) cluster: ClusterName,
    pub(crate) recorder: HostId,
    /// The effective mode, as events name it.
    pub(crate) mode: &'static str,
    /// What happens when a recording cannot be made.
    pub(crate) strictness: Strictness,
    /// Whether the role allows file copies.
    pub(crate) file_copy: bool,
    /// Bucket for the output of commands without a terminal.
    pub(crate) exec_bucket: Option<(u64, u64)>,
}

impl Recording {
    /// Emits events; what cannot be made durable is told in the log with everything but its content.
    pub(crate) async fn emit(&self, events: Vec<AuditEvent>) {
        let kinds: Vec<_> = events.iter().map(AuditEvent::kind).collect();
        if let Err(err) = self.events.emit(events).await {
            tracing::error!(?kinds, error = %err, "audit events are lost");
        }
    }
}

/// What runs on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Shell,
    Exec(String),
    Transfer(String, Transfer),
    Subsystem(String),
}

struct Running {
    kind: Kind,
    interactive: bool,
    began: DateTime<Utc>,
    recorder: Option<Arc<Recorder>>,
}

/// The tap of one session channel.
pub(crate) struct SessionTap {
    sid: SessionId,
    party: Party,
    recording: Recording,
    running: Mutex<Option<Running>>,
}

impl SessionTap {
    pub(crate) fn new(party: Party, recording: Recording) -> Self {
        Self { sid: SessionId::random(), party, recording, running: Mutex::default() }
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().and_then(|running| running.recorder.clone())
    }

    fn stop_recording(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut() {
            running.recorder = None;
        }
    }

    async fn begin(&self, interactive: bool) -> Result<Recorder, RecordError> {
        let writer = self.recording.recordings.begin(self.sid).await?;
        let header = Header {
            cluster: self.recording.cluster.clone(),
            session: self.sid,
            recorder: self.recording.recorder,
        };
        let bucket = self
            .recording
            .exec_bucket
            .filter(|_| !interactive)
            .map(|(size, rate)| TokenBucket::new(size, rate));
        Ok(Recorder::spawn(SessionRecorder::new(header, recorder::limits(), None), bucket, writer))
    }

    /// What to do when recording went wrong: end the session, or go on without.
    async fn failed(&self, step: &str, err: &RecordError) -> Result<(), String> {
        tracing::error!(sid = %self.sid, error = %chain(err), "{step}");
        let strict = self.recording.strictness == Strictness::Strict;
        let outcome = if strict { "the session ends" } else { "the session goes on without" };
        let reason =
            format!("session {} cannot be recorded, {outcome}: {step}: {}", self.sid, chain(err));
        self.recording.emit(vec![self.party.rejected(&reason)]).await;
        if strict {
            Err("the session cannot be recorded, and its recording is mandatory".to_owned())
        } else {
            Ok(())
        }
    }

    fn refuse_copy(&self, kind: &Kind) -> Option<AuditEvent> {
        const WHY: &str = "file copying is not permitted";
        if self.recording.file_copy {
            return None;
        }
        match kind {
            Kind::Transfer(command, Transfer::Scp { path, .. }) => {
                Some(self.party.copy_refused(self.sid, Some((command, path)), WHY))
            }
            Kind::Transfer(command, _) => {
                Some(self.party.copy_refused(self.sid, Some((command, "")), WHY))
            }
            Kind::Subsystem(name) if name == "sftp" => {
                Some(self.party.copy_refused(self.sid, None, WHY))
            }
            _ => None,
        }
    }
}

fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}

#[async_trait]
impl Tap for SessionTap {
    async fn start(&self, start: &Start) -> Result<Watch, String> {
        let interactive = start.pty.is_some();
        let kind = match &start.program {
            Program::Shell => Kind::Shell,
            Program::Subsystem(name) => Kind::Subsystem(name.clone()),
            Program::Exec(command) => match transfer(command).filter(|_| !interactive) {
                Some(transfer) => Kind::Transfer(command.clone(), transfer),
                None => Kind::Exec(command.clone()),
            },
        };
        if let Some(event) = self.refuse_copy(&kind) {
            self.recording.emit(vec![event]).await;
            return Err("file copying is not permitted".to_owned());
        }
        let command = match &kind {
            Kind::Exec(command) => Some(command.as_str()),
            _ => None,
        };
        let recorded = matches!(kind, Kind::Shell | Kind::Exec(_));
        let mut recorder = None;
        if recorded {
            match self.begin(interactive).await {
                Ok(begun) => recorder = Some(Arc::new(begun)),
                Err(err) => self.failed("begin recording", &err).await?,
            }
            let size = start.pty.as_ref().map(|pty| pty.size);
            let mut event = self.party.start(self.sid, size, command, self.recording.mode);
            if let Some(begun) = &recorder {
                match begun.event(event.clone()).await {
                    Ok(numbered) => event = numbered,
                    Err(err) => {
                        self.failed("record the beginning", &err).await?;
                        recorder = None;
                    }
                }
            }
            // Durable before the program starts, and so before its output.
            self.recording.events.emit(vec![event]).await.map_err(|err| {
                tracing::error!(sid = %self.sid, error = %err, "session.start is not durable");
                "the audit log cannot be written".to_owned()
            })?;
        }
        let watch = if recorder.is_some() { Watch::Output } else { Watch::Nothing };
        let running = Running { kind, interactive, began: Utc::now(), recorder };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(watch)
    }

    async fn output(&self, _stream: Stream, data: &Bytes) -> Result<(), String> {
        let Some(recorder) = self.recorder() else { return Ok(()) };
        match recorder.output(data).await {
            Ok(()) => Ok(()),
            Err(err) => {
                self.stop_recording();
                self.failed("record output", &err).await
            }
        }
    }

    async fn resize(&self, size: Size) -> Result<(), String> {
        let event = self.party.resize(self.sid, size);
        let Some(recorder) = self.recorder() else { return Ok(()) };
        match recorder.event(event).await {
            Ok(event) => {
                self.recording.emit(vec![event]).await;
                Ok(())
            }
            Err(err) => self.failed("record a resize", &err).await,
        }
    }

    async fn end(&self, ended: Ended) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        let (sid, party) = (self.sid, &self.party);
        let mut events = Vec::new();
        let mut recorded = Vec::new();
        match &running.kind {
            Kind::Shell => {}
            Kind::Exec(command) => recorded.push(party.exec(sid, command, &ended)),
            Kind::Transfer(command, Transfer::Scp { path, copy }) => {
                events.push(party.scp(sid, command, path, copy, &ended))
            }
            Kind::Transfer(command, _) => events.push(party.exec(sid, command, &ended)),
            Kind::Subsystem(name) => events.push(party.subsystem(name, &ended)),
        }
        if matches!(running.kind, Kind::Shell | Kind::Exec(_)) {
            let command = match &running.kind {
                Kind::Exec(command) => Some(command.as_str()),
                _ => None,
            };
            recorded.push(party.leave(sid));
            recorded.push(party.end(
                sid,
                running.interactive,
                command,
                (running.began, Utc::now()),
                self.recording.mode,
            ));
        }
        let recorder = running.recorder.and_then(Arc::into_inner);
        if let Some(recorder) = recorder {
            for event in recorded {
                match recorder.event(event.clone()).await {
                    Ok(numbered) => events.push(numbered),
                    Err(_) => events.push(event),
                }
            }
            if let Err(err) = recorder.finish().await {
                tracing::error!(%sid, error = %chain(&err), "finish recording");
            }
        } else {
            events.extend(recorded);
        }
        events.push(party.data(sid, &ended));
        if let Some(reason) = &ended.cut {
            events.push(party.disconnected(reason));
        }
        self.recording.emit(events).await;
    }
}

/// The tap of one forwarded connection.
pub(crate) struct PortTap {
    pub(crate) addr: String,
    pub(crate) party: Party,
    pub(crate) recording: Recording,
}

#[async_trait]
impl ForwardTap for PortTap {
    async fn end(&self, _to_target: u64, _to_client: u64, error: Option<String>) {
        let how = match &error {
            Some(why) => PortStep::Failed(why),
            None => PortStep::End,
        };
        self.recording.emit(vec![self.party.port(&self.addr, how)]).await;
    }
}
