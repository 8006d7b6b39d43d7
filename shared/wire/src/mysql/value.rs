//! Binary values of prepared statements' parameters ("Binary Protocol Value"), as text.

use std::fmt::Write as _;

use super::read::Reader;

/// The type of a parameter and, in the highest bit, that it has no sign.
pub(super) type Kind = u16;

const UNSIGNED: Kind = 0x8000;

/// A value as it was sent.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    /// A number, or a time.
    Plain(String),
    /// A string, or bytes.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a value; none when the bytes are too few.
    pub(super) fn read(kind: Kind, reader: &mut Reader<'a>) -> Option<Self> {
        let unsigned = kind & UNSIGNED != 0;
        Some(match kind as u8 {
            0x01 => integer(reader.u8()?.into(), 8, unsigned),
            0x02 | 0x0d => integer(reader.u16()?.into(), 16, unsigned),
            0x03 | 0x09 => integer(reader.u32()?.into(), 32, unsigned),
            0x08 => integer(reader.u64()?, 64, unsigned),
            0x04 => Self::Plain(f32::from_bits(reader.u32()?).to_string()),
            0x05 => Self::Plain(f64::from_bits(reader.u64()?).to_string()),
            0x06 => Self::Null,
            0x07 | 0x0a | 0x0c => Self::Plain(date(reader)?),
            0x0b => Self::Plain(time(reader)?),
            // Whatever else there is, or will be, is sent as a string.
            _ => Self::Bytes(reader.string()?),
        })
    }

    /// As text of about `room` bytes at most; one that is cut says so.
    pub(super) fn show(&self, room: usize) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Plain(text) => text.clone(),
            Self::Bytes(bytes) => show_bytes(bytes, bytes.len() as u64, room),
        }
    }
}

/// Text as it is, other bytes as MySQL writes them in hex.
fn show_bytes(bytes: &[u8], size: u64, room: usize) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let Some(end) =
            (0..=room).rev().find(|&at| text.is_char_boundary(at)).filter(|_| text.len() > room)
        else {
            return text.to_owned();
        };
        return format!("{}… [cut: {size} bytes]", text.get(..end).unwrap_or_default());
    }
    let mut out = "0x".to_owned();
    for byte in bytes.iter().take(room / 2) {
        let _ = write!(out, "{byte:02x}");
    }
    if bytes.len() > room / 2 {
        let _ = write!(out, "… [cut: {size} bytes]");
    }
    out
}

fn integer(value: u64, bits: u32, unsigned: bool) -> Value<'static> {
    if unsigned {
        return Value::Plain(value.to_string());
    }
    let shift = 64 - bits;
    Value::Plain((((value << shift) as i64) >> shift).to_string())
}

fn date(reader: &mut Reader<'_>) -> Option<String> {
    let length = reader.u8()?;
    let mut inner = Reader::new(reader.take(usize::from(length))?);
    if length == 0 {
        return Some("0000-00-00".to_owned());
    }
    let (year, month, day) = (inner.u16()?, inner.u8()?, inner.u8()?);
    let mut out = format!("{year:04}-{month:02}-{day:02}");
    if length >= 7 {
        let (hour, minute, second) = (inner.u8()?, inner.u8()?, inner.u8()?);
        let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
    }
    micros(&mut inner, length >= 11, &mut out)?;
    Some(out)
}

fn time(reader: &mut Reader<'_>) -> Option<String> {
    let length = reader.u8()?;
    let mut inner = Reader::new(reader.take(usize::from(length))?);
    if length == 0 {
        return Some("00:00:00".to_owned());
    }
    let sign = if inner.u8()? == 0 { "" } else { "-" };
    let days = u64::from(inner.u32()?);
    let (hour, minute, second) = (inner.u8()?, inner.u8()?, inner.u8()?);
    let mut out = format!("{sign}{:02}:{minute:02}:{second:02}", days * 24 + u64::from(hour));
    micros(&mut inner, length >= 12, &mut out)?;
    Some(out)
}

fn micros(inner: &mut Reader<'_>, present: bool, out: &mut String) -> Option<()> {
    if present {
        let _ = write!(out, ".{:06}", inner.u32()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: Kind, bytes: &[u8]) -> String {
        let mut reader = Reader::new(bytes);
        let value = Value::read(kind, &mut reader).unwrap();
        assert!(reader.rest().is_empty());
        for end in 0..bytes.len() {
            assert_eq!(Value::read(kind, &mut Reader::new(&bytes[..end])), None, "cut at {end}");
        }
        value.show(100)
    }

    #[test]
    fn every_type_has_its_text() {
        let cases: [(Kind, &[u8], &str); 20] = [
            (0x01, &[0xff], "-1"),
            (0x8001, &[0xff], "255"),
            (0x02, &[0, 0x80], "-32768"),
            (0x03, &[0xd6, 0xff, 0xff, 0xff], "-42"),
            (0x8003, &[0xff, 0xff, 0xff, 0xff], "4294967295"),
            (0x08, &[0xff; 8], "-1"),
            (0x8008, &[0xff; 8], "18446744073709551615"),
            (0x04, &0.5_f32.to_le_bytes(), "0.5"),
            (0x05, &(-2.25_f64).to_le_bytes(), "-2.25"),
            (0x06, &[], "NULL"),
            (0x0a, &[4, 0xea, 7, 11, 21], "2026-11-21"),
            (0x0c, &[7, 0xea, 7, 11, 21, 9, 5, 3], "2026-11-21 09:05:03"),
            (0x07, &[11, 0xea, 7, 11, 21, 9, 5, 3, 1, 0, 0, 0], "2026-11-21 09:05:03.000001"),
            (0x0c, &[0], "0000-00-00"),
            (0x0b, &[8, 1, 2, 0, 0, 0, 3, 4, 5], "-51:04:05"),
            (0x0b, &[12, 0, 0, 0, 0, 0, 3, 4, 5, 7, 0, 0, 0], "03:04:05.000007"),
            (0x0b, &[0], "00:00:00"),
            (0xfd, &[2, 0xc3, 0xa4], "ä"),
            (0xfc, &[2, 0xff, 0], "0xff00"),
            (0xf6, &[4, b'1', b'.', b'2', b'5'], "1.25"),
        ];
        for (kind, bytes, want) in cases {
            assert_eq!(shown(kind, bytes), want, "{kind:#x}");
        }
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        assert_eq!(Value::Bytes("ää".as_bytes()).show(3), "ä… [cut: 4 bytes]");
        assert_eq!(Value::Bytes(&[0xff; 4]).show(4), "0xffff… [cut: 4 bytes]");
        assert_eq!(Value::Bytes(b"abc").show(3), "abc");
    }
}
