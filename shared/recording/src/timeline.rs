//! When things happened in a recording, and how fast to show them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use shared_events::{AuditEvent, OutputGap};

use crate::screen::Size;

/// The longest wait when idle time is skipped.
const IDLE: Duration = Duration::from_millis(500);
/// Gaps and sizes kept; more are counted.
const KEPT: usize = 10_000;

/// What a recording holds, gathered while it is read.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// When the session began.
    pub start: Option<DateTime<Utc>>,
    /// Time of the last print, in milliseconds since the first.
    pub duration_ms: u64,
    /// Number of events.
    pub events: u64,
    /// Number of prints.
    pub prints: u64,
    /// Bytes of recorded output.
    pub output: u64,
    /// Bytes of output that were left out.
    pub left_out: u64,
    /// Where output was left out.
    pub gaps: Vec<OutputGap>,
    /// Terminal sizes and since when.
    pub sizes: Vec<(u64, Size)>,
    /// Whether there is an end event.
    pub ended: bool,
}

impl Timeline {
    /// Reads a whole recording; of a damaged one, what can be read.
    pub fn read<E>(events: impl IntoIterator<Item = Result<AuditEvent, E>>) -> (Self, Option<E>) {
        let mut timeline = Self::default();
        for event in events {
            match event {
                Ok(event) => timeline.observe(&event),
                Err(error) => return (timeline, Some(error)),
            }
        }
        (timeline, None)
    }

    /// Takes the next event.
    pub fn observe(&mut self, event: &AuditEvent) {
        self.events += 1;
        match event {
            AuditEvent::SessionPrint(print) => {
                self.prints += 1;
                self.output += print.data.len() as u64;
                self.duration_ms = self.duration_ms.max(u64::try_from(print.ms).unwrap_or(0));
            }
            AuditEvent::SessionStart(_) | AuditEvent::DatabaseSessionStart(_) => {
                self.start = self.start.or(event.metadata().time.get());
            }
            event if event.ends_recording() => self.ended = true,
            _ => {}
        }
        if let Some(gap) = OutputGap::from_event(event) {
            self.left_out = self.left_out.saturating_add(gap.bytes);
            if self.gaps.len() < KEPT {
                self.gaps.push(gap);
            }
        }
        if let Some(size) = size_of(event)
            && self.sizes.len() < KEPT
        {
            self.sizes.push((self.duration_ms, size));
        }
    }
}

/// A recording's own time: milliseconds since the first output. It never goes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    at_ms: u64,
    /// When the first output was, by the recorder's clock.
    zero: Option<DateTime<Utc>>,
}

impl Clock {
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// When an event is. Output says so; a changed window was when the recorder's clock says. What
    /// else there is comes right behind what is before it.
    pub(crate) fn when(&self, event: &AuditEvent) -> u64 {
        let own = match event {
            AuditEvent::SessionPrint(print) => u64::try_from(print.ms).ok(),
            AuditEvent::Resize(resize) => resize
                .metadata
                .time
                .get()
                .and_then(|time| u64::try_from((time - self.zero?).num_milliseconds()).ok()),
            _ => None,
        };
        self.at_ms.max(own.unwrap_or(0))
    }

    /// Takes an event's time as the present one.
    pub(crate) fn advance(&mut self, event: &AuditEvent) {
        self.at_ms = self.when(event);
        if let (None, AuditEvent::SessionPrint(print)) = (self.zero, event) {
            let since = chrono::TimeDelta::try_milliseconds(print.ms).unwrap_or_default();
            self.zero = print.metadata.time.get().and_then(|time| time.checked_sub_signed(since));
        }
    }

    /// Lets time pass without an event.
    pub(crate) fn advance_to(&mut self, at_ms: u64) {
        self.at_ms = self.at_ms.max(at_ms);
    }
}

/// The terminal size that an event tells, if it is a sound one.
#[must_use]
pub fn size_of(event: &AuditEvent) -> Option<Size> {
    match event {
        AuditEvent::SessionStart(start) => start.size.parse().ok(),
        AuditEvent::Resize(resize) => resize.size.parse().ok(),
        _ => None,
    }
}

