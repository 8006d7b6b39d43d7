//! A recording as one page that plays from disk: no network, no recorded markup, no recorded
//! script.
//!
//! The page holds rows of the screen as text with styles, each row once, and for every step which
//! rows changed (see [`data`]). A script of ours puts them on the screen as text. The page's policy
//! allows that script and that style sheet by their hashes and nothing else, so that even markup
//! that got in would neither run nor load anything. Memory is bounded while it is written: what is
//! known of earlier rows is a table of a fixed size.

mod data;
mod rows;

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared_events::{AuditEvent, OutputGap};

use super::{Events, ExportError, Heading};
use crate::database::shown;
use crate::player::line_ends;
use crate::screen::Screen;
use crate::timeline::{Clock, size_of};
use data::Blocks;

const SCRIPT: &str = include_str!("html/player.js");
const STYLE: &str = include_str!("html/player.css");
const BODY: &str = include_str!("html/body.html");

/// Changes that follow one another faster than this are one step: 25 a second.
const STEP_MS: u64 = 40;

/// Writes the page. Of a damaged recording it has what came before the damage, and says so.
pub fn html(events: impl Events, out: &mut impl Write) -> Result<(), ExportError> {
    let mut page = Page {
        out,
        begun: false,
        heading: None,
        screen: None,
        dirty: None,
        clock: Clock::default(),
    };
    let mut result = Ok(());
    for event in shown(events) {
        match event {
            Ok(event) => page.take(&event)?,
            Err(error) => {
                page.note("the recording is damaged from here on")?;
                result = Err(error.into());
                break;
            }
        }
    }
    page.end()?;
    result
}

struct Page<'a, W> {
    out: &'a mut W,
    begun: bool,
    heading: Option<Heading>,
    screen: Option<Shown>,
    /// Since when the screen shows something that no step tells yet.
    dirty: Option<u64>,
    clock: Clock,
}

/// The screen, and what the page's script knows of it.
struct Shown {
    model: Screen,
    blocks: Blocks,
}

impl<W: Write> Page<'_, W> {
    fn take(&mut self, event: &AuditEvent) -> Result<(), ExportError> {
        let time = self.clock.when(event);
        if self.dirty.is_some_and(|since| time > since.saturating_add(STEP_MS)) {
            self.step()?;
        }
        self.clock.advance(event);
        let shown = self.screen.get_or_insert_with(|| Shown {
            model: Screen::new(size_of(event).unwrap_or_default()),
            blocks: Blocks::default(),
        });
        shown.model.set_line_ends(line_ends(event, shown.model.line_ends()));
        if let Some(size) = size_of(event) {
            shown.model.resize(size);
            self.dirty = self.dirty.or(Some(self.clock.at_ms()));
        }
        if !self.begun && self.heading.is_none() {
            self.heading = Heading::of(event);
        }
        match event {
            AuditEvent::SessionPrint(print) => {
                shown.model.feed(&print.data);
                self.dirty = self.dirty.or(Some(self.clock.at_ms()));
            }
            event => {
                if let Some(gap) = OutputGap::from_event(event) {
                    self.note(&super::gap_note(&gap))?;
                }
            }
        }
        Ok(())
    }

    /// Tells what the screen shows now.
    fn step(&mut self) -> Result<(), ExportError> {
        self.begin()?;
        self.dirty = None;
        if let Some(shown) = &mut self.screen {
            shown.blocks.step(self.clock.at_ms(), &shown.model);
            shown.blocks.write_full(self.out)?;
        }
        Ok(())
    }

    fn note(&mut self, text: &str) -> Result<(), ExportError> {
        self.step()?;
        if let Some(shown) = &mut self.screen {
            shown.blocks.note(self.clock.at_ms(), text);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), ExportError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let title = self.heading.as_ref().map(Heading::title).unwrap_or_default();
        let about = self.heading.as_ref().map_or(json!({}), |heading| {
            json!({
                "title": title,
                "session": heading.session,
                "cluster": heading.cluster,
                "user": heading.user,
                "login": heading.login,
                "host": heading.target,
                "command": heading.command,
                "start": heading.start.map(|time| time.to_rfc3339()),
            })
        });
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        write!(
            self.out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{BODY}\
             <script type=\"application/json\" id=\"about\">{}</script>\n",
            hash(SCRIPT),
            hash(STYLE),
            text(if title.is_empty() { "Session recording" } else { &title }),
            data::in_page(&about.to_string()),
        )?;
        Ok(())
    }

    fn end(mut self) -> Result<(), ExportError> {
        self.step()?;
        if let Some(shown) = &mut self.screen {
            shown.blocks.write_rest(self.out)?;
        }
        write!(self.out, "<script>{SCRIPT}</script>\n</body>\n</html>\n")?;
        Ok(())
    }
}

/// Text as it stands in markup.
fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
