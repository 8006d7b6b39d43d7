//! Durations in Go's notation, as role options and configuration files write them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A duration that reads `30h0m0s`, `12h`, `1.5s`, `7d`, `never` and prints `30h0m0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration(pub Duration);

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration, expected a form like 12h, 30m or 1h30m0s")]
pub struct DurationError(String);

const NANOS: u64 = 1_000_000_000;

impl GoDuration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A duration of whole hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    /// The duration as the standard library's type.
    pub const fn as_std(self) -> Duration {
        self.0
    }

    /// Whether it is zero, which most settings read as "never".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Duration {
        duration.0
    }
}

fn unit(text: &str) -> Option<(u64, &str)> {
    // Longer names first: `ms` is not `m`.
    const UNITS: [(&str, u64); 9] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", NANOS),
        ("m", 60 * NANOS),
        ("h", 3600 * NANOS),
        ("d", 86_400 * NANOS),
        ("w", 604_800 * NANOS),
    ];
    UNITS.iter().find_map(|(name, nanos)| text.strip_prefix(name).map(|rest| (*nanos, rest)))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn parse(text: &str) -> Option<Duration> {
    if matches!(text, "0" | "never") {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (nanos, after) = unit(after)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        // More than nine digits of a fraction are below what a unit can show.
        let shown: String = fraction.chars().take(9).collect();
        if !shown.is_empty() {
            let scale = 10u128.pow(shown.len() as u32);
            let part = u128::from(shown.parse::<u64>().ok()?) * u128::from(nanos) / scale;
            total = total.checked_add(u64::try_from(part).ok()?)?;
        }
        rest = after;
    }
    // Go's durations are signed 64-bit nanoseconds; a longer one could not be read back there.
    i64::try_from(total).ok()?;
    Some(Duration::from_nanos(total))
}

impl std::str::FromStr for GoDuration {
    type Err = DurationError;
    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text).map(Self).ok_or_else(|| DurationError(text.chars().take(64).collect()))
    }
}

fn fraction(f: &mut std::fmt::Formatter<'_>, value: u64, per: u64, unit: &str) -> std::fmt::Result {
    write!(f, "{}", value / per)?;
    let rest = value % per;
    if rest != 0 {
        let width = per.ilog10() as usize;
        let text = format!("{rest:0width$}");
        write!(f, ".{}", text.trim_end_matches('0'))?;
    }
    f.write_str(unit)
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = u64::from(self.0.subsec_nanos());
        let seconds = self.0.as_secs();
        if seconds == 0 {
            return match nanos {
                0 => f.write_str("0s"),
                1..1_000 => write!(f, "{nanos}ns"),
                1_000..1_000_000 => fraction(f, nanos, 1_000, "µs"),
                _ => fraction(f, nanos, 1_000_000, "ms"),
            };
        }
        if seconds >= 3600 {
            write!(f, "{}h", seconds / 3600)?;
        }
        if seconds >= 60 {
            write!(f, "{}m", seconds / 60 % 60)?;
        }
        fraction(f, seconds % 60 * NANOS + nanos, NANOS, "s")
    }
}

impl Serialize for GoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct DurationVisitor;

impl serde::de::Visitor<'_> for DurationVisitor {
    type Value = GoDuration;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a duration like 12h, 30m or 1h30m0s")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<GoDuration, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, nanos: u64) -> Result<GoDuration, E> {
        // A bare number is Go's nanoseconds; beside 0 nobody means that.
        if nanos == 0 {
            Ok(GoDuration(Duration::ZERO))
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Unsigned(nanos), &self))
        }
    }

    fn visit_i64<E: serde::de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
        match u64::try_from(nanos) {
            Ok(nanos) => self.visit_u64(nanos),
            Err(_) => Err(E::invalid_type(serde::de::Unexpected::Signed(nanos), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_prints_go_forms() {
        for (text, seconds, printed) in [
            ("30h0m0s", 108_000, "30h0m0s"),
            ("12h", 43_200, "12h0m0s"),
            ("5m", 300, "5m0s"),
            ("90s", 90, "1m30s"),
            ("1h30m", 5_400, "1h30m0s"),
            ("7d", 604_800, "168h0m0s"),
            ("0", 0, "0s"),
            ("never", 0, "0s"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.as_std().as_secs(), seconds, "{text}");
            assert_eq!(duration.to_string(), printed);
        }
        assert_eq!("1.5s".parse::<GoDuration>().unwrap().to_string(), "1.5s");
        assert_eq!("1500us".parse::<GoDuration>().unwrap().to_string(), "1.5ms");
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "h",
            "-1h",
            "1",
            "12 h",
            "1x",
            "1h-",
            "99999999999999999999h",
            "1.s.",
            ".h",
            "300000000h",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(nanos in 0..=i64::MAX as u64) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
