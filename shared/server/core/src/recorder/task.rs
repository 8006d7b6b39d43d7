//! Takes what waits, encodes it off the relay's task, and hands the slices on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use shared_events::AuditEvent;
use shared_recording::encoder::EncodeError;
use shared_recording::{SessionRecorder, Slice};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Item, Shared};
use super::window::Window;
use super::writer::SliceWriter;
use super::{EventOutlet, Notice, OnNotice, OnTrouble, Pace, RecordError, SLICE};
use crate::spool::SpoolError;

/// So little is copied into records where it is, where no slice is cut by it.
const SMALL: usize = 32 * 1024;
/// What a record of one item may take beside its output.
const MESSAGE_COST: usize = 256;
/// How often a recorder that found no room looks again.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Task {
    recorder: Option<SessionRecorder>,
    writer: Box<dyn SliceWriter>,
    shared: Arc<Shared>,
    pace: Pace,
    window: Option<Arc<Window>>,
    on_trouble: OnTrouble,
    on_notice: OnNotice,
    outlet: Option<Arc<dyn EventOutlet>>,
    /// When the oldest byte that is in no slice was taken.
    unflushed: Option<Instant>,
    /// Slices that found no room. While there are any, output is left out.
    stuck: VecDeque<Slice>,
    /// When to look for room again.
    look: Instant,
    /// Whether anything was encoded yet.
    begun: bool,
}

/// Events that were recorded.
#[derive(Default)]
struct Numbered {
    /// Who waits for one.
    awaited: Vec<(oneshot::Sender<AuditEvent>, Box<AuditEvent>)>,
    /// What goes to the outlet.
    batch: Vec<AuditEvent>,
}

/// What is to be encoded in one go.
enum Work {
    Items(Vec<Item>),
    Flush,
    Finish,
}

impl Task {
    pub(super) fn new(
        recorder: SessionRecorder,
        writer: Box<dyn SliceWriter>,
        shared: Arc<Shared>,
        pace: Pace,
        window: Option<Arc<Window>>,
    ) -> Self {
        Self {
            recorder: Some(recorder),
            writer,
            shared,
            pace,
            window,
            on_trouble: OnTrouble::End,
            on_notice: Arc::new(|_| {}),
            outlet: None,
            unflushed: None,
            stuck: VecDeque::new(),
            look: Instant::now(),
            begun: false,
        }
    }

    pub(super) fn with_trouble(self, on_trouble: OnTrouble, on_notice: OnNotice) -> Self {
        Self { on_trouble, on_notice, ..self }
    }

    pub(super) fn with_outlet(self, outlet: Option<Arc<dyn EventOutlet>>) -> Self {
        Self { outlet, ..self }
    }

    pub(super) async fn run(mut self) -> Result<(), RecordError> {
        while let Some(items) = self.next().await? {
            self.work(Work::Items(items)).await?;
            if self.unflushed.is_some_and(|since| since.elapsed() >= self.pace.flush) {
                self.work(Work::Flush).await?;
            }
            self.try_stuck().await;
        }
        // The end has the patience of every other slice.
        while let Some(slice) = self.stuck.pop_front() {
            self.writer.write(&slice, 0, true).await?;
        }
        self.work(Work::Finish).await?;
        self.writer.close().await?;
        Ok(())
    }

    /// Gathers items; `None` at the end. What is in no slice is flushed meanwhile.
    async fn next(&mut self) -> Result<Option<Vec<Item>>, RecordError> {
        let mut overdue = None;
        loop {
            let armed = {
                let mut queue = self.shared.queue();
                let due = overdue.is_some_and(|at| at <= Instant::now());
                if queue.urgent || queue.closed || (queue.armed && due) {
                    (queue.armed, queue.urgent, queue.bytes) = (false, false, 0);
                    let items = std::mem::take(&mut queue.items);
                    let ended = queue.closed && items.is_empty();
                    drop(queue);
                    if let (true, Some(at)) = (due, overdue) {
                        // They have waited that long already, and are flushed with this.
                        self.unflushed.get_or_insert(at - self.pace.flush);
                    }
                    self.shared.taken.notify_waiters();
                    return Ok((!ended).then_some(items));
                }
                queue.armed
            };
            // More is coming soon, or nothing for long: either way one piece of work in a flush is enough.
            let until = match (self.unflushed, armed) {
                (Some(since), _) => since + self.pace.flush,
                (None, true) => *overdue.get_or_insert_with(|| Instant::now() + self.pace.flush),
                (None, false) if !self.stuck.is_empty() => {
                    let _ = tokio::time::timeout_at(self.look, self.shared.filled.notified()).await;
                    self.try_stuck().await;
                    continue;
                }
                (None, false) => {
                    self.shared.filled.notified().await;
                    continue;
                }
            };
            overdue = Some(until);
            if tokio::time::timeout_at(until, self.shared.filled.notified()).await.is_err()
                && !armed
            {
                self.work(Work::Flush).await?;
                overdue = None;
            }
        }
    }

