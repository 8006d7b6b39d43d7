//! Playing in time on a terminal: the clock and the keys; what to show comes from the player.

use std::io::{Read, Seek, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use shared_cli::{CliError, ExitCode, RawMode};
use shared_recording::player::{Action, Player, Step};
use shared_recording::screen::Size;
use shared_recording::timeline::Pace;
use shared_recording::{Decoder, Filter};

use super::{damaged, warn_about_chain};

/// How far an arrow key goes.
const JUMP_MS: u64 = 10_000;

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Pause,
    Back,
    Forward,
}

/// Plays to the end, or until a key ends it.
pub(super) fn play<R: Read + Seek>(decoder: Decoder<R>, pace: Pace) -> Result<ExitCode, CliError> {
    let mut player = Player::new(decoder);
    let keys = keys();
    let raw_mode = RawMode::enter()?;
    let mut out = std::io::stdout().lock();
    out.write_all(b"\x1b[2J\x1b[H")?;
    out.flush()?;
    let result = run(&mut player, pace, &keys, &mut out);
    out.write_all(Filter::restore())?;
    out.write_all(b"\r\n")?;
    out.flush()?;
    drop(raw_mode);
    let to_the_end = result?;
    if to_the_end {
        warn_about_chain(player.decoder());
    }
    Ok(ExitCode::Done)
}

/// True when the end was reached.
fn run<R: Read + Seek>(
    player: &mut Player<R>,
    pace: Pace,
    keys: &Receiver<Key>,
    out: &mut dyn Write,
) -> Result<bool, CliError> {
    let mut now_ms = 0;
    loop {
        let Some(Step { at_ms, action }) = player.step().map_err(|error| damaged(&error))? else {
            return Ok(true);
        };
        match wait(pace.wait(now_ms, at_ms), keys) {
            Waited::Passed => {}
            Waited::Quit => return Ok(false),
            Waited::Jump { forward, passed } => {
                // The step was taken from the recording but not shown; a seek shows what it did.
                let here = now_ms + u64::try_from(passed.as_millis()).unwrap_or(0);
                let to = if forward {
                    here.saturating_add(JUMP_MS)
                } else {
                    here.saturating_sub(JUMP_MS)
                };
                let screen = player.seek(to, viewer()).map_err(|error| damaged(&error))?;
                out.write_all(&screen)?;
                out.flush()?;
                now_ms = player.position_ms();
                continue;
            }
        }
        now_ms = at_ms;
        match action {
            Action::Output { shown, .. } => out.write_all(&shown)?,
            Action::Gap(gap) => {
                write!(out, "\r\n[{} bytes of output were not recorded here]\r\n", gap.bytes)?
            }
            Action::Resize(_) | Action::Event(_) => {}
        }
        out.flush()?;
    }
}

enum Waited {
    Passed,
    Quit,
    Jump { forward: bool, passed: Duration },
}

/// Waits, and acts on keys meanwhile; a pause stops the clock.
fn wait(time: Duration, keys: &Receiver<Key>) -> Waited {
    let mut left = time;
    let mut passed = Duration::ZERO;
    let mut paused = false;
    loop {
        let started = Instant::now();
        let key = if paused {
            keys.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            keys.recv_timeout(left)
        };
        if !paused {
            let spent = started.elapsed().min(left);
            left -= spent;
            passed += spent;
        }
        match key {
            Ok(Key::Quit) => return Waited::Quit,
            Ok(Key::Pause) => paused = !paused,
            Ok(Key::Back) => return Waited::Jump { forward: false, passed },
            Ok(Key::Forward) => return Waited::Jump { forward: true, passed },
            Err(RecvTimeoutError::Timeout) => return Waited::Passed,
            Err(RecvTimeoutError::Disconnected) if paused => return Waited::Quit,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(left);
                return Waited::Passed;
            }
        }
    }
}

/// Reads keys on a thread of its own, which ends with the program.
fn keys() -> Receiver<Key> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut parser = KeyParser::default();
        let mut byte = [0_u8; 1];
        while let Ok(1) = std::io::stdin().lock().read(&mut byte) {
            if let Some(key) = parser.feed(byte[0])
                && sender.send(key).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// Bytes to keys: arrows are `ESC [ A` to `D` or `ESC O A` to `D`.
#[derive(Debug, Default)]
struct KeyParser(Vec<u8>);

impl KeyParser {
    fn feed(&mut self, byte: u8) -> Option<Key> {
        match (self.0.as_slice(), byte) {
            (_, 0x03 | 0x04) => {
                self.0.clear();
                Some(Key::Quit)
            }
            (_, 0x1b) => {
                self.0 = vec![byte];
                None
            }
            ([0x1b], b'[' | b'O') => {
                self.0.push(byte);
                None
            }
            ([0x1b, _], _) => {
                self.0.clear();
                match byte {
                    b'C' | b'A' => Some(Key::Forward),
                    b'D' | b'B' => Some(Key::Back),
                    _ => None,
                }
            }
            (_, b' ') => {
                self.0.clear();
                Some(Key::Pause)
            }
            (_, b'q') => Some(Key::Quit),
            _ => {
                self.0.clear();
                None
            }
        }
    }
}

/// The viewer's terminal.
fn viewer() -> Size {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col, rows: size.ws_row }
        }
        _ => Size::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_space_and_ends() {
        let mut parser = KeyParser::default();
        let keys: Vec<Key> =
            b"\x1b[C\x1bOD A\x1b[5~ \x03".iter().filter_map(|byte| parser.feed(*byte)).collect();
        assert_eq!(keys, [Key::Forward, Key::Back, Key::Pause, Key::Pause, Key::Quit]);
    }

    #[test]
    fn a_key_cuts_a_wait_short() {
        let (sender, receiver) = channel();
        sender.send(Key::Forward).unwrap();
        assert!(matches!(
            wait(Duration::from_secs(600), &receiver),
            Waited::Jump { forward: true, .. }
        ));
        sender.send(Key::Pause).unwrap();
        sender.send(Key::Quit).unwrap();
        assert!(matches!(wait(Duration::from_secs(600), &receiver), Waited::Quit));
        assert!(matches!(wait(Duration::from_millis(1), &receiver), Waited::Passed));
    }
}
