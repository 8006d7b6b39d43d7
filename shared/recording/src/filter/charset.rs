//! Character sets, as far as programs still switch them: ASCII and the DEC line drawing set.

/// Which sets are designated and which is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charsets {
    now: State,
    saved: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Whether G0 and G1 are the line drawing set.
    drawing: [bool; 2],
    shifted: bool,
}

/// The line drawing set from 0x5f on, in Unicode.
const DRAWING: [char; 32] = [
    ' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─',
    '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

impl Charsets {
    pub(super) fn designate(&mut self, set: usize, name: u8) {
        if let Some(drawing) = self.now.drawing.get_mut(set) {
            *drawing = name == b'0';
        }
    }

    pub(super) fn shift(&mut self, set: usize) {
        self.now.shifted = set == 1;
    }

    pub(super) fn save(&mut self) {
        self.saved = self.now;
    }

    pub(super) fn restore(&mut self) {
        self.now = self.saved;
    }

    pub(super) fn translate(&self, c: char) -> char {
        let [g0, g1] = self.now.drawing;
        if !(if self.now.shifted { g1 } else { g0 }) {
            return c;
        }
        let index = (c as usize).checked_sub(0x5f);
        index.and_then(|index| DRAWING.get(index)).copied().unwrap_or(c)
    }
}
