//! One session channel, seen by whoever ends it: what it was, its recording, its events.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared_events::AuditEvent;
use shared_recording::{Signer, TokenBucket};
use shared_ssh::relay::{Ended, ForwardTap, Gate, Program, Size, Start, Stream, Tap, Watch};
use shared_transfer::{Policy, Tool, Totals};
use shared_types::{ClusterName, HostId, RecordingMode, SessionId, Strictness};

use super::events::{Party, PortStep};
use super::ledger::Ledger;
use super::running::{Running as Listed, RunningSessions};
use crate::recorder::{
    NewRecording, Notice, OnNotice, RecordError, Recorder, Window, WindowLimits,
};
use crate::{Authority, EventSink as _, EventSpool, RecordingSpool, chain, stable_uid};

/// How long the end of a session waits for its recording to be complete at the auth service.
const LAST_SLICES: Duration = Duration::from_secs(5);

/// What the taps of one connection share.
#[derive(Clone)]
pub struct Recording {
    /// Takes what is streamed.
    pub authority: Arc<dyn Authority>,
    /// Takes the events.
    pub events: Arc<EventSpool>,
    /// Takes recordings that are uploaded later.
    pub recordings: Arc<RecordingSpool>,
    /// Sessions that run in this process.
    pub sessions: Arc<RunningSessions>,
    /// What the recording's header says.
    pub cluster: ClusterName,
    /// This host.
    pub recorder: HostId,
    /// What its slices are signed with.
    pub signer: Arc<Signer>,
    /// The effective mode; a running session keeps it. In mode `off` there are events and no recording.
    pub mode: RecordingMode,
    /// How long a streamed session waits for the auth service.
    pub sync_wait: Duration,
    /// What happens when a recording cannot be made.
    pub strictness: Strictness,
    /// What files the roles let be copied.
    pub transfers: Policy,
    /// Bucket for the output of commands without a terminal.
    pub exec_bucket: Option<(u64, u64)>,
}

impl Recording {
    /// Emits events; what cannot be made durable is told in the log with everything but its content.
    pub async fn emit(&self, events: Vec<AuditEvent>) {
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
    /// A program that copies files; its command, where it is not a subsystem.
    Transfer(Option<String>, Tool),
    Subsystem(String),
}

impl Kind {
    /// Whether it is a session, with a beginning and an end of its own in the audit log.
    fn is_told(&self) -> bool {
        matches!(self, Kind::Shell | Kind::Exec(_))
    }
}

struct Running {
    kind: Kind,
    interactive: bool,
    began: DateTime<Utc>,
    recorder: Option<Arc<Recorder>>,
    ledger: Option<Ledger>,
}

/// A session that is streamed: told of before its target is dialled, and held to its window.
struct Streamed {
    /// `session.start` as the auth service has it.
    start: AuditEvent,
    window: Arc<Window>,
}

/// The tap of one session channel.
pub struct SessionTap {
    sid: SessionId,
    party: Party,
    recording: Recording,
    opened: DateTime<Utc>,
    streamed: Option<Streamed>,
    running: Mutex<Option<Running>>,
    _listed: Listed,
}

impl SessionTap {
    /// The tap of a session that is recorded here and uploaded when it has ended.
    pub fn new(party: Party, recording: Recording) -> Self {
        let sid = SessionId::random();
        let _listed = recording.sessions.begin(sid);
        let (opened, running) = (Utc::now(), Mutex::default());
        Self { sid, party, recording, opened, streamed: None, running, _listed }
    }

    /// The tap of a session that is streamed; `session.start` is durable at the auth service when this returns. The
    /// error is a text for the client.
    pub async fn announced(party: Party, recording: Recording) -> Result<Self, String> {
        let tap = Self::new(party, recording);
        let wait = tap.recording.sync_wait;
        let mut start = [tap.started(None, None)];
        if let Err(err) = tap.recording.events.acknowledged(&mut start, wait).await {
            tracing::error!(sid = %tap.sid, error = %err, "session.start is not acknowledged");
            let why = format!(
                "the auth service does not answer, and sessions are recorded there as they run (session_recording: \"{}\")",
                tap.recording.mode
            );
            tap.recording.emit(vec![tap.party.rejected(&format!("{why}: {err}"))]).await;
            return Err(why);
        }
        let [start] = start;
        let window = Arc::new(Window::new(WindowLimits::new(wait)));
        Ok(Self { streamed: Some(Streamed { start, window }), ..tap })
    }

    /// The session's id.
    pub fn sid(&self) -> SessionId {
        self.sid
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().and_then(|running| running.recorder.clone())
    }

    /// Whether a session runs that has events and no recording.
    fn is_told_only(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let told = running.as_ref().map(|running| running.kind.is_told());
        self.recording.mode == RecordingMode::Off && told.unwrap_or_default()
    }

    fn stop_recording(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut() {
            running.recorder = None;
        }
    }

    /// Whether the session ends where it cannot be recorded.
    fn is_strict(&self) -> bool {
        self.recording.strictness == Strictness::Strict || self.recording.mode.is_sync()
    }

