//! What was on the screen as plain text: every line that ended, and of full-screen programs the
//! last screen. There is no escape sequence in it.

use std::io::Write;

use shared_events::{AuditEvent, OutputGap};

use super::{Events, ExportError};
use crate::database::shown;
use crate::player::line_ends;
use crate::screen::{Screen, Size};
use crate::timeline::size_of;

/// Writes a transcript. Of a damaged recording it has what came before the damage.
pub fn transcript(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    let mut transcript = Transcript { screen: Screen::new(Size::default()), full: None };
    let mut result = Ok(());
    for event in shown(events) {
        match event {
            Ok(event) => transcript.take(&event, out)?,
            Err(error) => {
                result = Err(error.into());
                break;
            }
        }
    }
    transcript.end(out)?;
    result
}

struct Transcript {
    screen: Screen,
    /// The full-screen program's last screen, while there is one.
    full: Option<String>,
}

impl Transcript {
    fn take(&mut self, event: &AuditEvent, out: &mut impl Write) -> Result<(), ExportError> {
        self.screen.set_line_ends(line_ends(event, self.screen.line_ends()));
        if let Some(size) = size_of(event) {
            self.screen.resize(size);
        }
        if let Some(gap) = OutputGap::from_event(event) {
            writeln!(out, "[{}]", super::gap_note(&gap))?;
        }
        let AuditEvent::SessionPrint(print) = event else { return Ok(()) };
        let mut lines = String::new();
        let full = &mut self.full;
        self.screen.feed_lines(&print.data, |screen| {
            if !screen.is_alternate() {
                leave(full, &mut lines);
                line(&screen.line(), &mut lines);
            }
        });
        if self.screen.is_alternate() {
            self.full = Some(self.screen.text());
        } else {
            leave(&mut self.full, &mut lines);
        }
        out.write_all(lines.as_bytes())?;
        Ok(())
    }

    fn end(mut self, out: &mut impl Write) -> Result<(), ExportError> {
        let mut lines = String::new();
        if !self.screen.is_alternate() {
            let rest = self.screen.line();
            if !rest.trim().is_empty() {
                line(&rest, &mut lines);
            }
        }
        leave(&mut self.full, &mut lines);
        out.write_all(lines.as_bytes())?;
        Ok(())
    }
}

/// Adds the screen of a program that was left.
fn leave(full: &mut Option<String>, out: &mut String) {
    if let Some(screen) = full.take() {
        screen.lines().for_each(|text| line(text, out));
    }
}

fn line(text: &str, out: &mut String) {
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::tests::session;
    use super::*;

    #[test]
    fn a_transcript_is_what_could_be_read() {
        let mut out = Vec::new();
        transcript(session().into_iter(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        insta::assert_snapshot!(text);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    }
}
