//! Follows escape sequences just well enough to know whether one is under way, and to end strings
//! that do not end: the parser gathers them in memory, and everything behind them would be hidden.

/// CAN: ends any sequence.
pub(super) const CANCEL: u8 = 0x18;
/// Longer strings are no title and no clipboard but an image at most, and are not shown anyway.
const MAX_STRING: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Guard {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// An escape sequence with intermediates.
    Intermediate,
    Control,
    /// OSC, which BEL ends too, or another string; with its length so far.
    Osc(usize),
    String(usize),
}

impl Guard {
    pub(super) fn is_ground(&self) -> bool {
        self.state == State::Ground
    }

    /// How much of `bytes` to parse before asking again, and whether the sequence is to be
    /// cancelled then.
    pub(super) fn run(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut cancel = false;
        let mut len = 0;
        if self.state == State::Ground {
            match bytes.iter().position(|byte| *byte == 0x1b) {
                Some(at) => {
                    self.state = State::Escape;
                    len = at + 1;
                }
                None => len = bytes.len(),
            }
        } else {
            for byte in bytes {
                len += 1;
                self.state = next(self.state, *byte);
                if let State::Osc(MAX_STRING..) | State::String(MAX_STRING..) = self.state {
                    self.state = State::Ground;
                    cancel = true;
                }
                if self.state == State::Ground {
                    break;
                }
            }
        }
        (len, cancel)
    }
}

fn next(state: State, byte: u8) -> State {
    match (state, byte) {
        (_, 0x18 | 0x1a) => State::Ground,
        (_, 0x1b) => State::Escape,
        (State::Ground, _) => State::Ground,
        (State::Escape, b'[') => State::Control,
        (State::Escape, b']') => State::Osc(0),
        (State::Escape, b'P' | b'X' | b'^' | b'_') => State::String(0),
        (State::Escape, 0x20..=0x2f) => State::Intermediate,
        (State::Escape | State::Intermediate, 0x30..=0x7e)
        | (State::Control, 0x40..=0x7e)
        | (State::Osc(_), 7) => State::Ground,
        (State::Escape | State::Intermediate | State::Control, _) => state,
        (State::Osc(len), _) => State::Osc(len + 1),
        (State::String(len), _) => State::String(len + 1),
    }
}