    /// `session.start`.
    fn started(&self, size: Option<Size>, command: Option<&str>) -> AuditEvent {
        let strictness = if self.is_strict() { Strictness::Strict } else { Strictness::BestEffort };
        self.party.start(self.sid, size, command, self.recording.mode.as_str(), strictness)
    }

    async fn begin(&self, interactive: bool) -> Result<Recorder, RecordError> {
        let window = self.streamed.as_ref().map(|streamed| Arc::clone(&streamed.window));
        let bucket = self
            .recording
            .exec_bucket
            .filter(|_| !interactive)
            .map(|(size, rate)| TokenBucket::new(size, rate));
        let recording = NewRecording {
            authority: &self.recording.authority,
            recordings: &self.recording.recordings,
            signer: &self.recording.signer,
            cluster: self.recording.cluster.clone(),
            recorder: self.recording.recorder,
            session: self.sid,
            strict: self.is_strict(),
            window,
            bucket,
            on_notice: self.on_notice(),
            outlet: None,
        };
        recording.begin().await
    }

    /// Tells the log and the audit log of gaps.
    fn on_notice(&self) -> OnNotice {
        let (sid, party, recording) = (self.sid, self.party.clone(), self.recording.clone());
        Arc::new(move |notice| {
            let reason = match notice {
                Notice::GapBegins(err) => {
                    let why = chain(&err);
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
            let (event, recording) = (party.rejected(&reason), recording.clone());
            tokio::spawn(async move { recording.emit(vec![event]).await });
        })
    }

    /// What to do when recording went wrong: end the session, or go on without.
    async fn failed(&self, step: &str, err: &RecordError) -> Result<(), String> {
        tracing::error!(sid = %self.sid, error = %chain(err), "{step}");
        let ends = self.is_strict();
        let outcome = if ends { "the session ends" } else { "the session goes on without" };
        let reason =
            format!("session {} cannot be recorded, {outcome}: {step}: {}", self.sid, chain(err));
        self.recording.emit(vec![self.party.rejected(&reason)]).await;
        if ends {
            Err("the session cannot be recorded, and its recording is mandatory".to_owned())
        } else {
            Ok(())
        }
    }

    /// `session.start`: for a streamed session the event that the auth service has, with what is known by now.
    async fn begin_event(
        &self,
        size: Option<Size>,
        command: Option<&str>,
        recorder: &mut Option<Arc<Recorder>>,
    ) -> Result<(), String> {
        let mut event = self.started(size, command);
        if let Some(streamed) = &self.streamed {
            *event.metadata_mut() = streamed.start.metadata().clone();
        }
        if let Some(begun) = &recorder {
            match begun.event(event.clone()).await {
                Ok(numbered) => event = numbered,
                Err(err) => {
                    self.failed("record the beginning", &err).await?;
                    *recorder = None;
                }
            }
        }
        if self.streamed.is_some() {
            return Ok(());
        }
        // Durable before the program starts, and so before its output.
        self.recording.events.emit(vec![event]).await.map_err(|err| {
            tracing::error!(sid = %self.sid, error = %err, "session.start is not durable");
            "the audit log cannot be written".to_owned()
        })
    }

    /// Records the last events and ends the recording. Answers the events as they go to the audit log.
    async fn finish(&self, recorder: Recorder, last: Vec<AuditEvent>) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for event in last {
            match recorder.last_event(event.clone()).await {
                Ok(numbered) => events.push(numbered),
                Err(_) => events.push(event),
            }
        }
        let (sid, party, recording) = (self.sid, self.party.clone(), self.recording.clone());
        let finishing = async move {
            if let Err(err) = recorder.finish().await {
                let why = chain(&err);
                tracing::error!(%sid, error = why, "finish recording");
                let reason = format!("the end of session {sid} is not recorded: {why}");
                recording.emit(vec![party.rejected(&reason)]).await;
            }
        };
        if self.streamed.is_none() {
            finishing.await;
            return events;
        }
        // The rest may have to wait for the auth service, and the session does not.
        let mut finishing = tokio::spawn(finishing);
        if tokio::time::timeout(LAST_SLICES, &mut finishing).await.is_err() {
            tracing::warn!(%sid, "the end of the recording waits for the auth service");
        }
        events
    }

    /// What a program is.
    fn kind(&self, start: &Start) -> Kind {
        match &start.program {
            Program::Shell => Kind::Shell,
            Program::Subsystem(name) => match Tool::of_subsystem(name) {
                Some(tool) => Kind::Transfer(None, tool),
                None => Kind::Subsystem(name.clone()),
            },
            // With a terminal its output is a session's.
            Program::Exec(command) => match Tool::of_command(command) {
                Some(tool) if start.pty.is_none() => Kind::Transfer(Some(command.clone()), tool),
                _ => Kind::Exec(command.clone()),
            },
        }
    }

    /// Refuses a copy that the roles forbid, with or without a terminal.
    async fn refuse_copy(&self, start: &Start) -> Result<(), String> {
        let (tool, command) = match &start.program {
            Program::Shell => return Ok(()),
            Program::Subsystem(name) => (Tool::of_subsystem(name), None),
            Program::Exec(command) => (Tool::of_command(command), Some(command.as_str())),
        };
        let Some(tool) = tool else { return Ok(()) };
        let Err(why) = tool.permitted(self.recording.transfers) else { return Ok(()) };
        let path = match &tool {
            Tool::Scp { path, .. } => path,
            _ => "",
        };
        let event = self.party.copy_refused(self.sid, command.map(|command| (command, path)), why);
        self.recording.emit(vec![event]).await;
        Err(why.to_owned())
    }
}

#[async_trait]
impl Tap for SessionTap {
    async fn start(&self, start: &Start) -> Result<Watch, String> {
        let interactive = start.pty.is_some();
        self.refuse_copy(start).await?;
        let kind = self.kind(start);
        let command = match &kind {
            Kind::Exec(command) => Some(command.as_str()),
            _ => None,
        };
        let mut recorder = None;
        if kind.is_told() {
            if self.recording.mode != RecordingMode::Off {
                match self.begin(interactive).await {
                    Ok(begun) => recorder = Some(Arc::new(begun)),
                    Err(err) => self.failed("begin recording", &err).await?,
                }
            }
            let size = start.pty.as_ref().map(|pty| pty.size);
            self.begin_event(size, command, &mut recorder).await?;
        }
        let ledger = match &kind {
            Kind::Transfer(command, tool) => {
                let (party, recording) = (self.party.clone(), self.recording.clone());
                Some(Ledger::begin(self.sid, tool, command.as_deref(), party, recording))
            }
            _ => None,
        };
        let watch = match (&recorder, &ledger) {
            (Some(_), _) => Watch::Output,
            (None, Some(ledger)) => Watch::Filter(ledger.filter()),
            (None, None) => Watch::Nothing,
        };
        let running = Running { kind, interactive, began: Utc::now(), recorder, ledger };
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
        let Some(recorder) = self.recorder() else {
            if self.is_told_only() {
                self.recording.emit(vec![event]).await;
            }
            return Ok(());
        };
        match recorder.event(event).await {
            Ok(event) => {
                self.recording.emit(vec![event]).await;
                Ok(())
            }
            Err(err) => self.failed("record a resize", &err).await,
        }
    }

