//! What of a recorded terminal's output may reach another terminal.
//!
//! The output is not cleaned of what is known to be bad: it is parsed, and what is known to be
//! harmless is written anew. Text, colours, cursor movement, erasing and scrolling pass. Titles,
//! clipboard, hyperlinks, every question a terminal answers, key and mouse modes, printing, window
//! operations, strings of all kinds do not, in their 7-bit and 8-bit forms, however they are cut
//! into chunks. Line drawing characters become Unicode. What comes out is UTF-8 without C1
//! controls.

mod charset;
mod guard;

use std::fmt::Write as _;

pub(crate) use charset::Charsets as CharsetState;
use charset::Charsets;
use guard::Guard;
use vte::{Params, Perform};

/// Counts of lines and characters beyond this reach no screen there is, and cost time.
const MAX_COUNT: u16 = 1000;

/// For whom the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Somebody's terminal.
    Viewer,
    /// A screen model, which has an alternate screen of its own.
    Screen,
}

/// Filters one session's output; keeps its state between chunks.
pub struct Filter {
    parser: vte::Parser,
    guard: Guard,
    /// The beginning of a character that goes on in the next chunk. The parser would lose what
    /// follows such a character, so it never sees one.
    partial: Vec<u8>,
    emit: Emit,
}

impl Filter {
    /// A filter for a viewer's terminal.
    #[must_use]
    pub fn new() -> Self {
        Self::for_audience(Audience::Viewer)
    }

    pub(crate) fn for_audience(audience: Audience) -> Self {
        let emit = Emit { audience, charsets: Charsets::default(), out: Vec::new() };
        Self { parser: vte::Parser::new(), guard: Guard::default(), partial: Vec::new(), emit }
    }

    /// Adds to `out` what may pass of `input`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        std::mem::swap(&mut self.emit.out, out);
        if self.partial.is_empty() {
            self.advance(input);
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(input);
            self.advance(&joined);
        }
        std::mem::swap(&mut self.emit.out, out);
    }

    fn advance(&mut self, input: &[u8]) {
        let mut rest = input;
        while !rest.is_empty() {
            if self.guard.is_ground() {
                let whole = rest.len() - unfinished(rest);
                if whole == 0 {
                    self.partial = rest.to_vec();
                    return;
                }
            }
            let (len, cancel) = self.guard.run(rest);
            let mut now = rest.get(..len).unwrap_or(rest);
            if self.guard.is_ground() && len == rest.len() && !cancel {
                now = now.get(..len - unfinished(now)).unwrap_or(now);
            }
            self.parser.advance(&mut self.emit, now);
            if cancel {
                self.parser.advance(&mut self.emit, &[guard::CANCEL]);
            }
            rest = rest.get(now.len().max(1)..).unwrap_or_default();
        }
    }

    /// The same, into a new buffer.
    #[must_use]
    pub fn filter(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(input.len());
        self.feed(input, &mut out);
        out
    }

    /// Whether no sequence is under way.
    #[must_use]
    pub fn is_between_sequences(&self) -> bool {
        self.guard.is_ground() && self.partial.is_empty()
    }

    /// What a filter must remember between sequences.
    pub(crate) fn charsets(&self) -> Charsets {
        self.emit.charsets.clone()
    }

    pub(crate) fn with_charsets(mut self, charsets: Charsets) -> Self {
        self.emit.charsets = charsets;
        self
    }

    /// Undoes everything that passed and would stay: attributes, scroll region, origin and insert
    /// mode, a hidden cursor, switched off wrapping.
    #[must_use]
    pub fn restore() -> &'static [u8] {
        b"\x1b[0m\x1b[?6l\x1b[r\x1b[4l\x1b[?7h\x1b[?25h"
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3).position(|byte| *byte >= 0xc0);
    let Some(len) = tail.map(|at| at + 1) else { return 0 };
    let start = bytes.len() - len;
    match std::str::from_utf8(bytes.get(start..).unwrap_or_default()) {
        Err(error) if error.error_len().is_none() => len,
        _ => 0,
    }
}

struct Emit {
    audience: Audience,
    charsets: Charsets,
    out: Vec<u8>,
}

impl Emit {
    fn write(&mut self, sequence: &str) {
        self.out.extend_from_slice(sequence.as_bytes());
    }

