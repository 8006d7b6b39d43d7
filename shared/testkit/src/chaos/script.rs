//! What a session writes: lines that can be told from all others, in an order that is known.

use std::path::{Path, PathBuf};

/// Zeros in a line of a session that writes much.
const MUCH: usize = 30_000;

/// What one session writes until a file is there.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    much: bool,
    end: PathBuf,
}

/// How much of a script somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whole lines.
    pub lines: u64,
    /// Bytes, without carriage returns.
    pub bytes: usize,
    /// Whether its last line is there.
    pub over: bool,
    /// Bytes behind that are something else.
    pub rest: usize,
}

/// What the session's command ends with.
pub(super) const CODE: i32 = 9;

impl Script {
    /// The script of a session that ends once `end` is there.
    pub fn new(name: String, much: bool, end: &Path) -> Self {
        Self { name, much, end: end.to_owned() }
    }

    /// The command line, for a terminal and without one.
    pub fn command(&self) -> String {
        let more = if self.much { format!("printf '%0{MUCH}d\\n' $i; ") } else { String::new() };
        format!(
            "stty -echo 2>/dev/null; i=0; while [ ! -e {end} ]; do i=$((i+1)); echo {name}-line-$i; {more}sleep 0.05; \
             done; echo {name}-over; exit {CODE}",
            end = self.end.display(),
            name = self.name,
        )
    }

    /// Its first line, whatever terminals made of its end.
    pub fn first(&self) -> String {
        format!("{}-line-1\r", self.name)
    }

    /// Whether it writes much.
    pub fn writes_much(&self) -> bool {
        self.much
    }

    /// How many lines end in what was read.
    pub fn line_ends(&self, reading: Reading) -> usize {
        let each = if self.much { 2 } else { 1 };
        usize::try_from(reading.lines).unwrap_or_default() * each + usize::from(reading.over)
    }

    /// How far `output` goes. Carriage returns, which terminals add, do not count.
    pub fn read(&self, output: &[u8]) -> Reading {
        let output: Vec<u8> = output.iter().copied().filter(|byte| *byte != b'\r').collect();
        let common = |from: usize, with: &str| {
            let rest = output.get(from..).unwrap_or_default();
            rest.iter().zip(with.as_bytes()).take_while(|(a, b)| a == b).count()
        };
        let over = format!("{}-over\n", self.name);
        let mut reading = Reading { lines: 0, bytes: 0, over: false, rest: 0 };
        loop {
            if common(reading.bytes, &over) == over.len() {
                reading.bytes += over.len();
                reading.over = true;
                break;
            }
            let number = reading.lines + 1;
            let mut line = format!("{}-line-{number}\n", self.name);
            if self.much {
                line += &format!("{number:0MUCH$}\n");
            }
            let has = common(reading.bytes, &line);
            reading.bytes +=
                has.max(if has < line.len() { common(reading.bytes, &over) } else { 0 });
            if has < line.len() {
                break;
            }
            reading.lines = number;
        }
        reading.rest = output.len() - reading.bytes;
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(much: bool, output: &str) -> Reading {
        Script::new("s".into(), much, Path::new("/end")).read(output.as_bytes())
    }

    #[test]
    fn what_is_there_is_counted_to_the_byte() {
        let of = |lines, bytes, over, rest| Reading { lines, bytes, over, rest };
        assert_eq!(read(false, ""), of(0, 0, false, 0));
        assert_eq!(read(false, "s-line-1\r\ns-li"), of(1, 13, false, 0));
        assert_eq!(read(false, "s-line-1\ns-line-2\ns-over\nbye"), of(2, 25, true, 3));
        assert_eq!(read(false, "s-line-1\ns-line-3\n"), of(1, 16, false, 2));
        assert_eq!(read(false, "s-line-1\ns-ov"), of(1, 13, false, 0));
        let much = format!("s-line-1\n{:030000}\ns-over\n", 1);
        assert_eq!(read(true, &much), of(1, much.len(), true, 0));
    }
}