    fn gate(&self) -> Option<Arc<dyn Gate>> {
        let streamed = self.streamed.as_ref()?;
        Some(Arc::new(InputGate(Arc::clone(&streamed.window))))
    }

    async fn end(&self, ended: Ended) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (sid, party) = (self.sid, &self.party);
        let mut running = match running {
            Some(running) => running,
            // It was told of, and its end is too.
            None if self.streamed.is_some() => Running {
                kind: Kind::Shell,
                interactive: false,
                began: self.opened,
                recorder: None,
                ledger: None,
            },
            None => return,
        };
        let copied = match running.ledger.take() {
            Some(ledger) => ledger.finish().await,
            None => Totals::default(),
        };
        let mut events = Vec::new();
        let mut recorded = Vec::new();
        match &running.kind {
            Kind::Shell => {}
            Kind::Exec(command) => recorded.push(party.exec(sid, command, &ended)),
            // Files it copied were told one by one.
            Kind::Transfer(Some(command), Tool::Scp { path, direction }) => {
                if copied.files == 0 || ended.exit_status != Some(0) {
                    events.push(party.scp(sid, command, path, *direction, &ended));
                }
            }
            Kind::Transfer(Some(command), _) => events.push(party.exec(sid, command, &ended)),
            Kind::Transfer(None, tool) => events.push(party.subsystem(tool.name(), &ended)),
            Kind::Subsystem(name) => events.push(party.subsystem(name, &ended)),
        }
        if self.streamed.is_some() || running.kind.is_told() {
            let command = match &running.kind {
                Kind::Exec(command) => Some(command.as_str()),
                _ => None,
            };
            recorded.push(party.leave(sid));
            let mut end = party.end(
                sid,
                running.interactive,
                command,
                (running.began, Utc::now()),
                self.recording.mode.as_str(),
            );
            // Where the auth service makes one up meanwhile, it is this one.
            end.metadata_mut().uid = stable_uid("session.end", sid.uuid().as_bytes());
            recorded.push(end);
        }
        match running.recorder.and_then(Arc::into_inner) {
            Some(recorder) => events.extend(self.finish(recorder, recorded).await),
            None => events.extend(recorded),
        }
        events.push(party.data(sid, &ended));
        if let Some(reason) = &ended.cut {
            events.push(party.disconnected(reason));
        }
        self.recording.emit(events).await;
    }
}

/// The window of a streamed session, as the relay asks for it.
struct InputGate(Arc<Window>);

#[async_trait]
impl Gate for InputGate {
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    async fn opened(&self) {
        self.0.opened().await;
    }

    async fn overdue(&self) -> String {
        self.0.overdue().await
    }
}

/// The tap of one forwarded connection.
pub struct PortTap {
    /// Where to, as the client named it.
    pub addr: String,
    /// Who.
    pub party: Party,
    /// Takes the events.
    pub recording: Recording,
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
