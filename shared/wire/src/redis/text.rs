//! A command as a line of text, for people and for the audit log.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::secret::{self, Shown};
use super::{Arg, Command};

/// Stands for a secret.
const HIDDEN: &str = "<redacted>";
/// What a cut needs behind it: its length, its digest, and what else there is.
const ROOM_FOR_CUTS: usize = 256;

impl Command<'_> {
    /// Whether an argument is a secret, which [`Command::text`] leaves out.
    pub fn secret(&self) -> bool {
        secret::any(self)
    }

    /// The command as `redis-cli` would take it, in at most `limit` bytes. Arguments that are not plain words stand in
    /// double quotes, with `\xHH` for what is no text. Secrets are `<redacted>`. Behind an argument that is cut stand
    /// its length and its SHA-256.
    pub fn text(&self, limit: usize) -> String {
        let end = limit.saturating_sub(ROOM_FOR_CUTS);
        let mut text = String::new();
        let mut told: u64 = 0;
        for (at, arg) in self.args().enumerate() {
            if text.len() >= end {
                break;
            }
            if at > 0 {
                text.push(' ');
            }
            match secret::shown(self, at) {
                Shown::Whole => push(&mut text, &arg, end),
                Shown::Mark => {
                    text.extend(arg.kept.first().map(|byte| char::from(*byte)));
                    text.push_str(HIDDEN);
                }
                Shown::Nothing => text.push_str(HIDDEN),
            }
            told += 1;
        }
        if told < self.count() {
            // Writing to a string cannot fail.
            let _written = write!(text, " … and {} more arguments", self.count() - told);
        }
        text
    }
}

/// Adds an argument, up to the length `end` of the text.
fn push(text: &mut String, arg: &Arg<'_>, end: usize) {
    let bare = arg.whole()
        && !arg.kept.is_empty()
        && arg.kept.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(byte));
    if !bare {
        text.push('"');
    }
    let mut told = 0;
    for chunk in arg.kept.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() >= end {
                break;
            }
            push_char(text, c);
            told += c.len_utf8();
        }
        for byte in chunk.invalid() {
            if text.len() < end {
                let _written = write!(text, "\\x{byte:02x}");
                told += 1;
            }
        }
    }
    if !bare {
        text.push('"');
    }
    if told as u64 != arg.len {
        let digest = arg.sha256.unwrap_or_else(|| Sha256::digest(arg.kept).into());
        let _written = write!(text, "… [cut: {} bytes, sha256 ", arg.len);
        for byte in digest {
            let _written = write!(text, "{byte:02x}");
        }
        text.push(']');
    }
}

fn push_char(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        c if c.is_control() => {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _written = write!(text, "\\x{byte:02x}");
            }
        }
        c => text.push(c),
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
