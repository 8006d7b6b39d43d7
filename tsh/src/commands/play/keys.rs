//! Keys: bytes from a terminal to what they mean.

use std::io::Read;

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A byte of text.
    Byte(u8),
    /// Ctrl-C or Ctrl-D.
    Quit,
    Enter,
    Backspace,
    Up,
    Down,
    Left,
    Right,
}

/// Gives every key of a terminal to `take`, until that says no or the terminal is gone.
pub(super) fn read(mut terminal: impl Read, mut take: impl FnMut(Key) -> bool) {
    let mut parser = KeyParser::default();
    let mut bytes = [0_u8; 64];
    while let Ok(len @ 1..) = terminal.read(&mut bytes) {
        for key in bytes.iter().take(len).filter_map(|byte| parser.feed(*byte)) {
            if !take(key) {
                return;
            }
        }
    }
}

/// Arrows are `ESC [ A` to `D` or `ESC O A` to `D`; other sequences are nothing.
#[derive(Debug, Default)]
enum KeyParser {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl KeyParser {
    fn feed(&mut self, byte: u8) -> Option<Key> {
        let key = match (&self, byte) {
            (_, 0x03 | 0x04) => Some(Key::Quit),
            (_, 0x1b) => {
                *self = Self::Escape;
                return None;
            }
            (Self::Escape, b'[' | b'O') => {
                *self = Self::Sequence;
                return None;
            }
            (Self::Sequence, 0x20..=0x3f) => return None,
            (Self::Sequence, b'A') => Some(Key::Up),
            (Self::Sequence, b'B') => Some(Key::Down),
            (Self::Sequence, b'C') => Some(Key::Right),
            (Self::Sequence, b'D') => Some(Key::Left),
            (Self::Sequence, _) => None,
            (_, b'\r' | b'\n') => Some(Key::Enter),
            (_, 0x08 | 0x7f) => Some(Key::Backspace),
            (_, 0x20..) => Some(Key::Byte(byte)),
            _ => None,
        };
        *self = Self::Text;
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_text_and_ends() {
        let mut keys = Vec::new();
        read(&b"\x1b[C\x1bOD A\x1b[5~\x1b[1;5B\x7f\r\x1b\x1b[A\x03z"[..], |key| {
            keys.push(key);
            key != Key::Quit
        });
        assert_eq!(
            keys,
            [
                Key::Right,
                Key::Left,
                Key::Byte(b' '),
                Key::Byte(b'A'),
                Key::Down,
                Key::Backspace,
                Key::Enter,
                Key::Up,
                Key::Quit
            ]
        );
    }
}