/// A speed that is not offered.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("speed {0} is out of range")]
pub struct SpeedError(f64);

/// How fast to play.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    speed: f64,
    skip_idle: bool,
}

impl Pace {
    /// A speed between 0.25 and 16.
    pub fn new(speed: f64, skip_idle: bool) -> Result<Self, SpeedError> {
        if (0.25..=16.0).contains(&speed) {
            Ok(Self { speed, skip_idle })
        } else {
            Err(SpeedError(speed))
        }
    }

    /// How many times as fast as it was.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Whether idle time is skipped.
    #[must_use]
    pub fn skips_idle(&self) -> bool {
        self.skip_idle
    }

    /// Twice as fast, or half as fast, as far as that is offered.
    #[must_use]
    pub fn changed(self, faster: bool) -> Self {
        let speed = if faster { self.speed * 2.0 } else { self.speed / 2.0 };
        Self { speed: speed.clamp(0.25, 16.0), ..self }
    }

    /// How much of the recording passes in a time, in milliseconds.
    #[must_use]
    pub fn passes(&self, time: Duration) -> u64 {
        // Saturates.
        (time.as_secs_f64() * 1000.0 * self.speed) as u64
    }

    /// How long to wait between two times of a recording, in milliseconds.
    #[must_use]
    pub fn wait(&self, from_ms: u64, to_ms: u64) -> Duration {
        let wait = Duration::from_millis(to_ms.saturating_sub(from_ms));
        // A duration too long to divide is one nobody waits for.
        let wait = Duration::try_from_secs_f64(wait.as_secs_f64() / self.speed).unwrap_or(wait);
        if self.skip_idle { wait.min(IDLE) } else { wait }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { speed: 1.0, skip_idle: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between two outputs, a window is changed when it was changed, not right behind the first.
    #[test]
    fn a_changed_window_has_its_own_time() {
        let time = |second: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(second);
        let print = |second: i64| -> AuditEvent {
            let mut print = shared_events::SessionPrint { ms: second * 1000, ..Default::default() };
            print.metadata.time = time(100 + second).into();
            print.into()
        };
        let resize = |second: i64| -> AuditEvent {
            let mut resize = shared_events::Resize::default();
            resize.metadata.time = time(second).into();
            resize.into()
        };
        let mut clock = Clock::default();
        clock.advance(&resize(90));
        assert_eq!(clock.at_ms(), 0);
        clock.advance(&print(0));
        clock.advance(&print(3));
        assert_eq!(clock.when(&resize(107)), 7000);
        clock.advance(&resize(107));
        assert_eq!((clock.when(&resize(101)), clock.when(&print(5))), (7000, 7000));
        assert_eq!(clock.when(&shared_events::Resize::default().into()), 7000, "without a time");
        assert_eq!(clock.when(&print(8)), 8000);
    }

    #[test]
    fn waits_follow_the_pace() {
        let pace = |speed, skip| Pace::new(speed, skip).unwrap();
        assert_eq!(pace(2.0, false).wait(1000, 5000), Duration::from_secs(2));
        assert_eq!(pace(0.5, true).wait(1000, 5000), Duration::from_millis(500));
        assert_eq!(pace(1.0, false).wait(5000, 1000), Duration::ZERO);
        assert!(pace(0.25, false).wait(0, u64::MAX) > Duration::from_secs(1));
        assert_eq!(Pace::new(32.0, false).unwrap_err().to_string(), "speed 32 is out of range");
        assert!(Pace::new(f64::NAN, false).is_err());
        let pace = pace(1.5, true);
        assert_eq!((pace.changed(true).speed(), pace.changed(false).speed()), (3.0, 0.75));
        let fast = pace.changed(true).changed(true).changed(true).changed(true);
        assert_eq!((fast.speed(), fast.skips_idle()), (16.0, true));
        assert_eq!(pace.passes(Duration::from_secs(2)), 3000);
    }
}