    async fn work(&mut self, work: Work) -> Result<(), RecordError> {
        let mut recorder = self.recorder.take().ok_or(RecordError::Gone)?;
        let flushed = !matches!(work, Work::Items(_));
        // What a window waits for is not kept waiting. The first event of a session is on disk before anybody hears of
        // it: a session that is in the audit log has a recording, however soon this process is killed.
        let first = !std::mem::replace(&mut self.begun, true);
        let at_once = first || self.window.is_some();
        let (small, counted) = match &work {
            Work::Items(items) => {
                let bytes =
                    items.iter().map(Item::size).sum::<usize>() + items.len() * MESSAGE_COST;
                let small = !at_once && bytes <= SMALL && recorder.pending() + bytes < SLICE;
                (small, items.iter().map(Item::counted).sum())
            }
            Work::Flush | Work::Finish => (false, 0),
        };
        let (leave_out, outlet) = (!self.stuck.is_empty(), self.outlet.clone());
        let encode = move || {
            let (mut slices, mut numbered) = (Vec::new(), Numbered::default());
            let outlet = outlet.as_deref();
            let result = match work {
                Work::Items(items) => {
                    let mut result = Ok(());
                    for item in items {
                        // What comes behind something that cannot be recorded still goes to the audit log.
                        if leave_out || result.is_err() {
                            drop_item(Some(&mut recorder), item, outlet, &mut numbered);
                        } else {
                            result =
                                record(&mut recorder, item, outlet, &mut slices, &mut numbered);
                        }
                    }
                    result
                }
                Work::Flush if leave_out => Ok(()),
                Work::Flush => {
                    slices.extend(recorder.flush());
                    Ok(())
                }
                Work::Finish => recorder.finish(Utc::now(), &mut slices),
            };
            if at_once {
                slices.extend(recorder.flush());
            }
            // Whoever hears of an event may rely on those before it having gone on.
            if !first && numbered.batch.is_empty() {
                tell(&mut numbered);
            }
            (recorder, slices, numbered, result)
        };
        let (recorder, slices, mut numbered, result) = if small {
            encode()
        } else {
            tokio::task::spawn_blocking(encode).await.map_err(|_| RecordError::Gone)?
        };
        let pending = recorder.pending() > 0;
        self.recorder = Some(recorder);
        let cut = !slices.is_empty();
        // A session that may run unrecorded is not kept from its start.
        let patient = !first || self.on_trouble == OnTrouble::End;
        let written = self.write(slices, counted, patient).await;
        hand_on(self.outlet.as_deref(), &mut numbered.batch).await;
        tell(&mut numbered);
        written?;
        self.unflushed = match self.unflushed {
            _ if !pending || !self.stuck.is_empty() => None,
            Some(since) if !flushed && !cut => Some(since),
            _ => Some(Instant::now()),
        };
        Ok(result?)
    }

    async fn write(
        &mut self,
        slices: Vec<Slice>,
        counted: u64,
        patient: bool,
    ) -> Result<(), RecordError> {
        if let (true, Some(window)) = (slices.is_empty(), &self.window) {
            window.acknowledge(counted);
        }
        let mut slices = VecDeque::from(slices);
        while let Some(slice) = slices.pop_front() {
            let output = if slices.is_empty() { counted } else { 0 };
            if self.stuck.is_empty()
                && let Err(error) = self.write_one(&slice, output, patient).await
            {
                if self.on_trouble == OnTrouble::End || slice.end {
                    return Err(error.into());
                }
                self.begin_gap(error);
            } else if self.stuck.is_empty() {
                continue;
            }
            self.stuck.push_back(slice);
        }
        Ok(())
    }

