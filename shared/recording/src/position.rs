//! A time within a recording as people write it: `12:31`, `1:02:03`, `1h02m`, `90s`.

use std::fmt;
use std::str::FromStr;

/// Milliseconds since the first output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// A text that is no time within a recording.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time within a recording; examples: 12:31, 1:02:03, 1h02m, 90s")]
pub struct PositionError(String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let parsed = if text.contains(':') { clock(text) } else { units(text) };
        parsed.map(Self).ok_or_else(|| PositionError(text.chars().take(32).collect()))
    }
}

/// `[HOURS:]MINUTES:SECONDS[.FRACTION]`
fn clock(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split(':').collect();
    let (hours, minutes, seconds) = match parts[..] {
        [minutes, seconds] => (0, number(minutes)?, seconds),
        [hours, minutes, seconds] => (number(hours)?, below_60(number(minutes)?)?, seconds),
        _ => return None,
    };
    let millis = thousandths(seconds)?;
    below_60(millis / 1000)?;
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    minutes.checked_mul(60_000)?.checked_add(millis)
}

/// Numbers with their units, the largest first; a number alone counts seconds.
fn units(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return thousandths(text);
    }
    let (mut rest, mut total) = (text, 0_u64);
    let mut units: &[(&str, u64)] = &[("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1000)];
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, from) = rest.split_at(end);
        let index = units.iter().position(|(name, _)| {
            from.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
        })?;
        let (name, millis) = units.get(index)?;
        let part = thousandths(value)?.checked_mul(*millis)? / 1000;
        total = total.checked_add(part)?;
        rest = from.get(name.len()..)?;
        units = match *name {
            "h" => &[("ms", 1), ("m", 60_000), ("s", 1000)],
            "m" => &[("ms", 1), ("s", 1000)],
            "s" => &[("ms", 1)],
            _ => &[],
        };
    }
    Some(total)
}

fn number(text: &str) -> Option<u64> {
    let digits = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn below_60(number: u64) -> Option<u64> {
    (number < 60).then_some(number)
}

/// A number with up to three places, in thousandths; further places are dropped.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    number(places)?;
    let places: String = places.chars().chain("000".chars()).take(3).collect();
    number(whole)?.checked_mul(1000)?.checked_add(number(&places)?)
}

impl fmt::Display for Position {
    /// `MM:SS`, with hours where there are any; `{:#}` adds milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1000, self.0 % 1000);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        if f.alternate() || minutes >= 60 {
            write!(f, "{:02}:", minutes / 60)?;
        }
        write!(f, "{:02}:{seconds:02}", minutes % 60)?;
        if f.alternate() { write!(f, ".{millis:03}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, millis) in [
            ("12:31", 751_000),
            ("1:02:03", 3_723_000),
            ("00:12:31.250", 751_250),
            ("90:00", 5_400_000),
            ("1h02m", 3_720_000),
            ("1h", 3_600_000),
            ("1h5s", 3_605_000),
            ("90s", 90_000),
            ("1.5m", 90_000),
            ("2m3.5s", 123_500),
            ("250ms", 250),
            ("1s250ms", 1_250),
            ("7", 7_000),
            ("0.1239", 123),
        ] {
            assert_eq!(text.parse(), Ok(Position(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "1:",
            "1:60",
            "1:61:00",
            "1:2:3:4",
            "-1",
            "1:-2",
            "h",
            "1x",
            "1m1h",
            "1s1s",
            "1h2",
            "1..2",
            "99999999999",
            "18446744073709551h",
            "１",
            "1:2h",
            " 1",
            ".",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_read() {
        for (millis, short, long) in [
            (751_250, "12:31", "00:12:31.250"),
            (3_723_004, "01:02:03", "01:02:03.004"),
            (0, "00:00", "00:00:00.000"),
        ] {
            let position = Position(millis);
            assert_eq!(
                (position.to_string().as_str(), format!("{position:#}").as_str()),
                (short, long)
            );
            assert_eq!(long.parse(), Ok(position));
        }
    }
}
