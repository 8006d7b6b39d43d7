//! Lines of bounded length out of a file that may end anywhere.

use std::io::{self, BufRead};

/// What stands at one place of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line; its text, without the end, is in the buffer.
    Whole,
    /// A line above the limit was passed over; only its beginning is in the buffer.
    TooLong,
    /// The file ends without a line end; what there is of it, up to the limit, is in the buffer.
    Torn,
    /// The end.
    End,
}

/// Reads the next line into `text` and tells how many bytes of the file it took.
pub(crate) fn next(
    reader: &mut impl BufRead,
    text: &mut Vec<u8>,
    limit: usize,
) -> io::Result<(Line, u64)> {
    text.clear();
    let mut taken = 0u64;
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk?,
        };
        if chunk.is_empty() {
            return Ok((if taken == 0 { Line::End } else { Line::Torn }, taken));
        }
        let end = memchr::memchr(b'\n', chunk);
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = limit.saturating_sub(text.len());
        text.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        let used = part.len() + usize::from(end.is_some());
        taken += used as u64;
        reader.consume(used);
        if end.is_some() {
            return Ok((if taken - 1 > limit as u64 { Line::TooLong } else { Line::Whole }, taken));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line() {
        for capacity in [1, 2, 3, 64] {
            let mut reader =
                io::BufReader::with_capacity(capacity, &b"ab\n\nabcdef\nabcd\ntail"[..]);
            let mut text = Vec::new();
            let mut seen = Vec::new();
            loop {
                let (line, taken) = next(&mut reader, &mut text, 4).unwrap();
                if line == Line::End {
                    break;
                }
                seen.push((line, taken, String::from_utf8(text.clone()).unwrap()));
            }
            let expected = [
                (Line::Whole, 3, "ab"),
                (Line::Whole, 1, ""),
                (Line::TooLong, 7, "abcd"),
                (Line::Whole, 5, "abcd"),
                (Line::Torn, 4, "tail"),
            ];
            assert_eq!(seen, expected.map(|(line, taken, text)| (line, taken, text.to_owned())));
        }
    }
}