    /// While there is no room for it, a session that may not run unrecorded stands still.
    async fn write_one(
        &mut self,
        slice: &Slice,
        output: u64,
        patient: bool,
    ) -> Result<(), SpoolError> {
        match self.writer.write(slice, output, false).await {
            Err(error) if patient && error.is_full() => {}
            written => return written,
        }
        let hold = self.on_trouble == OnTrouble::End;
        if hold {
            self.shared.hold(true);
        }
        self.writer.write(slice, output, true).await?;
        if hold {
            self.shared.hold(false);
        }
        Ok(())
    }

    fn begin_gap(&mut self, error: SpoolError) {
        self.look = Instant::now() + LOOK;
        (self.on_notice)(Notice::GapBegins(error));
    }

    /// Looks whether there is room again.
    async fn try_stuck(&mut self) {
        if self.stuck.is_empty() || Instant::now() < self.look {
            return;
        }
        while let Some(slice) = self.stuck.front() {
            if self.writer.write(slice, 0, false).await.is_err() {
                self.look = Instant::now() + LOOK;
                return;
            }
            self.stuck.pop_front();
        }
        (self.on_notice)(Notice::GapEnds);
        // What was encoded before the gap and is in no slice yet.
        self.unflushed = Some(Instant::now());
    }
}

fn record(
    recorder: &mut SessionRecorder,
    item: Item,
    outlet: Option<&dyn EventOutlet>,
    slices: &mut Vec<Slice>,
    numbered: &mut Numbered,
) -> Result<(), EncodeError> {
    match item {
        Item::Output { data, at } => recorder.output(data, at, slices),
        Item::LeftOut(bytes) => {
            recorder.leave_out(bytes);
            Ok(())
        }
        Item::Event { mut event, at, done } => {
            recorder.event(&mut event, at, slices)?;
            numbered.awaited.push((done, event));
            Ok(())
        }
        Item::Events { events, at, .. } => {
            let mut result = Ok(());
            for mut event in events {
                if let Some(outlet) = outlet {
                    outlet.complete(&mut event);
                }
                result = result.and(recorder.event(&mut event, at, slices));
                if outlet.is_some_and(|outlet| outlet.logs(&event)) {
                    numbered.batch.push(event);
                }
            }
            result
        }
    }
}

/// Gives events back, to those who still wait.
fn tell(numbered: &mut Numbered) {
    for (done, event) in numbered.awaited.drain(..) {
        let _ = done.send(*event);
    }
}

/// Gives events on, where there are any.
async fn hand_on(outlet: Option<&dyn EventOutlet>, batch: &mut Vec<AuditEvent>) {
    if let (Some(outlet), false) = (outlet, batch.is_empty()) {
        outlet.take(std::mem::take(batch)).await;
    }
}

/// An item that comes while there is no room, or after the end: output becomes part of a named gap, events only go to
/// the audit log.
fn drop_item(
    recorder: Option<&mut SessionRecorder>,
    item: Item,
    outlet: Option<&dyn EventOutlet>,
    numbered: &mut Numbered,
) {
    let left_out = match item {
        Item::Output { data, .. } => data.len() as u64,
        Item::LeftOut(bytes) => bytes,
        Item::Event { event, done, .. } => {
            let _ = done.send(*event);
            0
        }
        Item::Events { events, .. } => {
            for mut event in events {
                if let Some(outlet) = outlet.filter(|outlet| outlet.logs(&event)) {
                    outlet.complete(&mut event);
                    numbered.batch.push(event);
                }
            }
            0
        }
    };
    if let Some(recorder) = recorder {
        recorder.leave_out(left_out);
    }
}

/// Events that were taken and will not be recorded any more go to the audit log alone.
pub(super) async fn save(items: Vec<Item>, outlet: Option<&dyn EventOutlet>) {
    let mut numbered = Numbered::default();
    for item in items {
        if matches!(item, Item::Events { .. }) {
            drop_item(None, item, outlet, &mut numbered);
        }
    }
    hand_on(outlet, &mut numbered.batch).await;
}
