//! A recording as an asciicast, version 2 or 3 (<https://docs.asciinema.org/manual/asciicast/v2/>,
//! `…/v3/`): a line of JSON that describes the session, then one for each event.
//!
//! Whoever plays it does so on a terminal of their own, so the output goes through the filter that
//! playback has too; only the switch to the alternate screen is kept.

use std::io::Write;

use serde_json::{Value, json};
use shared_events::{AuditEvent, OutputGap};

use super::{Events, ExportError, Heading, quoted};
use crate::database::shown;
use crate::filter::{Audience, Filter};
use crate::player::line_ends;
use crate::screen::{LineEnds, Size};
use crate::timeline::{Clock, size_of};

/// Which version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Times since the start.
    #[default]
    Two,
    /// Times since the event before.
    Three,
}

/// Writes an asciicast. Of a damaged recording it has what came before the damage.
pub fn asciicast(
    events: impl Events,
    version: Version,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut cast = Cast {
        version,
        out,
        begun: false,
        size: Size::default(),
        heading: None,
        filter: Filter::for_audience(Audience::Screen),
        line_ends: LineEnds::default(),
        clock: Clock::default(),
        written_ms: 0,
    };
    let mut result = Ok(());
    for event in shown(events) {
        match event {
            Ok(event) => cast.take(&event)?,
            Err(error) => {
                result = Err(error.into());
                break;
            }
        }
    }
    cast.end()?;
    result
}

struct Cast<'a, W> {
    version: Version,
    out: &'a mut W,
    begun: bool,
    size: Size,
    heading: Option<Heading>,
    filter: Filter,
    line_ends: LineEnds,
    clock: Clock,
    written_ms: u64,
}

impl<W: Write> Cast<'_, W> {
    fn take(&mut self, event: &AuditEvent) -> Result<(), ExportError> {
        self.clock.advance(event);
        self.line_ends = line_ends(event, self.line_ends);
        if let Some(size) = size_of(event) {
            self.size = size;
            if self.begun {
                self.event('r', &format!("{}x{}", size.columns, size.rows))?;
            }
        }
        if !self.begun && self.heading.is_none() {
            self.heading = Heading::of(event);
        }
        match event {
            AuditEvent::SessionPrint(print) => {
                let shown = self.filter.filter(&print.data);
                let mut shown = String::from_utf8_lossy(&shown).into_owned();
                if self.line_ends == LineEnds::Bare {
                    shown = shown.replace('\n', "\r\n");
                }
                if !shown.is_empty() {
                    self.event('o', &shown)?;
                }
            }
            event => {
                if let Some(gap) = OutputGap::from_event(event) {
                    self.event('m', &super::gap_note(&gap))?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, code: char, data: &str) -> Result<(), ExportError> {
        self.begin()?;
        let from = match self.version {
            Version::Two => 0,
            Version::Three => self.written_ms,
        };
        let time = self.clock.at_ms() - from;
        self.written_ms = self.clock.at_ms();
        let (seconds, millis) = (time / 1000, time % 1000);
        writeln!(self.out, "[{seconds}.{millis:03}, \"{code}\", {}]", quoted(data))?;
        Ok(())
    }

    fn begin(&mut self) -> Result<(), ExportError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let Size { columns, rows } = self.size;
        let mut header = match self.version {
            Version::Two => json!({ "version": 2, "width": columns, "height": rows }),
            Version::Three => json!({ "version": 3, "term": { "cols": columns, "rows": rows } }),
        };
        if let (Some(heading), Some(header)) = (&self.heading, header.as_object_mut()) {
            if let Some(time) = heading.start {
                header.insert("timestamp".into(), time.timestamp().into());
            }
            let title = heading.title();
            if !title.is_empty() {
                header.insert("title".into(), Value::String(title));
            }
        }
        writeln!(self.out, "{header}")?;
        Ok(())
    }

    /// Leaves the terminal as it was, also where the recording ends within a program.
    fn end(&mut self) -> Result<(), ExportError> {
        let restore = String::from_utf8_lossy(Filter::restore()).into_owned();
        self.event('o', &format!("\x1b[?1049l{restore}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::session;
    use super::*;

    fn cast(version: Version) -> Vec<Value> {
        let mut out = Vec::new();
        asciicast(session().into_iter(), version, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn version_two_counts_from_the_start() {
        let lines = cast(Version::Two);
        assert_eq!(
            lines[0],
            json!({"version": 2, "width": 40, "height": 10, "timestamp": 1_767_225_600, "title": "root@db-1"})
        );
        assert_eq!(lines[1], json!([0.0, "o", "$ "]));
        assert_eq!(lines[2], json!([1.5, "r", "60x20"]));
        assert_eq!(lines[3][0], 61.25);
        assert_eq!(lines[4], json!([61.25, "m", "7 bytes of output were not recorded here"]));
    }

    #[test]
    fn version_three_counts_from_the_event_before() {
        let lines = cast(Version::Three);
        assert_eq!(lines[0]["term"], json!({"cols": 40, "rows": 10}));
        let times: Vec<f64> = lines[1..].iter().map(|line| line[0].as_f64().unwrap()).collect();
        assert_eq!(times[..4], [0.0, 1.5, 59.75, 0.0]);
    }

    #[test]
    fn nothing_that_drives_a_terminal_is_in_it() {
        for line in &cast(Version::Two)[1..] {
            if line[1] == "o" {
                let data = line[2].as_str().unwrap();
                let data = data.replace("\x1b[?1049h", "").replace("\x1b[?1049l", "");
                crate::fuzz::assert_harmless(data.as_bytes());
            }
        }
        let all = serde_json::to_string(&cast(Version::Two)).unwrap();
        for part in ["owned", "]52", "javascript", "$q"] {
            assert!(!all.contains(part), "{part}: {all}");
        }
        assert!(all.contains("1049h") && all.contains("\\u001b[31m"), "{all}");
    }

    #[test]
    fn an_empty_recording_is_a_cast() {
        let mut out = Vec::new();
        asciicast(std::iter::empty(), Version::Two, &mut out).unwrap();
        assert!(out.starts_with(b"{\"version\":2") || out.starts_with(b"{\"height\""));
    }
}