    fn csi(&mut self, params: &[u16], action: char) {
        let mut text = String::with_capacity(16);
        text.push_str("\x1b[");
        for (index, param) in params.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            text.push_str(separator);
            // Zero is what an absent number means, and not every terminal knows that.
            if *param > 0 {
                // Writing to a string cannot fail.
                let _ = write!(text, "{param}");
            }
        }
        text.push(action);
        self.write(&text);
    }

    fn colours(&mut self, params: &Params) {
        let mut text = String::from("\x1b[");
        for (index, group) in params.iter().enumerate() {
            if index > 0 {
                text.push(';');
            }
            for (index, value) in group.iter().enumerate() {
                let separator = if index == 0 { "" } else { ":" };
                let _ = write!(text, "{separator}{value}");
            }
        }
        text.push('m');
        self.write(&text);
    }

    /// DEC private modes.
    fn mode(&mut self, mode: u16, set: bool) {
        let action = if set { 'h' } else { 'l' };
        match (mode, self.audience) {
            (6 | 7 | 25, _) => self.write(&format!("\x1b[?{mode}{action}")),
            (47 | 1047 | 1049, Audience::Viewer) => self.write("\x1b[0m\x1b[r\x1b[2J\x1b[H"),
            (47 | 1047, Audience::Screen) => self.write(&format!("\x1b[?47{action}")),
            (1049, Audience::Screen) => self.write(&format!("\x1b[?1049{action}")),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.charsets = Charsets::default();
        self.out.extend_from_slice(Filter::restore());
        self.write("\x1b[2J\x1b[H");
    }
}

fn first(params: &Params) -> u16 {
    params.iter().next().and_then(|group| group.first()).copied().unwrap_or(0)
}

impl Perform for Emit {
    fn print(&mut self, c: char) {
        // A C1 control in two bytes of UTF-8 is one, to a terminal.
        if !c.is_control() {
            let c = self.charsets.translate(c);
            self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            // Not the bell; not ENQ, which is answered.
            8..=13 => self.out.push(byte),
            14 => self.charsets.shift(1),
            15 => self.charsets.shift(0),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let one = first(params);
        match (intermediates, action) {
            ([], 'A'..='H' | '`' | 'a' | 'd' | 'e' | 'f' | 'r') => {
                let both = matches!(action, 'H' | 'f' | 'r');
                let values: Vec<u16> = params
                    .iter()
                    .take(if both { 2 } else { 1 })
                    .map(|group| group.first().copied().unwrap_or(0))
                    .collect();
                self.csi(&values, action);
            }
            ([], 'I' | 'Z' | 'L' | 'M' | 'P' | '@' | 'X' | 'b' | 'S') => {
                self.csi(&[one.min(MAX_COUNT)], action);
            }
            // With more parameters it is mouse tracking.
            ([], 'T') if params.len() <= 1 => self.csi(&[one.min(MAX_COUNT)], action),
            // Not 3, which empties what the viewer could scroll back to.
            ([], 'J' | 'K') if one <= 2 => self.csi(&[one], action),
            ([], 'm') => self.colours(params),
            ([], 'h' | 'l') if params.iter().any(|group| group == [4]) => self.csi(&[4], action),
            ([], 's') => self.esc_dispatch(&[], false, b'7'),
            ([], 'u') => self.esc_dispatch(&[], false, b'8'),
            ([b'?'], 'J' | 'K') if one <= 2 => self.csi(&[one], action),
            ([b'?'], 'h' | 'l') => {
                for group in params {
                    self.mode(group.first().copied().unwrap_or(0), action == 'h');
                }
            }
            ([b'!'], 'p') => {
                self.charsets = Charsets::default();
                self.out.extend_from_slice(Filter::restore());
            }
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        match (intermediates, byte) {
            _ if ignore => {}
            ([], b'7') => {
                self.charsets.save();
                self.write("\x1b7");
            }
            ([], b'8') => {
                self.charsets.restore();
                self.write("\x1b8");
            }
            // As line feeds, which all terminals and models know.
            ([], b'D') => self.write("\n"),
            ([], b'E') => self.write("\r\n"),
            ([], b'M') => self.write("\x1bM"),
            ([], b'c') => self.reset(),
            ([b'('], name) => self.charsets.designate(0, name),
            ([b')'], name) => self.charsets.designate(1, name),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
